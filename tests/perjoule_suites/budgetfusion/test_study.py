from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.support.ladders import drawn_run
from tests.support.observers import choice_table
from typer.testing import CliRunner

from perjoule.errors import EvidenceError, UnknownNameError, UsageError
from perjoule.forecast.nfe import nfe_per_image
from perjoule.people.metric import RunWithPeople, with_people
from perjoule.runs.directory import Run, load_run
from perjoule.statistics.hulls import Hulls
from perjoule.suite.reading import cells_of
from perjoule.types import (
    Cell,
    Metrics,
    Prompt,
    PromptSource,
    Protocol,
    Suite,
    Variant,
)
from perjoule.types.documents import document
from perjoule_suites.budgetfusion import study
from perjoule_suites.budgetfusion.candidates import Candidates, with_candidates
from perjoule_suites.budgetfusion.commands import app
from perjoule_suites.budgetfusion.curves import curves_of
from perjoule_suites.budgetfusion.evaluation_text import lines
from perjoule_suites.budgetfusion.figures import draw_all
from perjoule_suites.budgetfusion.predictor import _folder
from perjoule_suites.budgetfusion.records import Evaluation
from perjoule_suites.budgetfusion.replay import arms_of, has_short_first, replayed
from perjoule_suites.budgetfusion.study import evaluate, metrics_of

pytestmark = pytest.mark.slow

LADDER = (1, 2, 4, 8, 16)
PRICES = (4.0, 10.0, 25.0, 60.0)
BASE_J, STEP_J = 1.0, 0.5
# half of the prompts need four times the steps
PROMPTS = tuple(
    Prompt(prompt_id=f"{i:03d}", text=f"{'hard' if i % 2 else 'easy'} prompt {i}", category="hard" if i % 2 else "easy")
    for i in range(40)
)
ARM = Variant(
    name="bf", model="m", family="ladder", role="predicted", policy="budgetfusion", levels=PRICES,
    policy_args={"predictor": "builtin:steps-tiny", "metric": "q"},
)  # fmt: skip
# the same ladder once more on schedules with a shared start, and an arm that draws on those
SHORT = Variant(
    name="short", model="m", family="ladder", role="control", policy="shared-start", levels=LADDER,
    policy_args={"shared": 2},
)  # fmt: skip
ON_SHORT = replace(ARM, name="bf-short", policy_args=ARM.policy_args | {"shared": 2})
SUITE = Suite(
    name="world",
    title="A world with a known truth",
    description="",
    prompts=PromptSource(source="x"),
    metrics=Metrics(primary="q", names=("q", "even")),
    protocol=Protocol(seeds=(1, 2), batch_size=1, idle_s=0.0),
    variants=(
        Variant(name="ladder", model="m", steps=LADDER),
        ARM,
        replace(ARM, name="dealt", role="control"),
        SHORT,
        ON_SHORT,
    ),
)
PLAIN = replace(SUITE, variants=SUITE.variants[:1], protocol=replace(SUITE.protocol, seeds=tuple(range(8))))


def rate(prompt: Prompt) -> float:
    return 4.0 if prompt.category == "hard" else 1.0


def quality(prompt: Prompt, seed: int, steps: int, noise: float = 0.01) -> float:
    luck = np.random.default_rng([int(prompt.prompt_id), seed, steps]).normal(0, noise)
    return float(1 - np.exp(-steps / rate(prompt)) + luck)


def evenly(prompt: Prompt, seed: int, steps: int) -> float:
    """All prompts gain the same from steps."""
    luck = np.random.default_rng([int(prompt.prompt_id), seed, steps, 1]).normal(0, 0.01)
    return float(np.sqrt(steps) / 5 + luck)


def right_steps(prompt: Prompt, price: float) -> int:
    worth = [price * (1 - np.exp(-n / rate(prompt))) - STEP_J * n for n in LADDER]
    return LADDER[int(np.argmax(worth))]


def steps_of(cell: Cell, prompt: Prompt) -> int:
    wanted = PROMPTS[(int(prompt.prompt_id) + 1) % len(PROMPTS)] if cell.variant.name == "dealt" else prompt
    return int(cell.level or 0) if cell.variant == SHORT else right_steps(wanted, float(cell.level or 0))


