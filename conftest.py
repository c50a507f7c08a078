"""Shared by all tests: no network, no terminal colours, one torch thread each."""

from __future__ import annotations

import os

# before any Hugging Face library reads them
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("NO_COLOR", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from hypothesis import settings

# no deadline: a slow machine is not a failing test
settings.register_profile("perjoule", deadline=None)
settings.load_profile("perjoule")
