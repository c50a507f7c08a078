"""Files of others are opened only if they are regular, not links where they may not be, and not too large."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from perjoule.errors import RunError, UsageError
from perjoule.opening import content_of, open_regular, require_few_containers, require_no_links
from perjoule.prompts.reading import Layout, read_rows
from perjoule.running.pipeline import default_out
from perjoule.runs.directory import load_run
from perjoule.runs.race_record import Race, write_race
from perjoule.suite.reading import load_suite
from tests.perjoule.running.test_execute import do, fresh, make_suite


def pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)


def device(path: Path, _: Path) -> None:
    path.symlink_to("/dev/zero")


def link(path: Path, aside: Path) -> None:
    path.symlink_to(aside)


def own_device(path: Path, _: Path) -> None:
    """A socket, which cannot be opened at all; devices need rights that tests may not have."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


def folder(path: Path, _: Path) -> None:
    path.mkdir()


PLANTED: dict[str, Callable[[Path, Path], None]] = {
    "pipe": pipe, "device": device, "link": link, "socket": own_device, "folder": folder,
}  # fmt: skip


@pytest.mark.parametrize("kind", PLANTED)
def test_only_regular_files_are_opened(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    (tmp_path / "aside").write_text("text")
    PLANTED[kind](Path("x"), tmp_path / "aside")
    words = "x is a symbolic link: replace it" if kind in ("link", "device") else "x is not a regular file"
    with pytest.raises(UsageError, match=words):
        open_regular(Path("x"), error=UsageError)
    if kind == "link":
        assert content_of(Path("x"), follow=True) == b"text"
    else:
        with pytest.raises(RunError, match="x is not a regular file"):
            open_regular(Path("x"), follow=True)


def test_a_size_is_limited_in_words(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(2**21))
    assert len(content_of(tmp_path / "x", 2**21)) == 2**21
    with pytest.raises(UsageError, match=r"x has 2 MiB, but perjoule reads at most 1 MiB"):
        content_of(tmp_path / "x", 2**20, error=UsageError)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(RunError, match=r"sparse has 1,048,576 MiB, but perjoule reads at most 64 MiB"):
        content_of(tmp_path / "sparse")


def test_json_of_many_lists_is_not_parsed() -> None:
    require_few_containers("[" * 5_000_000)
    for content in ("[],{}" * 2_000_000 + "[]" * 2_000_000, b"[]," * 5_100_000):
        with pytest.raises(ValueError, match="more than 5,000,000 lists and objects"):
            require_few_containers(content)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every file that is read again."""
    place = tmp_path_factory.mktemp("stored") / "run"
    suite = make_suite()
    do(suite, fresh(place, suite))
    (place / "metrics.json").write_text('{"schema": 1, "metrics": []}')
    (place / "set_scores.json").write_text('{"schema": 1, "metrics": [], "scores": []}')
    race = Race(metric="lsnr", alpha=0.05, level=0.01, prompts=3, cells=("v-001", "v-004"), look_prompts=(2,))
    write_race(place, race)
    for name in ("scores", "points"):
        os.link(place / "images.parquet", place / f"{name}.parquet")
    return place


READ = {
    "suite.toml": "suite", "environment.json": "environment", "prompts.jsonl": "prompt_set", "trials.jsonl": "trials",
    "images.parquet": "images", "power.parquet": "power", "devices.jsonl": "devices", "work.jsonl": "works",
    "metrics.json": "metrics", "set_scores.json": "set_scores", "scores.parquet": "scores", "points.parquet": "points",
    "race.json": "race",
}  # fmt: skip


@pytest.mark.parametrize("kind", [kind for kind in PLANTED if kind != "socket"])
@pytest.mark.parametrize("file", READ)
def test_no_file_of_a_run_is_read_through_a_link_or_from_a_pipe(
    stored: Path, tmp_path: Path, file: str, kind: str
) -> None:
    """A link may show a private file of the reader in a report; a pipe would be waited for; /dev/zero never ends."""
    place = tmp_path / "run"
    place.mkdir()
    for path in stored.iterdir():
        if path.name != file:
            (place / path.name).symlink_to(path) if path.is_dir() else os.link(path, place / path.name)
    aside = tmp_path / f"aside{(stored / file).suffix}"
    aside.write_bytes((stored / file).read_bytes())
    PLANTED[kind](place / file, aside)
    with pytest.raises((RunError, UsageError), match=rf"{file}|run is not a run directory|Is a directory"):
        getattr(load_run(place), READ[file])


def test_what_a_user_names_may_be_a_link_but_not_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "aside.txt").write_text("a red disc\n")
    (tmp_path / "prompts.txt").symlink_to(tmp_path / "aside.txt")
    assert read_rows(tmp_path / "prompts.txt", Layout(), "suite")[0].text == "a red disc"
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(UsageError, match=r"pipe\.txt is not a regular file"):
        read_rows(tmp_path / "pipe.txt", Layout(), "suite")
    with pytest.raises(UsageError, match=r"pipe\.txt is not a regular file"):
        load_suite(tmp_path / "pipe.txt")


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("linked", ["a", "a/b", "a/b/c"])
def test_a_fixed_folder_does_not_lead_elsewhere(
    tmp_path: Path, linked: str, absolute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = (Path.cwd() if absolute else Path()) / "a" / "b" / "c"
    require_no_links(folder)  # nothing there yet
    Path(linked).parent.mkdir(parents=True, exist_ok=True)
    Path(linked).symlink_to(tmp_path)
    with pytest.raises(RunError, match=f"^{linked} is a symbolic link: replace it by a folder"):
        require_no_links(folder)
    require_no_links(Path(linked).parent)


def test_links_on_the_way_to_a_named_folder_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real" / "own").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    require_no_links(tmp_path / "link" / "own")  # elsewhere, so a user named it
    require_no_links(tmp_path / "link" / "own", tmp_path / "link")
    with pytest.raises(RunError, match="link is a symbolic link"):
        require_no_links(tmp_path / "link" / "own", tmp_path)


def test_the_default_run_directory_is_not_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_out(make_suite()).parent == Path("runs")
    Path("runs").symlink_to(tmp_path)
    with pytest.raises(UsageError, match=r"^runs is a symbolic link: replace it by a folder, or name .* with --out"):
        default_out(make_suite())


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "csv", "json", "parquet"])
def test_the_environment_is_not_shown_as_bad_prompts(tmp_path: Path, suffix: str) -> None:
    """A suite names the file, and the message would be in the log of CI."""
    (tmp_path / f"prompts.{suffix}").symlink_to("/proc/self/environ")
    with pytest.raises(UsageError, match="is not a file on a disk: it has no size; give a copy of it") as caught:
        read_rows(tmp_path / f"prompts.{suffix}", Layout(), "suite")
    assert not any(value in str(caught.value) for value in os.environ.values() if len(value) > 8 and "/" not in value)
    with pytest.raises(RunError, match="no size"):
        content_of(Path("/proc/self/environ"))
    (tmp_path / "empty").touch()
    assert content_of(tmp_path / "empty") == b""


def test_a_journal_that_is_just_begun_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, state, calls = tmp_path / "trials.jsonl", os.fstat, []
    path.touch()

    def begun(handle: int) -> os.stat_result:
        seen = state(handle)
        calls.append(seen.st_size)
        if len(calls) == 2:
            path.write_bytes(b"{}")  # by another process, after its size was read
        return seen

    monkeypatch.setattr(os, "fstat", begun)
    with open_regular(path) as file:
        assert file.read() == b"{}"
    assert calls == [0, 0, 2]
