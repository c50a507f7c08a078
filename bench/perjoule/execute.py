"""The run itself: each planned trial under the meter, on disk before the next one starts.

    one trial
    ──────────┬───────────┬──────────────────────────────┬───────────────────────────
     cooldown │ (warm-up) │ sync  window: iterations  sync│ PNG, hash, trials.jsonl
    ──────────┴───────────┴──────────────────────────────┴───────────────────────────

Warm-up happens whenever the variant changes. Encoding and writing stand outside the window.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from perjoule.plan import image_id
from perjoule.policies import load_policy
from perjoule.protocols import EnergyMeter, Generation, GeneratorFactory, ImageGenerator, Images, StepPolicy
from perjoule.run_writer import RunWriter
from perjoule.types import Assignment, EnergyReading, Protocol, Trial, Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What there is to tell after a trial: totals of the run so far, resumed trials included."""

    trials_done: int
    trials_total: int
    images_done: int
    energy_j: float | None
    cell_id: str


class GeneratorCache:
    """Loaded pipelines. Variants that differ in their steps alone share one.

    Args:
        factory: Loads a variant.
        where: Names a variant's place in its suite file.
        keep_all: Keep every pipeline; otherwise one at a time, since two large ones seldom fit.
    """

    def __init__(self, factory: GeneratorFactory, where: Callable[[Variant], str], keep_all: bool = False) -> None:
        self._factory, self.where, self._keep_all = factory, where, keep_all
        self._loaded: list[tuple[Variant, ImageGenerator]] = []

    def get(self, variant: Variant) -> ImageGenerator:
        """The generator of a variant, loaded unless it is there."""
        pipeline = replace(
            variant,
            name="",
            role="fixed",
            policy="fixed",
            family="",
            steps=(),
            levels=(),
            policy_args={},
            batch_size=None,
        )
        found = next((generator for known, generator in self._loaded if known == pipeline), None)
        if found is not None:
            return found
        if not self._keep_all:
            self._loaded.clear()  # let go of the old weights before the new ones are read
        self._loaded.append((pipeline, self._factory(variant, where=self.where(variant))))
        return self._loaded[-1][1]


def execute(
    plan: Sequence[Assignment],
    *,
    protocol: Protocol,
    meter: EnergyMeter,
    generators: GeneratorCache,
    writer: RunWriter,
    on_progress: Callable[[Progress], None],
) -> None:
    """Do all trials of the plan that `writer` does not hold yet.

    A pipeline that raises leaves a failed trial with the reason, and the run goes on; KeyboardInterrupt leaves the run
    as it is after the last finished trial.
    """
    idle_power_w = None
    rested = False
    warm: list[str] = []
    policies: dict[str, StepPolicy] = {}
    texts = list(dict.fromkeys(prompt.text for assignment in plan for prompt in assignment.prompts))
    images_done = sum(int(row["image_count"]) for row in writer.done.values())
    energy_j = _sum([row["energy_j"] for row in writer.done.values()])
    with closing(writer):
        for assignment in plan:
            if assignment.trial_id in writer.done:
                continue
            cell = assignment.cell
            if cell.cell_id not in policies and not protocol.interleave:
                policies.clear()
            generator = generators.get(cell.variant)
            if cell.cell_id not in policies:
                policies[cell.cell_id] = load_policy(cell, generators.where)
                policies[cell.cell_id].prepare(generator, texts)
            policy = policies[cell.cell_id]
            if cell.variant.name not in warm:
                _warm_up(policy, generator, assignment, protocol.warmup_iterations)
                # a variant whose pipeline was let go of in between is cold again
                warm = [*warm, cell.variant.name] if protocol.interleave else [cell.variant.name]
            if not rested and protocol.idle_s:
                # after the first load, so that the device holds the context it will hold in the windows
                idle_power_w, rested = meter.learn_idle(protocol.idle_s), True
            if protocol.cooldown_s:
                time.sleep(protocol.cooldown_s)
            trial = run_trial(assignment, protocol, meter, policy, generator, writer, idle_power_w)
            writer.append(trial)
            images_done += trial.image_count
            energy_j = _sum([energy_j, trial.reading.energy_j if trial.reading else None])
            on_progress(
                Progress(
                    trials_done=len(writer.done),
                    trials_total=len(plan),
                    images_done=images_done,
                    energy_j=energy_j,
                    cell_id=cell.cell_id,
                )
            )
            # held on to, they would keep the old weights in memory while the next are read
            del generator, policy


