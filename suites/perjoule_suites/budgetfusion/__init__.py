"""BudgetFusion (arXiv:2412.05780): predicts from the prompt how many denoising steps are worth their energy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perjoule_suites.budgetfusion.predictor import StepPredictor

__all__ = ["StepPredictor"]


def __getattr__(name: str) -> Any:
    """Import `StepPredictor` on demand, because it imports torch."""
    if name == "StepPredictor":
        from perjoule_suites.budgetfusion.predictor import StepPredictor

        return StepPredictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
