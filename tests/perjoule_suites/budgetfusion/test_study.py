from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from perjoule.errors import EvidenceError
from perjoule.runs.directory import Run, load_run, write_scores
from perjoule.runs.writer import RunWriter
from perjoule.suite.schedule import image_id, make_plan
from perjoule.types import (
    EnergyReading,
    Metrics,
    MetricSpec,
    Prompt,
    PromptSource,
    Protocol,
    Score,
    Suite,
    Trial,
    Variant,
)
from perjoule.types.documents import document
from perjoule_suites.budgetfusion.curves import curves_of
from perjoule_suites.budgetfusion.figures import draw_all
from perjoule_suites.budgetfusion.study import evaluate, has_short_first

pytestmark = pytest.mark.slow

LADDER = (1, 2, 4, 8, 16)
PRICES = (4.0, 10.0, 25.0, 60.0)
BASE_J, STEP_J = 1.0, 0.5
# half of the prompts need four times the steps
PROMPTS = tuple(
    Prompt(prompt_id=f"{i:03d}", text=f"{'hard' if i % 2 else 'easy'} prompt {i}", category="hard" if i % 2 else "easy")
    for i in range(40)
)
SPEC = MetricSpec(
    name="q", direction="higher", track="absolute", needs_reference=False, unit="", weights_digest="none",
    licence="Apache-2.0", description="made up", advisory=False, bounds=(0.0, 1.0),
)  # fmt: skip
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
    metrics=Metrics(primary="q", names=("q",)),
    protocol=Protocol(seeds=(1, 2), batch_size=1, idle_s=0.0),
    variants=(
        Variant(name="ladder", model="m", steps=LADDER),
        ARM,
        replace(ARM, name="dealt", role="control"),
        SHORT,
        ON_SHORT,
    ),
)


def quality(prompt: Prompt, seed: int, steps: int) -> float:
    noise = np.random.default_rng([int(prompt.prompt_id), seed, steps]).normal(0, 0.01)
    return float(1 - np.exp(-steps / (4.0 if prompt.category == "hard" else 1.0)) + noise)


def right_steps(prompt: Prompt, price: float) -> int:
    worth = [price * (1 - np.exp(-n / (4.0 if prompt.category == "hard" else 1.0))) - STEP_J * n for n in LADDER]
    return LADDER[int(np.argmax(worth))]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("study") / "run"
    writer = RunWriter.create(
        path, SUITE, PROMPTS, {"comparability": {}, "comparability_key": "k", "models": {"m": "d"}}
    )
    scores: list[Score] = []
    for work in make_plan(SUITE, PROMPTS):
        (prompt,), (seed,), cell = work.prompts, work.seeds, work.cell
        wanted = PROMPTS[(int(prompt.prompt_id) + 1) % len(PROMPTS)] if cell.variant.name == "dealt" else prompt
        fixed = int(cell.level or 0) if cell.variant == SHORT else cell.steps
        steps = fixed or right_steps(wanted, float(cell.level or 0))
        reading = EnergyReading(
            energy_j=BASE_J + STEP_J * steps, uncertainty_j=0.1, duration_s=0.1 * steps, boundary="estimate",
            provenance="simulated", method="made up",
        )  # fmt: skip
        writer.append(
            Trial(
                trial_id=work.trial_id,
                cell_id=cell.cell_id,
                variant=cell.variant.name,
                role=cell.variant.role,
                policy=cell.variant.policy,
                block=0,
                prompts=(prompt.text,),
                prompt_ids=(prompt.prompt_id,),
                seeds=(seed,),
                steps=(steps,),
                nfe_per_image=2.0 * steps,
                image_count=1,
                iterations=1,
                reading=reading,
                image_sha256=("0",),
                phases_s={"predictor": 0.001},
            )
        )
        name = image_id(cell.cell_id, prompt.prompt_id, seed)
        scores.append(Score(image_id=name, metric="q", value=quality(prompt, seed, steps)))
    writer.finish()
    write_scores(load_run(path), scores, [SPEC])
    return load_run(path)


