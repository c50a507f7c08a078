from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.routes import is_hard, texts

from perjoule.errors import EvidenceError, UsageError
from perjoule.prompts import prompt_id
from perjoule.runs.directory import Run
from perjoule.types import Prompt, Variant
from perjoule_suites.router import Router
from perjoule_suites.router.arms import read_arms
from perjoule_suites.router.training import RouterFit, kind_of, train

READER = Variant(name="reader", model="builtin:sd-tiny", guidance=1.0)


@pytest.mark.slow
def test_what_the_words_show_is_learnt(trained: tuple[Path, RouterFit]) -> None:
    folder, fit = trained
    assert fit.r_squared > 0.3  # of three arms one is the same for all prompts
    router = Router.from_pretrained(folder)
    new = texts(100, 600)
    chosen = [choice.cell_id for choice in router.choices(new)]
    right = [arm == ("teacher-008" if is_hard(text) else "student-002") for arm, text in zip(chosen, new, strict=True)]
    assert np.mean(right) > 0.85
    assert router.config.kinds == ("easy", "hard")
    assert set(router.config.seen) == {prompt_id(text) for text in texts(200, 300)}


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        (
            {"floor": 1.5},
            EvidenceError,
            r"no image reaches the floor q = 1\.5; the best arm is teacher-008 with",
        ),
        ({"miss_rate": 0.01}, EvidenceError, r"40 calibration prompts are too few .* 1\.0% misses: 99 are needed"),
        ({"miss_rate": 10}, UsageError, "--miss = 10: .* write 0.1 for 10 %"),
    ],
)
def test_promises_that_cannot_be(dev: Run, changes: dict[str, Any], error: type[Exception], words: str) -> None:
    scores = read_arms(dev)
    learnt, known = (
        replace(scores, prompts=scores.prompts[part], quality=scores.quality[part], energy_j=scores.energy_j[part])
        for part in (slice(0, 20), slice(20, 60))
    )
    arguments: Any = {"floor": 0.75, "miss_rate": 0.1} | changes
    with pytest.raises(error, match=words):
        train(learnt, known, None, READER, **arguments)


def test_runs_that_do_not_go_together(dev: Run) -> None:
    scores = read_arms(dev)
    with pytest.raises(EvidenceError, match="60 prompts are in both"):
        train(scores, scores, None, READER, floor=0.75, miss_rate=0.1)
    few = replace(scores, prompts=scores.prompts[:10], quality=scores.quality[:10])
    others = replace(scores, prompts=scores.prompts[10:], quality=scores.quality[10:])
    with pytest.raises(EvidenceError, match="10 prompts are too few for training; use at least 20"):
        train(few, others, None, READER, floor=0.75, miss_rate=0.1)
    with pytest.raises(EvidenceError, match="teacher-008 are missing"):
        train(others, few.of([0, 1]), None, READER, floor=0.75, miss_rate=0.1)


def test_kinds_and_ids_of_prompts() -> None:
    assert kind_of(Prompt(prompt_id="p", text="t")) == ""
    assert kind_of(Prompt(prompt_id="p", text="t", category="a", challenge="b")) == "a / b"
    assert prompt_id("a cat") == "51e4674156"
