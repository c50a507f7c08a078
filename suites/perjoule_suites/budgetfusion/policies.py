"""Factories of the step policies `budgetfusion`, `budgetfusion-peek` and `shared-start`; see `step_policies`."""

from __future__ import annotations

from dataclasses import dataclass

from perjoule.protocols import StepPolicy
from perjoule.types import Cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Factory:
    """Factory of a policy that chooses nothing but steps; torch is imported when the policy is made."""

    policy: str
    chooses_only_steps: bool = True

    def __call__(self, cell: Cell, *, where: str) -> StepPolicy:
        """Make the policy. Raises SuiteError for invalid arguments."""
        from perjoule_suites.budgetfusion import step_policies

        made: StepPolicy = getattr(step_policies, self.policy)(cell, where)
        return made


budgetfusion = Factory(policy="PredictedSteps")
budgetfusion_peek = Factory(policy="PeekedSteps")
shared_start = Factory(policy="SharedStart")
