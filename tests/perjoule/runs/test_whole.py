"""A run directory that is created whole: a failure leaves nothing, a kill leaves nothing that passes as a run."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest

from perjoule.errors import RunError, UsageError
from perjoule.runs.directory import is_run
from perjoule.runs.whole import whole_or_nothing

CREATOR = """
import sys, time
from pathlib import Path
from perjoule.runs.whole import whole_or_nothing
with whole_or_nothing(Path(sys.argv[1])) as folder:
    (folder / "half").touch()
    print("begun", flush=True)
    time.sleep(60)
"""

NAMES = ("environment.json", "images", "suite.toml", "prompts.jsonl")
# fills a folder per number of moves after which the process is killed
MOVER = """
import os, shutil, signal, sys
from pathlib import Path
from perjoule.runs.whole import whole_or_nothing
place, *names = sys.argv[1:]
rename, moves = Path.rename, []
def killed():
    os.kill(os.getpid(), signal.SIGKILL)
def counting(path, target):
    if len(moves) == number:
        killed()
    moves.append(target)
    return rename(path, target)
for number in range(len(names) + 2):
    out = Path(place, str(number))
    out.mkdir()
    if not (child := os.fork()):
        Path.rename = counting
        shutil.rmtree = lambda *_, **__: killed()
        with whole_or_nothing(out) as folder:
            for name in names:
                (folder / name).touch()
        os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
