"""Repositories as the hub has them, with tiny random weights: what `perjoule.testing.HubMirror` serves in tests."""

from __future__ import annotations

from perjoule_suites.testing.repositories import REPOSITORIES, build

__all__ = ["REPOSITORIES", "build"]
