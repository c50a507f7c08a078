"""Runs of ladders and adaptive arms whose scores and joules are functions of prompt, seed and steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from perjoule.runs.directory import Run, load_run, write_scores
from perjoule.runs.writer import RunWriter
from perjoule.suite.schedule import image_id, make_plan
from perjoule.types import Cell, EnergyReading, MetricSpec, Prompt, Score, Suite, Trial, Work

Quality = Callable[[Prompt, int, int], float]


def metric(name: str) -> MetricSpec:
    """A made-up metric; higher is better."""
    return MetricSpec(
        name=name, direction="higher", track="absolute", needs_reference=False, unit="", weights_digest="none",
        licence="Apache-2.0", description="made up", advisory=False, bounds=(0.0, 1.0),
    )  # fmt: skip


def drawn_run(
    path: Path,
    suite: Suite,
    prompts: Sequence[Prompt],
    *,
    steps_of: Callable[[Cell, Prompt], int],
    energy_j: Callable[[int], float],
    qualities: Mapping[str, Quality],
    digests: Mapping[str, str],
    work: Callable[[int], Work] | None = None,
) -> Run:
    """A finished and scored run of windows of one image. Images of the same steps have the same digest.

    Args:
        path: The run directory.
        suite: The suite; `steps_of` is asked for cells without `steps`.
        prompts: Its prompts.
        steps_of: Steps of a prompt in a cell.
        energy_j: Joules by steps.
        qualities: Metric -> score of a prompt, a seed and a number of steps.
        digests: Model -> digest of its weights.
        work: Counted work by steps.
    """
    writer = RunWriter.create(
        path, suite, prompts, {"comparability": {}, "comparability_key": "k", "models": dict(digests)}
    )
    scores: list[Score] = []
    for planned in make_plan(suite, prompts):
        (prompt,), (seed,), cell = planned.prompts, planned.seeds, planned.cell
        steps = cell.steps or steps_of(cell, prompt)
        reading = EnergyReading(
            energy_j=energy_j(steps), uncertainty_j=0.1, duration_s=0.1 * steps, boundary="estimate",
            provenance="simulated", method="made up", work=None if work is None else work(steps),
        )  # fmt: skip
        writer.append(
            Trial(
                trial_id=planned.trial_id,
                cell_id=cell.cell_id,
                variant=cell.variant.name,
                role=cell.variant.role,
                policy=cell.variant.policy,
                block=0,
                prompts=(prompt.text,),
                prompt_ids=(prompt.prompt_id,),
                seeds=(seed,),
                steps=(steps,),
                nfe_per_image=2.0 * steps,
                image_count=1,
                iterations=1,
                reading=reading,
                image_sha256=(f"{prompt.prompt_id}-{seed}-{steps}",),
                phases_s={"predictor": 0.001},
            )
        )
        name = image_id(cell.cell_id, prompt.prompt_id, seed)
        scores += [Score(image_id=name, metric=m, value=of(prompt, seed, steps)) for m, of in qualities.items()]
    writer.finish()
    write_scores(load_run(path), scores, [metric(name) for name in qualities])
    return load_run(path)
