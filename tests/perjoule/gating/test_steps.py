"""A step count that is the change under test is judged as a change of the same cell."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import tomli_w

from perjoule.gating import GateConfig, gate
from perjoule.gating.steps import with_baseline_cells
from perjoule.runs.directory import Run, load_run
from tests.support.tables_of_runs import as_own, imported, table, with_margin


def at_steps(run: Run, *steps: int) -> Run:
    """The run with these step counts of each variant in its suite."""
    file = run.path / "suite.toml"
    suite = tomllib.loads(file.read_text())
    for variant in suite["variants"]:
        variant["steps"] = list(steps)
    file.write_text(tomli_w.dumps(suite))
    return load_run(run.path)


def run_at(folder: Path, name: str, *steps: int, factor: float = 1.0) -> Run:
    frame = table(prompts=12, seeds=1, ladder=steps, variants=(("ladder", 1.0),), noise=0.0, factor=factor)
    return at_steps(with_margin(as_own(imported(frame, folder, name))), *steps)


@pytest.mark.parametrize("change", ["steps", "variants"])
def test_one_more_step_is_judged(tmp_path: Path, change: str) -> None:
    before, after = run_at(tmp_path, "before", 12), run_at(tmp_path, "after", 13)
    plain = gate(before, after)
    assert plain.verdict == "invalid"
    assert "candidate lacks cell ladder-012: the candidate has ladder-013 instead: renamed?" in plain.reasons
    found = gate(before, after, config=GateConfig(change=(change,)))
    assert found.verdict == "fail"
    assert found.energy.change.value == pytest.approx(14 / 13 - 1, abs=0.02)  # joules of the table: 1 + steps
    assert found.quality.outcome == "pass"
    assert any("ladder: 12 steps in the baseline, 13 in the candidate" in note for note in found.notes)


def test_fewer_steps_pass_on_energy(tmp_path: Path) -> None:
    before, after = run_at(tmp_path, "before", 13), run_at(tmp_path, "after", 12)
    found = gate(before, after, config=GateConfig(change=("steps",)))
    assert (found.energy.outcome, found.energy.label) == ("pass", "improved")


@pytest.mark.parametrize(("old", "new"), [((4, 12), (4,)), ((12,), (12, 13)), ((4, 12), (4, 13))])
def test_a_ladder_is_not_renamed(tmp_path: Path, old: tuple[int, ...], new: tuple[int, ...]) -> None:
    before, after = run_at(tmp_path, "before", *old), run_at(tmp_path, "after", *new)
    same, notes = with_baseline_cells(before, after, ("variants",))
    assert (same, notes) == (after, ())
    missing = set(old) - set(new)
    assert gate(before, after, config=GateConfig(change=("variants",))).verdict == "invalid" if missing else True


def test_nothing_is_renamed_unless_it_is_asked_for(tmp_path: Path) -> None:
    before, after = run_at(tmp_path, "before", 12), run_at(tmp_path, "after", 13)
    assert with_baseline_cells(before, after, ("models",)) == (after, ())


def test_the_renamed_run_has_the_tables_of_the_run(tmp_path: Path) -> None:
    before, after = run_at(tmp_path, "before", 12), run_at(tmp_path, "after", 13)
    renamed, _ = with_baseline_cells(before, after, ("steps",))
    for name in ("trials", "scores", "images", "windows"):
        ours, theirs = getattr(renamed, name), getattr(after, name)
        assert len(ours) == len(theirs)
        assert set(ours["cell_id"]) == ({"ladder-012"} if len(theirs) else set())
    assert renamed.suite == after.suite
    assert renamed.metrics == after.metrics
    assert renamed.environment == after.environment
    assert renamed.prompt_set == after.prompt_set


def test_any_setting_of_a_variant_may_be_the_change_under_test(tmp_path: Path) -> None:
    before, after = run_at(tmp_path, "before", 12), run_at(tmp_path, "after", 12)
    file = after.path / "suite.toml"
    suite = tomllib.loads(file.read_text())
    suite["variants"][0]["guidance"] = 3.0
    file.write_text(tomli_w.dumps(suite))
    after = load_run(after.path)
    assert [d.key for d in gate(before, after).incomparable] == ["variants.ladder.guidance"]
    assert gate(before, after, config=GateConfig(change=("variants",))).verdict == "pass"
    suite["protocol"]["batch_size"] = 2
    file.write_text(tomli_w.dumps(suite))
    found = gate(before, load_run(after.path), config=GateConfig(change=("variants",)))
    assert "protocol.batch_size" in {d.key for d in found.incomparable}
