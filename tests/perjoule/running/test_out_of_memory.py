"""Trials that do not fit into memory: they fail, or are drawn with smaller batches as cells of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from perjoule.forecast.budget import Budget, Spending
from perjoule.forecast.measured import Windows, measured_price
from perjoule.protocols import Generation
from perjoule.running.execute import execute
from perjoule.running.trial import GeneratorCache
from perjoule.runs.directory import Run, load_run
from perjoule.runs.merging import merge_runs
from perjoule.runs.trial_counts import trial_counts
from perjoule.runs.writer import RunWriter
from perjoule.statistics.grid import read_grid
from perjoule.statistics.points import operating_points
from perjoule.suite.reading import cells_of
from perjoule.suite.schedule import make_plan
from perjoule.suite.smaller import planned_name, smaller_batch, with_batch
from perjoule.testing import FakeFactory, FakeGenerator, SyntheticMeter, VirtualClock
from perjoule.text import is_name
from perjoule.types import Cell, Prompt, Suite, Variant
from tests.perjoule.running.test_execute import ENVIRONMENT, POWER_W, PROMPTS, STEP_S, fresh, hashes, make_suite

Break = Callable[[Sequence[str]], None]
CLOCK = VirtualClock()


class OutOfMemoryError(RuntimeError):
    """As torch's."""


