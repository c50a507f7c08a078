from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from perjoule.errors import BudgetSpent, MeterError, RunError, UsageError
from perjoule.forecast.budget import Budget, Spending
from perjoule.prompts import prompt_id
from perjoule.protocols import Generation
from perjoule.running.execute import Progress, Round, execute
from perjoule.running.trial import GeneratorCache, call_sizes
from perjoule.runs.directory import Run, load_run
from perjoule.runs.writer import RunWriter
from perjoule.statistics.facts import cell_facts
from perjoule.suite.schedule import make_plan
from perjoule.testing import FakeFactory, FakeGenerator, SyntheticMeter, VirtualClock
from perjoule.types import Assignment, Cell, Metrics, Prompt, PromptSource, Protocol, Suite, Variant

PROMPTS = tuple(Prompt(prompt_id=prompt_id(t), text=t) for t in ("a cat", "a dog", "a fox"))
POWER_W, STEP_S = 40.0, 0.5
ENVIRONMENT = {"comparability": {"device": "fake"}, "comparability_key": "k"}


def make_suite(**protocol: object) -> Suite:
    settings = {"seeds": (1, 2), "batch_size": 2, "idle_s": 0.0, "warmup_iterations": 0} | protocol
    return Suite(
        name="fake",
        title="Fake",
        description="",
        prompts=PromptSource(source="x"),
        metrics=Metrics(primary="lsnr", names=("lsnr",)),
        protocol=Protocol(**settings),  # type: ignore[arg-type]
        variants=(Variant(name="v", model="m", steps=(1, 4)),),
    )


def do(
    suite: Suite,
    writer: RunWriter,
    generator: FakeGenerator | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    fails_on: str | None = None,
    budget: Budget | None = None,
    failing: Callable[[int], bool] = lambda window: False,
    rounds: Sequence[Round] | None = None,
) -> None:
    clock = VirtualClock()
    drawer = generator or FakeGenerator(clock=clock, step_s=STEP_S, fails_on=fails_on)
    execute(
        make_plan(suite, PROMPTS),
        protocol=suite.protocol,
        meter=SyntheticMeter(POWER_W, clock, failing=failing),
        spending=Spending(budget, clock.now) if budget else None,
        generators=GeneratorCache(FakeFactory(drawer), lambda variant: variant.name),
        writer=writer,
        on_progress=on_progress,
        rounds=rounds,
    )
    writer.finish()


def fresh(path: Path, suite: Suite) -> RunWriter:
    return RunWriter.create(path, suite, PROMPTS, ENVIRONMENT)


def hashes(run: Run) -> dict[str, str]:
    return dict(zip(run.images["image_id"], run.images["sha256"], strict=True))


def test_joules_are_those_of_the_work_alone(tmp_path: Path) -> None:
    suite = make_suite(iterations=3)
    do(suite, fresh(tmp_path / "run", suite))
    run = load_run(tmp_path / "run")
    for row in run.trials.iter_rows(named=True):
        steps = row["steps"][0]
        truth = POWER_W * STEP_S * steps * row["image_count"] * 3
        assert row["energy_j"] == pytest.approx(truth)
        assert row["provenance"] == "simulated"
        assert row["nfe_per_image"] == 2 * steps
    assert run.images.height == 2 * 3 * 2


def test_images_are_stored_and_hashed(tmp_path: Path) -> None:
    import hashlib

    suite = make_suite()
    do(suite, fresh(tmp_path / "run", suite))
    run = load_run(tmp_path / "run")
    for row in run.images.iter_rows(named=True):
        pixels = np.asarray(Image.open(run.path / row["file"]))
        assert hashlib.sha256(pixels.tobytes()).hexdigest() == row["sha256"]


