from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.support.ladders import drawn_run

from perjoule.errors import EvidenceError
from perjoule.runs.directory import Run
from perjoule.types import Metrics, Prompt, PromptSource, Protocol, Suite, Variant
from perjoule_suites.builtin import prompt_files
from perjoule_suites.tiny import study

pytestmark = pytest.mark.slow

EACH, STEPS = 10, (3, 6, 25)
CAPTIONS = prompt_files()["tiny-test"].read_text(encoding="utf-8").splitlines()[1:]
PROMPTS = [
    Prompt(prompt_id=f"{level}-{i}", text=text, category=level)
    for level in ("closed", "half open", "open")
    for i, text in enumerate([line.split("\t")[0] for line in CAPTIONS if line.endswith(f"\t{level}")][:EACH])
]


def scene(prompt: Prompt, seed: int, steps: int) -> float:
    """Closed captions need nothing, others six steps, whatever the seed."""
    return float(prompt.category == "closed" or steps >= 6)


def noise(prompt: Prompt, seed: int, steps: int) -> float:
    return float(np.random.default_rng([PROMPTS.index(prompt), seed, steps]).uniform(0, 0.2) + (steps >= 6) / 2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    suite = Suite(
        name="world", title="", description="", prompts=PromptSource(source="x"),
        metrics=Metrics(primary="iclip", names=("iclip", "scene")),
        protocol=Protocol(seeds=tuple(range(8)), batch_size=1, idle_s=0.0),
        variants=(
            Variant(name="sd-tiny", model="builtin:sd-tiny", steps=STEPS),
            Variant(name="student", model="builtin:sd-tiny-lcm", role="distilled", steps=(1,)),
        ),
    )  # fmt: skip
    return drawn_run(
        tmp_path_factory.mktemp("study") / "run", suite, PROMPTS, steps_of=lambda cell, prompt: 0,
        energy_j=float, qualities={"iclip": noise, "scene": scene}, digests={},
    )  # fmt: skip


def test_a_run_without_the_score_is_refused(run: Run) -> None:
    alone = replace(run)
    alone.__dict__["metrics"] = {name: spec for name, spec in run.metrics.items() if name != "scene"}
    with pytest.raises(EvidenceError, match="not scored by 'scene': run `perjoule score"):
        next(study.lines(alone))


def test_tables_of_a_world_of_known_truth(run: Run) -> None:
    printed = "\n".join(study.lines(run))
    # all of the variance is the prompt's, and by a metric of pure noise none
    assert "95% of the image's scene at 25 steps: 1.00 [1.00, 1.00]" in printed
    assert "  closed: 1.000 [1.000, 1.000], 1.000 [1.000, 1.000], 1.000 [1.000, 1.000]" in printed
    # a third of the prompts needs the student's 1 J, the others 6 J, instead of 6 J for all
    assert "sd-tiny-006 (6 J, 1.000): 27.8 % [" in printed
    assert "most often sd-tiny-006 (67%), 2 arms" in printed
    assert "student-001 (1 J, 0.333): 0.0 % [" in printed
    within = printed.split("rule on predicted iclip, savings at the scene")[1].split("\n")
    assert within[2].startswith("  closed (10): ")