draw = partial(
    drawn_run, prompts=PROMPTS, steps_of=steps_of, energy_j=lambda n: BASE_J + STEP_J * n,
    qualities={"q": quality, "even": evenly}, digests={"m": "d"},
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def few_draws() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "RESAMPLES", 300)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return draw(tmp_path_factory.mktemp("study") / "run", SUITE)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return draw(tmp_path_factory.mktemp("plain") / "run", PLAIN)


@pytest.fixture(scope="module")
def found(run: Run) -> dict[str, Any]:
    return document(evaluate(arms_of(run), ("q", "even"), 8))


def named(rows: list[dict[str, Any]], *keys: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    by_key = {tuple(row[key] for key in keys): row for row in rows}
    assert len(by_key) == len(rows)
    return by_key


def test_knowing_the_prompt_saves_and_dealing_at_random_does_not(found: dict[str, Any]) -> None:
    claims = named(found["claims"], "test", "anchor", "metric")
    controls = named(found["controls"], "test", "anchor", "metric", "energy")
    adaptive = claims["bf", "ladder", "q"]
    assert adaptive["saving"]["low"] > 0
    assert adaptive["holds"]
    # 4 and 16 steps for the wrong prompts reach less than 8 steps for all
    assert controls["bf", "bf, shuffled", "q", "by steps"]["reason"].startswith("more than ")
    assert controls["dealt", "ladder", "q", "by steps"]["reason"].startswith("the test does not reach quality ")
    dealt = next(a for a in found["arms"] if a["arm"] == "dealt")
    ten = next(level for level in dealt["levels"] if level["level"] == 10.0)
    assert ten["scores"]["q"]["saving_at_own_quality"]["high"] < 0
    # on other schedules an arm has two ladders to beat: the family's, and the one on its own schedules
    savings = [claims[test, anchor, "q"]["saving"] for test, anchor in (("bf-short", "short"), ("bf-short", "ladder"))]
    assert savings == [adaptive["saving"]] * 2
    assert ("bf", "short", "q") not in claims
    assert controls["short", "ladder", "q", "by steps"]["saving"]["value"] == pytest.approx(0, abs=1e-9)
    assert found["extra_evaluations"] == {"bf": 0.0, "dealt": 0.0, "bf-short": 0.0}
    assert found["provenance"] == ["simulated"]


def test_a_claim_names_its_metric_and_stands_in_the_table_of_all(found: dict[str, Any]) -> None:
    """By `even` nothing can be adapted, so moving steps between prompts costs."""
    claims = named(found["claims"], "test", "anchor", "metric")
    assert {metric for _, _, metric in claims} == {"q", "even"} == set(found["metrics"])
    assert claims["bf", "ladder", "even"]["saving"]["high"] < 0
    assert not any(claims[test, anchor, "even"]["holds"] for test, anchor, metric in claims if metric == "even")
    assert claims["bf", "ladder", "even"]["p_value"] == claims["bf", "ladder", "q"]["p_value"]  # a loss is no claim
    assert all(f" at {claim['metric']} " in row for claim, row in zip(found["claims"], claim_rows(found), strict=True))


def claim_rows(found: dict[str, Any]) -> list[str]:
    from pydantic import TypeAdapter

    content = {key: value for key, value in found.items() if key != "schema"}
    printed = list(lines(TypeAdapter(Evaluation).validate_python(content)))
    start = next(i for i, line in enumerate(printed) if "Holm" in line)
    return printed[start + 1 : start + 1 + len(found["claims"])]


def test_windows_of_one_image_cost_what_their_steps_do(found: dict[str, Any]) -> None:
    (cost,) = found["costs"]
    assert (cost["base_j"], cost["step_j"]) == pytest.approx((BASE_J, STEP_J))
    assert cost["base_steps"] == pytest.approx(BASE_J / STEP_J)
    assert cost["origin"] == "least squares"
    arm = next(a for a in found["arms"] if a["arm"] == "bf")
    for level in arm["levels"]:
        assert level["energy_j_as_run"] == pytest.approx(BASE_J + STEP_J * level["steps_mean"])
        # what is left is the decision: 1 ms at the mean power of the ladder
        power_w = sum(BASE_J + STEP_J * n for n in LADDER) / sum(0.1 * n for n in LADDER)
        assert level["decision_j"] == pytest.approx(0.001 * power_w)
        assert level["energy_j_per_image"] == pytest.approx(level["energy_j_as_run"] + level["decision_j"])
        assert level["saved_against_longest"] == pytest.approx(1 - level["energy_j_per_image"] / 9.0)


def test_a_level_by_hand(found: dict[str, Any]) -> None:
    """Price 10: easy prompts take 4 steps, hard ones 8."""
    arm = next(a for a in found["arms"] if a["arm"] == "bf")
    level = next(level for level in arm["levels"] if level["level"] == 10.0)
    assert level["steps_mean"] == 6.0
    score = level["scores"]["q"]
    assert score["saving_at_own_quality"]["value"] == pytest.approx(0.17, abs=0.05)
    assert score["saving_at_own_quality"]["low"] > 0
    assert score["permutation_p"] == 0.001
    dealt = next(a for a in found["arms"] if a["arm"] == "dealt")
    assert min(level["scores"]["q"]["permutation_p"] for level in dealt["levels"]) == 1.0
    # the paper's measure depends on its origin
    means = {n: np.mean([1 - np.exp(-n / h) for h in (1, 4)]) for n in LADDER}
    uniform = means[4] + (means[8] - means[4]) * (np.log2(6) - 2)
    mine = np.mean([1 - np.exp(-4), 1 - np.exp(-2)])
    by_hand = {n: (mine - means[n]) / (uniform - means[n]) - 1 for n in (1, 2, 4)}
    assert set(score["gain_per_step"]) == set(by_hand)
    for origin, gain in by_hand.items():
        assert score["gain_per_step"][origin] == pytest.approx(gain, rel=0.2)
    assert by_hand[4] > 3 * by_hand[1]


def test_drawn_arms_validate_the_replay(run: Run, found: dict[str, Any], tmp_path: Path) -> None:
    checks = named(found["validation"], "arm")
    assert {check["ladder"] for check in checks.values()} == {"ladder", "short"}
    assert checks["bf-short",]["ladder"] == "short"
    for check in checks.values():
        assert (check["images"], check["identical"]) == (320, 1.0)
        assert check["scores"] == {m: {"mean": 0.0, "largest": 0.0} for m in ("q", "even")}
        assert check["same_steps"] is None
        assert "predicted metric 'q'" in check["reason"]
    # one image with another score and other pixels
    shutil.copytree(run.path, tmp_path / "run")
    cell = pl.col("image_id").str.starts_with("bf-10.007.s1")
    for file, column, value in (("scores", "value", pl.col("value") - 0.4), ("images", "sha256", pl.lit("other"))):
        table = pl.read_parquet(tmp_path / "run" / f"{file}.parquet")
        touched = cell & (pl.col("metric") == "q") if file == "scores" else cell
        assert table.filter(touched).height == 1
        table.with_columns(pl.when(touched).then(value).otherwise(column).alias(column)).write_parquet(
            tmp_path / "run" / f"{file}.parquet"
        )
    again = named(document(evaluate(arms_of(load_run(tmp_path / "run"))))["validation"], "arm")["bf",]
    assert again["identical"] == pytest.approx(319 / 320)
    assert again["scores"]["q"]["largest"] == pytest.approx(-0.4)
    assert again["scores"]["q"]["mean"] == pytest.approx(-0.4 / 320)


def test_other_bases_of_the_joules(run: Run, found: dict[str, Any]) -> None:
    """If nothing but the steps cost, the same steps save more; the table of sensitivity says how much."""
    free = document(evaluate(arms_of(run, base_steps=0.0), ("q",), 8))
    (cost,) = free["costs"]
    assert (cost["base_j"], cost["origin"]) == (0.0, "given")
    # the joules of the whole ladder stay
    assert cost["step_j"] * sum(LADDER) == pytest.approx(sum(BASE_J + STEP_J * n for n in LADDER))
    rows = named([row for row in found["sensitivity"] if row["metric"] == "q"], "test", "anchor", "base_steps")
    savings = {claim["test"]: claim["saving"]["value"] for claim in free["claims"] if claim["anchor"] == "ladder"}
    assert rows["bf", "ladder", 0.0]["saving"] == pytest.approx(savings["bf"], abs=2e-3)
    own = named(found["claims"], "test", "anchor", "metric")["bf", "ladder", "q"]["saving"]["value"]
    assert rows["bf", "ladder", found["costs"][0]["base_steps"]]["saving"] == pytest.approx(own)
    by_base = [row["saving"] for key, row in sorted(rows.items()) if key[:2] == ("bf", "ladder")]
    assert by_base == sorted(by_base, reverse=True)


def test_a_plain_ladder_is_enough(plain: Run) -> None:
    """Eight seeds and no adaptive arm: the kinds are all there is to know, which the prompt-level bound shows."""
    arms = with_candidates(arms_of(plain), Candidates(), ("q",))
    found = document(evaluate(arms, ("q",), 8))
    assert (found["claims"], found["validation"], found["headroom"]) == ([], [], [])
    (table,) = found["controls"]
    assert (table["test"], table["anchor"]) == ("table of kinds equal-marginal q", "ladder")
    assert table["saving"]["low"] > 0
    bounds = named(found["bounds"], "bound")
    savings = {kind: row["saving"]["value"] for (kind,), row in bounds.items()}
    assert {row["seeds"] for row in bounds.values()} == {8}
    assert savings["prompt-level bound"] == pytest.approx(table["saving"]["value"], abs=0.03)
    assert savings["cross-fitted oracle"] <= savings["prompt-level bound"] + 0.01 <= savings["per-image bound"] + 0.01
    printed = "\n".join(lines(evaluate(arms, ("q",), 8)))
    assert "prompt-level bound (8 seeds)" in printed


def test_too_few_seeds_are_named(found: dict[str, Any]) -> None:
    bounds = named(found["bounds"], "ladder", "metric", "bound")
    refused = bounds["ladder", "q", "prompt-level bound"]
    assert refused["saving"]["value"] is None
    assert refused["reason"] == "the prompt-level bound needs 8 seeds per prompt; there are 2"
    assert bounds["ladder", "q", "cross-fitted oracle"]["saving"]["value"] is not None
    # shares of the cross-fitted oracle need four seeds
    assert {share["bound"] for share in found["headroom"]} == {"per-image bound"}
    captured = [(share["test"], share["anchor"]) for share in found["headroom"] if share["metric"] == "q"]
    assert captured == [("bf", "ladder"), ("bf-short", "ladder"), ("bf-short", "short")]


def test_arms_with_a_short_first_step_are_known(tmp_path: Path) -> None:
    named = Variant(name="named", model="m", steps=LADDER, schedule="short-first")
    peeking = replace(ARM, policy="budgetfusion-peek", policy_args={"predictor": "builtin:steps-tiny-peek2"})
    shutil.copytree(_folder("builtin:steps-tiny-peek2"), tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "predictor.json").read_text())
    (tmp_path / "predictor.json").write_text(json.dumps(config | {"peek": 1}))
    once = replace(peeking, policy_args={"predictor": str(tmp_path)})
    assert all(map(has_short_first, (named, SHORT, ON_SHORT, peeking, replace(once, schedule="short-first"))))
    assert not any(map(has_short_first, (ARM, once, Variant(name="own", model="m", steps=LADDER))))