@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_interrupted_and_resumed_is_the_same_run(tmp_path: Path, stop_after: int) -> None:
    suite = make_suite(blocks=2)
    do(suite, fresh(tmp_path / "whole", suite))

    def stop(progress: Progress) -> None:
        if progress.trials_done == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do(suite, fresh(tmp_path / "cut", suite), on_progress=stop)
    # a crash in the middle of a line
    with (tmp_path / "cut" / "trials.jsonl").open("a") as file:
        file.write('{"trial_id": "b0.v-0')
    writer = RunWriter.resume(tmp_path / "cut", suite, make_plan(suite, PROMPTS), ENVIRONMENT)
    assert len(writer.done) == stop_after
    drawer = FakeGenerator(step_s=STEP_S)
    do(suite, writer, generator=drawer)
    whole, cut = load_run(tmp_path / "whole"), load_run(tmp_path / "cut")
    assert hashes(cut) == hashes(whole)
    assert cut.trials["trial_id"].to_list() == whole.trials["trial_id"].to_list()
    assert len(drawer.calls) == whole.trials.height - stop_after


def test_an_image_depends_on_prompt_seed_and_cell_only(tmp_path: Path) -> None:
    one, many = make_suite(batch_size=1), make_suite(batch_size=6, order_seed=9)
    do(one, fresh(tmp_path / "one", one))
    do(many, fresh(tmp_path / "many", many))
    assert hashes(load_run(tmp_path / "one")) == hashes(load_run(tmp_path / "many"))


def test_a_window_of_several_batches_is_one_trial_of_the_same_images(tmp_path: Path) -> None:
    one, many = make_suite(batch_size=1), make_suite(batch_size=2, images_per_window=5, warmup_iterations=1)
    clock = VirtualClock()
    drawer = FakeGenerator(clock=clock, step_s=STEP_S)
    do(one, fresh(tmp_path / "one", one))
    do(many, fresh(tmp_path / "many", many), generator=drawer)
    run = load_run(tmp_path / "many")
    assert hashes(run) == hashes(load_run(tmp_path / "one"))
    assert sorted(run.trials["image_count"].to_list()) == [1, 1, 5, 5]
    first, second, *calls = [len(prompts) for prompts, _, _ in drawer.calls]
    assert (first, second) == (2, 1)  # the warm-up, with the size of the last call of a window
    assert sorted(calls) == [1, 1, 1, 1, 2, 2, 2, 2]
    assert all(row["nfe_per_image"] == 2 * row["steps"][0] for row in run.trials.iter_rows(named=True))


def test_a_failing_prompt_leaves_a_reason_and_the_run_goes_on(tmp_path: Path) -> None:
    suite = make_suite(batch_size=1, seeds=(1,))
    do(suite, fresh(tmp_path / "run", suite), fails_on="a dog")
    trials = load_run(tmp_path / "run").trials
    failed = trials.filter(pl.col("failure").is_not_null())
    assert failed.height == 2
    assert failed["image_count"].to_list() == [0, 0]
    assert all("set to fail on 'a dog'" in reason for reason in failed["failure"])
    assert load_run(tmp_path / "run").images.height == 4


def test_a_variant_is_warmed_up_once_even_if_it_was_loaded_before(tmp_path: Path) -> None:
    suite = make_suite(warmup_iterations=2)
    clock = VirtualClock()
    drawer = FakeGenerator(clock=clock, step_s=STEP_S)
    cache = GeneratorCache(FakeFactory(drawer), lambda variant: variant.name)
    cache.get(suite.variants[0])
    writer = fresh(tmp_path / "run", suite)
    plan = make_plan(suite, PROMPTS)
    execute(
        plan,
        protocol=suite.protocol,
        meter=SyntheticMeter(POWER_W, clock),
        generators=cache,
        writer=writer,
        on_progress=lambda _: None,
    )
    assert len(drawer.calls) == len(plan) + 2
    assert [steps for _, _, steps in drawer.calls[:2]] == [min(2, plan[0].cell.steps)] * 2


