"""Step policies, which choose the number of denoising steps of each image.

The policy `fixed` is defined here; others are registered in the entry point group `perjoule.policies`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from perjoule import registry
from perjoule.protocols import Generation, ImageGenerator, StepPolicy
from perjoule.types import Cell, Variant


class FixedSteps:
    """The same number of steps for every image."""

    def __init__(self, steps: int, batch_size: int | None = None) -> None:
        """Create the policy. `steps`: `num_inference_steps`; `batch_size`: images per pipeline call, None for all."""
        self._steps, self._batch_size = steps, batch_size

    def prepare(self, generator: ImageGenerator, prompts: Sequence[str]) -> None:
        """Do nothing: the policy needs no preparation."""

    def draw(self, generator: ImageGenerator, prompts: Sequence[str], seeds: Sequence[int]) -> Generation:
        """Generate the images with one pipeline call per batch."""
        return _joined(
            [
                generator.generate([prompts[i] for i in rows], [seeds[i] for i in rows], self._steps)
                for rows in batches(len(prompts), self._batch_size)
            ]
        )


def batches(count: int, size: int | None) -> list[range]:
    """Split `range(count)` into parts of at most `size`; None means one part."""
    size = size or max(count, 1)
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def _joined(parts: Sequence[Generation]) -> Generation:
    """Combine the results of several calls."""
    if len(parts) == 1:
        return parts[0]
    import numpy as np

    counts = [len(part.images) for part in parts]
    evaluations = sum(part.nfe_per_image * n for part, n in zip(parts, counts, strict=True))
    return Generation(
        images=np.concatenate([part.images for part in parts]),
        nfe_per_image=evaluations / sum(counts),
        steps=tuple(n for part in parts for n in part.steps),
        phases_s={k: sum(part.phases_s.get(k, 0.0) for part in parts) for k in parts[0].phases_s},
    )


def load_policy(cell: Cell, where: Callable[[Variant], str]) -> StepPolicy:
    """Create the step policy of a cell.

    Args:
        cell: The cell.
        where: Place of the variant in its suite file, for messages.

    Raises:
        UnknownNameError: If no policy of that name is registered.
        SuiteError: If the policy's arguments are invalid.
    """
    if cell.steps is not None:
        return FixedSteps(cell.steps, cell.batch_size)
    place = where(cell.variant)
    factory = registry.load("policies", cell.variant.policy, kind="step policy", where=f"{place}.policy")
    policy: StepPolicy = factory(cell, where=place)
    return policy
