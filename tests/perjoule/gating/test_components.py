"""What changed is named: counted work per image, by network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from perjoule.gating import GateConfig, render
from perjoule.gating.components import explained, role_of, sentences, work_changes
from perjoule.gating.records import Axis, Verdict
from perjoule.runs.directory import Run
from perjoule.types import Estimate, Work, WorkPart
from tests.support.tables_of_runs import imported, table
from tests.support.work import Window, counted_run, work_of


def edited(work: Work, network: str, factor: int = 2, **counts: int) -> Work:
    """The work with the counts of a network multiplied, or replaced."""
    keys = ("calls", "flops", "bytes_moved", "operators")
    parts = [
        replace(part, **{key: factor * getattr(part, key) for key in keys} | counts) if part.name == network else part
        for part in work.parts
    ]
    return replace(work, parts=tuple(parts))


def run_of(folder: Path, works: Sequence[tuple[int, Work | None]], iterations: int = 1) -> Run:
    windows = [Window(steps=steps, energy_j=1.0, work=work, iterations=iterations) for steps, work in works]
    return counted_run(folder, windows)


def named(folder: Path, before: Work, after: Work) -> tuple[str, ...]:
    """What is said of two runs of one cell."""
    folder.mkdir(exist_ok=True)
    return sentences(work_changes(run_of(folder / "a", [(4, before)]), run_of(folder / "b", [(4, after)])))


def test_equal_work_has_no_changes(tmp_path: Path) -> None:
    assert named(tmp_path, work_of(4), work_of(4)) == ()


def test_each_network_is_named_with_its_counts_per_image(tmp_path: Path) -> None:
    text = edited(work_of(4), "Text")  # windows of two images
    assert named(tmp_path / "text", work_of(4), text) == (
        "v-004: text encoder Text: calls per image 0.5 → 1, GFLOP per image 0.1 → 0.2",
    )
    decoder = edited(work_of(4), "Decoder", factor=1, flops=2 * 10**10)
    assert named(tmp_path / "decoder", work_of(4), decoder) == ("v-004: decoder Decoder: GFLOP per image 4 → 10",)
    moved = edited(work_of(4), "Decoder", factor=1, bytes_moved=4 * 10**8)
    assert named(tmp_path / "moved", work_of(4), moved) == (
        "v-004: decoder Decoder: MB moved per image 90 → 200, operators per image 60 → 60",
    )


def test_a_new_network_and_one_that_is_not_called_any_more(tmp_path: Path) -> None:
    checker = WorkPart(name="SafetyChecker", calls=2, flops=4 * 10**9, bytes_moved=1, operators=1)
    more = replace(work_of(4), parts=(*work_of(4).parts, checker))
    assert named(tmp_path / "more", work_of(4), more) == ("v-004: SafetyChecker is new: 1 call and 2 GFLOP per image",)
    assert named(tmp_path / "less", more, work_of(4)) == (
        "v-004: SafetyChecker is not called any more; before: 1 call and 2 GFLOP per image",
    )


def test_one_more_step_is_named_as_evaluations_of_the_denoiser(tmp_path: Path) -> None:
    from perjoule.gating.steps import with_baseline_cells
    from tests.perjoule.gating.test_steps import at_steps

    before = at_steps(run_of(tmp_path / "a", [(12, work_of(12))]), 12)
    after = at_steps(run_of(tmp_path / "b", [(13, work_of(13))]), 13)
    after, _ = with_baseline_cells(before, after, ("steps",))
    assert sentences(work_changes(before, after)) == (
        "v-012: denoiser UNet: evaluations per image 24 → 26, calls per image 6 → 6.5, GFLOP per image 12 → 13",
    )


def test_the_same_change_of_many_cells_is_one_sentence(tmp_path: Path) -> None:
    steps = (1, 2, 4, 8)
    before = run_of(tmp_path / "a", [(n, work_of(n)) for n in steps])
    after = run_of(tmp_path / "b", [(n, edited(work_of(n), "Text")) for n in steps])
    assert sentences(work_changes(before, after)) == (
        "4 cells: text encoder Text: calls per image 0.5 → 1, GFLOP per image 0.1 → 0.2",
    )


def test_many_changes_are_cut(tmp_path: Path) -> None:
    steps = (1, 2, 3, 4, 5, 6)
    before = run_of(tmp_path / "a", [(n, work_of(n)) for n in steps])
    after = run_of(tmp_path / "b", [(n, edited(work_of(n), "UNet")) for n in steps])
    texts = sentences(work_changes(before, after))
    assert len(texts) == 5
    assert texts[0].startswith("v-006: ")  # the largest change first
    assert texts[-1] == "and 2 more changes of counted work: see --json"


def test_repeats_in_a_window_do_not_count_as_work_per_image(tmp_path: Path) -> None:
    once = run_of(tmp_path / "a", [(4, work_of(4))])
    thrice = run_of(tmp_path / "b", [(4, work_of(4, iterations=3))], iterations=3)
    assert work_changes(once, thrice) == ()


def test_windows_without_a_count_are_not_explained(tmp_path: Path) -> None:
    before = run_of(tmp_path / "a", [(4, work_of(4)), (8, work_of(8))])
    after = run_of(tmp_path / "b", [(4, None), (8, edited(work_of(8), "Text"))])
    assert [change.cell_id for change in work_changes(before, after)] == ["v-008"]
    theirs = imported(table(prompts=2, seeds=1, ladder=(2,)), tmp_path, "theirs")
    assert work_changes(theirs, theirs) == ()


def test_huge_runs_are_not_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = run_of(tmp_path / "a", [(4, work_of(4))])
    after = run_of(tmp_path / "b", [(4, edited(work_of(4), "Text"))])
    monkeypatch.setattr("perjoule.gating.components._MOST_WINDOWS", 0)
    assert work_changes(before, after) == ()


@pytest.mark.parametrize(
    ("network", "role"),
    [
        ("CLIPTextModelWithProjection", "text encoder"), ("T5EncoderModel", "text encoder"),
        ("UNet2DConditionModel", "denoiser"), ("SD3Transformer2DModel", "denoiser"), ("Decoder", "decoder"),
        ("AutoencoderKL", "decoder"), ("StableDiffusionSafetyChecker", ""),
    ],
)  # fmt: skip
def test_roles(network: str, role: str) -> None:
    assert role_of(network) == role


@pytest.mark.parametrize("outcome", ["fail", "pass", "inconclusive"])
def test_it_is_a_reason_of_a_failure_and_a_note_of_a_pass(tmp_path: Path, outcome: str) -> None:
    before = run_of(tmp_path / "a", [(4, work_of(4))])
    after = run_of(tmp_path / "b", [(4, edited(work_of(4), "Text"))])
    nothing = Estimate(value=None, low=None, high=None, level=0.9, n=0, method="")
    axis = Axis(change=nothing, margin=None, mde=None, outcome=outcome, label="")  # type: ignore[arg-type]
    plain = Verdict(
        verdict="fail", metric="q", energy=axis, quality=axis, config=GateConfig(), reasons=("r",), notes=("n",)
    )
    found = explained(plain, before, after)
    sentence = "v-004: text encoder Text: calls per image 0.5 → 1, GFLOP per image 0.1 → 0.2"
    if outcome == "pass":
        assert (found.reasons, found.notes) == (("r",), (sentence, "n"))
    else:
        assert (found.reasons, found.notes) == (("r", sentence), ("n",))
    (change,) = found.work_changes
    assert (change.network, change.role, change.baseline.calls, change.candidate.calls) == (
        "Text",
        "text encoder",
        0.5,
        1,
    )
    assert all(sentence in text for text in (render.terminal(found), render.markdown(found)))