def test_every_size_of_a_call_is_warmed_up_before_the_first_window(tmp_path: Path) -> None:
    """A new size chooses kernels, or compiles, which would be in the joules of the window."""
    suite = make_suite(batch_size=4, images_per_window=10, seeds=(1, 2, 3, 4), warmup_iterations=3)
    clock = VirtualClock()
    drawer = FakeGenerator(clock=clock, step_s=STEP_S)
    do(suite, fresh(tmp_path / "run", suite), generator=drawer)
    sizes = [len(prompts) for prompts, _, _ in drawer.calls]
    assert sizes[:4] == [4, 4, 4, 2]  # 12 images: a window of 4, 4 and 2, and one of 2
    assert set(sizes[4:]) == {4, 2}


def test_a_step_policy_may_make_calls_of_any_size() -> None:
    """Its sizes depend on the prompts of a window: images of equal steps share a call."""
    variant = Variant(name="p", model="m", role="predicted", policy="p", levels=(1.0,))
    cell = Cell(cell_id="p-1", variant=variant, steps=None, level=1.0, batch_size=4)

    def window(count: int) -> Assignment:
        return Assignment(
            trial_id=f"p.{count}", cell=cell, block=0, prompts=PROMPTS[:1] * count, seeds=tuple(range(count))
        )

    assert call_sizes([window(10), window(2)]) == {"p": [4, 3, 2, 1]}
    assert call_sizes([window(2)]) == {"p": [2, 1]}


def test_progress_counts_images_and_joules(tmp_path: Path) -> None:
    seen: list[Progress] = []
    suite = make_suite()
    do(suite, fresh(tmp_path / "run", suite), on_progress=seen.append)
    assert [p.trials_done for p in seen] == [1, 2, 3, 4, 5, 6]
    assert seen[-1].images_done == 12
    assert seen[-1].energy_j == pytest.approx(POWER_W * STEP_S * 6 * (1 + 4))
    # shares follow the steps, since the time does
    shares = {1: 2 / 30, 4: 8 / 30}
    steps = [int(p.cell_id[-3:]) for p in seen]
    assert [p.share_done for p in seen] == pytest.approx(np.cumsum([shares[n] for n in steps]))
    for progress, n in zip(seen, steps, strict=True):
        assert progress.running is not None
        assert progress.running.value == pytest.approx(POWER_W * STEP_S * n)


def test_trials_that_rounds_leave_out_are_not_counted_as_remaining(tmp_path: Path) -> None:
    """The cell of 4 steps, which has 4/5 of the work, gets one trial of three."""
    seen: list[Progress] = []
    suite = make_suite()
    plan = make_plan(suite, PROMPTS)
    cheap, dear = ([a for a in plan if a.cell.steps == steps] for steps in (1, 4))
    rounds = [Round(trials=[cheap[0], dear[0]], later=[*cheap[1:], *dear[1:]]), Round(trials=cheap[1:], later=())]
    do(suite, fresh(tmp_path / "run", suite), on_progress=seen.append, rounds=rounds)
    assert [(p.trials_done, p.trials_total) for p in seen] == [(1, 6), (2, 6), (3, 4), (4, 4)]
    assert [p.share_total for p in seen] == pytest.approx([1, 1, 14 / 30, 14 / 30])
    assert seen[-1].share_done == pytest.approx(14 / 30)


def test_existing_directories_and_strange_runs_are_refused(tmp_path: Path) -> None:
    suite = make_suite()
    fresh(tmp_path / "run", suite).close()
    with pytest.raises(UsageError, match="--resume"):
        fresh(tmp_path / "run", suite)
    other = replace(suite, protocol=replace(suite.protocol, batch_size=3))
    with pytest.raises(RunError, match="another version of suite 'fake'"):
        RunWriter.resume(tmp_path / "run", other, make_plan(other, PROMPTS), ENVIRONMENT)
    elsewhere = {"comparability": {"device": "another"}, "comparability_key": "j"}
    with pytest.raises(RunError, match="device was 'fake' and is 'another'"):
        RunWriter.resume(tmp_path / "run", suite, make_plan(suite, PROMPTS), elsewhere)
    with pytest.raises(RunError, match="does not exist"):
        load_run(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="is not a run directory"):
        load_run(tmp_path / "empty")


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    suite = make_suite()
    do(suite, fresh(tmp_path / "run", suite))
    file = tmp_path / "run" / "trials.jsonl"
    lines = file.read_text().splitlines()
    lines[1] = lines[1][:20]
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(RunError, match="line 2: damaged"):
        _ = load_run(tmp_path / "run").trials


