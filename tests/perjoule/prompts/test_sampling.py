from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from perjoule.prompts import prompt_id
from perjoule.prompts.sampling import part_of, stratified, within
from perjoule.types import Prompt

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Z"]), min_size=1)
SETS = st.dictionaries(TEXTS, st.tuples(st.sampled_from("abcd"), st.sampled_from("xyz")), min_size=1, max_size=60)


def prompts_of(table: dict[str, tuple[str, str]]) -> list[Prompt]:
    return [
        Prompt(prompt_id=prompt_id(text), text=text, category=category, challenge=challenge)
        for text, (category, challenge) in table.items()
    ]


@given(SETS, st.randoms())
def test_neither_the_order_of_the_file_nor_its_length_matters(table, random):
    """Subsets nest: the first n of any order are the first n, hence 16 ⊂ 64 ⊂ 200 ⊂ all."""
    everything = prompts_of(table)
    ordered = stratified(everything)
    assert Counter(ordered) == Counter(everything)
    shuffled = random.sample(everything, len(everything))
    assert stratified(shuffled) == ordered


@given(SETS)
def test_in_every_prefix_no_stratum_is_ahead_of_one_that_has_some_left(table):
    everything = prompts_of(table)
    in_set = Counter(p.category for p in everything)
    in_pair = Counter((p.category, p.challenge) for p in everything)
    ordered = stratified(everything)
    for n in range(len(ordered) + 1):
        taken = Counter(p.category for p in ordered[:n])
        for one in in_set:
            assert all(taken[other] <= taken[one] + 1 or taken[one] == in_set[one] for other in in_set)
        both = Counter((p.category, p.challenge) for p in ordered[:n])
        for category, challenge in in_pair:
            pair = category, challenge
            rivals = [k for k in in_pair if k[0] == category]
            assert all(both[other] <= both[pair] + 1 or both[pair] == in_pair[pair] for other in rivals)


def test_the_first_turn_shows_more_than_one_challenge():
    table = {f"{c}{x}{i}": (c, x) for c in "abcd" for x in "wxyz" for i in range(3)}
    assert [p.challenge for p in stratified(prompts_of(table))[:4]] == list("wxyz")


def test_sets_without_challenges_keep_their_order():
    table = {f"prompt {i}": ("abc"[i % 3], "") for i in range(30)}
    ordered = stratified(prompts_of(table))
    assert [p.category for p in ordered[:6]] == list("abcabc")
    firsts = [p for p in ordered if p.category == "a"]
    assert firsts == sorted(firsts, key=lambda p: p.prompt_id)


@given(st.sets(TEXTS, min_size=1))
def test_the_halves_are_disjoint_whole_and_the_same_in_every_set(texts):
    everything = [Prompt(prompt_id=prompt_id(t), text=t) for t in texts]
    dev, test = within(everything, "dev"), within(everything, "test")
    assert {p.text for p in dev} | {p.text for p in test} == texts
    assert not {p.text for p in dev} & {p.text for p in test}
    some = everything[: len(everything) // 2]
    assert set(within(some, "dev")) == set(some) & set(dev)


def test_the_halves_are_halves_and_do_not_change():
    parts = Counter(part_of(f"prompt {i}") for i in range(2000))
    assert 900 < parts["dev"] < 1100  # 4.5 sigma
    # numbers that runs already made rest on
    assert [part_of(text) for text in ("a lighthouse", "a cat", "a dog", "a bird")] == [
        "dev",
        "test",
        "test",
        "dev",
    ]
    # small limits are not one half: their ids start with the same digits
    first = sorted((prompt_id(f"prompt {i}"), part_of(f"prompt {i}")) for i in range(2000))[:100]
    assert 25 < sum(part == "dev" for _, part in first) < 75


def test_a_prompt_has_one_id_everywhere():
    assert prompt_id("a lighthouse") == prompt_id("a lighthouse") != prompt_id("a lighthouse ")
    assert len(prompt_id("\ud800")) == 10  # even a lone surrogate
