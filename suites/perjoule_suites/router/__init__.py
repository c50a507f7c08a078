"""The perceptual budget router: for each prompt, the arm with the fewest joules that keeps a promise of quality.

    scored run, several arms  ──training──►  Router: token states ─► forecast of each arm's quality ─► arm
    scored run, other prompts ──calibration──┘                              (price, or floor with a promise)

An arm is a model with its sampler and guidance at one step count: a cell of a suite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perjoule_suites.router.router import Router

__all__ = ["Router"]


def __getattr__(name: str) -> Any:
    """Import `Router` on demand, because it imports torch."""
    if name == "Router":
        from perjoule_suites.router.router import Router

        return Router
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
