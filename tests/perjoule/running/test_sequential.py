"""Sequential gates of fakes with known energies: they stop, go on after an interruption, and refuse bad input."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perjoule.errors import EvidenceError, Interrupted, UsageError
from perjoule.gating import GateConfig, gate
from perjoule.gating.looks import BASELINE, PLAN, read_plan, read_rows, replay
from perjoule.gating.records import Verdict
from perjoule.protocols import Generation, ImageSet
from perjoule.quality.lsnr import Lsnr
from perjoule.running import device, pipeline, reporting
from perjoule.running.planning_looks import GateRequest
from perjoule.running.prepared import Prepared, prepare
from perjoule.running.sequential import gate_until_verdict, in_turn
from perjoule.running.trial import GeneratorCache
from perjoule.runs.directory import LOOKS, Run, load_run
from perjoule.suite.schedule import make_plan
from perjoule.testing import FakeGenerator, SyntheticMeter, VirtualClock
from perjoule.types import Score, Suite, Variant
from tests.perjoule.running.test_scoring import Quiet

pytestmark = pytest.mark.slow

PROMPTS = 24
SUITE = """
name = "{name}"
title = ""
description = ""
[prompts]
source = "prompts.txt"
[protocol]
seeds = [1]
idle_s = 0.0
warmup_iterations = 0
[metrics]
primary = "lsnr"
names = ["lsnr"]
[[variants]]
name = "v"
model = "m"
guidance = {guidance}
steps = [{steps}]
"""
CHANGED = GateConfig(margin_quality=0.5, change=("guidance",))


class Noisy(FakeGenerator):
    """Costs as many times its guidance, with noise that depends on the prompt; may be interrupted."""

    def __init__(self, world: World, guidance: float) -> None:
        super().__init__()
        self._world, self._guidance = world, guidance

    def generate(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> Generation:
        world = self._world
        world.calls.append((self._guidance, *prompts))
        if len(world.calls) == world.interrupted_at:
            raise KeyboardInterrupt
        key = hashlib.sha256(f"{prompts}{self._guidance}{steps}".encode()).digest()
        noise = np.random.default_rng(list(key)).normal() * world.sd
        world.clock.sleep(10.0 * self._guidance * float(np.exp(noise)))
        return super().generate(prompts, seeds, steps)


class World:
    """A project whose suites differ in guidance, which is the cost of an image; pipelines and meter are fakes."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.clock, self.sd = folder, VirtualClock(), 0.01
        self.calls: list[tuple[float | str, ...]] = []
        self.interrupted_at = 0
        monkeypatch.setattr(device, "generators_of", self.generators_of)
        monkeypatch.setattr(device, "open_meter", self.open_meter)
        monkeypatch.setattr(reporting, "report", lambda *arguments: [])
        (folder / "prompts.txt").write_text("\n".join(f"a picture of {n} cats" for n in range(PROMPTS)) + "\n")
        self.suite("main", 1.0)

    def generators_of(self, suite: Suite, source: Path) -> GeneratorCache:
        def factory(variant: Variant, *, where: str) -> Noisy:
            return Noisy(self, variant.guidance)

        return GeneratorCache(factory, lambda variant: variant.name, keep_all=True)

    @contextmanager
    def open_meter(self, name: str, *, of_networks: bool) -> Iterator[SyntheticMeter]:
        yield SyntheticMeter(10.0, self.clock)

    def suite(self, name: str, guidance: float, **replaced: str) -> Path:
        text = SUITE.format(name="s", guidance=guidance, steps="1, 2")
        for old, new in replaced.items():
            assert old in text
            text = text.replace(old, new)
        (self.folder / f"{name}.toml").write_text(text)
        return self.folder / f"{name}.toml"

    def prepared(self, name: str, resume: Path | None = None, limit: int | None = None) -> Prepared:
        return prepare(str(self.folder / f"{name}.toml"), limit, resume=resume)

    def gate(
        self, candidate: str, baseline: str | Run = "main", out: str = "out", *, resume: bool = False, **changes: Any
    ) -> tuple[Verdict, list[str]]:
        folder, told = self.folder / out, Quiet()
        theirs = baseline
        if isinstance(theirs, str):
            theirs = self.prepared(theirs, folder / BASELINE if resume else None)  # type: ignore[assignment]
        settings: dict[str, Any] = {
            "baseline": "main", "config": CHANGED, "metric": None, "design": "pocock", "meter_name": "auto",
            "command": ("perjoule", "gate", "--sequential"),
        }  # fmt: skip
        request = GateRequest(**settings | changes)
        ours = self.prepared(candidate, folder if resume else None)
        verdict, _ = gate_until_verdict(ours, theirs, request, folder, told, resume=resume)  # type: ignore[arg-type]
        return verdict, told.messages


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_it_stops_at_a_pass_and_stores_its_looks(world: World) -> None:
    world.suite("pr", 1.001)
    verdict, told = world.gate("pr")
    out = world.folder / "out"
    rows, plan = read_rows(out), read_plan(out)
    assert plan is not None
    assert verdict.verdict == rows[-1].outcome == "pass"
    assert plan.prompts == (3, 6, 9, 12, 18, 24)
    assert verdict.stop is not None
    assert verdict.stop.prompts == rows[-1].prompts < PROMPTS
    ours, theirs = load_run(out), load_run(out / BASELINE)
    for run in (ours, theirs):  # two cells
        assert len(run.trials) == run.planned_trials == 2 * verdict.stop.prompts
        assert set(run.windows["prompt_ids"].explode()) == plan.until(verdict.stop.look)
        assert len(run.scores) == 2 * verdict.stop.prompts
    assert verdict.stop.energy_j == pytest.approx(float(sum(r.windows["energy_j"].sum() for r in (ours, theirs))))
    assert replay(out).looks == tuple(rows)
    (line,) = [message for message in told if message.startswith("look 1 of 6: 3 prompts, energy ")]
    assert "J (12% of the plan): " in line


