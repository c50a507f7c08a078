"""The plan of a run: all trials in their order."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import product

from perjoule.errors import SuiteError
from perjoule.memory import collecting_later
from perjoule.suite.reading import cells_of, images_per_window
from perjoule.types import Assignment, Prompt, Suite

# beyond a year of windows of ten seconds
MOST_TRIALS, MOST_IMAGES = 3_000_000, 30_000_000


@collecting_later()
def make_plan(suite: Suite, prompts: Sequence[Prompt]) -> list[Assignment]:
    """List all trials, block by block.

    A block is one pass over all cells. In a block the order of variants is shuffled, and so is that of the cells of a
    variant, so that drift affects all cells equally; a variant's cells stay together, because loading its pipeline
    again for every cell would take too long. With `protocol.interleave` all cells do their first window, then all do
    their second, each time in shuffled order.

    The prompts of a window stay together under every seed, because prompts that share windows are one unit of the
    energy statistics (`perjoule.statistics.window_groups`). Prompts that do not fill a window come last, their seeds
    together.
    """
    _require_plannable(suite, len(prompts))
    size = images_per_window(suite)
    full = len(prompts) - len(prompts) % size
    pairs = [(p, seed) for part in (prompts[:full], prompts[full:]) for seed, p in product(suite.protocol.seeds, part)]
    windows = [pairs[start : start + size] for start in range(0, len(pairs), size)]
    plan: list[Assignment] = []
    for block in range(suite.protocol.blocks):
        chance = random.Random(f"{suite.protocol.order_seed}/{block}")
        cells = cells_of(suite)
        chance.shuffle(cells)
        rank = {name: index for index, name in enumerate(dict.fromkeys(c.variant.name for c in cells))}
        cells.sort(key=lambda cell: rank[cell.variant.name])
        block_plan = [
            Assignment(
                trial_id=f"b{block}.{cell.cell_id}.{number:04d}",
                cell=cell,
                block=block,
                prompts=tuple(prompt for prompt, _ in window),
                seeds=tuple(seed for _, seed in window),
            )
            for cell in cells
            for number, window in enumerate(windows)
        ]
        if suite.protocol.interleave:
            chance.shuffle(block_plan)
            block_plan.sort(key=lambda assignment: int(assignment.trial_id.rsplit(".", 1)[1]))
        plan += block_plan
    return plan


def _require_plannable(suite: Suite, prompt_count: int) -> None:
    """Raise SuiteError if the plan would fill the memory, e.g. because a number in the suite has a digit too many."""
    trials = planned_trials(suite, prompt_count)
    images = len(cells_of(suite)) * suite.protocol.blocks * prompt_count * len(suite.protocol.seeds)
    for count, most, what in ((trials, MOST_TRIALS, "trials"), (images, MOST_IMAGES, "images")):
        if count > most:
            raise SuiteError(
                f"suite {suite.name!r} plans {count:,} {what}, and a run has at most {most:,}: use fewer variants, "
                "steps, prompts, seeds or blocks"
            )


def planned_trials(suite: Suite, prompt_count: int) -> int:
    """Return the number of planned trials of a suite for a number of prompts; a run with fewer is incomplete."""
    return len(cells_of(suite)) * _trials_per_cell(suite, prompt_count)


def trials_saved(suite: Suite, prompt_count: int, measured: int) -> int:
    """Return the number of planned trials of a cell that a race measures with its first `measured` prompts only."""
    return _trials_per_cell(suite, prompt_count) - _trials_per_cell(suite, measured)


def _trials_per_cell(suite: Suite, prompt_count: int) -> int:
    return math.ceil(prompt_count * len(suite.protocol.seeds) / images_per_window(suite)) * suite.protocol.blocks


def rounds_of(
    plan: Sequence[Assignment], prompts: Sequence[Prompt], ends: Sequence[int]
) -> list[tuple[Assignment, ...]]:
    """Split a plan by prompts: the trials of the first `ends[0]` prompts, of the prompts up to `ends[1]`, and so on.

    Every second round is in reverse order, so that drift within rounds affects cells equally, and the pipeline that is
    loaded at the end of a round begins the next one.
    """
    place = {prompt.prompt_id: number for number, prompt in enumerate(prompts)}
    rounds: list[list[Assignment]] = [[] for _ in ends]
    for assignment in plan:
        last = max(place[prompt.prompt_id] for prompt in assignment.prompts)
        rounds[next(number for number, end in enumerate(ends) if last < end)].append(assignment)
    return [tuple(part[::-1] if number % 2 else part) for number, part in enumerate(rounds)]


def image_id(cell_id: str, prompt_id: str, seed: int | str) -> str:
    """Return the name of an image, which is the same in every block, because the image is."""
    return f"{cell_id}.{prompt_id}.s{seed}"
