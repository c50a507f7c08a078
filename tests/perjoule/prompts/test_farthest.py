"""Prompts that differ as much as possible, compared with an exhaustive search of the same rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.errors import SuiteError
from perjoule.prompts import TextEncoder, prompt_id, read_prompt_set
from perjoule.prompts.farthest import farthest
from perjoule.suite.reading import parse_suite
from perjoule.types import Prompt, PromptSource


def prompts_of(count: int) -> list[Prompt]:
    return [Prompt(prompt_id=prompt_id(f"p{i}"), text=f"p{i}") for i in range(count)]


class Vectors:
    """Random unit vectors by text, in any order."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, texts):
        rows = np.stack([np.random.default_rng([self.seed, int(t[1:])]).normal(size=5) for t in texts])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@given(st.integers(2, 25), st.integers(0, 50), st.integers(0, 3), st.randoms())
def test_each_next_prompt_is_least_similar_to_its_most_similar_chosen_one(count, world, seed, random):
    prompts, embed = prompts_of(count), Vectors(world)
    chosen, largest = farthest(random.sample(prompts, count), embed, count, seed)
    assert sorted(p.text for p in chosen) == sorted(p.text for p in prompts)
    cosines = embed([p.text for p in chosen]) @ embed([p.text for p in chosen]).T
    for k in range(1, count):
        nearest = cosines[k:, :k].max(axis=1)  # of the rest, to those chosen before
        assert nearest[0] == pytest.approx(nearest.min(), abs=2e-6)
    assert largest == pytest.approx((cosines - 2 * np.eye(count)).max(), abs=2e-6)
    # subsets nest, whatever the order of the file
    assert farthest(prompts, embed, max(1, count // 2), seed)[0] == chosen[: max(1, count // 2)]


def test_the_seed_chooses_the_first_prompt():
    firsts = {farthest(prompts_of(20), Vectors(0), 1, seed)[0][0].text for seed in range(20)}
    assert len(firsts) > 5
    assert farthest(prompts_of(20), Vectors(0), 1, 3)[1] is None


def test_the_selection_is_recorded_with_the_origin(tmp_path: Path):
    file = tmp_path / "p.txt"
    file.write_text("".join(f"p{i}\n" for i in range(12)))
    source = PromptSource(source=str(file), select="clip-farthest", limit=4, select_seed=2, select_model="m")
    encoder = TextEncoder(embed=Vectors(1), weights="abc")
    prompts, origin = read_prompt_set(source, where="s.toml: prompts.source", encoder=encoder)
    assert len(prompts) == 4
    assert origin.selection is not None
    assert (origin.selection.candidates, origin.selection.weights, origin.selection.seed) == (12, "abc", 2)
    with pytest.raises(SuiteError, match="needs a text encoder"):
        read_prompt_set(source, where="s.toml: prompts.source")


def test_a_selection_needs_a_limit():
    table = {
        "name": "s", "title": "t", "description": "d",
        "prompts": {"source": "builtin:everyday", "select": "clip-farthest"},
        "metrics": {"primary": "lsnr", "names": ["lsnr"]}, "protocol": {},
        "variants": [{"name": "a", "model": "m", "steps": [2]}],
    }  # fmt: skip
    with pytest.raises(SuiteError, match=r"prompts\.select = 'clip-farthest': needs limit"):
        parse_suite(table, where="s.toml")
