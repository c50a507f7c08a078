"""Generator without a model: instant, deterministic, and able to fail on demand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from perjoule.protocols import Generation
from perjoule.suite.seeding import image_seed
from perjoule.testing.meter import VirtualClock
from perjoule.types import Variant


class FakeGenerator:
    """Draws a smooth image with less noise at every step.

    Args:
        side_px: Height and width of the images.
        clock: If given, each denoising step takes `step_s` of virtual time.
        step_s: Seconds per step and image.
        fails_on: Prompt for which the pipeline raises RuntimeError.
    """

    digest = "fake"
    sources: ClassVar[dict[str, dict[str, Any]]] = {}

    def __init__(
        self,
        side_px: int = 16,
        clock: VirtualClock | None = None,
        step_s: float = 0.01,
        fails_on: str | None = None,
    ) -> None:
        self._side_px, self._clock, self._step_s, self._fails_on = side_px, clock, step_s, fails_on
        self.calls: list[tuple[tuple[str, ...], tuple[int, ...], int]] = []

    def generate(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> Generation:
        """Generate images. Image i depends only on (prompts[i], seeds[i], steps)."""
        self.calls.append((tuple(prompts), tuple(seeds), steps))
        if self._fails_on in prompts:
            raise RuntimeError(f"the fake was set to fail on {self._fails_on!r}")
        if self._clock is not None:
            self._clock.sleep(self._step_s * steps * len(prompts))
        images = [self._draw(prompt, seed, steps) for prompt, seed in zip(prompts, seeds, strict=True)]
        return Generation(
            images=np.stack(images),
            nfe_per_image=2.0 * steps,
            steps=(steps,) * len(images),
            phases_s={"denoise": self._step_s * steps},
        )

    def synchronize(self) -> None:
        """Return at once: there is no device to wait for."""

    def _draw(self, prompt: str, seed: int, steps: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        chance = np.random.default_rng(image_seed(prompt, seed))
        shape = (self._side_px, self._side_px, 3)
        picture = np.cumsum(chance.normal(size=shape), axis=0) * 20 + 128
        noise = chance.normal(size=shape) * 80 / steps
        return np.asarray((picture + noise).clip(0, 255), np.uint8)


class FakeFactory:
    """Generator factory that returns the same fake for every variant and records the variants."""

    def __init__(self, generator: FakeGenerator | None = None) -> None:
        self.generator = generator or FakeGenerator()
        self.loaded: list[str] = []

    def __call__(self, variant: Variant, *, where: str) -> FakeGenerator:
        """Return the fake."""
        self.loaded.append(variant.name)
        return self.generator