def test_curves_come_back_from_the_run(run: Run) -> None:
    curves = curves_of(run, "ladder")
    assert curves.grid == LADDER
    assert curves.values.shape == (40, 2, 5, 2)
    where = curves.prompts.index("hard prompt 7")
    assert curves.of("q")[where, 1, 3] == pytest.approx(quality(PROMPTS[7], 2, 8))
    assert curves.cost.base_j == pytest.approx(BASE_J)
    assert curves.cost.step_j == pytest.approx(STEP_J)
    assert curves.cost.provenance == "simulated"
    assert curves.collected_j == pytest.approx(run.trials.filter(pl.col("variant") == "ladder")["energy_j"].sum())


def test_curves_that_cannot_be(run: Run, tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="no variant 'laddr' with a fixed ladder; name one with --variant: ladder"):
        curves_of(run, "laddr")
    shutil.copytree(run.path, tmp_path / "run")
    scores = pl.read_parquet(tmp_path / "run" / "scores.parquet")
    holed = scores.with_columns(
        value=pl.when((pl.col("cell_id") == "ladder-004") & (pl.col("metric") == "q"))
        .then(float("nan"))
        .otherwise(pl.col("value"))
    )
    holed.write_parquet(tmp_path / "run" / "scores.parquet")
    with pytest.raises(EvidenceError, match=r"80 scores are missing or NaN, e\.g\. of 'q'"):
        curves_of(load_run(tmp_path / "run"), "ladder")
    scores.filter(pl.col("prompt_id") < "010").write_parquet(tmp_path / "run" / "scores.parquet")
    with pytest.raises(EvidenceError, match=r"missing or NaN|too few"):
        curves_of(load_run(tmp_path / "run"), "ladder")


