from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.errors import RunError
from perjoule.gating import GateConfig, baselines, gate, render
from perjoule.gating.decide import decide
from perjoule.gating.looks import (
    BASELINE,
    LEAST_UNITS,
    PLAN,
    LookPlan,
    append_row,
    judge_look,
    measuring_order,
    part_of,
    prompts_at_looks,
    read_plan,
    read_rows,
    replay,
    write_plan,
)
from perjoule.gating.pairing import Pairs
from perjoule.gating.records import Findings, Look, Margin, Margins
from perjoule.runs.directory import LOOKS, Run, load_run
from tests.benchmarks.statistics import sequential_gate as simulated
from tests.support.gating import HUNDRED
from tests.support.tables_of_runs import imported, table, with_margin

PROMPTS = 50
FROM_TABLE: dict[str, Any] = HUNDRED | {"prompts": PROMPTS}


def plan_of(run: Run, **changes: Any) -> LookPlan:
    """A plan over the prompts of a run."""
    ids = sorted(set(run.windows["prompt_ids"].explode()))
    settings: dict[str, Any] = {
        "config": GateConfig(), "metric": "q", "design": "pocock", "prompt_ids": measuring_order(ids, 1, 0),
        "prompts": prompts_at_looks(len(ids), 1), "baseline": "base", "interleaved": True,
    }  # fmt: skip
    return LookPlan(**settings | changes)


def both(folder: Path, **changes: Any) -> tuple[Run, Run]:
    base = with_margin(imported(table(**FROM_TABLE), folder, "base"))
    return base, with_margin(imported(table(**FROM_TABLE | {"seed": 1} | changes), folder, "candidate"))


def stopped(folder: Path, **changes: Any) -> tuple[LookPlan, Run, Run]:
    """A sequential run with its looks on disk: every look until the verdict."""
    base, candidate = both(folder, **changes)
    plan = plan_of(base)
    write_plan(plan, candidate.path)
    baselines.save(base, BASELINE, root=candidate.path / BASELINE)
    for number in range(1, len(plan.prompts) + 1):
        _, row = judge_look(plan, number, base, candidate)
        append_row(candidate.path, row)
        if row.outcome != "continue":
            break
    return plan, base, load_run(candidate.path)


class TestSchedule:
    @pytest.mark.parametrize(
        ("count", "size", "looks"),
        [
            (64, 1, (8, 16, 24, 32, 48, 64)),
            (96, 12, (36, 48, 72, 96)),  # eight windows: the first look has three
            (10, 1, (3, 4, 5, 8, 10)),
            (7, 4, (7,)),
            (1, 1, (1,)),
        ],
    )
    def test_looks_are_eighths_in_whole_windows(self, count: int, size: int, looks: tuple[int, ...]) -> None:
        assert prompts_at_looks(count, size) == looks

    @given(count=st.integers(1, 500), size=st.integers(1, 40), seed=st.integers(0, 9))
    def test_every_block_has_whole_windows_of_the_plan(self, count: int, size: int, seed: int) -> None:
        ids = [f"p{i:03d}" for i in range(count)]
        order = measuring_order(ids, size, seed)
        looks = prompts_at_looks(count, size)
        assert sorted(order) == ids
        assert looks[-1] == count
        assert list(looks) == sorted(set(looks))
        assert looks[0] >= min(count, size * LEAST_UNITS)
        full = count - count % size
        windows = [set(ids[start : start + size]) for start in range(0, full, size)] + [set(ids[full:])]
        for look in looks:
            measured = set(order[:look])
            assert all(window <= measured or not window & measured for window in windows)

    def test_the_order_is_random_and_repeats(self) -> None:
        ids = [f"p{i}" for i in range(30)]
        assert measuring_order(ids, 1, 0) == measuring_order(ids, 1, 0) != tuple(ids)
        assert measuring_order(ids, 1, 1) != measuring_order(ids, 1, 0)

    def test_a_prompt_belongs_to_the_first_look_that_has_it(self) -> None:
        plan = replace(plan_of_ids(10), prompts=(3, 10))
        numbers = plan.numbers()
        assert [numbers[prompt] for prompt in plan.prompt_ids] == [1] * 3 + [2] * 7
        assert plan.until(1) == frozenset(plan.prompt_ids[:3])
        assert plan.look(2) == Look(number=2, shares=(0.3, 1.0), design="pocock")


