from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.perjoule_suites.router.conftest import known_router
from tests.support.observers import choice_table
from tests.support.routes import ARMS, route_run, route_table, with_routed
from tests.support.tables_of_runs import imported, rewrite
from typer.testing import CliRunner

from perjoule.errors import EvidenceError, UnknownNameError, UsageError
from perjoule.people.metric import RunWithPeople, with_people
from perjoule.runs.directory import Run
from perjoule_suites.router.arms import ArmScores, read_arms
from perjoule_suites.router.as_run import routed_cells
from perjoule_suites.router.commands import app
from perjoule_suites.router.evaluation import evaluate
from perjoule_suites.router.printing import evaluation_lines
from perjoule_suites.router.promises import check_promises
from perjoule_suites.router.records import Evaluation, PolicyPoint, QualityPoint
from perjoule_suites.router.router import Router

FEW = 400  # resamples


@pytest.fixture(scope="module")
def evaluation(test_run: Run, router: Router) -> Evaluation:
    return evaluate(test_run, router, name="router", resamples=FEW)


def policies(point: QualityPoint) -> dict[str, PolicyPoint]:
    return {policy.policy: policy for policy in point.policies}


def saving(point: QualityPoint, policy: str) -> float:
    estimate = policies(point)[policy].saving
    assert estimate is not None
    assert estimate.value is not None
    return estimate.value


def test_the_closed_form_halfway(test_run: Run, router: Router) -> None:
    """At .775 the mixture is half and half, 4.5 J; a router that knows the kinds needs 2.75 J."""
    point = evaluate(test_run, router, name="r", at_quality=0.775, resamples=FEW).points[0]
    assert point.mixture_j_per_image == pytest.approx(4.5, abs=0.1)
    assert set(point.mixture) == {"student-002", "teacher-008"}
    assert saving(point, "router") == pytest.approx(1 - 2.75 / 4.5, abs=0.02)
    assert policies(point)["router"].quality == pytest.approx(0.775)
    interval = policies(point)["router"].saving
    assert interval is not None
    assert interval.low is not None
    assert 0.3 < interval.low < 1 - 2.75 / 4.5 < (interval.high or 0)


def test_controls_save_nothing_and_bounds_more(evaluation: Evaluation) -> None:
    for point in evaluation.points[:4]:
        own = saving(point, "router")
        assert own > 0.2
        assert saving(point, "shuffled") == pytest.approx(0, abs=1e-6)
        assert saving(point, "mean curve") == pytest.approx(0, abs=1e-6)
        assert saving(point, "length only") == pytest.approx(0, abs=0.01)
        assert saving(point, "table of kinds") == pytest.approx(own, abs=0.03)  # the kinds are all there is to know
        assert saving(point, "cross-fitted") == pytest.approx(own, abs=0.06)
        assert saving(point, "prompt-level bound") == pytest.approx(own, abs=0.06)
        assert saving(point, "per-image bound") > own
        assert point.captured is not None
        assert point.captured.value == pytest.approx(1, abs=0.15)


def test_single_arms(evaluation: Evaluation) -> None:
    arms = {arm.cell_id: arm for arm in evaluation.arms}
    assert [arm.cell_id for arm in evaluation.arms] == ["student-002", "teacher-002", "teacher-008"]
    assert arms["student-002"].mixture_saving == pytest.approx(0)
    assert arms["teacher-008"].mixture_saving == pytest.approx(0)
    # .55 costs 2.5 J, more than the student's .65 at 1 J
    assert arms["teacher-002"].mixture_saving == pytest.approx(0.6, abs=0.01)


def test_the_floor_of_the_router(evaluation: Evaluation) -> None:
    floor = evaluation.floor
    assert floor is not None
    assert (floor.floor, floor.promised) == (0.75, 0.1)
    assert floor.shares == {"student-002": 0.5, "teacher-002": 0.0, "teacher-008": 0.5}
    assert floor.miss_rate.value is not None
    assert floor.miss_rate.value < 0.1
    assert floor.point.energy_j_per_image == pytest.approx(4.5, abs=0.1)
    assert [check.promised for check in evaluation.promises] == [0.05, 0.1, 0.2]
    for check in evaluation.promises:
        assert check.miss_rate is not None
        assert check.standard_error is not None
        assert check.miss_rate <= check.promised + check.standard_error


