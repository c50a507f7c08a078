"""A run directory that is created whole: a failure leaves nothing, a kill leaves nothing that passes as a run."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from perjoule.errors import RunError, UsageError
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


def test_a_second_process_is_refused_and_what_a_killed_one_left_is_removed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", CREATOR, out], stdout=subprocess.PIPE, text=True) as creator:
        assert creator.stdout is not None
        assert creator.stdout.readline() == "begun\n"
        refused = pytest.raises(UsageError, match=f"out is being created by process {creator.pid}: wait for it")
        with refused, whole_or_nothing(out):
            pass
        creator.kill()
        creator.wait()
    assert [entry.name for entry in tmp_path.iterdir()] == [".perjoule-new-out"]
    with whole_or_nothing(out) as folder:
        assert list(folder.iterdir()) == []
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("plant", ["link", "file", "link inside", "folder inside"])
def test_what_others_planted_at_the_temporary_name_is_not_followed(tmp_path: Path, plant: str) -> None:
    victim, place, out = tmp_path / "victim", tmp_path / ".perjoule-new-out", tmp_path / "out"
    victim.mkdir()
    (victim / "file").touch()
    if plant.startswith(("link", "folder")) and plant != "link":
        place.mkdir()
    match plant:
        case "link":
            place.symlink_to(victim)
        case "file":
            place.touch()
        case "link inside":
            (place / "run").symlink_to(victim)
        case "folder inside":
            (place / "run").mkdir()
            (place / "run" / "images").symlink_to(victim)
    if plant in ("link", "file"):
        with pytest.raises(UsageError, match=r"\.perjoule-new-out is not a folder: remove it"), whole_or_nothing(out):
            pass
    else:
        with whole_or_nothing(out) as folder:
            assert list(folder.iterdir()) == []
        assert list(out.iterdir()) == []
    assert [file.name for file in victim.iterdir()] == ["file"]


def test_a_mount_point_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "out")
    (tmp_path / "out").mkdir()
    refused = pytest.raises(UsageError, match="out is a mount point, which cannot be replaced")
    with refused, whole_or_nothing(tmp_path / "out"):
        pass