class Filling(FakeGenerator):
    """A fake whose call asks `breaks` first, and lists the sizes of its calls."""

    def __init__(self, breaks: Break, clock: VirtualClock) -> None:
        super().__init__(clock=clock, step_s=STEP_S)
        self._breaks = breaks
        self.sizes: list[int] = []

    def generate(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> Generation:
        self.sizes.append(len(prompts))
        self._breaks(prompts)
        return super().generate(prompts, seeds, steps)


def go(
    suite: Suite,
    writer: RunWriter,
    breaks: Break,
    spending: Spending | None = None,
    prompts: tuple[Prompt, ...] = PROMPTS,
) -> tuple[Run, Filling]:
    drawer = Filling(breaks, CLOCK)
    execute(
        make_plan(suite, prompts),
        protocol=suite.protocol,
        meter=SyntheticMeter(POWER_W, CLOCK),
        generators=GeneratorCache(FakeFactory(drawer), lambda variant: variant.name),
        writer=writer,
        on_progress=lambda _: None,
        spending=spending,
    )
    writer.finish()
    return load_run(writer.path), drawer


OUT_OF_MEMORY = [
    MemoryError(),
    OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


def more_than(count: int, error: Exception = OUT_OF_MEMORY[1]) -> Break:
    """A device whose memory holds `count` images."""

    def breaks(prompts: Sequence[str]) -> None:
        if len(prompts) > count:
            raise error

    return breaks


def halving(**protocol: object) -> Suite:
    return make_suite(**{"on_out_of_memory": "halve-batch", "batch_size": 4, **protocol})


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_a_batch_that_does_not_fit_is_halved_and_is_another_cell(tmp_path: Path, error: Exception) -> None:
    run, _ = go(halving(), fresh(tmp_path / "run", halving()), more_than(2, error))
    assert run.trials["failure"].null_count() == 4  # 6 images of two cells, in windows of 4 and 2
    assert sorted(run.trials["cell_id"]) == ["v@b2-001", "v@b2-001", "v@b2-004", "v@b2-004"]
    for trial_id, cell_id in run.trials.select("trial_id", "cell_id").iter_rows():
        assert cell_id in trial_id.replace("v-", "v@b2-")
    assert set(run.trials["variant"]) == {"v@b2"}
    assert set(run.trials["batch_size"]) == {2}
    words = ["W266: 4 images per pipeline call did not fit into memory: drawn with 2"]
    assert run.trials["warnings"].to_list() == [words] * 4
    # a batch that has never fitted is not tried in every window
    attempts = [json.loads(line) for line in (run.path / "superseded.jsonl").read_text().splitlines()]
    assert [attempt["batch_size"] for attempt in attempts] == [4, 4]
    assert {attempt["failure"].split(":")[0] for attempt in attempts} == {type(error).__name__}
    assert run.families["v@b2"] == "v"
    assert set(operating_points(run)["cell_id"]) == {"v@b2-001", "v@b2-004"}


def test_the_images_and_joules_are_those_of_the_batch_that_fits(tmp_path: Path) -> None:
    run, _ = go(halving(), fresh(tmp_path / "run", halving()), more_than(2))
    fitting = make_suite(batch_size=2, images_per_window=4)
    right, _ = go(fitting, fresh(tmp_path / "right", fitting), more_than(2))
    assert {name.replace("@b2", ""): digest for name, digest in hashes(run).items()} == hashes(right)
    (price,) = {measured_price(cell, Windows.of(run), fitting.protocol, None).source for cell in cells_of(fitting)}
    assert "the cell's own windows" in price
    for row in run.trials.iter_rows(named=True):
        assert row["energy_j"] == pytest.approx(POWER_W * STEP_S * row["steps"][0] * row["image_count"])


def test_a_batch_that_has_fitted_is_tried_again(tmp_path: Path) -> None:
    suite, calls = halving(batch_size=2), list[int]()

    def breaks(prompts: Sequence[str]) -> None:
        calls.append(len(prompts))
        if len(calls) == 2:
            raise OUT_OF_MEMORY[1]

    run, _ = go(suite, fresh(tmp_path / "run", suite), breaks)
    assert run.trials["batch_size"].to_list() == [2, 1, 2, 2, 2, 2]
    counts = trial_counts(run)
    assert (counts.failed, counts.smaller_batch, counts.empty_cells) == (0, 1, ())
    assert counts.smaller_cells == (run.trials["cell_id"][1],)
    assert next(counts.words()).startswith("W266: 1 of 6 trials did not fit into memory")
    # the window of the smaller batch is in the joules of no planned cell
    grid = read_grid(run, [])
    planned, smaller = grid.cells.index(run.trials["cell_id"][0]), grid.cells.index(counts.smaller_cells[0])
    assert grid.energy_known[:, smaller].sum() == 2
    assert not (np.isfinite(grid.energy_j[..., planned]) & np.isfinite(grid.energy_j[..., smaller])).any()


def test_a_single_image_that_does_not_fit_fails_its_trial_under_the_planned_name(tmp_path: Path) -> None:
    run, _ = go(halving(), fresh(tmp_path / "run", halving()), more_than(0))
    assert set(run.trials["cell_id"]) == {"v-001", "v-004"}
    assert set(run.trials["variant"]) == {"v"}
    assert set(run.trials["batch_size"]) == {4}
    assert run.trials["failure"].str.starts_with("OutOfMemoryError").all()
    assert trial_counts(run).empty_cells == ("v-001", "v-004")


def test_without_the_key_a_trial_that_does_not_fit_fails_and_the_rest_goes_on(tmp_path: Path) -> None:
    suite = make_suite(batch_size=4)
    run, _ = go(suite, fresh(tmp_path / "run", suite), more_than(3))
    assert run.trials["failure"].is_null().to_list().count(True) == 2
    assert not (run.path / "superseded.jsonl").exists()
    # the key may be added when the run is continued
    plan = make_plan(suite, PROMPTS)
    writer = RunWriter.resume(run.path, halving(), plan, ENVIRONMENT, retry_failed=True)
    again, _ = go(halving(), writer, more_than(3))
    assert again.trials["failure"].null_count() == 4
    assert sorted(again.trials["batch_size"]) == [2, 2, 4, 4]
    # and what was drawn with a smaller batch is not repeated
    assert len(RunWriter.resume(run.path, halving(), plan, ENVIRONMENT, retry_failed=True).done) == 4


def test_a_smaller_batch_is_warmed_up_before_its_window(tmp_path: Path) -> None:
    suite = halving(warmup_iterations=2)
    _, drawer = go(suite, fresh(tmp_path / "run", suite), more_than(2))
    # warm-up and attempt with 4; then warm-up of 2 calls and windows of 4 and 2 images; the next cell needs no warm-up
    assert drawer.sizes == [4, 4, 2, 2, 2, 2, 2, 4, 2, 2, 2]


def test_what_an_attempt_without_memory_cost_is_spent(tmp_path: Path) -> None:
    suite, spending = halving(), Spending(Budget())

    def breaks(prompts: Sequence[str]) -> None:
        if len(prompts) > 2:
            CLOCK.sleep(10.0)
            raise OUT_OF_MEMORY[1]

    writer = fresh(tmp_path / "run", suite)
    go(suite, writer, breaks, spending)
    drawn = POWER_W * STEP_S * 6 * (1 + 4)
    assert spending.energy_j == pytest.approx(drawn + 2 * POWER_W * 10.0)
    resumed = Spending(Budget())
    resumed.resume(RunWriter.resume(writer.path, suite, make_plan(suite, PROMPTS), ENVIRONMENT).spent)
    assert resumed.energy_j == pytest.approx(spending.energy_j)


def test_parts_of_a_plan_with_smaller_batches_are_merged(tmp_path: Path) -> None:
    suite = halving(batch_size=2, images_per_window=2, seeds=(1, 2))
    parts = []
    for number, prompts in enumerate((PROMPTS[:2], PROMPTS[2:])):
        writer = RunWriter.create(tmp_path / f"part{number}", suite, prompts, ENVIRONMENT)
        parts.append(go(suite, writer, more_than(number + 1), prompts=prompts)[0].path)
    merged = merge_runs(parts, tmp_path / "merged")
    assert set(merged.trials["cell_id"]) == {"v@b1-001", "v@b1-004", "v-001", "v-004"}
    assert merged.images.height == 12


def test_names_state_the_batch_and_lead_back_to_the_plan() -> None:
    cell = Cell(cell_id="sd15-b2-025", variant=Variant(name="sd15-b2", model="m", steps=(25,)), steps=25, batch_size=8)
    smaller = with_batch(cell, 4)
    assert (smaller.cell_id, smaller.variant.name, smaller.batch_size) == ("sd15-b2@b4-025", "sd15-b2@b4", 4)
    assert [planned_name(name) for name in ("sd15-b2@b4-025", "sd15-b2@b4", "sd15-b2")] == [
        "sd15-b2-025", "sd15-b2", "sd15-b2",
    ]  # fmt: skip
    assert [smaller_batch(name) for name in ("sd15-b2@b4-025", "sd15-b2-025")] == [4, None]
    assert not is_name(smaller.variant.name)  # so no suite has a variant of that name