def test_promises_that_only_lucky_splits_allow_are_named(test_run: Run, router: Router) -> None:
    """The best arm misses 10 % of the images at random: few splits can promise 10 %, by luck."""
    images = np.where(np.random.default_rng(0).uniform(size=(120, 4, 1)) < 0.1, 0.0, 1.0)
    quality = np.repeat(images, len(router.prices), axis=2)
    forecast = np.zeros((120, len(router.prices)))
    checks = {check.promised: check for check in check_promises(router, forecast, quality)}
    assert checks[0.2].splits == 200
    assert checks[0.2].reason is None
    lucky = checks[0.1]
    assert 0 < lucky.splits < 200
    assert lucky.miss_rate is not None
    assert lucky.miss_rate > 0.1
    assert lucky.reason is not None
    assert lucky.reason.endswith(
        f"so {200 - lucky.splits} of 200 splits cannot promise this, and the others can by luck"
    )


def test_promises_are_kept_over_200_splits(test_run: Run, router: Router) -> None:
    """A floor in the middle of the hard prompts' scores, so that every promise has to be paid for."""
    chance = np.random.default_rng(0)
    quality = 0.6 + 0.1 * chance.normal(size=(400, 1, 3)) + [0.0, 0.1, 0.35]
    images = quality + 0.05 * chance.normal(size=(400, 4, 3))
    forecast = quality[:, 0] + 0.05 * chance.normal(size=(400, 3))
    checks = check_promises(router.with_rule("quality-floor", 0.65, 0.2), forecast, images)
    for check in checks:
        assert check.splits == 200
        assert check.miss_rate is not None
        assert check.miss_rate == pytest.approx(check.promised, abs=0.01)


def test_few_seeds_have_no_prompt_level_bound(tmp_path: Path, router: Router) -> None:
    run = route_run(tmp_path, "few", 60, 200, seeds=2)
    point = evaluate(run, router, name="r", at_quality=0.8, resamples=FEW).points[0]
    assert "prompt-level bound" not in policies(point)
    assert point.captured is None
    assert point.captured_reason == "the prompt-level bound needs 8 seeds, the run has 2"


def test_an_arm_that_is_not_the_routers_is_an_opponent_all_the_same(tmp_path: Path, dev: Run, router: Router) -> None:
    """A cheap good arm that the router does not know must lower what it saves."""
    scores = read_arms(dev)
    two = known_router(scores.of([1, 2]), [[0.6, 0.9], [0.5, 0.9]], kinds=())
    run = route_run(tmp_path, "run", 60, 200)
    evaluation = evaluate(run, two, name="r", at_quality=0.85, resamples=FEW)
    assert [arm.routed for arm in evaluation.arms] == [False, True, True]
    assert saving(evaluation.points[0], "router") < 0


def test_joules_are_those_of_the_run(tmp_path: Path, router: Router) -> None:
    run = route_run(tmp_path, "run", 60, 200, price=3.0, device="Board B")
    evaluation = evaluate(run, router, name="r", at_quality=0.775, resamples=FEW)
    assert evaluation.device == "Board B"
    assert evaluation.points[0].mixture_j_per_image == pytest.approx(3 * 4.5, abs=0.4)
    assert saving(evaluation.points[0], "router") == pytest.approx(1 - 2.75 / 4.5, abs=0.03)


