"""Readers of foreign files refuse what they cannot read in words that name the file, whatever its bytes are.

`python -m tests.benchmarks.readers N` gives many more inputs to them; what it finds becomes a line of `CORPUS`.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.readers import Target, inputs_of, make_targets, refusal_of

NAMES = (
    "suite.toml", "environment.json", "prompts.jsonl", "trials.jsonl", "devices.jsonl", "work.jsonl", "metrics.json",
    "set_scores.json", "images.parquet", "scores.parquet", "points.parquet", "trials.parquet", "race.json",
    "images/a.png", "b/c/main.json.gz", "history.jsonl", "sequential.json",
    "looks.jsonl", "p/prompts.txt", "p/prompts.csv", "p/prompts.tsv", "p/prompts.json",
    "p/prompts.jsonl", "p/prompts.parquet", "table.csv", "table.jsonl", "table.json", "table.parquet", "choices.csv",
    "log.csv", "log.parquet", "study.json", "answers.json", "answers.jsonl", "answers.sqlite", "model_index.json",
    ".git/HEAD", "profile.json", "a/result.json",
)  # fmt: skip
# inputs that ended badly once, by target
CORPUS: dict[str, tuple[bytes, ...]] = {
    "log.csv": (b"t_s,power_w\n0," + b"1" * 140_000 + b"\n1,2\n",),  # longer than a field of Python's csv may be
}


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        return make_targets(tmp_path_factory.mktemp("targets"))


def test_every_target_is_fuzzed(targets: dict[str, Target], tmp_path: Path) -> None:
    assert tuple(targets) == NAMES
    for name, target in targets.items():
        if name not in ("work.jsonl", "devices.jsonl", "profile.json", "images/a.png"):
            folder = tmp_path / name.replace("/", "-")
            assert refusal_of(target, folder, target.valid[0]) is None, name


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=8, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), content=st.none() | st.binary(max_size=60))
def test_damage_is_refused_in_words(
    name: str, seed: int, content: bytes | None, targets: dict[str, Target], tmp_path: Path
) -> None:
    refusal = refusal_of(targets[name], tmp_path / "folder", content or inputs_of(targets[name], random.Random(seed)))
    assert refusal is None or Path(name).name in str(refusal) or str(refusal)


@pytest.mark.parametrize(
    ("name", "content"),
    [(name, content) for name, many in CORPUS.items() for content in many],
    ids=lambda value: str(value)[:20],
)
def test_what_ended_badly_once(name: str, content: bytes, targets: dict[str, Target], tmp_path: Path) -> None:
    refusal = refusal_of(targets[name], tmp_path, content)
    assert refusal is None or str(refusal)
