"""Repositories with tiny random weights, in the hub's layout, for `perjoule.testing.HubMirror` in tests."""

from __future__ import annotations

from perjoule_suites.testing.repositories import REPOSITORIES, build

__all__ = ["REPOSITORIES", "build"]