def test_counted_joules_are_drawn_by_prompts(tmp_path: Path, router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_windows_of_four(run: Run, metric: str | None) -> ArmScores:
        first = np.repeat(np.arange(0, 60, 4), 4)
        return replace(read_arms(run, metric), groups=np.tile(first[:, None], (1, 3)))

    monkeypatch.setattr("perjoule_suites.router.evaluation.read_arms", in_windows_of_four)
    run = route_run(tmp_path, "run", 60, 200)
    for is_counted, units in ((False, 15), (True, 60)):
        vars(run)["is_counted"] = is_counted
        point = evaluate(run, router, name="r", at_quality=0.8, resamples=FEW).points[0]
        found = policies(point)["router"].saving
        assert found is not None
        assert found.n == units


def test_the_reason_for_no_own_cost(evaluation: Evaluation) -> None:
    assert evaluation.own_cost.energy_j_per_image is None
    assert "work.jsonl" in (evaluation.own_cost.reason or "")


class TestBadInput:
    def test_prompts_that_the_router_has_seen(self, dev: Run, router: Router) -> None:
        with pytest.raises(EvidenceError, match=r"60 prompts were used to train or calibrate"):
            evaluate(dev, router, name="r")

    def test_another_metric(self, test_run: Run, router: Router) -> None:
        with pytest.raises(UnknownNameError, match=r"metric of the run 'scene'.*known: q"):
            evaluate(test_run, router, name="r", metric="scene")

    def test_a_run_without_an_arm(self, tmp_path: Path, test_run: Run, router: Router) -> None:
        arms = router.config.arms
        other = replace(arms[0], cell_id="student-004")
        changed = replace(router, config=replace(router.config, arms=(other, *arms[1:])))
        with pytest.raises(EvidenceError, match=r"other arms than the router: student-004 are missing; it has"):
            evaluate(test_run, changed, name="r")

    def test_an_arm_of_other_settings(self, test_run: Run, router: Router) -> None:
        arms = router.config.arms
        other = replace(arms[0], variant=replace(arms[0].variant, guidance=3.0))
        changed = replace(router, config=replace(router.config, arms=(other, *arms[1:])))
        with pytest.raises(EvidenceError, match=r"student-002: guidance is 7\.5, but the router was trained with 3\.0"):
            evaluate(test_run, changed, name="r")

    def test_an_arm_of_other_weights(self, tmp_path: Path, router: Router) -> None:
        run = route_run(tmp_path, "run", 60, 200)
        run = rewrite(run, "environment.json", lambda e: e["models"].update(imported="b" * 64))
        arms = tuple(replace(arm, digest="a" * 64) for arm in router.config.arms)
        changed = replace(router, config=replace(router.config, arms=arms))
        with pytest.raises(EvidenceError, match=r"digest of the weights is 'bbbbbbbbbbbb', but .* 'aaaaaaaaaaaa'"):
            evaluate(run, changed, name="r")

    def test_a_quality_out_of_reach(self, test_run: Run, router: Router) -> None:
        with pytest.raises(EvidenceError, match=r"--at-quality 0\.99: fixed arms, .* have means of 0\.6.* to 0\.9"):
            evaluate(test_run, router, name="r", at_quality=0.99)


CELLS = ("student-002", "teacher-002", "teacher-008")


def jod(arm: str, prompt: str) -> float:
    """4 JOD per unit of the metric: every second prompt is hard."""
    easy, hard = next((easy, hard) for (name, steps), (_, easy, hard) in ARMS.items() if arm == f"{name}-{steps:03d}")
    return 4 * (hard if int(prompt[1:]) % 2 else easy)


class TestByObservers:
    @pytest.fixture(scope="class")
    def asked(self, test_run: Run, tmp_path_factory: pytest.TempPathFactory) -> RunWithPeople:
        file = tmp_path_factory.mktemp("asked") / "choices.csv"
        prompts = sorted(test_run.images["prompt_id"].unique())[:80]
        return with_people(test_run, choice_table(file, jod, CELLS, prompts))

    @pytest.fixture(scope="class")
    def judged(self, asked: RunWithPeople, router: Router) -> Evaluation:
        return evaluate(asked, router, name="r", metric=asked.metric, resamples=FEW)

    def test_the_truth_is_found(self, judged: Evaluation) -> None:
        """At half of the way the mixture is half and half, 4.5 J; a router that knows the kinds needs 2.75 J."""
        point = judged.points[0]
        assert point.mixture_j_per_image == pytest.approx(4.5, abs=0.1)
        assert saving(point, "router") == pytest.approx(1 - 2.75 / 4.5, abs=0.04)
        interval = policies(point)["router"].saving
        assert interval is not None
        assert interval.low is not None
        assert 0.2 < interval.low < 1 - 2.75 / 4.5 < (interval.high or 0)
        assert saving(point, "shuffled") == pytest.approx(0, abs=1e-6)
        assert saving(point, "mean curve") == pytest.approx(0, abs=1e-6)

    def test_it_says_who_chose(self, judged: Evaluation) -> None:
        assert (judged.metric, judged.prompts, judged.seeds) == ("simulated-observers", 80, 1)
        assert judged.judges is not None
        assert (judged.judges.provenance, judged.judges.observers) == ("simulated", 12)
        assert judged.judges.answers == 12 * 80 * 3
        assert "12 SIMULATED observers, not people" in evaluation_lines(judged)[1]

    def test_choices_about_one_prompt_are_no_bound(self, judged: Evaluation) -> None:
        for point in judged.points:
            assert not {"cross-fitted", "prompt-level bound", "per-image bound"} & set(policies(point))
            assert (point.captured, point.captured_reason) == (
                None,
                "choices about a single prompt are too few for a bound",
            )
        assert judged.floor is None
        assert judged.floor_reason == "the router's floor is one of q, not of simulated-observers"

    def test_the_command_takes_a_study_and_a_verifier(
        self, asked: RunWithPeople, router: Router, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Router, "from_pretrained", lambda source: router)
        arguments = [str(asked.path), "--router", "r", "--study", str(asked.source), "--at-quality", "0", "--quiet"]
        more = ["--verifier", "q", "--verifier-joules", "0.5"]
        ended = CliRunner().invoke(app, ["evaluate", *arguments, *more, "--json"], catch_exceptions=False)
        printed = json.loads(ended.stdout)
        assert (printed["metric"], printed["judges"]["provenance"]) == ("simulated-observers", "simulated")
        assert (printed["verifier"], printed["verifier_cost"]["method"]) == ("q", "as stated")
        assert printed["points"][0]["policies"][-1]["policy"] == "cascade"
        with pytest.raises(UsageError, match="there is no verifier: give --verifier METRIC too"):
            CliRunner().invoke(app, ["evaluate", *arguments, *more[2:]], catch_exceptions=False)

    def test_what_observers_have_in_common_widens_the_interval(self, asked: RunWithPeople, router: Router) -> None:
        noise = np.random.default_rng(0).normal(0, 0.5, asked.fit.common.shape)
        widths = []
        for common in (np.zeros_like(noise), noise):
            run = replace(asked, fit=replace(asked.fit, common=common))
            at = float(np.mean([run.fit.jod.max(), run.fit.jod.min()]))
            found = evaluate(run, router, name="r", metric=run.metric, at_quality=at, resamples=FEW)
            interval = policies(found.points[0])["router"].saving
            assert interval is not None
            widths.append(float(interval.high or np.inf) - float(interval.low or -np.inf))
        assert widths[1] > 1.5 * widths[0]

    def test_arms_that_nobody_saw_are_named(self, test_run: Run, router: Router, tmp_path: Path) -> None:
        prompts = sorted(test_run.images["prompt_id"].unique())[:20]
        run = with_people(test_run, choice_table(tmp_path / "two.csv", jod, CELLS[:2], prompts))
        with pytest.raises(EvidenceError, match="nobody was asked about teacher-008, which the router can choose"):
            evaluate(run, router, name="r", metric=run.metric)

    def test_a_routed_cell_that_nobody_saw_is_left_out(self, tmp_path: Path) -> None:
        run = imported(with_routed(route_table(40, 200)), tmp_path)
        prompts = sorted(run.images["prompt_id"].unique())
        for cells, count in ((CELLS, 0), ((*CELLS, "routed"), 1)):
            asked = with_people(
                run,
                choice_table(
                    tmp_path / f"{count}.csv", lambda a, p: 0.0 if a == "routed" else jod(a, p), cells, prompts
                ),
            )
            assert len(routed_cells(asked, read_arms(asked, asked.metric), resamples=50)) == count
