"""The shipped predictor on a made-up ladder of its own step counts, next to an arm that the run has drawn with it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import polars as pl
import pytest
from tests.support.ladders import drawn_run
from tests.support.work import work_of
from typer.testing import CliRunner

from perjoule.errors import EvidenceError, SuiteError, UnknownNameError, UsageError
from perjoule.runs.directory import Run, load_run
from perjoule.types import Metrics, Prompt, PromptSource, Protocol, Suite, Variant
from perjoule_suites.budgetfusion import StepPredictor, candidates, study
from perjoule_suites.budgetfusion.candidates import Candidates, default_levels, with_candidates
from perjoule_suites.budgetfusion.commands import app
from perjoule_suites.budgetfusion.predictor import read_config
from perjoule_suites.budgetfusion.records import evaluate_schema
from perjoule_suites.budgetfusion.replay import Arms, arms_of
from perjoule_suites.budgetfusion.validation import validations

pytestmark = pytest.mark.slow

SOURCE = "builtin:steps-tiny"
CONFIG = read_config(SOURCE)
LEVELS = (8.0, 60.0)
PROMPTS = tuple(
    Prompt(
        prompt_id=f"{i:02d}",
        text=f"a large {pattern}{colour} {shape} on a {ground} ground",
        category="striped" if pattern else "plain",
    )
    for i, (pattern, colour, shape, ground) in enumerate(
        (pattern, colour, shape, ground)
        for pattern in ("", "striped ")
        for colour, shape in (("red", "circle"), ("blue", "star"), ("pink", "ring"))
        for ground in ("white", "grey", "black")
    )
)
SUITE = Suite(
    name="ladder",
    title="A ladder",
    description="",
    prompts=PromptSource(source="x"),
    metrics=Metrics(primary="iclip", names=("iclip", "scene")),
    protocol=Protocol(seeds=(1,), batch_size=1, idle_s=0.0),
    variants=(
        Variant(name="ladder", model=CONFIG.model, steps=CONFIG.grid),
        Variant(
            name="bf", model=CONFIG.model, family="ladder", role="predicted", policy="budgetfusion", levels=LEVELS,
            policy_args={"predictor": SOURCE, "metric": "iclip"},
        ),
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def predictor() -> StepPredictor:
    return StepPredictor.from_pretrained(SOURCE)


@pytest.fixture(scope="module", autouse=True)
def one_reading(predictor: StepPredictor) -> Any:
    """The text encoder is loaded once."""
    loaded = StepPredictor.from_pretrained
    with pytest.MonkeyPatch.context() as patch:
        known = lambda source, **more: predictor if source == SOURCE else loaded(source, **more)  # noqa: E731
        patch.setattr(StepPredictor, "from_pretrained", known)
        patch.setattr(study, "RESAMPLES", 100)
        yield


def draw(path: Path, predictor: StepPredictor, **more: Any) -> Run:
    texts = [prompt.text for prompt in PROMPTS]
    steps = {
        level: dict(zip(texts, predictor.with_rule("equal-marginal", "iclip", level).steps_for(texts), strict=True))
        for level in LEVELS
    }
    need = {text: 1.0 + steps[LEVELS[-1]][text] / 2 for text in texts}

    def score(prompt: Prompt, seed: int, n: int) -> float:
        return float(1 - np.exp(-n / need[prompt.text]))

    settings: dict[str, Any] = {
        "steps_of": lambda cell, prompt: steps[cell.level][prompt.text],
        "energy_j": lambda n: 1.0 + 0.5 * n,
        "qualities": {"iclip": score, "scene": lambda prompt, seed, n: 1 - 1 / (1 + n)},
        "digests": {CONFIG.model: CONFIG.model_digest},
    }
    return drawn_run(path, SUITE, PROMPTS, **settings | more)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, predictor: StepPredictor) -> Run:
    return draw(tmp_path_factory.mktemp("ladder") / "run", predictor, work=work_of)


def replayed(run: Run, **settings: Any) -> Arms:
    return with_candidates(arms_of(run), Candidates(predictors=(SOURCE,), **settings), ("iclip",))


def test_a_replayed_arm_is_the_drawn_arm(run: Run) -> None:
    arms = replayed(run, levels=LEVELS).adaptive
    drawn, again = arms["bf"], arms["steps-tiny equal-marginal iclip"]
    assert again.levels == drawn.levels
    assert np.array_equal(again.steps, drawn.steps)
    for metric in ("iclip", "scene"):
        assert np.array_equal(again.quality[metric], drawn.quality[metric])
    (check,) = validations(arms_of(run))
    assert (check.arm, check.ladder, check.images) == ("bf", "ladder", len(PROMPTS) * 2)
    assert (check.same_steps, check.identical, check.reason) == (1.0, 1.0, None)
    assert {d.largest for d in check.scores.values()} == {0.0}


def test_other_steps_than_those_predicted_are_noticed(run: Run, tmp_path: Path, predictor: StepPredictor) -> None:
    changed = draw(tmp_path / "run", predictor, steps_of=lambda cell, prompt: CONFIG.grid[-1])
    (check,) = validations(arms_of(changed))
    assert check.same_steps is not None
    assert check.same_steps < 0.9
    assert check.identical == 1.0


def test_controls_know_less(run: Run) -> None:
    arms = replayed(run).adaptive
    names = [name for name in arms if name != "bf"]
    assert names == [
        "steps-tiny equal-marginal iclip",
        "steps-tiny equal-marginal iclip, length only",
        "steps-tiny equal-marginal iclip, mean curve",
        "steps-tiny equal-marginal iclip, table of kinds",
    ]
    assert [arms[name].role for name in names] == ["predicted", "control", "control", "control"]
    mean, table = arms[names[2]], arms[names[3]]
    assert (np.ptp(mean.steps, axis=(0, 1)) == 0).all()
    # the table has the other half's mean of a kind: two choices for each of two kinds at most
    assert all(len(np.unique(table.steps[..., level])) <= 4 for level in range(len(table.levels)))
    assert all(arms[name].levels == mean.levels for name in names)


def test_a_sweep_spends_about_what_the_rungs_cost(run: Run, predictor: StepPredictor) -> None:
    known = predictor.calibration.forecast
    prices = default_levels("equal-marginal", "iclip", known)
    assert list(prices) == sorted(prices)
    rule = candidates._Setting(rule="equal-marginal", metric="iclip").at(prices[2])
    spent = known.energy_j[rule.choose(known, predictor.calibration)].mean()
    assert known.energy_j[0] < spent < known.energy_j[-1]
    budgets = default_levels("energy-budget", "iclip", known)
    assert len(budgets) == candidates.SWEEP
    assert known.energy_j[0] < min(budgets) < max(budgets) < known.energy_j[-1]
    with pytest.raises(UsageError, match="give the floor with --level"):
        default_levels("quality-floor", "iclip", known)


def test_combinations_are_swept_and_judged_on_development_prompts(run: Run) -> None:
    arms = replayed(run, rules=("plateau",), combine=("max", "median"), metrics=("iclip", "scene")).adaptive
    strict = arms["steps-tiny plateau max of iclip, scene"]
    median = arms["steps-tiny plateau median of iclip, scene"]
    assert strict.levels == candidates.TOLERANCES
    assert (strict.steps >= median.steps).all()
    assert strict.development is not None
    means = [mean for mean, _ in strict.development]
    assert means == sorted(means, reverse=True)  # the more is tolerated, the fewer steps
    assert set(strict.development[0][1]) == set(CONFIG.metrics)


def test_the_decision_has_its_share_of_the_operations(run: Run) -> None:
    arms = replayed(run, levels=(8.0,))
    cost = arms.costs["ladder"]
    # 4.1 GFLOP at 0 steps, and 1 for each step
    assert cost.origin == "floating-point operations"
    assert cost.base_steps == pytest.approx(4.1)
    (decision_j,) = arms.adaptive["steps-tiny equal-marginal iclip"].decision_j
    assert 0 < decision_j < 0.1 * cost.step_j


def test_steps_that_the_ladder_lacks_are_not_chosen(run: Run) -> None:
    fewer = replace(run.suite.variants[0], steps=CONFIG.grid[::3])
    arms = arms_of(run)
    ladder = arms.ladders["ladder"]
    kept = [ladder.rungs.index(n) for n in fewer.steps]
    part = replace(
        ladder, levels=tuple(map(float, fewer.steps)), cells=tuple(ladder.cells[i] for i in kept),
        steps=ladder.steps[..., kept], quality={m: q[..., kept] for m, q in ladder.quality.items()},
    )  # fmt: skip
    again = with_candidates(replace(arms, ladders={"ladder": part}), Candidates(predictors=(SOURCE,)), ("iclip",))
    assert set(np.unique(again.adaptive["steps-tiny equal-marginal iclip"].steps)) <= set(fewer.steps)
    one = replace(part, levels=(997.0,), cells=part.cells[:1], steps=part.steps[..., :1])
    with pytest.raises(EvidenceError, match=r"chooses from .* steps, but ladder ladder has 997"):
        with_candidates(replace(arms, ladders={"ladder": one}), Candidates(predictors=(SOURCE,)), ("iclip",))


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        (
            {"metrics": ("iklip",)},
            UnknownNameError,
            "--rule-metric: unknown predicted metric 'iklip': .*known: .*iclip",
        ),
        ({"rules": ("plato",)}, UnknownNameError, "--rule: unknown rule 'plato': did you mean 'plateau'"),
        ({"rules": ("plateau",), "combine": ("mode",)}, UnknownNameError, "unknown combination 'mode'"),
        ({"combine": ("mean",)}, UsageError, "add --rule plateau"),
        ({"rules": ("plateau", "equal-marginal"), "levels": (0.1,)}, UsageError, "--level belongs to one rule"),
        ({"rules": ("plateau",), "levels": (2.0,)}, SuiteError, "plateau max of all, level: plateau level 2"),
    ],
)
def test_arguments_that_cannot_be(run: Run, settings: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        replayed(run, **settings)


def test_a_predictor_of_another_pipeline_is_refused(run: Run, tmp_path: Path, predictor: StepPredictor) -> None:
    with pytest.raises(EvidenceError, match="looks at the first evaluations"):
        with_candidates(arms_of(run), Candidates(predictors=("builtin:steps-tiny-peek2",)), ("iclip",))
    other = draw(tmp_path / "run", predictor, digests={CONFIG.model: "another"})
    with pytest.raises(EvidenceError, match=r"but ladder ladder was drawn by .* train a predictor for it"):
        replayed(other)


def test_the_command_prints_what_its_schema_says(run: Run) -> None:
    arguments = ["evaluate", str(run.path), "--predictor", SOURCE, "--metric", "iclip", "--metric", "scene"]

    def call(*more: str) -> str:
        return CliRunner().invoke(app, [*arguments, *more], catch_exceptions=False, standalone_mode=False).stdout

    found = json.loads(call("--rule", "quality-floor", "--level", "0.5", "--miss-rate", "0.4", "--json"))
    jsonschema.validate(found, evaluate_schema())
    arm = next(arm for arm in found["arms"] if arm["arm"] == "steps-tiny quality-floor iclip")
    assert arm["levels"][0]["promised_miss_rate"] == 0.4
    assert {row["metric"] for row in found["claims"]} == {"iclip", "scene"}
    printed = call("--base-steps", "2")
    assert "base by given" in printed
    assert "100.0% of the steps predicted again" in printed
    savings = [line for line in printed.splitlines() if "less energy" in line]
    assert savings
    assert all(" at iclip " in line or " at scene " in line for line in savings)


def test_incomplete_runs_have_gaps_and_no_wrong_steps(run: Run, tmp_path: Path) -> None:
    """Every other window of the drawn arm is missing."""
    shutil.copytree(run.path, tmp_path / "run")
    kept = run.trials.filter((pl.col("variant") == "ladder") | (pl.int_range(pl.len()) % 2 == 0))
    file = tmp_path / "run" / "trials.jsonl"
    rows = [row for row in file.read_text().splitlines() if json.loads(row)["trial_id"] in set(kept["trial_id"])]
    file.write_text("\n".join(rows) + "\n")
    images = pl.read_parquet(tmp_path / "run" / "images.parquet")
    images.join(kept, on="trial_id", how="semi").write_parquet(tmp_path / "run" / "images.parquet")
    part, whole = (arms_of(one).adaptive["bf"] for one in (load_run(tmp_path / "run"), run))
    known = np.isfinite(part.steps)
    assert 0 < known.sum() < known.size
    assert np.array_equal(part.steps[known], whole.steps[known])
