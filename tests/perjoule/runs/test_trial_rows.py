"""Rows of `trials.jsonl` are flat, and anything else is refused before polars looks at it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perjoule.errors import RunError
from perjoule.runs.directory import trial_table

ROW: dict[str, Any] = {
    "trial_id": "b0.a-001.0",
    "cell_id": "a-001",
    "variant": "a",
    "prompt_ids": ["p"],
    "seeds": [1],
    "phases_s": {"denoise": 1.5},
    "of_a_later_version": {"b": [1]},
}


def nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def test_other_columns_are_ignored_and_phases_may_be_an_object() -> None:
    (row,) = trial_table([ROW], Path("r/trials.jsonl")).to_dicts()
    assert (row["cell_id"], row["seeds"], row["phases_s"]) == ("a-001", [1], '{"denoise": 1.5}')


@pytest.mark.parametrize("key", ["duration_s", "failure", "warnings", "steps"])
@pytest.mark.parametrize("depth", [2, 400])
def test_lists_in_lists_are_refused_at_once(key: str, depth: int) -> None:
    """Polars' search for a type of 400 lists in lists takes 6 s of CPU time, eight times as long for twice as many."""
    with pytest.raises(RunError, match=rf"trials\.jsonl: damaged: .*{key} contains a list or an object"):
        trial_table([ROW | {key: nested(depth)}], Path("r/trials.jsonl"))
