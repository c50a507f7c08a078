"""A suite is refused, or has a note, before anything is drawn: schedules and selected prompts."""

from __future__ import annotations

from pathlib import Path

import pytest

from perjoule.errors import SuiteError
from perjoule.running.prepared import prepare
from perjoule.running.suite_doctor import examine
from perjoule.suite.reading import load_suite

SUITE = """
name = "s"
title = "s"
description = "s"
[prompts]
source = "builtin:everyday"
limit = 3
[protocol]
[metrics]
primary = "{metric}"
names = ["{metric}"]
[[variants]]
name = "a"
model = "builtin:sd-tiny"
scheduler = "DDIMScheduler"
scheduler_args = {{ timestep_spacing = "{spacing}" }}
steps = [5, 50]
guidance = 3.0
"""


def suite_file(folder: Path, metric: str, spacing: str, prompts: str = "") -> Path:
    path = folder / "s.toml"
    path.write_text(SUITE.format(metric=metric, spacing=spacing).replace("limit = 3", f"limit = 3\n{prompts}"))
    return path


def test_leading_spacing_is_refused_with_a_full_reference_metric(tmp_path: Path) -> None:
    path = suite_file(tmp_path, "iclip", "leading")
    with pytest.raises(SuiteError) as caught:
        prepare(str(path))
    for part in (str(path), "a-005 begins at timestep", "a-050", "iclip", 'timestep_spacing = "trailing"'):
        assert part in str(caught.value)
    needs = examine(load_suite(path), path)
    assert not needs.ready
    assert [need for need in needs.needs if need.name == "samplers" and "a-005" in need.says]


def test_leading_spacing_is_a_note_without_one(tmp_path: Path) -> None:
    path = suite_file(tmp_path, "lsnr", "leading")
    (note,) = [note for note in prepare(str(path)).notes if "a-005" in note]
    assert "do not score this run" in note
    assert examine(load_suite(path), path).ready


def test_trailing_spacing_is_accepted(tmp_path: Path) -> None:
    prepared = prepare(str(suite_file(tmp_path, "iclip", "trailing")))
    assert prepared.notes == ()
    assert prepared.full_reference == ("iclip",)


def test_prompts_are_selected_by_the_named_clip(tmp_path: Path) -> None:
    wanted = 'select = "clip-farthest"\nselect_model = "builtin:clip-tiny"'
    prepared = prepare(str(suite_file(tmp_path, "iclip", "trailing", wanted)))
    assert len(prepared.prompts) == 3
    assert prepared.origin.selection is not None
    assert prepared.origin.selection.candidates > 3


def test_a_clip_that_is_not_available_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERJOULE_OFFLINE", "1")
    path = suite_file(tmp_path, "iclip", "trailing", 'select = "clip-farthest"\nselect_model = "someone/clip"')
    with pytest.raises(SuiteError, match=r"prompts\.select_model = 'someone/clip': select = 'clip-farthest' needs"):
        prepare(str(path))