def test_a_clear_change_fails_at_the_first_look(world: World) -> None:
    world.suite("pr", 1.12)
    world.sd = 0.001  # three windows and six tests need a clear difference
    verdict, _ = world.gate("pr")
    assert (verdict.verdict, verdict.exit_code) == ("fail", 1)
    assert len(read_rows(world.folder / "out")) == 1
    assert verdict.energy.change.value == pytest.approx(0.12, abs=0.02)


def test_the_sides_take_turns_with_the_same_prompts(world: World) -> None:
    world.suite("pr", 1.12)
    world.gate("pr")
    pairs = list(zip(world.calls[::2], world.calls[1::2], strict=True))
    assert all(a[1:] == b[1:] for a, b in pairs)
    assert [a[0] for a, _ in pairs] == [1.0, 1.12] * (len(pairs) // 2)
    assert [b[0] for _, b in pairs] == [1.12, 1.0] * (len(pairs) // 2)


@pytest.mark.parametrize("at", [2, 14])
def test_an_interrupted_gate_goes_on_to_the_same_looks(world: World, at: int) -> None:
    world.suite("pr", 1.035)
    world.sd = 0.02
    whole, _ = world.gate("pr", out="whole")
    assert len(read_rows(world.folder / "whole")) > 1
    world.calls.clear()
    world.interrupted_at = at
    with pytest.raises(Interrupted, match=r"continue with: perjoule gate --sequential --out .*out --resume"):
        world.gate("pr")
    done = len(load_run(world.folder / "out").trials) + len(load_run(world.folder / "out" / BASELINE).trials)
    assert done == at - 1
    world.calls.clear()
    world.interrupted_at = 0
    resumed, _ = world.gate("pr", resume=True)
    assert resumed.verdict == whole.verdict
    before, after = (read_rows(world.folder / name) for name in ("whole", "out"))
    assert [(row.look, row.outcome, row.prompts) for row in before] == [(r.look, r.outcome, r.prompts) for r in after]
    for old, new in zip(before, after, strict=True):
        assert new.energy.value == pytest.approx(old.energy.value, rel=1e-9)
        assert new.energy_j == pytest.approx(old.energy_j, rel=1e-9)
    # a finished gate is only judged again
    world.calls.clear()
    again, _ = world.gate("pr", resume=True)
    assert (again.verdict, world.calls) == (resumed.verdict, [])


def test_a_finished_gate_is_not_scored_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, scores move in their last digits with the images that are scored together."""
    batches: list[int] = []
    score = Lsnr.score

    def moving(self: Lsnr, images: ImageSet, on_progress: Any) -> list[Score]:
        batches.append(len(images.image_ids))
        return [
            replace(s, value=None if s.value is None else s.value * (1 + 1e-8 * len(batches)))
            for s in score(self, images, on_progress)
        ]

    monkeypatch.setattr(Lsnr, "score", moving)
    world.suite("pr", 1.001)
    verdict, told = world.gate("pr")
    assert not any("scoring continues" in message for message in told)  # nothing was interrupted
    out = world.folder / "out"
    before, count = (out / "scores.parquet").read_bytes(), len(batches)
    again, _ = world.gate("pr", resume=True)
    assert again == verdict
    assert ((out / "scores.parquet").read_bytes(), len(batches)) == (before, count)
    assert replay(out).differences == ()
    pipeline.score(load_run(out), world.prepared("pr").metrics, Quiet())  # by hand
    assert (out / "scores.parquet").read_bytes() != before
    assert replay(out).differences == ()


def test_a_start_that_was_cut_off_before_its_plan_goes_on(world: World) -> None:
    world.suite("pr", 1.001)
    world.gate("pr", out="first")
    stored = load_run(world.folder / "first" / BASELINE)
    world.calls.clear()
    world.interrupted_at = 1
    with pytest.raises(Interrupted):
        world.gate("pr", stored)
    out = world.folder / "out"
    (out / PLAN).unlink()
    shutil.rmtree(out / BASELINE)
    world.interrupted_at = 0
    verdict, _ = world.gate("pr", stored, resume=True)
    assert verdict.verdict == "pass"
    assert replay(out).differences == ()


def test_a_gate_must_not_change_while_it_looks(world: World) -> None:
    world.suite("pr", 1.035)
    world.interrupted_at = 14
    with pytest.raises(Interrupted):
        world.gate("pr")
    for changes, words in (
        (
            {"config": GateConfig(margin_energy=0.1, margin_quality=0.4, change=("guidance",))},
            r"be resumed: margin_energy: not given and 0\.1; margin_quality: 0\.5 and 0\.4: use the same command",
        ),
        ({"design": "obrien-fleming"}, "design differs from the beginning: pocock and obrien-fleming"),
    ):
        with pytest.raises(UsageError, match=words):
            world.gate("pr", resume=True, **changes)
    with pytest.raises(UsageError, match="exists already"):
        world.gate("pr")


def test_a_stored_baseline_is_copied_and_not_measured_again(world: World) -> None:
    world.suite("pr", 1.001)
    world.gate("pr", out="first")
    stored = load_run(world.folder / "first" / BASELINE)
    prompts = len(set(stored.windows["prompt_ids"].explode()))
    world.calls.clear()
    config = GateConfig(margin_quality=0.5, change=("guidance",), mode="stored", session_sd=0.001)
    verdict, told = world.gate("pr", stored, config=config)
    assert verdict.verdict == "pass"
    assert {call[0] for call in world.calls} == {1.001}
    assert verdict.stop is not None
    assert verdict.stop.prompts_planned == prompts  # no more than the baseline has
    assert not (world.folder / "out" / BASELINE / "trials.jsonl").exists()
    assert replay(world.folder / "out").differences == ()
    assert any("against main: looks after" in message for message in told)


def test_a_plain_gate_of_a_stopped_run_knows_its_looks(world: World) -> None:
    world.suite("pr", 1.001)
    verdict, _ = world.gate("pr")
    out = world.folder / "out"
    plain = gate(load_run(out / BASELINE), load_run(out), config=CHANGED)
    assert (plain.verdict, plain.energy.change) == (verdict.verdict, verdict.energy.change)
    assert "measured until a verdict" in plain.notes[0]


@pytest.mark.parametrize("stored", [False, True])
def test_a_step_count_that_is_the_change_under_test_is_judged(world: World, stored: bool) -> None:
    world.suite("main", 1.0, **{"steps = [1, 2]": "steps = [2]"})
    world.suite("pr", 1.0, **{"steps = [1, 2]": "steps = [3]"})
    config = replace(CHANGED, change=("steps",))
    baseline: str | Run = "main"
    if stored:
        world.gate("main", out="first", config=config)
        baseline = load_run(world.folder / "first" / BASELINE)
        world.calls.clear()
        config = replace(config, mode="stored", session_sd=0.001)
    verdict, _ = world.gate("pr", baseline, config=config)
    assert verdict.verdict == "pass"
    assert any("v: 2 steps in the baseline, 3 in the candidate" in note for note in verdict.notes)
    ours = load_run(world.folder / "out")
    assert set(ours.windows["cell_id"]) == {"v-003"}
    if not stored:  # each prompt on both sides, one after the other
        assert all(a == b for a, b in zip(world.calls[::2], world.calls[1::2], strict=True))
        theirs = load_run(world.folder / "out" / BASELINE)
        assert set(theirs.windows["prompt_ids"].explode()) == set(ours.windows["prompt_ids"].explode())
    assert replay(world.folder / "out").differences == ()


class TestRefused:
    """Before anything is measured."""

    @pytest.fixture(autouse=True)
    def _nothing_is_drawn(self, world: World) -> Iterator[None]:
        yield
        assert not [call for call in world.calls if len(call) > 1]
        assert not (world.folder / "out").exists()

    def test_a_change_that_is_not_declared(self, world: World) -> None:
        world.suite("pr", 1.5)
        with pytest.raises(EvidenceError, match=r"nothing was measured.*variants\.v\.guidance: 1\.0 and 1\.5"):
            world.gate("pr", config=GateConfig(margin_quality=0.5))

    def test_other_prompts(self, world: World) -> None:
        (world.folder / "other.txt").write_text("a dog\na fox\n")
        world.suite("pr", 1.0, **{"prompts.txt": "other.txt"})
        with pytest.raises(EvidenceError, match="different prompts"):
            world.gate("pr")

    def test_another_suite(self, world: World) -> None:
        world.suite("pr", 1.0, **{"steps = [1, 2]": "steps = [1]"})
        with pytest.raises(EvidenceError, match=r"does not plan: v-002: use the suite .* measured with$"):
            world.gate("pr")

    def test_another_step_count_that_is_not_declared(self, world: World) -> None:
        world.suite("main", 1.0, **{"steps = [1, 2]": "steps = [2]"})
        world.suite("pr", 1.0, **{"steps = [1, 2]": "steps = [3]"})
        with pytest.raises(EvidenceError, match=r"does not plan: v-002: .* add --change steps$"):
            world.gate("pr")

    def test_a_margin_that_a_growing_baseline_would_decide(self, world: World) -> None:
        resolvable = {
            "seeds = [1]": "seeds = [1, 2]",
            'names = ["lsnr"]': 'names = ["lsnr"]\nmargins.lsnr = "resolvable"',
        }
        suite = world.suite("pr", 1.0, **resolvable)
        with pytest.raises(UsageError) as refused:
            world.gate("pr", config=GateConfig(change=("guidance",)))
        number = re.search(r"`(margins\.lsnr = [\d.]+)`, under \[metrics\] in .*pr\.toml", str(refused.value))
        assert number is not None
        suite.write_text(suite.read_text().replace('margins.lsnr = "resolvable"', number[1]))
        assert f"margins.lsnr = {world.prepared('pr').suite.metrics.margins['lsnr']}" == number[1]

    def test_a_metric_without_a_margin(self, world: World) -> None:
        world.suite("pr", 1.0)
        with pytest.raises(UsageError, match="--margin-quality"):
            world.gate("pr", config=GateConfig(change=("guidance",)))


def test_a_margin_that_the_prompts_cannot_resolve(world: World) -> None:
    world.suite("pr", 1.0001)
    world.sd = 1.0
    verdict, _ = world.gate("pr")
    row = read_rows(world.folder / "out")[-1]
    assert (verdict.verdict, row.outcome) == ("inconclusive", "unresolvable")
    assert re.search(r"margin on energy \(0\.05\) .* 24 planned prompts .* about \d+ prompts would", row.reason)
    assert verdict.reasons[0] == row.reason


def test_a_run_without_looks_is_not_resumed_as_a_gate(world: World) -> None:
    world.suite("pr", 1.12)
    world.gate("pr")
    (world.folder / "out" / PLAN).unlink()
    (world.folder / "out" / LOOKS).unlink()
    with pytest.raises(UsageError, match="not the run of a sequential gate"):
        world.gate("pr", resume=True)


def test_trials_of_cells_that_only_one_side_has_are_done_alone(world: World) -> None:
    suite = world.suite("pr", 1.0, **{"steps = [1, 2]": "steps = [1, 2, 3]"})
    ours, theirs = prepare(str(suite), 2), prepare(str(world.folder / "main.toml"), 2)
    turns = [(side, a.trial_id) for side, a in in_turn(make_plan(ours.suite, ours.prompts), theirs.plan, {})]
    assert len(turns) == 6 + 4
    assert {trial for side, trial in turns if side == 1} == {a.trial_id for a in theirs.plan}
    assert {trial for side, trial in turns if side == 0} == {a.trial_id for a in ours.plan}