def test_knowing_the_prompt_saves_and_dealing_at_random_does_not(run: Run) -> None:
    found = document(evaluate(run, at_steps=4))
    savings = {(c["test"], c["anchor"]): c["saving"] for c in found["as_run"]["comparisons"]}
    adaptive = savings["bf", "ladder"]
    assert adaptive["low"] > 0
    assert savings["bf", "bf, shuffled"]["low"] > 0
    assert savings["dealt", "ladder"]["high"] < adaptive["low"]
    assert ("ladder oracle", "ladder") in savings
    captured = [(one["test"], one["anchor"]) for one in found["as_run"]["headroom"]]
    assert captured == [("bf", "ladder"), ("bf-short", "ladder"), ("bf-short", "short")]
    assert found["extra_evaluations"] == {"bf": 0.0, "bf-short": 0.0}
    # on other schedules an arm has two ladders to beat: the family's, and the one on its own schedules
    assert savings["bf-short", "short"] == savings["bf-short", "ladder"] == adaptive
    assert ("bf", "short") not in savings
    assert savings["short", "ladder"]["value"] == pytest.approx(0, abs=1e-9)
    assert ("short oracle", "short") in savings
    assert found["provenance"] == ["simulated"]
    arm = next(a for a in found["as_run"]["arms"] if a["arm"] == "bf")
    for level in arm["levels"]:
        assert level["time_saved_against_longest"] == pytest.approx(1 - level["steps_mean"] / 16)
        assert level["energy_j_per_image"] == pytest.approx(BASE_J + STEP_J * level["steps_mean"])
    # price 10: easy prompts take 4 steps, hard ones 8; by hand, from the ladder's mean curve
    at_ten = next(level for level in arm["levels"] if level["level"] == 10.0)
    assert at_ten["steps_mean"] == 6.0
    assert at_ten["saving_at_own_quality"]["value"] == pytest.approx(0.17, abs=0.05)
    assert at_ten["saving_at_own_quality"]["low"] > 0
    # windows of one image lose nothing to batching; what is left is the decision: 1 ms at 5 J/s or so
    full = next(a for a in found["full_batches"]["arms"] if a["arm"] == "bf")
    for one, other in zip(arm["levels"], full["levels"], strict=True):
        assert other["energy_j_per_image"] == pytest.approx(one["energy_j_per_image"], abs=0.02)


def test_arms_with_a_short_first_step_are_known() -> None:
    named = Variant(name="named", model="m", steps=LADDER, schedule="short-first")
    peeking = replace(ARM, policy="budgetfusion-peek", policy_args={"predictor": "builtin:steps-tiny-peek2"})
    once = replace(peeking, policy_args={"predictor": "builtin:steps-tiny-peek1"})
    assert all(map(has_short_first, (named, SHORT, ON_SHORT, peeking, replace(once, schedule="short-first"))))
    assert not any(map(has_short_first, (ARM, once, Variant(name="own", model="m", steps=LADDER))))


def test_curves_come_back_from_the_run(run: Run) -> None:
    curves = curves_of(run, "ladder")
    assert curves.grid == LADDER
    assert curves.values.shape == (40, 2, 5, 1)
    where = curves.prompts.index("hard prompt 7")
    assert curves.values[where, 1, 3, 0] == pytest.approx(quality(PROMPTS[7], 2, 8))
    assert curves.cost.base_j == pytest.approx(BASE_J)
    assert curves.cost.step_j == pytest.approx(STEP_J)
    assert curves.cost.provenance == "simulated"
    assert curves.collected_j == pytest.approx(run.trials.filter(pl.col("variant") == "ladder")["energy_j"].sum())


def test_curves_that_cannot_be(run: Run, tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="no variant 'laddr' with a fixed ladder; name one with --variant: ladder"):
        curves_of(run, "laddr")
    import shutil

    shutil.copytree(run.path, tmp_path / "run")
    scores = pl.read_parquet(tmp_path / "run" / "scores.parquet")
    holed = scores.with_columns(
        value=pl.when(pl.col("cell_id") == "ladder-004").then(float("nan")).otherwise(pl.col("value"))
    )
    holed.write_parquet(tmp_path / "run" / "scores.parquet")
    with pytest.raises(EvidenceError, match=r"80 scores are missing or NaN, e\.g\. of 'q'"):
        curves_of(load_run(tmp_path / "run"), "ladder")
    scores.filter(pl.col("prompt_id") < "010").write_parquet(tmp_path / "run" / "scores.parquet")
    with pytest.raises(EvidenceError, match=r"missing or NaN|too few"):
        curves_of(load_run(tmp_path / "run"), "ladder")


def test_an_unscored_run_is_told_how_to_be_scored(run: Run, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    with pytest.raises(EvidenceError, match="perjoule score"):
        evaluate(load_run(tmp_path / "run"))


def test_figures_are_drawn(run: Run, tmp_path: Path) -> None:
    files = draw_all(run, tmp_path / "figures")
    assert [f.name for f in files] == [
        "study-curves.png",
        "study-steps.png",
        "study-predicted.png",
        "study-frontier.png",
    ]
    assert all(f.stat().st_size > 5_000 for f in files)
