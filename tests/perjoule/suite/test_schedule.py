from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.errors import SuiteError
from perjoule.prompts import prompt_id
from perjoule.suite.reading import cells_of, find_suite, load_suite
from perjoule.suite.schedule import make_plan, planned_trials, rounds_of, trials_saved
from perjoule.types import Prompt, Protocol

DEMO = load_suite(find_suite("demo"))
PROMPTS = tuple(Prompt(prompt_id=prompt_id(t), text=t) for t in ("a", "b", "c", "d", "e"))


@given(
    batch=st.integers(1, 12),
    blocks=st.integers(1, 3),
    seeds=st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True),
)
def test_every_image_once_a_block(batch: int, blocks: int, seeds: list[int]) -> None:
    protocol = Protocol(batch_size=batch, blocks=blocks, seeds=tuple(seeds))
    suite = replace(DEMO, protocol=protocol)
    plan = make_plan(suite, PROMPTS)
    images = [(a.block, a.cell.cell_id, p.prompt_id, s) for a in plan for p, s in zip(a.prompts, a.seeds, strict=True)]
    assert len(images) == len(set(images)) == blocks * len(cells_of(suite)) * len(PROMPTS) * len(seeds)
    assert len({a.trial_id for a in plan}) == len(plan)
    assert all(len(a.prompts) <= batch for a in plan)
    assert planned_trials(suite, len(PROMPTS)) == len(plan)


def test_variants_of_other_batch_sizes_share_the_windows() -> None:
    sizes = {"a": 1, "b": 4, "c": None}
    variants = tuple(replace(DEMO.variants[0], name=name, batch_size=size) for name, size in sizes.items())
    protocol = Protocol(seeds=(1, 2), batch_size=2)
    plan = make_plan(replace(DEMO, protocol=protocol, variants=variants), PROMPTS)
    assert {len(a.prompts) for a in plan} == {4, 2}
    assert {a.cell.variant.name: a.cell.batch_size for a in plan} == {"a": 1, "b": 4, "c": 2}
    assert len({(a.prompts, a.seeds) for a in plan}) == 3
    wider = replace(protocol, images_per_window=10)
    assert {len(a.prompts) for a in make_plan(replace(DEMO, protocol=wider, variants=variants), PROMPTS)} == {10}


def test_a_variant_is_loaded_once_a_block() -> None:
    first = DEMO.variants[0]
    together = replace(DEMO.protocol, interleave=False)
    suite = replace(DEMO, protocol=together, variants=tuple(replace(first, name=name) for name in ("a", "b", "c")))
    names = [a.cell.variant.name for a in make_plan(suite, PROMPTS)]
    switches = sum(one != other for one, other in pairwise(names))
    assert switches == 2


def test_order_is_seeded_and_shuffled() -> None:
    suite = replace(DEMO, protocol=replace(DEMO.protocol, blocks=2))
    plan = make_plan(suite, PROMPTS)
    assert plan == make_plan(suite, PROMPTS)
    orders = [list(dict.fromkeys(a.cell.cell_id for a in plan if a.block == b)) for b in (0, 1)]
    written = [cell.cell_id for cell in cells_of(suite)]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(written)
    assert orders[0] != orders[1]
    assert orders[0] != written


def test_interleaved_cells_take_turns() -> None:
    suite = replace(DEMO, protocol=Protocol(seeds=(1, 2), batch_size=2, blocks=2, interleave=True))
    plan = make_plan(suite, PROMPTS)
    cells = {assignment.cell.cell_id for assignment in plan}
    rounds = [plan[start : start + len(cells)] for start in range(0, len(plan), len(cells))]
    for turn in rounds:
        assert {assignment.cell.cell_id for assignment in turn} == cells
        assert len({(assignment.block, assignment.prompts, assignment.seeds) for assignment in turn}) == 1
    # in another order each time
    assert len({tuple(assignment.cell.cell_id for assignment in turn) for turn in rounds}) > 1
    together = make_plan(replace(DEMO, protocol=Protocol(seeds=(1, 2), batch_size=2, blocks=2)), PROMPTS)
    assert {a.trial_id for a in plan} == {a.trial_id for a in together}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"blocks": 1_000_000}, r"plans [0-9,]+ trials, and a run has at most 3,000,000: use fewer"),
        (
            {"seeds": tuple(range(900_000)), "batch_size": 1_000_000, "images_per_window": None},
            r"plans [0-9,]+ images, and a run has at most",
        ),
    ],
)
def test_a_plan_that_would_fill_the_memory_is_refused(changes: dict[str, Any], words: str) -> None:
    variants = tuple(replace(variant, batch_size=None) for variant in DEMO.variants)
    suite = replace(DEMO, variants=variants, protocol=replace(DEMO.protocol, **changes))
    with pytest.raises(SuiteError, match=words):
        make_plan(suite, PROMPTS)


@pytest.mark.parametrize("per_window", [1, 3])
def test_rounds_are_the_plan_split_by_prompts(per_window: int) -> None:
    protocol = Protocol(seeds=(1, 2), batch_size=1, images_per_window=per_window, blocks=2)
    suite = replace(DEMO, protocol=protocol, variants=tuple(replace(v, batch_size=None) for v in DEMO.variants))
    prompts = tuple(Prompt(prompt_id=f"p{i:02d}", text=f"prompt {i}") for i in range(20))
    plan = make_plan(suite, prompts)
    ends = (6, 12, 20)
    rounds = rounds_of(plan, prompts, ends)
    assert sorted(a.trial_id for part in rounds for a in part) == sorted(a.trial_id for a in plan)
    start = 0
    for number, (part, end) in enumerate(zip(rounds, ends, strict=True)):
        wanted = {prompt.prompt_id for prompt in prompts[start:end]}
        for cell in cells_of(suite):
            of_cell = [a for a in part if a.cell.cell_id == cell.cell_id]
            assert {prompt.prompt_id for a in of_cell for prompt in a.prompts} == wanted
        # every second round is reversed, so that drift affects all cells equally
        order = [a.trial_id for a in plan if a in part]
        assert [a.trial_id for a in part] == (order[::-1] if number % 2 else order)
        assert trials_saved(suite, 20, end) == sum(len(later) for later in rounds[number + 1 :]) // len(cells_of(suite))
        start = end