"""


@pytest.mark.parametrize("exists", [False, True])
def test_the_folder_appears_at_the_end(tmp_path: Path, exists: bool) -> None:
    out = tmp_path / "more" / "out"
    if exists:
        out.mkdir(parents=True)
    with whole_or_nothing(out) as folder:
        (folder / "file").write_text("content")
        assert not (out / "file").exists()
    assert [file.name for file in out.iterdir()] == ["file"]
    assert list(tmp_path.rglob(".*")) == []


def test_a_link_to_an_empty_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    with whole_or_nothing(tmp_path / "out") as folder:
        (folder / "file").touch()
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk" / "file").exists()


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), RunError("x"), OSError(errno.EIO, "x", "y")])
def test_a_failure_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def fail() -> None:
        with whole_or_nothing(tmp_path / "a" / "out") as folder:
            (folder / "file").touch()
            raise error

    with pytest.raises(type(error)):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_errors_name_files_of_the_directory_that_the_user_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(OSError, match="No space") as caught, whole_or_nothing(out) as folder:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder / "images" / "a.png"))
    assert caught.value.filename == str(out / "images" / "a.png")
    with pytest.raises(RunError, match=f"^{out}/trials.jsonl: damaged$"), whole_or_nothing(out) as folder:
        raise RunError(f"{folder}/trials.jsonl: damaged")
    with pytest.raises(FileNotFoundError) as missing, whole_or_nothing(out):
        (tmp_path / "source").read_bytes()
    assert missing.value.filename == str(tmp_path / "source")


def test_a_directory_that_gets_content_meanwhile_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def meanwhile() -> None:
        out.mkdir()
        (out / "other").touch()

    with pytest.raises(UsageError, match="out exists already: choose another"), whole_or_nothing(out):
        meanwhile()
    assert [file.name for file in out.iterdir()] == ["other"]
    assert list(tmp_path.iterdir()) == [out]
    with pytest.raises(UsageError, match="out exists already: choose another"), whole_or_nothing(out):
        pass


@pytest.mark.parametrize("exists", [False, True])
def test_a_second_process_is_refused_and_what_a_killed_one_left_is_removed(tmp_path: Path, exists: bool) -> None:
    out = tmp_path / "out"
    if exists:
        out.mkdir()
    with subprocess.Popen([sys.executable, "-c", CREATOR, out], stdout=subprocess.PIPE, text=True) as creator:
        assert creator.stdout is not None
        assert creator.stdout.readline() == "begun\n"
        refused = pytest.raises(UsageError, match=f"out is being created by process {creator.pid}: wait for it")
        with refused, whole_or_nothing(out):
            pass
        creator.kill()
        creator.wait()
    place = out / ".perjoule-new" if exists else tmp_path / ".perjoule-new-out"
    assert list(place.parent.iterdir()) == [place]
    with whole_or_nothing(out) as folder:
        assert list(folder.iterdir()) == []
    assert [*tmp_path.iterdir(), *out.iterdir()] == [out]


@pytest.mark.parametrize("plant", ["link", "file", "link inside", "file inside"])
@pytest.mark.parametrize("exists", [False, True])
def test_what_others_planted_at_the_temporary_name_is_neither_followed_nor_deleted(
    tmp_path: Path, plant: str, exists: bool
) -> None:
    victim, out = tmp_path / "victim", tmp_path / "out"
    place = out / ".perjoule-new" if exists else tmp_path / ".perjoule-new-out"
    for folder in (victim, place.parent):
        folder.mkdir(exist_ok=True)
    (victim / "file").touch()
    if plant.endswith("inside"):
        place.mkdir(mode=0o700)
    match plant:
        case "link":
            place.symlink_to(victim)
        case "file":
            place.touch()
        case "link inside":
            (place / "run").symlink_to(victim)
        case "file inside":
            (place / "keep.txt").touch()
    before = sorted(tmp_path.rglob("*"))
    words = "new[^ ]* is (not a folder: remove it|for temporary files, but contains (run|keep.txt): move it to another)"
    with pytest.raises(UsageError, match=words), whole_or_nothing(out):
        pass
    assert sorted(tmp_path.rglob("*")) == before
    assert [file.name for file in victim.iterdir()] == ["file"]


def test_links_in_what_a_killed_process_left_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "file").touch()
    place = tmp_path / ".perjoule-new-out"
    place.mkdir(mode=0o700)
    (place / "run").mkdir()
    (place / "run" / "images").symlink_to(tmp_path / "victim")
    with whole_or_nothing(tmp_path / "out") as folder:
        assert list(folder.iterdir()) == []
    assert (tmp_path / "victim" / "file").exists()


@pytest.mark.parametrize("exists", [False, True])
def test_a_temporary_folder_that_others_can_write_is_refused(
    tmp_path: Path, exists: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    place = out / ".perjoule-new" if exists else tmp_path / ".perjoule-new-out"
    place.mkdir(parents=True, mode=0o700)
    refused = partial(pytest.raises, UsageError, match="new.* belongs to another user or is open to others: remove it")
    place.chmod(0o777)
    with refused(), whole_or_nothing(out):
        pass
    place.chmod(0o700)
    with monkeypatch.context() as patch:
        patch.setattr("os.geteuid", lambda: place.stat().st_uid + 1)
        with refused(), whole_or_nothing(out):
            pass
    with whole_or_nothing(out) as folder:
        assert folder.parent == place
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert not place.exists()


def test_a_folder_that_exists_stays_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inode = tmp_path.stat().st_ino
    monkeypatch.chdir(tmp_path)
    with whole_or_nothing(Path()) as folder:
        (folder / "images").mkdir()
        (folder / "images" / "a.png").touch()
        (folder / "environment.json").touch()
    assert Path("environment.json").exists()
    assert sorted(str(path) for path in Path().rglob("*")) == ["environment.json", "images", "images/a.png"]
    assert tmp_path.stat().st_ino == inode


def test_a_mount_point_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def busy(path: Path, target: Path) -> Path:
        if target == tmp_path / "out":
            raise OSError(errno.EBUSY, "Device or resource busy", str(target))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", busy)
    (tmp_path / "out").mkdir()
    with whole_or_nothing(tmp_path / "out") as folder:
        (folder / "file").touch()
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["file"]


def test_an_empty_folder_in_one_without_permission_is_filled() -> None:
    parent = Path(tempfile.mkdtemp())
    out = parent / "out"
    out.mkdir()
    user = os.geteuid()
    if user == 0:  # root may write anywhere
        os.chown(parent, 65534, -1)
        os.chown(out, 65534, -1)
        os.seteuid(65534)
    try:
        parent.chmod(0o500)
        with whole_or_nothing(out) as folder:
            (folder / "file").touch()
        assert [file.name for file in out.iterdir()] == ["file"]
    finally:
        os.seteuid(user)
        parent.chmod(0o700)
        shutil.rmtree(parent)


def test_content_that_others_add_to_an_empty_folder_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()

    def fill() -> None:
        with whole_or_nothing(out) as folder:
            (folder / "suite.toml").touch()
            (out / "suite.toml").write_text("of another")

    with pytest.raises(UsageError, match="out exists already: choose another"):
        fill()
    assert [(file.name, file.read_text()) for file in out.iterdir()] == [("suite.toml", "of another")]


@pytest.mark.parametrize("number", range(5))
def test_a_failed_move_leaves_nothing(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, moves = Path.rename, []

    def failing(path: Path, target: Path) -> Path:
        moves.append(path.name)
        if len(moves) > number:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return rename(path, target)

    def fill() -> None:
        with whole_or_nothing(tmp_path) as folder:
            for name in NAMES:
                (folder / name).touch()

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="Input/output error") as caught:
        fill()
    assert list(tmp_path.iterdir()) == []
    assert caught.value.filename == str(tmp_path / moves[-1])
    assert moves[0] == ".starting"
    assert sorted(moves[1:4]) == ["images", "prompts.jsonl", "suite.toml"][:number]
    assert moves[4:] == ["environment.json"][: max(0, number - 3)]


def test_a_kill_while_entries_are_moved_leaves_no_run_and_the_next_process_removes_the_rest(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", MOVER, tmp_path, *NAMES], check=True)
    for number in range(len(NAMES) + 1):  # of these and .starting
        out = tmp_path / str(number)
        assert (out / ".perjoule-new").is_dir()
        assert len(list(out.iterdir())) == number + 1
        assert not is_run(out)
        (out / "mine").touch()
        with pytest.raises(UsageError, match="exists already"), whole_or_nothing(out):
            pass
        (out / "mine").unlink()
        with whole_or_nothing(out) as folder:
            assert [entry.name for entry in out.iterdir()] == [".perjoule-new"]
            (folder / "new").touch()
        assert [entry.name for entry in out.iterdir()] == ["new"]
    complete = tmp_path / str(len(NAMES) + 1)  # killed after the last move
    with pytest.raises(UsageError, match="exists already"), whole_or_nothing(complete):
        pass
    assert {entry.name for entry in complete.iterdir()} == {*NAMES, ".perjoule-new"}