def test_what_cannot_be_evaluated_is_named(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--at-steps 3: the ladder of .* has 1, 2, 4, 8, 16"):
        evaluate(arms_of(run), ("q",), 3)
    with pytest.raises(UnknownNameError, match=r"unknown scored metric 'iklip': .*known: even, q"):
        metrics_of(run, ("iklip",))
    with pytest.raises(UnknownNameError, match="unknown ladder 'laddr': did you mean 'ladder'"):
        with_candidates(arms_of(run), Candidates(ladders=("laddr",)), ("q",))
    with pytest.raises(UsageError, match="--rule: there is nothing to replay: give --predictor too"):
        Candidates(rules=("plateau",))
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    with pytest.raises(EvidenceError, match="perjoule score"):
        metrics_of(load_run(tmp_path / "run"), ())


@pytest.mark.parametrize("adaptive", [True, False])
def test_figures_are_drawn(run: Run, plain: Run, tmp_path: Path, adaptive: bool) -> None:
    files = draw_all(arms_of(run if adaptive else plain), tmp_path / "figures", "q")
    more = ["study-steps.png", "study-predicted.png"] if adaptive else []
    assert [f.name for f in files] == ["study-curves.png", "study-frontier.png", *more]
    assert all(f.stat().st_size > 5_000 for f in files)


class TestByObservers:
    """Observers who see three units of JOD where `q` has one; nobody was asked about 2 steps and 16 prompts."""

    ASKED = tuple(prompt.prompt_id for prompt in PROMPTS[:24])

    @pytest.fixture(scope="class")
    def asked(self, run: Run, tmp_path_factory: pytest.TempPathFactory) -> RunWithPeople:
        cells = {c.cell_id: c for c in cells_of(run.suite) if c.variant.name in ("ladder", "bf") and c.steps != 2}

        def jod(arm: str, prompt_id: str) -> float:
            prompt, cell = PROMPTS[int(prompt_id)], cells[arm]
            return 3 * quality(prompt, 0, cell.steps or steps_of(cell, prompt), noise=0.0)

        file = tmp_path_factory.mktemp("asked") / "choices.csv"
        return with_people(run, choice_table(file, jod, tuple(cells), self.ASKED, observers=8))

    @pytest.fixture(scope="class")
    def judged(self, asked: RunWithPeople) -> Evaluation:
        return evaluate(arms_of(asked), (asked.metric, "q"), 8)

    def test_the_saving_is_that_of_the_truth(self, judged: Evaluation, asked: RunWithPeople) -> None:
        prompts = PROMPTS[:24]
        means = {
            name: [
                (np.mean([BASE_J + STEP_J * n for n in steps]),
                 np.mean([quality(p, 0, n, noise=0.0) for p, n in zip(prompts, steps, strict=True)]))
                for steps in levels
            ]
            for name, levels in {
                "ladder": [[n] * 24 for n in LADDER if n != 2],
                "bf": [[right_steps(p, price) for p in prompts] for price in PRICES],
            }.items()
        }  # fmt: skip
        at = means["ladder"][2][1]
        adaptive_j, fixed_j = (
            float(Hulls.of(*np.array(means[name]).T[:, None]).energy_at(np.array([[at]]))[0, 0])
            for name in ("bf", "ladder")
        )
        claims = {claim.metric: claim for claim in judged.claims if claim.test == "bf"}
        lows = []
        for metric in (asked.metric, "q"):
            found = claims[metric].saving
            assert found.value == pytest.approx(1 - adaptive_j / fixed_j, abs=0.08)
            assert found.low is not None
            assert found.low < 1 - adaptive_j / fixed_j
            lows.append(found.low)
        # observers know less of the same images than the metric does
        assert lows[1] > max(0, lows[0])
        assert {arm.arm for arm in judged.arms} == {"bf"}  # nobody was asked about the others

    def test_it_says_who_chose_and_knows_no_bound(self, judged: Evaluation) -> None:
        assert judged.judges is not None
        assert (judged.judges.provenance, judged.judges.observers, judged.prompts) == ("simulated", 8, 24)
        assert "8 SIMULATED observers, not people" in list(lines(judged))[1]
        assert {bound.metric for bound in judged.bounds} == {share.metric for share in judged.headroom} == {"q"}
        for level in judged.arms[0].levels:
            assert level.scores["simulated-observers"].quality_p10 is None
            assert level.scores["q"].quality_p10 is not None

    def test_the_command_takes_a_study(self, asked: RunWithPeople) -> None:
        arguments = [str(asked.path), "--study", str(asked.source), "--at-steps", "8", "--json"]
        ended = CliRunner().invoke(app, ["evaluate", *arguments], catch_exceptions=False)
        printed = json.loads(ended.stdout)
        assert (printed["metrics"], printed["judges"]["provenance"]) == (["simulated-observers"], "simulated")
        with pytest.raises(UsageError, match="so their metric is simulated-observers"):
            CliRunner().invoke(app, ["evaluate", *arguments, "--metric", "people"], catch_exceptions=False)

    def test_a_replayed_arm_has_the_common_errors_of_its_rungs(self, asked: RunWithPeople) -> None:
        arms = with_candidates(arms_of(asked), Candidates(), (asked.metric,))
        (ladder,) = arms.ladders.values()
        fixed = arms.curve(ladder, asked.metric).common
        assert fixed.shape == (len(asked.fit.common), 4)
        steps = [[1] * 24, [1, 16] * 12]
        arm = replayed(ladder, "half", "control", steps, (1.0, 2.0))
        assert arms.curve(arm, asked.metric).common == pytest.approx(
            np.stack([fixed[:, 0], (fixed[:, 0] + fixed[:, 3]) / 2], axis=1)
        )
        assert arms.curve(arm, "q").common is None

    def test_without_a_fixed_ladder_there_is_nothing_to_compare_with(self, run: Run, tmp_path: Path) -> None:
        cells = [cell.cell_id for cell in cells_of(run.suite) if cell.variant.name == "bf"]
        judged = with_people(
            run, choice_table(tmp_path / "c.csv", lambda arm, _: float(cells.index(arm)), cells, self.ASKED[:3])
        )
        with pytest.raises(EvidenceError, match="in the answers of the study: no variant with the policy 'fixed'"):
            arms_of(judged)


def test_evaluations_beyond_the_steps_are_counted_against_those_of_the_same_guidance() -> None:
    """With guidance in half of the calls, 3 steps have 5 evaluations and 4 have 6: no whole number per step."""
    half = Variant(name="half", model="m", steps=(2, 4), guidance=3.0, guidance_share=0.5, scheduler="DDIMScheduler")
    adaptive = replace(half, name="bf", steps=(), levels=(1.0,), policy="budgetfusion", role="predicted")
    per_image = {2: 3.0, 3: 5.0, 4: 6.0}
    windows = pl.DataFrame({"variant": ["bf"] * 3, "steps": [[2], [3], [4]], "image_count": [1, 1, 1],
                            "nfe_per_image": [per_image[2], per_image[3], per_image[4] + 1.0]})  # fmt: skip
    cells = [Cell(variant=half, steps=n, level=None, cell_id=f"half-{n:03d}") for n in (2, 4)]
    facts = {cell.cell_id: SimpleNamespace(nfe_mean=per_image[cell.steps or 0]) for cell in cells}
    arms: Any = SimpleNamespace(
        run=SimpleNamespace(windows=windows), facts=facts,
        ladders={"half": SimpleNamespace(variant=half, cells=cells), "full": SimpleNamespace(
            variant=replace(half, name="full", guidance_share=1.0), cells=())},
    )  # fmt: skip
    arm: Any = SimpleNamespace(variant=adaptive)
    assert nfe_per_image(half, 3) == 5
    assert study._extra_evaluations(arms, arm) == pytest.approx(1.0)