def plan_of_ids(count: int) -> LookPlan:
    ids = tuple(f"p{i}" for i in range(count))
    return LookPlan(
        config=GateConfig(), metric="q", design="pocock", prompt_ids=ids, prompts=(count,), baseline="b",
        interleaved=False,
    )  # fmt: skip


@pytest.mark.parametrize("design", simulated.DESIGNS)
def test_the_product_decides_as_the_simulation_does(design: Any) -> None:
    """The table in the docs is of the simulation; here are its gates again, by `decide`."""
    looks = (8, 16, 24, 32, 48, 64)
    shares = tuple(n / 64 for n in looks)
    margins = Margins(energy=Margin(value=0.05, origin="given"), quality=Margin(value=0.15, origin="given"))
    chance = np.random.default_rng(3)
    seen = set()
    for truth in ((0.0, 0.0), (np.log(1.06), 0.0), (0.0, -0.3), (np.log(1.05), -0.15)):
        d = simulated.energies("lognormal", truth[0], (6, 64), chance)
        q = truth[1] + simulated.draw("lognormal", (6, 64), chance, simulated.QUALITY_SD, -1.0)
        levels = [list(simulated.nominal_levels(design, shares, 0.05 / n)) for n in (1, 2)]
        expected = simulated.verdicts(d, q, looks, levels, sequential=True)
        for gate_number, row in enumerate(expected):
            for number, n in enumerate(looks, 1):
                pairs = Pairs(
                    cells=("c",), log_energy=d[gate_number, :n, None], energy_j=d[gate_number, :n, None],
                    quality=q[gate_number, :n, None], total_energy_change=0.0, identical_images=False, provenance=(),
                )  # fmt: skip
                config = GateConfig(look=Look(number=number, shares=shares, design=design))
                verdict = decide(pairs, "q", config, Findings(), margins)
                assert {"pass": 1, "fail": -1, "inconclusive": 0}[verdict.verdict] == row[number - 1]
                seen.add(verdict.verdict)
    assert seen == {"pass", "fail", "inconclusive"}


def test_the_level_of_a_look_is_in_the_interval(tmp_path: Path) -> None:
    base, candidate = both(tmp_path)
    plan = plan_of(base)
    verdict, row = judge_look(plan, 1, base, candidate)
    assert row.prompts == plan.prompts[0] == verdict.quality.n_prompts == 7
    assert verdict.energy.change.level == pytest.approx(1 - 2 * row.nominal_alpha)
    assert row.alpha_spent == pytest.approx(row.nominal_alpha)
    assert row.nominal_alpha < 0.02
    assert "corrected for skewness" in verdict.energy.change.method


def test_no_change_passes_early(tmp_path: Path) -> None:
    plan, _, candidate = stopped(tmp_path)
    rows = read_rows(candidate.path)
    assert rows[-1].outcome == "pass"
    assert rows[-1].prompts <= plan.prompts[2]
    assert {row.outcome for row in rows[:-1]} <= {"continue"}


@pytest.mark.parametrize("changes", [{"factor": 1.12}, {"shift": -0.3}])
def test_a_clear_change_fails_at_the_first_look(tmp_path: Path, changes: dict[str, float]) -> None:
    _, _, candidate = stopped(tmp_path, **changes)
    (row,) = read_rows(candidate.path)
    assert (row.look, row.outcome, row.share) == (1, "fail", 7 / 50)


