"""Series that look the same are distinguished by what differs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perjoule.gating.history import History, LoggedRun
from perjoule.gating.suite_settings import settings_of, suite_digest
from perjoule.gating.trends import trends
from perjoule.suite.reading import load_suite
from tests.support.histories import logged

HELD_OUT = "builtin:tiny-held-out"
SUITE = """
name = "shipped"
title = "t"
description = "d"
[prompts]
source = "{source}"
[protocol]
seeds = [1]
[metrics]
primary = "clip_text"
names = ["clip_text"]
[[variants]]
name = "shipped"
model = "builtin:sd-tiny"
steps = [{steps}]
guidance = 2.0
"""
OTHER = """
[[variants]]
name = "fast"
model = "builtin:sd-tiny"
steps = [1]
"""


def run_of(
    folder: Path, week: float, steps: int = 3, more: str = "", source: str = "builtin:tiny-held-out"
) -> LoggedRun:
    """A logged run of a suite file with these steps."""
    file = folder / "suite.toml"
    file.write_text(SUITE.format(steps=steps, source=source) + more)
    suite = load_suite(file)
    return logged(week, [100.0 + steps], suite_digest=suite_digest(suite), settings=settings_of(suite))


def trends_of(*runs: LoggedRun) -> list[tuple[str, tuple[str, ...]]]:
    return [(t.title, t.began_with) for t in trends(History(path=Path("h"), runs=runs))]


TITLE = "mine, NVIDIA L4, gpu-board, measured"


def test_a_change_of_the_suite_is_named(tmp_path: Path) -> None:
    before, after = run_of(tmp_path, 0, 3), run_of(tmp_path, 1, 4)
    assert trends_of(before) == [(TITLE, ())]
    assert trends_of(before, after) == [(f"{TITLE}, steps 4", ("steps 3 → 4",)), (f"{TITLE}, steps 3", ())]


def test_a_variant_that_is_new_is_named_once(tmp_path: Path) -> None:
    before, after = run_of(tmp_path, 0), run_of(tmp_path, 1, more=OTHER)
    assert [began for _, began in trends_of(before, after)] == [("variant fast no → yes",), ()]
    changed = run_of(tmp_path, 2, 5, more=OTHER)
    assert trends_of(after, changed)[0][1] == ("shipped.steps 3 → 5",)


def test_lines_of_earlier_versions_have_the_digest_only(tmp_path: Path) -> None:
    before, after = replace(run_of(tmp_path, 0, 3), settings={}), run_of(tmp_path, 1, 4)
    assert trends_of(before, after)[0][1] == (f"suite {before.suite_digest} → {after.suite_digest}",)


@pytest.mark.parametrize("name", ["prompt_set", "meter", "metric"])
def test_what_the_title_does_not_show_is_named(tmp_path: Path, name: str) -> None:
    before = run_of(tmp_path, 0)
    changes: dict[str, Any] = {name: "other"}
    after = replace(run_of(tmp_path, 1), **changes)
    key = {"prompt_set": "prompts"}.get(name, name)
    assert trends_of(before, after)[0] == (f"{TITLE}, {key} other", (f"{key} {getattr(before, name)} → other",))


def test_another_device_is_another_title(tmp_path: Path) -> None:
    before, after = run_of(tmp_path, 0, 3), replace(run_of(tmp_path, 1, 4), device="NVIDIA H200")
    assert trends_of(before, after) == [("mine, NVIDIA H200, gpu-board, measured", ()), (TITLE, ())]


def test_long_lists_are_cut(tmp_path: Path) -> None:
    before, after = (replace(run_of(tmp_path, n), settings={f"k{k}": str(n) for k in range(9)}) for n in range(2))
    (_, began), _ = trends_of(before, replace(after, suite_digest="f" * 12))
    assert began == ("k0 0 → 1", "k1 0 → 1", "k2 0 → 1", "k3 0 → 1", "and 5 more")


def test_the_place_of_the_prompts_does_not_matter(tmp_path: Path) -> None:
    """Their texts have a digest of their own."""
    (tmp_path / "prompts.txt").write_text("a cat\n")
    files = run_of(tmp_path, 0, source="prompts.txt"), run_of(tmp_path, 1, source=str(tmp_path / "prompts.txt"))
    assert [title for title, _ in trends_of(*files)] == [TITLE]
    assert str(tmp_path) not in str(files[0].settings)
