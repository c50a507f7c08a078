"""Races of fake pipelines: a ladder, and a variant `waste` that costs more and draws worse images at every step."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from perjoule.files import write_parquet
from perjoule.protocols import ImageGenerator
from perjoule.running import device
from perjoule.running.trial import GeneratorCache
from perjoule.runs.directory import Run, load_run
from perjoule.runs.race_record import DroppedCell, Race, RaceLook, write_race
from perjoule.statistics.grid import cell_order
from perjoule.statistics.points import operating_points
from perjoule.testing import FakeGenerator, SyntheticMeter, VirtualClock
from perjoule.types import Variant
from tests.support.stored_runs import stored_run
from tests.support.suites import suite_text

PROMPTS = 24
_OF_IMAGES = ("scores", "images")
STEPS = (2, 4)
DROPPED = {"waste-002", "waste-004"}


class Wasteful(FakeGenerator):
    """Draws as many steps as the fake, of which half have no effect; its images differ from the fake's."""

    def _draw(self, prompt: str, seed: int, steps: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        return super()._draw(prompt, seed, max(steps // 2, 1))


def suite_file(folder: Path, prompts: int = PROMPTS, **protocol: object) -> Path:
    """Write a suite whose cells `waste-*` are dominated."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prompts.txt").write_text("".join(f"picture number {number}\n" for number in range(prompts)))
    settings = {"seeds": [1], "batch_size": 1, "idle_s": 0.0, "warmup_iterations": 0} | protocol
    text = suite_text(
        {"name": "ladder", "steps": list(STEPS), "guidance": 3.0},
        {"name": "waste", "steps": list(STEPS), "guidance": 5.0},  # another pipeline, so it is loaded by itself
        protocol=settings,
    )
    (folder / "suite.toml").write_text(text)
    return folder / "suite.toml"


@contextmanager
def fakes() -> Iterator[list[str]]:
    """Instant pipelines and a meter of known power; yields the names of variants, one for each call of a pipeline."""
    calls: list[str] = []
    clock = VirtualClock()

    def factory(variant: Variant, *, where: str) -> ImageGenerator:
        kind, step_s = (Wasteful, 1.5) if variant.name == "waste" else (FakeGenerator, 1.0)
        drawer = kind(clock=clock, step_s=step_s)
        generate = drawer.generate

        def counted(*arguments: object) -> object:
            calls.append(variant.name)
            return generate(*arguments)  # type: ignore[arg-type]

        drawer.generate = counted  # type: ignore[method-assign, assignment]
        return drawer

    @contextmanager
    def meter(name: str, *, of_networks: bool) -> Iterator[SyntheticMeter]:
        yield SyntheticMeter(10.0, clock)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "generators_of", lambda suite, source: GeneratorCache(factory, lambda v: v.name))
        patch.setattr(device, "open_meter", meter)
        patch.setattr(os, "fsync", lambda handle: None)
        yield calls


def raced_run(folder: Path) -> Run:
    """Write a stored run of which a race dropped two cells after half of its prompts, and their later trials."""
    run = stored_run(folder, prompts=16)
    cells = cell_order(run)
    dropped = tuple(
        DroppedCell(cell_id=cell, by=cells[0], prompts=8, energy_difference_j=1, quality_difference=-1, p_value=0)
        for cell in cells[1:3]
    )
    look = RaceLook(prompts=8, compared=tuple(cells), needed={cells[0]: "an anchor"}, dropped=dropped)
    race = Race(
        metric=run.suite.metrics.primary,
        alpha=0.05,
        level=0.01,
        prompts=16,
        cells=tuple(cells),
        look_prompts=(8,),
        looks=(look,),
    )
    write_race(folder, race)
    later = [prompt.prompt_id for prompt in run.prompt_set[8:]]
    gone = pl.col("cell_id").is_in([cell.cell_id for cell in dropped])
    of_trial = pl.col("prompt_ids").list.first().is_in(later)
    for name, unmeasured in (("trials", of_trial), *((one, pl.col("prompt_id").is_in(later)) for one in _OF_IMAGES)):
        write_parquet(getattr(run, name).filter(~(gone & unmeasured)), folder / f"{name}.parquet")
    write_parquet(operating_points(load_run(folder)), folder / "points.parquet")
    return load_run(folder)
