"""What a pipeline, a policy or a device can do wrong, injected into a run: the trial fails, the rest goes on."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import polars as pl
import pytest
import torch

from perjoule.commands import tables
from perjoule.commands.schemas import schemas
from perjoule.errors import FILE_ERROR, BudgetSpent, DeviceLostError, FileError, RunError, SuiteError
from perjoule.forecast.budget import Budget, Spending
from perjoule.gating import baselines
from perjoule.protocols import Generation, ImageGenerator
from perjoule.quality import load_metric
from perjoule.running import pipeline, policies
from perjoule.running.execute import execute
from perjoule.running.failures import failure_of, kills_context
from perjoule.running.stage import measure
from perjoule.running.trial import GeneratorCache
from perjoule.runs.directory import Run, load_run
from perjoule.runs.trial_counts import trial_counts
from perjoule.runs.writer import RunWriter
from perjoule.suite.schedule import make_plan
from perjoule.testing import FakeFactory, FakeGenerator, SyntheticMeter, VirtualClock
from perjoule.text import board_digest
from perjoule.types import Cell, PromptFindings, Suite, Variant
from tests.perjoule.running.test_execute import ENVIRONMENT, POWER_W, PROMPTS, STEP_S, fresh, hashes, make_suite

pytestmark = pytest.mark.slow

Break = Callable[[Sequence[str]], Generation | None]


class Breaking(FakeGenerator):
    """A fake whose call asks `breaks` first, and whose device is dead once `dead` is set."""

    def __init__(self, breaks: Break, clock: VirtualClock) -> None:
        super().__init__(clock=clock, step_s=STEP_S)
        self._breaks = breaks
        self.dead: Exception | None = None

    def generate(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> Generation:
        self.synchronize()
        found = self._breaks(prompts)
        return found if found is not None else super().generate(prompts, seeds, steps)

    def synchronize(self) -> None:
        if self.dead is not None:
            raise self.dead


class Silent:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)

    def stage(self, name: str, total: int, unit: str, resumed: float = 0.0) -> Any:
        from contextlib import nullcontext

        class Bar:
            def update(self, done: int, note: str = "", share: float | None = None) -> None: ...

            def expect(self, total: int, share: float) -> None: ...

        return nullcontext(Bar())


def go(
    suite: Suite,
    writer: RunWriter,
    breaks: Break = lambda prompts: None,
    *,
    factory: Any = None,
    generator: FakeGenerator | None = None,
    spending: Spending | None = None,
) -> Run:
    clock = VirtualClock()
    drawer = generator or Breaking(breaks, clock)
    execute(
        make_plan(suite, PROMPTS),
        protocol=suite.protocol,
        meter=SyntheticMeter(POWER_W, clock),
        generators=GeneratorCache(factory or FakeFactory(drawer), lambda variant: variant.name),
        writer=writer,
        on_progress=lambda _: None,
        spending=spending,
    )
    writer.finish()
    return load_run(writer.path)


def on_dogs(error: Exception) -> Break:
    def breaks(prompts: Sequence[str]) -> None:
        if "a dog" in prompts:
            raise error

    return breaks


def one_by_one(**protocol: object) -> Suite:
    return make_suite(batch_size=1, seeds=(1,), **protocol)


@pytest.mark.parametrize(
    "error",
    [
        IndexError("index 21 is out of bounds"),
        TypeError("unexpected keyword argument"),
        NotImplementedError("not on this device"),
        KeyError("prompt"),
        AttributeError("no attribute"),
        AssertionError("shape"),
        OSError("file is gone"),
        StopIteration(),
        RuntimeError("size mismatch"),
        ValueError("bad value"),
        MemoryError(),
        FloatingPointError("NaN"),
        ImportError("torchsde"),
        RecursionError("too deep"),
        SuiteError("does not fit"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_exception_of_a_pipeline_call_fails_its_trial_only(tmp_path: Path, error: Exception) -> None:
    run = go(one_by_one(), fresh(tmp_path / "run", one_by_one()), on_dogs(error))
    failed = run.trials.filter(pl.col("failure").is_not_null())
    assert set(failed["prompts"].list.first()) == {"a dog"}
    assert all(reason.startswith(type(error).__name__) and str(error) in reason for reason in failed["failure"])
    assert run.images.height == 4
    # enough to debug, next to the journal and not in it
    rows = [json.loads(line) for line in (run.path / "failures.jsonl").read_text().splitlines()]
    assert {row["trial_id"] for row in rows} == set(failed["trial_id"])
    assert all("in breaks" in row["traceback"] for row in rows)
    assert "traceback" not in (run.path / "trials.jsonl").read_text()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_request_to_stop_is_not_a_failure(tmp_path: Path, stop: type[BaseException]) -> None:
    with pytest.raises(stop):
        go(one_by_one(), fresh(tmp_path / "run", one_by_one()), on_dogs(stop()))  # type: ignore[arg-type]
    assert load_run(tmp_path / "run").trials["failure"].null_count() == load_run(tmp_path / "run").trials.height


NOISE = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (None, "returned NoneType"),
        (Generation(images=np.zeros((1, 4, 4, 3)), nfe_per_image=1, steps=(1,)), "float64 images"),  # type: ignore[arg-type]
        (Generation(images=np.zeros((2, 4, 4, 3), np.uint8), nfe_per_image=1, steps=(1, 1)), "not (1, h, w, 3)"),
        (Generation(images=np.zeros((1, 4, 4), np.uint8), nfe_per_image=1, steps=(1,)), "shape (1, 4, 4)"),
        (Generation(images=np.zeros((1, 4, 4, 1), np.uint8), nfe_per_image=1, steps=(1,)), "shape (1, 4, 4, 1)"),
        (Generation(images=[1], nfe_per_image=1, steps=(1,)), "list"),  # type: ignore[arg-type]
        (Generation(images=np.zeros((1, 4, 4, 3), np.uint8), nfe_per_image=1, steps=()), "0 step counts for 1 images"),
        (Generation(images=np.zeros((1, 0, 4, 3), np.uint8), nfe_per_image=1, steps=(1,)), "shape (1, 0, 4, 3)"),
        (Generation(images=NOISE, nfe_per_image=1, steps=None), "no step counts"),
        (Generation(images=NOISE, nfe_per_image=float("nan"), steps=(1,)), "nfe_per_image = nan"),
        (Generation(images=NOISE, nfe_per_image=None, steps=(1,)), "nfe_per_image = None"),
        (Generation(images=NOISE, nfe_per_image=1, steps=("a",)), "steps = ('a',)"),  # type: ignore[arg-type]
        (Generation(images=NOISE, nfe_per_image=1, steps=(1,), phases_s={"vae": float("inf")}), "phases_s = "),
    ],
)
def test_what_is_not_images_fails_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, result: Any, words: str
) -> None:
    monkeypatch.setattr(policies.FixedSteps, "draw", lambda *_: result)
    run = go(one_by_one(), fresh(tmp_path / "run", one_by_one()))
    assert all(words in reason for reason in run.trials["failure"])
    assert run.trials.height == 6
    assert run.images.is_empty()


def test_numbers_of_numpy_are_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers: dict[str, Any] = {"nfe_per_image": np.float32(2), "steps": (np.int64(2),)}
    drawn = Generation(images=NOISE, phases_s={"vae": np.float64(1)}, **numbers)
    monkeypatch.setattr(policies.FixedSteps, "draw", lambda *_: drawn)
    run = go(one_by_one(), fresh(tmp_path / "run", one_by_one()))
    assert run.trials["failure"].null_count() == 6
    assert set(run.trials["nfe_per_image"]) == {2.0}
    assert [steps.to_list() for steps in run.trials["steps"]] == [[2]] * 6


def test_a_tokenizer_that_raises_fails_its_trial_only(tmp_path: Path) -> None:
    clock = VirtualClock()

    class Reading(FakeGenerator):
        def read_prompts(self, prompts: Sequence[str]) -> PromptFindings:
            if "a dog" in prompts:
                raise IndexError("piece id is out of range")
            return PromptFindings()

    generator = Reading(clock=clock, step_s=STEP_S)
    run = go(one_by_one(), fresh(tmp_path / "run", one_by_one()), generator=generator)
    failed = run.trials.filter(pl.col("failure").is_not_null())
    assert set(failed["prompts"].list.first()) == {"a dog"}
    assert set(failed["failure"]) == {"IndexError: piece id is out of range"}


def test_the_tensors_of_a_failed_call_are_let_go_of() -> None:
    import weakref

    class Tensor: ...

    kept: list[weakref.ref[Tensor]] = []

    def call() -> None:
        big = Tensor()
        kept.append(weakref.ref(big))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    try:
        call()
    except Exception as error:
        found = failure_of(error)
        assert kept[0]() is None
    assert found.reason.startswith("OutOfMemoryError: CUDA out of memory")
    assert not found.kills_context
    assert "in call" in found.traceback


# -- a dead device -----------------------------------------------------------------------------------------------------

STICKY = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: unspecified launch failure"),
    RuntimeError("CUDA error: misaligned address"),
    RuntimeError("CUDA error: uncorrectable ECC error encountered"),
    RuntimeError("CUDA error: context is destroyed"),
]
HARMLESS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("CUDA error: invalid configuration argument"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    ValueError("an illegal memory access was encountered"),
    RuntimeError("the prompt speaks of an illegal instruction"),
]


def test_a_failure_names_boards_by_digests() -> None:
    uuid = "GPU-3f2a91c0-d5e7-4a7e-b0a4-000000000001"
    try:
        raise RuntimeError(f"CUDA error on {uuid}")
    except RuntimeError as error:
        failure = failure_of(error)
    assert failure.reason == f"RuntimeError: CUDA error on {board_digest(uuid)}"
    assert uuid not in failure.traceback


@pytest.mark.parametrize("error", STICKY, ids=str)
def test_sticky_errors_are_known(error: Exception) -> None:
    assert kills_context(error)


@pytest.mark.parametrize("error", HARMLESS, ids=str)
def test_other_errors_do_not_end_a_run(error: Exception) -> None:
    assert not kills_context(error)


@pytest.mark.parametrize("where", ["call", "synchronize"])
def test_a_dead_context_ends_the_run_in_words(tmp_path: Path, where: str) -> None:
    suite = one_by_one()
    clock = VirtualClock()
    count = 0

    def breaks(prompts: Sequence[str]) -> None:
        nonlocal count
        count += 1
        if count == 3:
            # seen at once, or only when the window waits for the device
            drawer.dead = STICKY[0] if where == "call" else RuntimeError("CUDA error: an unheard-of kind")
            if where == "call":
                raise drawer.dead

    drawer = Breaking(breaks, clock)
    writer = fresh(tmp_path / "run", suite)
    plan = make_plan(suite, PROMPTS)
    generators = GeneratorCache(FakeFactory(drawer), lambda variant: variant.name)

    def do(**rest: Any) -> None:
        meter = SyntheticMeter(POWER_W, clock)
        execute(plan, protocol=suite.protocol, meter=meter, generators=generators, writer=writer, **rest)

    with pytest.raises(DeviceLostError) as caught:
        measure(plan, do, writer, Silent(), Spending(Budget()))
    message = str(caught.value)
    assert caught.value.exit_code == 4
    assert "the GPU's context is dead" in message
    assert "3 of 6 trials are kept" in message
    assert "new process" in message
    assert "--resume" in message
    run = load_run(tmp_path / "run")
    assert run.trials["failure"].is_not_null().to_list() == [False, False, True]
    # the trial that killed the device is not tried again, so that the rest gets done
    whole = go(suite, RunWriter.resume(tmp_path / "run", suite, make_plan(suite, PROMPTS), ENVIRONMENT))
    assert whole.trials["failure"].is_not_null().sum() == 1
    assert whole.trials.height == 6
    again = go(
        suite, RunWriter.resume(tmp_path / "run", suite, make_plan(suite, PROMPTS), ENVIRONMENT, retry_failed=True)
    )
    assert again.trials["failure"].null_count() == 6


def test_a_worker_with_a_dead_device_is_lost(tmp_path: Path) -> None:
    from perjoule.running.trial import Bench
    from perjoule.running.workers import PackingBench

    suite, clock = one_by_one(), VirtualClock()

    def breaks(prompts: Sequence[str]) -> None:
        raise STICKY[1]

    plan = make_plan(suite, PROMPTS)
    generators = GeneratorCache(FakeFactory(Breaking(breaks, clock)), lambda variant: variant.name)
    packing = PackingBench(lambda place: Bench(plan, suite.protocol, SyntheticMeter(POWER_W, clock), generators, place))
    with pytest.raises(RuntimeError, match="context is dead"):
        packing.do(plan[0])


# -- loading and preparing ---------------------------------------------------------------------------------------------


def two_variants() -> Suite:
    suite = one_by_one()
    (variant,) = suite.variants
    return replace(suite, variants=(variant, replace(variant, name="w", model="other")))


@pytest.mark.parametrize("error", [RuntimeError("weights are torn"), SuiteError("not here any more")])
def test_a_variant_that_cannot_be_loaded_fails_its_own_trials(tmp_path: Path, error: Exception) -> None:
    suite = two_variants()
    loads: list[str] = []
    clock = VirtualClock()

    def factory(variant: Variant, *, where: str) -> ImageGenerator:
        loads.append(variant.name)
        if variant.model == "other":
            raise error
        return FakeGenerator(clock=clock, step_s=STEP_S)

    run = go(suite, fresh(tmp_path / "run", suite), factory=factory, generator=FakeGenerator(clock=clock))
    failed = run.trials.filter(pl.col("failure").is_not_null())
    assert set(failed["variant"]) == {"w"}
    assert failed.height == 6
    assert all(str(error) in reason for reason in failed["failure"])
    assert loads.count("w") == 1  # not once for each trial
    found = trial_counts(run)
    assert found.empty_cells == ("w-001", "w-004")
    assert list(found.words())[-1].startswith("6 of 12 trials failed: ")


@pytest.mark.parametrize("stage", ["make", "prepare"])
def test_a_policy_that_cannot_be_prepared_fails_the_trials_of_its_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    prepared: list[str] = []

    class Policy:
        def __init__(self, cell: Cell) -> None:
            self.cell = cell
            if stage == "make" and cell.steps == 4:
                raise KeyError("predictor")

        def prepare(self, generator: ImageGenerator, prompts: Sequence[str]) -> None:
            prepared.append(self.cell.cell_id)
            if self.cell.steps == 4:
                raise KeyError("predictor")

        def draw(self, generator: ImageGenerator, prompts: Sequence[str], seeds: Sequence[int]) -> Generation:
            return generator.generate(prompts, seeds, self.cell.steps or 1)

    monkeypatch.setattr("perjoule.running.trial.load_policy", lambda cell, where: Policy(cell))
    suite = one_by_one()
    run = go(suite, fresh(tmp_path / "run", suite))
    failed = run.trials.filter(pl.col("failure").is_not_null())
    assert set(failed["cell_id"]) == {"v-004"}
    assert failed.height == 3
    assert prepared.count("v-004") <= 1


def test_a_warm_up_that_fails_leaves_the_trial_to_say_why(tmp_path: Path) -> None:
    suite = one_by_one(warmup_iterations=1)

    def breaks(prompts: Sequence[str]) -> None:
        raise IndexError("always")

    run = go(suite, fresh(tmp_path / "run", suite), breaks)
    assert run.trials["failure"].to_list() == ["IndexError: always"] * 6


def test_a_device_that_dies_in_a_warm_up_ends_the_run(tmp_path: Path) -> None:
    """Only waiting for the device shows that it is dead: the error itself has words of another library."""
    suite = one_by_one(warmup_iterations=1)

    def breaks(prompts: Sequence[str]) -> None:
        drawer.dead = RuntimeError("CUDA error: an unheard-of kind")
        raise RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED when calling cublasGemmEx")

    drawer = Breaking(breaks, VirtualClock())
    with pytest.raises(DeviceLostError, match="CUBLAS_STATUS_EXECUTION_FAILED"):
        go(suite, fresh(tmp_path / "run", suite), generator=drawer)
    assert load_run(tmp_path / "run").trials.height == 1


# -- going on ----------------------------------------------------------------------------------------------------------


def test_resume_leaves_failed_trials_and_retry_failed_does_them_again(tmp_path: Path) -> None:
    suite = one_by_one()
    whole = go(suite, fresh(tmp_path / "whole", suite))
    go(suite, fresh(tmp_path / "run", suite), on_dogs(ValueError("once")))
    kept = go(suite, RunWriter.resume(tmp_path / "run", suite, make_plan(suite, PROMPTS), ENVIRONMENT))
    assert kept.trials["failure"].is_not_null().sum() == 2
    again = go(
        suite, RunWriter.resume(tmp_path / "run", suite, make_plan(suite, PROMPTS), ENVIRONMENT, retry_failed=True)
    )
    assert again.trials["failure"].null_count() == 6
    assert hashes(again) == hashes(whole)
    assert sorted(again.trials["trial_id"]) == sorted(whole.trials["trial_id"])
    assert len((tmp_path / "run" / "superseded.jsonl").read_text().splitlines()) == 2


def test_trials_without_joules_are_done_again_too_and_stay_spent(tmp_path: Path) -> None:
    suite = one_by_one()
    clock = VirtualClock()
    writer = fresh(tmp_path / "run", suite)
    execute(
        make_plan(suite, PROMPTS),
        protocol=suite.protocol,
        meter=SyntheticMeter(POWER_W, clock, failing=lambda window: window == 2),
        generators=GeneratorCache(FakeFactory(FakeGenerator(clock=clock, step_s=STEP_S)), lambda v: v.name),
        writer=writer,
        on_progress=lambda _: None,
    )
    writer.finish()
    before = load_run(tmp_path / "run").trials
    assert before["energy_j"].null_count() == 1
    run = go(
        suite, RunWriter.resume(tmp_path / "run", suite, make_plan(suite, PROMPTS), ENVIRONMENT, retry_failed=True)
    )
    assert run.trials["energy_j"].null_count() == 0
    assert run.trials.height == 6


def test_what_a_failed_attempt_cost_stays_on_the_account(tmp_path: Path) -> None:
    suite = one_by_one()

    def late(prompts: Sequence[str]) -> None:
        if "a dog" in prompts:
            clock.sleep(100.0)
            raise ValueError("late")

    clock = VirtualClock()
    drawer = Breaking(late, clock)
    writer = fresh(tmp_path / "run", suite)
    execute(
        make_plan(suite, PROMPTS),
        protocol=suite.protocol,
        meter=SyntheticMeter(POWER_W, clock),
        generators=GeneratorCache(FakeFactory(drawer), lambda v: v.name),
        writer=writer,
        on_progress=lambda _: None,
    )
    writer.finish()
    failed = load_run(tmp_path / "run").trials.filter(pl.col("failure").is_not_null())
    assert failed["energy_j"].to_list() == pytest.approx([POWER_W * 100.0] * 2)
    spending = Spending(Budget(max_joules=1_000.0), VirtualClock().now)
    with pytest.raises(BudgetSpent, match="J are spent"):
        go(
            suite,
            RunWriter.resume(tmp_path / "run", suite, make_plan(suite, PROMPTS), ENVIRONMENT, retry_failed=True),
            spending=spending,
        )


def test_a_fix_may_bring_back_a_variant_that_was_not_loaded(tmp_path: Path) -> None:
    suite = two_variants()
    before = {"comparability": {"device": "fake", "models": {"m": "1"}}, "not_loaded": {"w-001": "torn"}}
    after = {"comparability": {"device": "fake", "models": {"m": "1", "other": "2"}}, "not_loaded": {}}
    RunWriter.create(tmp_path / "run", suite, PROMPTS, before).close()
    RunWriter.resume(tmp_path / "run", suite, make_plan(suite, PROMPTS), after).close()
    changed = {"comparability": {"device": "fake", "models": {"m": "3", "other": "2"}}, "not_loaded": {}}
    with pytest.raises(RunError, match="models was"):
        RunWriter.resume(tmp_path / "run", suite, make_plan(suite, PROMPTS), changed)


# -- what is said of it ------------------------------------------------------------------------------------------------


def test_a_run_says_what_failed_and_is_not_kept_as_a_baseline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = one_by_one()
    half = go(suite, fresh(tmp_path / "half", suite), on_dogs(ValueError("no dogs")))
    found = trial_counts(half)
    assert (found.planned, found.done, found.failed, found.empty_cells) == (6, 6, 2, ())
    (words,) = found.words()
    assert words.startswith("2 of 6 trials failed: ValueError: no dogs (v-00")
    baselines.save(half, "main", tmp_path / "kept")

    def breaks(prompts: Sequence[str]) -> None:
        raise IndexError(f"index {len(prompts)}") if "a dog" in prompts else ValueError("never")

    none = go(suite, fresh(tmp_path / "none", suite), breaks)
    *_, last = trial_counts(none).words()
    assert last.splitlines()[0] == "6 of 6 trials failed:"
    assert "4 × ValueError: never" in last.splitlines()[1]
    assert "2 × IndexError: index 1" in last.splitlines()[2]
    with pytest.raises(RunError, match=r"no trial finished in v-001, v-004 .*--resume --retry-failed"):
        baselines.save(none, "main", tmp_path / "kept")
    counts = asdict(trial_counts(none))
    assert json.loads(json.dumps(counts))["failed"] == 6
    scored = pipeline.score(half, [load_metric("lsnr", {}, "test")], Silent())
    tables.print_frontier(scored, None, "json")
    printed = json.loads(capsys.readouterr().out)
    assert (printed["trials"]["planned"], printed["trials"]["failed"]) == (6, 2)
    jsonschema.validate(printed, schemas()["frontier"])


def test_pictures_of_one_colour_get_a_code(tmp_path: Path) -> None:
    def breaks(prompts: Sequence[str]) -> Generation | None:
        if "a dog" not in prompts:
            return None
        images = np.full((len(prompts), 16, 16, 3), (0, 0, 0), np.uint8)
        return Generation(images=images, nfe_per_image=1.0, steps=(1,) * len(prompts))

    suite = make_suite(seeds=(1,), batch_size=3)
    run = go(suite, fresh(tmp_path / "run", suite), breaks)
    assert all("W270: 3 of 3 images are of one colour (#000000)" in row for row in run.trials["warnings"])
    found = trial_counts(run)
    assert found.one_colour == run.trials.height == 2
    assert next(found.words()).startswith("W270: 2 of 2 trials")
    plain = go(suite, fresh(tmp_path / "plain", suite))
    assert trial_counts(plain).one_colour == 0


def test_a_picture_of_one_colour_but_for_a_pixel_is_a_picture(tmp_path: Path) -> None:
    def breaks(prompts: Sequence[str]) -> Generation | None:
        images = np.zeros((len(prompts), 16, 16, 3), np.uint8)
        images[:, 9, 9, 2] = 1
        return Generation(images=images, nfe_per_image=1.0, steps=(1,) * len(prompts))

    run = go(one_by_one(), fresh(tmp_path / "run", one_by_one()), breaks)
    assert not any("W270" in text for row in run.trials["warnings"] for text in row)


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "free some space and continue with: perjoule run"), (errno.EFBIG, "remove the cause and continue")],
)
def test_a_run_that_cannot_be_written_ends_as_every_other_command(tmp_path: Path, number: int, words: str) -> None:
    suite = make_suite()
    writer = fresh(tmp_path / "run", suite)

    def full(**_: Any) -> None:
        raise OSError(number, os.strerror(number), str(tmp_path / "run" / "trials.jsonl"))

    with pytest.raises(FileError, match=words) as caught:
        measure(make_plan(suite, PROMPTS), full, writer, Silent(), Spending(Budget()))
    assert caught.value.exit_code == FILE_ERROR == 74
