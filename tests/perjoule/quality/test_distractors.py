from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from perjoule.quality.distractors import choose
from perjoule.types import Prompt

TEXTS = st.lists(st.text(min_size=1, max_size=4), max_size=40)


@given(own=st.text(max_size=4), others=TEXTS, pool=TEXTS, count=st.integers(0, 30), seed=st.integers(0, 9))
def test_distractors_are_distinct_others_and_the_order_of_the_run_does_not_matter(own, others, pool, count, seed):
    prompt = Prompt(prompt_id="id", text=own)
    found = choose(prompt, others, pool, count)
    everything = ({*others, *pool}) - {own}
    assert len(found) == len(set(found)) == min(count, len(everything))
    assert set(found) <= everything
    # the pool only fills up
    assert sum(t in others for t in found) == min(count, len(set(others) - {own}))
    shuffled = random.Random(seed)
    assert choose(prompt, shuffled.sample(others, len(others)), shuffled.sample(pool, len(pool)), count) == found


def test_two_prompts_draw_differently():
    texts = [f"prompt {i}" for i in range(300)]
    a = choose(Prompt(prompt_id="a", text="own"), texts, [])
    b = choose(Prompt(prompt_id="b", text="own"), texts, [])
    assert len(a) == len(b) == 99
    assert set(a) != set(b)