def run_trial(
    assignment: Assignment,
    protocol: Protocol,
    meter: EnergyMeter,
    policy: StepPolicy,
    generator: ImageGenerator,
    writer: RunWriter,
    idle_power_w: float | None = None,
) -> Trial:
    """One window, its images stored and hashed."""
    texts = [prompt.text for prompt in assignment.prompts]
    result: Generation | None = None
    failure: str | None = None
    with meter.window(
        label=assignment.trial_id, sync=generator.synchronize, max_uncertainty=protocol.max_uncertainty
    ) as window:
        try:
            for _ in window.repeat(at_least=protocol.iterations):
                result = policy.draw(generator, texts, assignment.seeds)
        except (RuntimeError, ValueError, MemoryError, ArithmeticError) as error:
            failure = f"{type(error).__name__}: {error}"[:2_000]
    reading = _with_net_energy(window.reading, idle_power_w)
    hashes: tuple[str, ...] = ()
    if result is not None and failure is None:
        hashes, failure = _store(result.images, assignment, writer)
    if failure is not None:
        result = None
    return Trial(
        trial_id=assignment.trial_id,
        cell_id=assignment.cell.cell_id,
        variant=assignment.cell.variant.name,
        role=assignment.cell.variant.role,
        policy=assignment.cell.variant.policy,
        block=assignment.block,
        prompts=tuple(texts),
        prompt_ids=tuple(prompt.prompt_id for prompt in assignment.prompts),
        seeds=assignment.seeds,
        steps=result.steps if result else (assignment.cell.steps,) * len(texts) if assignment.cell.steps else (),
        nfe_per_image=result.nfe_per_image if result else None,
        image_count=len(texts) if result else 0,
        iterations=reading.iterations or protocol.iterations,
        reading=reading,
        image_sha256=hashes,
        phases_s={k: round(v, 6) for k, v in result.phases_s.items()} if result else {},
        failure=failure,
    )


def _warm_up(policy: StepPolicy, generator: ImageGenerator, assignment: Assignment, iterations: int) -> None:
    """Two steps are enough to allocate, to choose kernels and to fill caches; what decides is to be warm as well."""
    texts = [prompt.text for prompt in assignment.prompts][: assignment.cell.batch_size]
    seeds = assignment.seeds[: assignment.cell.batch_size]
    for _ in range(iterations):
        try:
            if assignment.cell.steps is not None:
                generator.generate(texts, seeds, min(2, assignment.cell.steps))
            else:
                policy.draw(generator, texts, seeds)
        except (RuntimeError, ValueError, MemoryError, ArithmeticError):
            return  # the trial itself will fail in the same way, and record why


def _with_net_energy(reading: EnergyReading, idle_power_w: float | None) -> EnergyReading:
    """Add what the run's own rest period tells, where the meter had no idle power of its own."""
    if idle_power_w is None or reading.energy_j is None or reading.net_energy_j is not None:
        return reading
    return replace(
        reading,
        idle_power_w=idle_power_w,
        net_energy_j=reading.energy_j - idle_power_w * reading.duration_s,
    )


def _store(images: Images, assignment: Assignment, writer: RunWriter) -> tuple[tuple[str, ...], str | None]:
    """Write the images of block 0 and hash all. -> (SHA-256 of each image's pixels, failure)."""
    from PIL import Image

    if images.dtype != np.uint8 or images.ndim != 4 or len(images) != len(assignment.prompts):
        return (
            (),
            f"the pipeline returned {images.dtype} images of shape {images.shape}, not (n, h, w, 3) uint8",
        )
    hashes = []
    for picture, prompt, seed in zip(images, assignment.prompts, assignment.seeds, strict=True):
        hashes.append(hashlib.sha256(np.ascontiguousarray(picture).tobytes()).hexdigest())
        if assignment.block == 0:
            name = image_id(assignment.cell.cell_id, prompt.prompt_id, seed)
            Image.fromarray(picture).save(writer.image_file(name), compress_level=1)
    return tuple(hashes), None


def _sum(values: Sequence[Any]) -> float | None:
    known = [float(v) for v in values if v is not None]
    return sum(known) if known else None