class TestReplay:
    def test_it_computes_the_stored_looks_again(self, tmp_path: Path) -> None:
        plan, _, candidate = stopped(tmp_path, shift=-0.15)
        again = replay(candidate.path)
        assert again.differences == ()
        assert again.looks == tuple(read_rows(candidate.path))
        assert len(again.looks) > 1
        stop = again.verdict.stop
        assert stop is not None
        assert (stop.look, stop.looks, stop.prompts_planned) == (len(again.looks), len(plan.prompts), PROMPTS)
        total = sum(float(part_of(run, plan.until(stop.look)).windows["energy_j"].sum()) for run in (
            candidate, load_run(tmp_path / "base"),
        ))  # fmt: skip
        assert stop.energy_j == pytest.approx(total)
        head, first, *_ = render.replayed(again).splitlines()
        assert head.split() == ["look", "prompts", "level", "energy", "q", "joules", "share", "outcome"]
        assert first.startswith("1 of 6  7        1.08%")
        assert first.endswith("continue")
        line = f"look {stop.look} of 6: {stop.prompts} of 50 prompts, "
        assert line in render.terminal(again.verdict)
        assert f"- {line}" in render.markdown(again.verdict)

    def test_a_look_that_was_edited_is_found(self, tmp_path: Path) -> None:
        _, _, candidate = stopped(tmp_path, factor=1.12)
        file = candidate.path / LOOKS
        file.write_text(file.read_text().replace('"fail"', '"pass"'))
        (difference,) = replay(candidate.path).differences
        assert difference == "look 1: outcome is pass in looks.jsonl and fail computed again"

    def test_joules_that_were_edited_are_found(self, tmp_path: Path) -> None:
        _, _, candidate = stopped(tmp_path)
        row = json.loads((candidate.path / LOOKS).read_text().splitlines()[0])
        row["energy"]["value"] += 1e-6
        (candidate.path / LOOKS).write_text(json.dumps(row) + "\n")
        (difference,) = replay(candidate.path).differences
        assert "the change of energy" in difference

    @pytest.mark.parametrize(("moved", "found"), [(1e-8, False), (1e-4, True)])
    def test_quality_that_was_edited_is_found_but_not_the_last_digits(
        self, tmp_path: Path, moved: float, found: bool
    ) -> None:
        _, _, candidate = stopped(tmp_path)
        rows = [json.loads(line) for line in (candidate.path / LOOKS).read_text().splitlines()]
        for row in rows:
            row["quality"]["value"] += moved
        (candidate.path / LOOKS).write_text("".join(json.dumps(row) + "\n" for row in rows))
        differences = replay(candidate.path).differences
        assert len(differences) == (len(rows) if found else 0)
        assert all("the change of quality" in difference for difference in differences)

    def test_other_runs_have_no_looks(self, tmp_path: Path) -> None:
        base, candidate = both(tmp_path)
        with pytest.raises(RunError, match="is not the run of a sequential gate"):
            replay(candidate.path)
        write_plan(plan_of(base), candidate.path)
        with pytest.raises(RunError, match="has no look yet"):
            replay(candidate.path)


class TestPlainGate:
    """A later gate of a run that was stopped must not treat it as a run of a fixed length."""

    def test_it_is_judged_as_its_last_look(self, tmp_path: Path) -> None:
        plan, base, candidate = stopped(tmp_path)
        kept = plan.until(len(read_rows(candidate.path)))
        run = shutil.copytree(candidate.path, tmp_path / "short")
        for name in ("trials", "scores"):
            only(run / f"{name}.parquet", kept)
        verdict = gate(base, load_run(run))
        assert verdict.verdict == "pass"
        assert verdict.config.look == plan.look(len(read_rows(candidate.path)))
        assert verdict.stop is not None
        assert verdict.stop.prompts == len(kept)
        assert "measured until a verdict" in verdict.notes[0]

    def test_without_the_plan_prompts_are_missing(self, tmp_path: Path) -> None:
        plan, base, candidate = stopped(tmp_path)
        for name in ("trials", "scores"):
            only(candidate.path / f"{name}.parquet", plan.until(1))
        (candidate.path / PLAN).unlink()
        assert gate(base, load_run(candidate.path)).verdict == "invalid"


