from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from perjoule.errors import RunError
from perjoule.statistics.work_profile import calibrate_work
from perjoule.work.profile import read_profile
from tests.support import driving
from tests.support.work import PROFILE, STEPS, Window, counted_run, counted_windows, joules, work_of


def test_joules_that_follow_a_profile_give_it_back(tmp_path: Path) -> None:
    run = counted_run(tmp_path / "run", [*counted_windows()[::-1], *counted_windows()])
    done = calibrate_work(run)
    assert [point.ratio for point in done.points] == pytest.approx([1.0] * len(STEPS))
    assert (done.windows, len(done.points), done.provenance) == (10, 5, "measured")
    assert [point.cell_id for point in done.points] == [f"v-{steps:03d}" for steps in STEPS]
    assert done.r_squared == pytest.approx(1.0)
    assert done.profile.shape_error < 1e-6
    assert done.profile.level_error == pytest.approx(0.02)
    assert (done.profile.device, done.profile.device_model, done.profile.boundary) == ("cpu", "Fake", "cpu-package")
    # new work: other step counts, other batches are not a multiple of any window
    assert done.profile.energy_j(work_of(100)) == pytest.approx(joules(100))


@pytest.mark.parametrize(("provenance", "expected"), [("measured", 4.0), ("estimated", 1.0)])
def test_repeats_are_averaged_and_of_estimates_the_least_disturbed_counts(
    tmp_path: Path, provenance: str, expected: float
) -> None:
    windows = [
        Window(steps=s, energy_j=factor * joules(s), work=work_of(s), reading={"provenance": provenance})
        for s in STEPS
        for factor in (1.0, 7.0, 4.0)
    ]
    done = calibrate_work(counted_run(tmp_path / "run", windows))
    assert [point.windows for point in done.points] == [3] * len(STEPS)
    assert [point.energy_j_per_image for point in done.points] == pytest.approx(
        [expected * joules(s) / 2 for s in STEPS]
    )
    assert done.profile.energy_j(work_of(3)) == pytest.approx(expected * joules(3))
    assert done.profile.level_error == (0.5 if provenance == "estimated" else pytest.approx(0.02))


def test_a_repeated_window_is_the_same_point(tmp_path: Path) -> None:
    more = [Window(steps=s, energy_j=5 * joules(s), work=work_of(s, iterations=5), iterations=5) for s in STEPS]
    done = calibrate_work(counted_run(tmp_path / "run", [*counted_windows(), *more]))
    assert [(point.windows, point.images) for point in done.points] == [(2, 2)] * len(STEPS)
    assert [point.ratio for point in done.points] == pytest.approx([1.0] * len(STEPS))


def test_work_that_was_left_out_is_part_of_the_error(tmp_path: Path) -> None:
    windows = counted_windows()
    windows[3] = replace(windows[3], energy_j=2 * joules(STEPS[3]))
    done = calibrate_work(counted_run(tmp_path / "run", windows))
    assert done.worst_cell in ("v-008", "v-016")
    assert done.profile.shape_error > 0.2


def without_work(windows: list[Window]) -> list[Window]:
    return [replace(window, work=None) for window in windows]


def reading(**changes: object) -> Callable[[list[Window]], list[Window]]:
    return lambda windows: [replace(window, reading=changes) for window in windows]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_work, r"no window has both joules and counted work .*measure again"),
        (lambda w: [replace(one, energy_j=None) for one in w], "no window has both joules and counted work"),
        (lambda w: w[:3], "at least 4 different amounts of work, there are 3"),
        (reading(provenance="estimated", method="counted work, profile 'cpu'"), "counted work themselves"),
        (reading(provenance="simulated"), "its joules are simulated"),
        (reading(device="A + B"), "several boards, A . B"),
        (reading(boundary="gpu-board"), "the joules cover gpu-board, the work was done on cpu"),
        (lambda w: [*w[1:], replace(w[0], reading={"device": "Other"})], r"several devices, .*\(Fake, Other\)"),
        (lambda w: [*w[1:], replace(w[0], reading={"device_digest": "d"})], "several devices"),
        (lambda w: [*w[1:], replace(w[0], work=work_of(1, device="cuda"))], r"several kinds of devices.*\(cpu, cuda\)"),
        (lambda w: [*w[1:], replace(w[0], reading={"provenance": "estimated"})], "several provenances"),
        (lambda w: [*w[1:], replace(w[0], reading={"boundary": "estimate"})], "several boundaries"),
    ],
)
def test_a_run_without_a_profile_in_it_is_refused(
    tmp_path: Path, change: Callable[[list[Window]], list[Window]], said: str
) -> None:
    run = counted_run(tmp_path / "run", change(counted_windows()))
    with pytest.raises(RunError, match=said) as raised:
        calibrate_work(run)
    assert str(run.path) in str(raised.value)


def test_the_command_writes_a_profile_and_prints_its_points(tmp_path: Path) -> None:
    counted_run(tmp_path / "run", counted_windows())
    out = tmp_path / "mine.json"
    ended = driving.drive("calibrate", "--work", tmp_path / "run", "--out", out)
    assert ended.code == 0, ended
    assert "work left out of the fit ± 0.0%" in ended.out
    assert "GFLOP/image" in ended.out
    assert f"--meter work:{out}" in ended.out
    assert read_profile(out).energy_j(work_of(3)) == pytest.approx(PROFILE.energy_j(work_of(3)))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give two logs, EXTERNAL and LOG"),
        (("a.csv",), "give two logs, EXTERNAL and LOG"),
        (("a.csv", "b.csv", "--work", "run"), "--work RUN takes only --out and --json"),
        (("--work", "run", "--store", "board-0123456789ab"), "--work RUN takes only --out and --json"),
        (("a.csv", "b.csv", "--out", "mine.json"), "--out needs --work RUN"),
    ],
)
def test_the_two_forms_are_not_mixed(arguments: tuple[str, ...], said: str) -> None:
    ended = driving.drive("calibrate", *arguments)
    assert ended.code == 2
    assert said in ended.err
