from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from perjoule.errors import RunError, UsageError
from perjoule.gating import history
from perjoule.runs.directory import load_run
from tests.support.histories import logged
from tests.support.stored_runs import stored_run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / ".perjoule" / "history.jsonl"


def test_runs_come_back_in_the_order_of_time(file: Path) -> None:
    runs = [logged(week, [100.0]) for week in (2, 0, 1)]
    for run in runs:
        assert history.log_run(run, file)
    assert history.read_history(file).runs == (runs[1], runs[2], runs[0])
    assert len(file.read_text().splitlines()) == 3
    assert history.read_history(file.with_name("none.jsonl")).runs == ()


def test_a_run_counts_once_and_its_last_line_wins(file: Path) -> None:
    run = logged(0, [100.0])
    assert history.log_run(run, file)
    assert not history.log_run(replace(run, logged="2026-02-01T00:00:00+00:00"), file)
    rescored = logged(0, [100.0], [0.3], logged="2026-02-02T00:00:00+00:00")
    assert history.log_run(rescored, file)
    assert history.read_history(file).runs == (rescored,)
    # in any order of lines, as git merges them
    file.write_text("".join(reversed(file.read_text().splitlines(keepends=True))))
    assert history.read_history(file).runs == (rescored,)


def test_lines_are_only_appended(file: Path) -> None:
    history.log_run(logged(0, [100.0]), file)
    file.write_bytes(file.read_bytes().rstrip(b"\n"))  # an editor cut the newline
    before = file.read_bytes()
    history.log_run(logged(1, [100.0]), file)
    assert file.read_bytes().startswith(before + b"\n")
    assert len(history.read_history(file).runs) == 2


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"kind": "run", "schema": 1', "line 2: damaged: "),
        (b"[1]", "line 2: damaged: not a JSON object"),
        (b"\xff", "line 2: damaged: "),
        (b'{"schema": 2}', "line 2: schema = 2: this version of perjoule reads 1"),
        (b'{"schema": 1, "kind": "run", "suite": 3}', "line 2: suite: "),
        (b'{"schema": 1, "kind": "accepted", "suite": "a", "since": "x", "reason": "", "logged": "x"}', "'x' is not a"),
        (b"<<<<<<< HEAD", "line 2: a conflict marker of git: keep the lines of both sides"),
    ],
)
def test_a_damaged_line_is_named_and_nothing_is_lost(file: Path, line: bytes, words: str) -> None:
    history.log_run(logged(0, [100.0]), file)
    file.write_bytes(file.read_bytes() + line + b"\n")
    before = file.read_bytes()
    for act in (
        lambda: history.read_history(file),
        lambda: history.log_run(logged(1, [1.0]), file),
        lambda: history.accept("mine", "2026-01-05", "why", file),
    ):
        with pytest.raises(RunError) as refusal:
            act()
        assert words in str(refusal.value)
        assert str(file) in str(refusal.value)
        assert file.read_bytes() == before
    assert "git" in str(refusal.value) or "perjoule" in str(refusal.value)


def test_git_merges_two_branches_without_a_conflict(tmp_path: Path, file: Path) -> None:
    def git(*words: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
        done = subprocess.run(["git", *identity, *words], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout

    git("init", "-q")
    history.log_run(logged(0, [100.0]), file)
    git("add", "-A")
    git("commit", "-qm", "one")
    git("checkout", "-qb", "other")
    history.log_run(logged(1, [101.0]), file)
    git("commit", "-qam", "two")
    git("checkout", "-q", "-")
    history.log_run(logged(2, [102.0]), file)
    git("commit", "-qam", "three")
    git("merge", "-q", "other", "-m", "both")
    assert [run.cells["ladder-001"].energy_j for run in history.read_history(file).runs] == [100.0, 101.0, 102.0]


def test_attributes_of_the_project_stay(file: Path) -> None:
    file.parent.mkdir()
    (file.parent / ".gitattributes").write_text("* -text\n")
    history.log_run(logged(0, [100.0]), file)
    assert (file.parent / ".gitattributes").read_text() == "* -text\n"


def test_an_acceptance_needs_a_reason(file: Path) -> None:
    history.accept("mine", "2026-01-05", "new\nscheduler", file)
    assert [line.reason for line in history.read_history(file).accepted] == ["new scheduler"]
    with pytest.raises(UsageError, match="give the reason"):
        history.accept("mine", "2026-01-05", " ", file)


def test_a_link_is_not_followed(tmp_path: Path, file: Path) -> None:
    file.parent.mkdir()
    (tmp_path / "private").write_text("mine\n")
    file.symlink_to(tmp_path / "private")
    with pytest.raises(RunError, match="symbolic link"):
        history.read_history(file)


def test_a_linked_folder_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checked-out repository can contain the link."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "victim").mkdir()
    Path(".perjoule").symlink_to("victim")
    for use in (
        lambda: history.log_run(logged(0, [100.0])), lambda: history.accept("mine", "2026-01-05", "new scheduler"),
        history.read_history,
    ):  # fmt: skip
        with pytest.raises(RunError, match=r"^\.perjoule is a symbolic link: replace it by a folder"):
            use()
    assert not list((tmp_path / "victim").iterdir())


def test_the_line_of_a_run_has_its_operating_points(tmp_path: Path) -> None:
    run = stored_run(tmp_path / "run")
    line = history.logged_run(run)
    points = {row["cell_id"]: row for row in run.points.iter_rows(named=True) if row["metric"] == line.metric}
    assert set(line.cells) == set(points)
    for name, cell in line.cells.items():
        assert cell.energy_j == points[name]["energy_j_per_image"]
        assert cell.bound_j == points[name]["energy_bound_j_per_image"]
        assert cell.quality == points[name]["quality"]
        assert cell.provenance == points[name]["provenance"]
        assert cell.n == points[name]["n_prompts"]
    assert json.loads(json.dumps(asdict(line)))["schema"] == 1
    assert replace(history.logged_run(load_run(run.path)), logged=line.logged) == line
    (run.path / "points.parquet").unlink()
    with pytest.raises(RunError, match="perjoule score"):
        history.logged_run(load_run(run.path))


def test_a_run_without_a_date_is_refused(tmp_path: Path) -> None:
    run = stored_run(tmp_path / "run")
    file = run.path / "environment.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "created_utc"}))
    with pytest.raises(RunError, match="created_utc is missing"):
        history.logged_run(load_run(run.path))