def only(file: Path, kept: frozenset[str]) -> None:
    import polars as pl

    frame = pl.read_parquet(file)
    column = pl.col("prompt_ids").list.first() if "prompt_ids" in frame.columns else pl.col("prompt_id")
    frame.filter(column.is_in(kept)).write_parquet(file)


class TestEndsEarly:
    def test_energy_that_cannot_fail_against_another_session(self, tmp_path: Path) -> None:
        base, candidate = both(tmp_path, factor=1.2)
        plan = plan_of(base, config=GateConfig(mode="stored"), interleaved=False)
        verdict, row = judge_look(plan, 1, base, candidate)
        assert (verdict.verdict, row.outcome) == ("inconclusive", "inconclusive")
        assert "more prompts would not decide" in verdict.reasons[0]
        known = plan_of(base, config=GateConfig(mode="stored", session_sd=0.001), interleaved=False)
        assert judge_look(known, 1, base, candidate)[1].outcome == "fail"

    def test_a_margin_that_all_prompts_cannot_resolve(self, tmp_path: Path) -> None:
        base, candidate = both(tmp_path)
        plan = plan_of(base, config=GateConfig(margin_quality=0.002))
        _, row = judge_look(plan, 2, base, candidate)
        assert row.outcome == "unresolvable"
        assert "the margin on q (0.002) is below what the 50 planned prompts can detect" in row.reason
        # two seeds less: sd of the difference of means over two cells and one seed
        needed = int(row.reason.partition("about ")[2].split()[0])
        assert needed == pytest.approx((2.9 * 0.03 / 0.002) ** 2, rel=0.6)

    def test_a_change_beyond_the_margin_may_still_fail(self, tmp_path: Path) -> None:
        base, candidate = both(tmp_path, shift=-0.012)
        plan = plan_of(base, config=GateConfig(margin_quality=0.002))
        assert judge_look(plan, 1, base, candidate)[1].outcome in ("continue", "fail")

    def test_what_is_missing_ends_it_at_once(self, tmp_path: Path) -> None:
        base, candidate = both(tmp_path)
        plan = plan_of(base)
        only(candidate.path / "scores.parquet", frozenset(plan.prompt_ids[1:]))
        _, row = judge_look(plan, 1, base, load_run(candidate.path))
        assert row.outcome == "invalid"


class TestFiles:
    def test_a_plan_is_read_as_it_was_written(self, tmp_path: Path) -> None:
        plan = replace(plan_of_ids(4), config=GateConfig(margin_energy="3%", change=("models",)))  # type: ignore[arg-type]
        write_plan(plan, tmp_path)
        assert read_plan(tmp_path) == plan
        assert read_plan(tmp_path / "elsewhere") is None

    @pytest.mark.parametrize(
        ("edit", "words"),
        [
            ({"design": "optional stopping"}, "design"),
            ({"prompts": [9]}, "there are 4 prompt_ids"),
            ({"prompts": []}, "prompts"),
            ({"schema": 2}, "schema 1"),
            ({"config": {"alpha": 3}}, "alpha"),
        ],
    )
    def test_a_damaged_plan_is_refused(self, tmp_path: Path, edit: dict[str, Any], words: str) -> None:
        write_plan(plan_of_ids(4), tmp_path)
        content = json.loads((tmp_path / PLAN).read_text())
        (tmp_path / PLAN).write_text(json.dumps(content | edit))
        with pytest.raises(Exception, match=words):
            read_plan(tmp_path)

    def test_a_look_that_was_cut_off_is_repaired(self, tmp_path: Path) -> None:
        base, candidate = both(tmp_path)
        _, row = judge_look(plan_of(base), 1, base, candidate)
        append_row(tmp_path, row)
        with (tmp_path / LOOKS).open("a") as file:
            file.write('{"look": 2, "prom')
        assert read_rows(tmp_path, repair=True) == [row]
        append_row(tmp_path, row)
        with pytest.raises(RunError, match="not numbered"):
            read_rows(tmp_path)