def test_variants_that_differ_in_steps_alone_share_a_pipeline() -> None:
    factory = FakeFactory()
    one = Variant(name="one", model="m", steps=(1,))
    same = replace(one, name="two", steps=(), policy="budgetfusion", levels=(1.0,), role="predicted", family="one")
    other = replace(one, name="three", guidance=1.0)
    for keep_all, loads in ((False, ["one", "three", "one"]), (True, ["one", "three"])):
        factory.loaded.clear()
        cache = GeneratorCache(factory, lambda variant: variant.name, keep_all=keep_all)
        for variant in (one, same, other, one):
            cache.get(variant)
        assert factory.loaded == loads


def test_an_interleaved_run_makes_the_same_images(tmp_path: Path) -> None:
    together, turns = make_suite(), make_suite(interleave=True)
    do(together, fresh(tmp_path / "a", together))
    do(turns, fresh(tmp_path / "b", turns))
    assert hashes(load_run(tmp_path / "a")) == hashes(load_run(tmp_path / "b"))


@pytest.mark.parametrize("budget", [Budget(max_joules=250.0), Budget(max_minutes=250.0 / POWER_W / 60)])
def test_a_budget_stops_the_run_and_resuming_makes_it_whole(tmp_path: Path, budget: Budget) -> None:
    suite = make_suite(interleave=True)
    do(suite, fresh(tmp_path / "whole", suite))
    with pytest.raises(BudgetSpent, match=r"--max-(joules|minutes) \S+: \S+ (J|s) are spent"):
        do(suite, fresh(tmp_path / "cut", suite), budget=budget)
    cut = load_run(tmp_path / "cut")
    # windows of 1, 4, 1, 4 … steps, of 40 and 160 J each: the second one of 4 does not fit any more
    assert cut.trials["energy_j"].to_list() == pytest.approx([40.0, 160.0, 40.0])
    with pytest.raises(BudgetSpent):  # what is spent stays spent
        do(suite, RunWriter.resume(tmp_path / "cut", suite, make_plan(suite, PROMPTS), ENVIRONMENT), budget=budget)
    assert load_run(tmp_path / "cut").trials.height == 3
    more = Budget(max_joules=1_000.0, max_minutes=60.0)
    do(suite, RunWriter.resume(tmp_path / "cut", suite, make_plan(suite, PROMPTS), ENVIRONMENT), budget=more)
    assert hashes(load_run(tmp_path / "cut")) == hashes(load_run(tmp_path / "whole"))


