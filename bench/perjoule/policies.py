"""Step policies: how many denoising steps an image gets.

The policy `fixed` stands here; others come by the entry point group `perjoule.policies`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from perjoule import registry
from perjoule.protocols import Generation, ImageGenerator, StepPolicy
from perjoule.types import Cell, Variant


class FixedSteps:
    """The same number of steps for every image."""

    def __init__(self, steps: int) -> None:
        """`steps`: diffusers' `num_inference_steps`."""
        self._steps = steps

    def prepare(self, generator: ImageGenerator, prompts: Sequence[str]) -> None:
        """Nothing to prepare."""

    def draw(self, generator: ImageGenerator, prompts: Sequence[str], seeds: Sequence[int]) -> Generation:
        """One pipeline call."""
        return generator.generate(prompts, seeds, self._steps)


def load_policy(cell: Cell, where: Callable[[Variant], str]) -> StepPolicy:
    """The step policy of a cell.

    Args:
        cell: The cell.
        where: Names the variant's place in its suite file, for messages.

    Raises:
        UnknownNameError: If nothing is registered under the policy's name.
        SuiteError: If the policy cannot use its arguments.
    """
    if cell.steps is not None:
        return FixedSteps(cell.steps)
    place = where(cell.variant)
    factory = registry.load("policies", cell.variant.policy, kind="step policy", where=f"{place}.policy")
    policy: StepPolicy = factory(cell, where=place)
    return policy
