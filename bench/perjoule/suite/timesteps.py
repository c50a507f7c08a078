"""The timesteps of a schedule: given by the variant, or made for each step count by a named schedule."""

from __future__ import annotations

from typing import Any

from perjoule.types import Variant

SECOND_SHARE = 11 / 12


def short_first(steps: int, train_timesteps: int = 1000) -> list[int]:
    """Timesteps with a short first step, e.g. from 999 to 916, then evenly spaced.

    The first prediction is a mixture of all pictures of the caption, so it should not move the picture far.

        1 step   999
        3 steps  999  916  458
        6 steps  999  916  733  550  366  183
    """
    if steps == 1:
        return [train_timesteps - 1]
    second = round(train_timesteps * SECOND_SHARE) - 1
    return [train_timesteps - 1, *(round(second * (1 - i / (steps - 1))) for i in range(steps - 1))]


def trailing(steps: int, train_timesteps: int = 1000) -> list[int]:
    """Evenly spaced timesteps that end one step before 0 (arXiv:2305.08891)."""
    return [round(train_timesteps - i * train_timesteps / steps) - 1 for i in range(steps)]


def timesteps_of(variant: Variant, steps: int, train_timesteps: int = 1000) -> list[int] | None:
    """Return the timesteps of a variant at a step count; None leaves them to its scheduler."""
    if variant.timesteps:
        return list(variant.timesteps[:steps])  # only a warm-up uses fewer steps
    return short_first(steps, train_timesteps) if variant.schedule else None


def sampler_of(variant: Variant) -> tuple[str, dict[str, Any]]:
    """Return scheduler class and settings of a variant; an empty class is the model's own.

    A named schedule needs a scheduler that accepts timesteps. DDIM does not, and the first order of DPM-Solver++ equals
    it, so that is the default with a named schedule.
    """
    if variant.schedule and not variant.scheduler:
        return "DPMSolverMultistepScheduler", {"solver_order": 1} | variant.scheduler_args
    return variant.scheduler, variant.scheduler_args
