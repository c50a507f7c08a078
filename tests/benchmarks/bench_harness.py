"""What the harness itself costs. Run by `tox -e benchmark`, never by the tests:

    pytest tests/benchmarks -o python_files='bench_*.py' --benchmark-only

`test_ratio_to_bare_diffusers` prints the figure that matters: wall time through perjoule over wall time of the same
pipeline called by hand, in pairs whose order alternates.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from diffusers import StableDiffusionPipeline
from pytest_benchmark.fixture import BenchmarkFixture

from perjoule.files import write_parquet
from perjoule.meters import open_meter
from perjoule.prompts import load_prompts
from perjoule.running.policies import FixedSteps
from perjoule.running.trial import ReadyCell, run_trial
from perjoule.runs.derived import images_of
from perjoule.runs.directory import load_run, write_scores
from perjoule.runs.writer import RunWriter
from perjoule.statistics.points import operating_points
from perjoule.suite.reading import find_suite, load_suite
from perjoule.suite.schedule import make_plan
from perjoule.suite.seeding import image_seed
from perjoule.testing import FakeGenerator, SyntheticMeter, VirtualClock
from perjoule.types import Score
from perjoule_suites.diffusers_generator import load
from perjoule_suites.tiny import sd_tiny
from tests.perjoule.running.test_execute import ENVIRONMENT, make_suite
from tests.perjoule.statistics.test_points import spec

PAIRS = 60


def test_ratio_to_bare_diffusers(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """One trial of the demo (window, phases, PNG, hash, fsync) against the bare call."""
    torch.set_num_threads(2)
    suite = load_suite(find_suite("demo"))
    prompts = load_prompts(replace(suite.prompts, limit=4), where="demo")
    assignment = next(a for a in make_plan(suite, prompts) if a.cell.cell_id == "sd-tiny-trailing-008")
    texts = [p.text for p in assignment.prompts]
    bare = StableDiffusionPipeline.from_pretrained(sd_tiny(), dtype=torch.float32)
    bare.set_progress_bar_config(disable=True)
    ready = ReadyCell(cell=assignment.cell, generator=load(assignment.cell.variant, where="demo"), policy=FixedSteps(8))
    writer = RunWriter.create(tmp_path / "run", suite, prompts, ENVIRONMENT)
    ours: list[np.ndarray] = []
    theirs: list[np.ndarray] = []

    with open_meter("estimate") as meter:

        def through_perjoule() -> None:
            trial, _ = run_trial(assignment, suite.protocol, meter, ready, writer.image_file)
            writer.append(trial)

        def by_hand() -> None:
            seeds = [
                torch.Generator("cpu").manual_seed(image_seed(t, s))
                for t, s in zip(texts, assignment.seeds, strict=True)
            ]
            pictures = bare(
                texts, num_inference_steps=8, guidance_scale=assignment.cell.variant.guidance, generator=seeds
            ).images
            theirs[:] = [np.asarray(p) for p in pictures]

        through_perjoule()
        by_hand()
        ratios = [_ratio(through_perjoule, by_hand, swap=bool(i % 2)) for i in range(PAIRS)]
        benchmark.pedantic(through_perjoule, rounds=5)  # type: ignore[no-untyped-call]
    from PIL import Image

    ours = [np.asarray(Image.open(f)) for f in sorted((tmp_path / "run" / "images").glob("*.png"))]
    assert sorted(a.tobytes() for a in ours) == sorted(a.tobytes() for a in theirs)
    benchmark.extra_info["ratio_median"] = statistics.median(ratios)
    print(f"\nperjoule / bare diffusers, {PAIRS} pairs: median {statistics.median(ratios):.4f},", end=" ")
    print(f"quartiles {statistics.quantiles(ratios)}")


def _ratio(a: Callable[[], None], b: Callable[[], None], *, swap: bool) -> float:
    times: dict[Callable[[], None], float] = {}
    for function in (b, a) if swap else (a, b):
        began = time.perf_counter()
        function()
        times[function] = time.perf_counter() - began
    return times[a] / times[b]


def test_window_of_the_estimate_meter(benchmark: BenchmarkFixture) -> None:
    """Opening and closing an empty window."""
    with open_meter("estimate") as meter:

        def empty() -> None:
            with meter.window():
                pass

        benchmark(empty)


def test_trial_without_generation(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """Everything around a pipeline call for four images of 64 px: window, PNG, hash, JSON, fsync."""
    suite = make_suite(batch_size=4)
    prompts = load_prompts(replace(load_suite(find_suite("demo")).prompts, limit=4), where="demo")
    writer = RunWriter.create(tmp_path / "run", suite, prompts, ENVIRONMENT)
    assignment = make_plan(suite, prompts)[0]
    meter = SyntheticMeter(10.0, VirtualClock())
    ready = ReadyCell(cell=assignment.cell, generator=FakeGenerator(side_px=64), policy=FixedSteps(8))
    benchmark(lambda: writer.append(run_trial(assignment, suite.protocol, meter, ready, writer.image_file)[0]))


@pytest.mark.parametrize("trials", [1_000, 10_000])
def test_operating_points(benchmark: BenchmarkFixture, tmp_path: Path, trials: int) -> None:
    """From trials and scores to points with intervals: one metric, two cells."""
    suite = make_suite(batch_size=1, seeds=(1,))
    writer = RunWriter.create(tmp_path / "run", suite, (), ENVIRONMENT)
    writer.close()
    chance = np.random.default_rng(0)
    n = trials // 2
    rows = pl.DataFrame(
        {
            "trial_id": [f"b0.v-{steps:03d}.{i:06d}" for steps in (1, 4) for i in range(n)],
            "cell_id": [f"v-{steps:03d}" for steps in (1, 4) for _ in range(n)],
            "prompt_ids": [[f"p{i}"] for _ in (1, 4) for i in range(n)],
            "energy_j": chance.normal(100, 9, 2 * n),
        }
    ).with_columns(
        variant=pl.lit("v"), role=pl.lit("fixed"), policy=pl.lit("fixed"), block=pl.lit(0), seeds=pl.lit([1]),
        steps=pl.lit([4]), image_count=pl.lit(1), iterations=pl.lit(1), duration_s=pl.lit(1.0),
        failure=pl.lit(None, pl.String), image_sha256=pl.lit(["x"]), provenance=pl.lit("simulated"),
        boundary=pl.lit("gpu-board"), uncertainty_j=pl.lit(1.0), nfe_per_image=pl.lit(8.0),
    )  # fmt: skip
    rows.write_parquet(tmp_path / "run" / "trials.parquet")
    run = load_run(tmp_path / "run")
    write_parquet(images_of(run.trials), run.path / "images.parquet")
    run = load_run(run.path)
    write_scores(run, [Score(image_id=i, metric="lsnr", value=1.0) for i in run.images["image_id"]], [spec()])
    benchmark.pedantic(lambda: operating_points(load_run(run.path)), rounds=3)  # type: ignore[no-untyped-call]