def test_ctrl_c_under_a_budget_keeps_the_account(tmp_path: Path) -> None:
    suite = make_suite(interleave=True)

    def stop(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do(suite, fresh(tmp_path / "run", suite), on_progress=stop, budget=Budget(max_joules=250.0))
    with pytest.raises(BudgetSpent, match="240 J are spent"):
        do(
            suite,
            RunWriter.resume(tmp_path / "run", suite, make_plan(suite, PROMPTS), ENVIRONMENT),
            budget=Budget(max_joules=250.0),
        )
    assert load_run(tmp_path / "run").trials.height == 3


def test_joules_cannot_be_limited_where_there_are_none(tmp_path: Path) -> None:
    suite = make_suite()
    with pytest.raises(MeterError, match=r"has no joules \(W220"):
        do(suite, fresh(tmp_path / "run", suite), budget=Budget(max_joules=1e6), failing=lambda window: window == 2)
    assert load_run(tmp_path / "run").trials.height == 3  # the window is kept, and the run can go on without the limit
    do(
        suite,
        RunWriter.resume(tmp_path / "run", suite, make_plan(suite, PROMPTS), ENVIRONMENT),
        budget=Budget(max_minutes=60.0),
    )
    assert load_run(tmp_path / "run").trials.height == 6


def test_old_weights_are_let_go_of_before_new_ones_are_read(tmp_path: Path) -> None:
    alive: list[weakref.ref[FakeGenerator]] = []
    left: list[int] = []

    def factory(variant: Variant, *, where: str) -> FakeGenerator:
        left.append(sum(reference() is not None for reference in alive))
        fresh_one = FakeGenerator()
        alive.append(weakref.ref(fresh_one))
        return fresh_one

    suite = make_suite(batch_size=6)
    suite = replace(suite, variants=tuple(replace(suite.variants[0], name=f"v{n}", guidance=n) for n in range(1, 4)))
    execute(
        make_plan(suite, PROMPTS),
        protocol=suite.protocol,
        meter=SyntheticMeter(POWER_W, VirtualClock()),
        generators=GeneratorCache(factory, lambda variant: variant.name),
        writer=fresh(tmp_path / "run", suite),
        on_progress=lambda _: None,
    )
    assert left == [0, 0, 0]


class StoppedGenerator(FakeGenerator):
    """Stands still for an hour in its third call."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock=clock, step_s=STEP_S)
        self._clock_to_stop = clock

    def generate(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> Generation:
        if len(self.calls) == 2:
            self._clock_to_stop.stop(3600.0)
        return super().generate(prompts, seeds, steps)


def test_a_window_that_was_stopped_costs_nothing_and_takes_no_time(tmp_path: Path) -> None:
    suite, clock = make_suite(batch_size=1), VirtualClock()
    writer = RunWriter.create(tmp_path / "run", suite, PROMPTS, ENVIRONMENT)
    spending = Spending(Budget(max_minutes=100), clock.now)
    execute(
        make_plan(suite, PROMPTS),
        protocol=suite.protocol,
        meter=SyntheticMeter(POWER_W, clock),
        spending=spending,
        generators=GeneratorCache(FakeFactory(StoppedGenerator(clock)), lambda variant: variant.name),
        writer=writer,
        on_progress=lambda _: None,
    )
    writer.finish()
    trials = load_run(tmp_path / "run").trials
    assert len(trials) == 12  # the hour is spent, but it does not foretell how long the next window takes
    (stopped,) = trials.filter(pl.col("duration_s") > 3600).to_dicts()
    assert stopped["failure"] is None
    assert (stopped["energy_j"], stopped["net_energy_j"], stopped["partial_energy_j"]) == (None, None, None)
    assert stopped["warnings"] == ["W251: the process did not run for 3600.0 s inside the window"]
    facts = cell_facts(trials)
    for cell, steps in (("v-001", 1), ("v-004", 4)):
        assert facts[cell].duration_s_per_image == pytest.approx(steps * STEP_S)
        joules = trials.filter(pl.col("cell_id") == cell)["energy_j"].drop_nulls()
        assert joules.to_list() == [pytest.approx(POWER_W * steps * STEP_S)] * len(joules)


def test_a_lost_source_of_energy_stops_the_run_and_its_windows_can_be_repeated(tmp_path: Path) -> None:
    suite = make_suite(blocks=3)
    with pytest.raises(MeterError, match=r"failed in 5 windows in succession, last in .* \(W220.*--retry-failed"):
        do(suite, fresh(tmp_path / "run", suite), failing=lambda window: window >= 3)
    assert len((tmp_path / "run" / "trials.jsonl").read_text().splitlines()) == 3 + 5
    resume = RunWriter.resume(tmp_path / "run", suite, make_plan(suite, PROMPTS), ENVIRONMENT, retry_failed=True)
    do(suite, resume)
    assert load_run(tmp_path / "run").trials["energy_j"].null_count() == 0


def test_single_windows_without_joules_stop_nothing(tmp_path: Path) -> None:
    suite = make_suite(blocks=3)
    do(suite, fresh(tmp_path / "run", suite), failing=lambda window: window % 5 != 4)
    assert load_run(tmp_path / "run").trials.height == len(make_plan(suite, PROMPTS))
