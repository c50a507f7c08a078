from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest

from perjoule.prompts import load_prompts
from perjoule.types import PromptSource
from perjoule_suites.builtin import prompt_files
from perjoule_suites.tiny.world.captions import LEVELS, parse
from perjoule_suites.tiny.world.prompt_sets import SETS, prompt_sets


def test_the_files_are_those_that_are_written() -> None:
    for name, table in prompt_sets().items():
        assert prompt_files()[name].read_text(encoding="utf-8") == table


@pytest.mark.parametrize("name", SETS)
def test_captions_are_of_their_side_and_category(name: str) -> None:
    split, _, count = SETS[name]
    prompts = load_prompts(PromptSource(source=f"builtin:{name}"), where="s")
    assert Counter(prompt.category for prompt in prompts) == dict.fromkeys(LEVELS, count)
    for prompt in prompts:
        caption = parse(prompt.text)
        assert (caption.split, caption.level) == (split, prompt.category)
        assert caption.text() == prompt.text


def test_no_two_sets_share_a_caption() -> None:
    keys = {
        name: {parse(row.split("\t")[0]).key for row in table.splitlines()[1:]} for name, table in prompt_sets().items()
    }
    for one, other in combinations(keys, 2):
        assert not keys[one] & keys[other], (one, other)
    assert all(len(keys[name]) == 3 * count for name, (_, _, count) in SETS.items())


def test_a_prefix_has_equal_shares() -> None:
    prompts = load_prompts(PromptSource(source="builtin:tiny-held-out", limit=48), where="s")
    assert Counter(prompt.category for prompt in prompts) == dict.fromkeys(LEVELS, 16)
