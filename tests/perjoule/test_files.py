from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import resource
import shutil
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perjoule import files
from perjoule.errors import RunError
from perjoule.files import (
    append_line,
    mend,
    open_journal,
    read_json,
    read_json_lines,
    replacing,
    write_bytes,
    write_json,
    write_json_lines,
    write_parquet,
    write_text,
)
from perjoule.opening import open_inside


def names_in(folder: Path | str) -> list[str]:
    return [path.name for path in Path(folder).iterdir()]


WRITERS: dict[str, Callable[[Path], None]] = {
    "json": lambda path: write_json(path, {"new": True}),
    "lines": lambda path: write_json_lines(path, [{"new": True}]),
    "parquet": lambda path: write_parquet(pl.DataFrame({"new": [1]}), path),
    "text": lambda path: write_text(path, "new"),
    "bytes": lambda path: write_bytes(path, b"new"),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
class TestWriting:
    def test_a_planted_link_is_replaced_and_its_target_untouched(self, tmp_path, write):
        precious, target = tmp_path / "precious", tmp_path / "run" / "report.html"
        precious.write_text("mine")
        target.parent.mkdir()
        target.symlink_to(precious)
        # the name that was used for every atomic write before
        target.with_name("report.html.tmp").symlink_to(precious)
        write(target)
        assert precious.read_text() == "mine"
        assert not target.is_symlink()
        assert b"new" in target.read_bytes()

    def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(self, tmp_path, write, monkeypatch):
        target = tmp_path / "a.json"
        target.write_text("old")

        def full(_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left") as caught:
            write(target)
        assert caught.value.filename == str(target)
        assert target.read_text() == "old"
        assert names_in(tmp_path) == ["a.json"]

    def test_missing_folders_are_made_and_the_mode_is_the_usual_one(self, tmp_path, write):
        before = os.umask(0o027)
        try:
            write(tmp_path / "a" / "b" / "c")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "a" / "b" / "c").stat().st_mode) == 0o640

    def test_a_folder_in_the_way_is_named(self, tmp_path, write):
        (tmp_path / "x").mkdir()
        with pytest.raises(OSError, match="directory") as caught:
            write(tmp_path / "x")
        assert str(tmp_path / "x") in (caught.value.filename2 or caught.value.filename)
        assert names_in(tmp_path) == ["x"]


def test_devices_and_pipes_are_written_to_and_not_replaced(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught:
        write_text(Path("/dev/full"), "text")
    assert caught.value.filename == "/dev/full"
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_text(tmp_path / "pipe", "text")
    assert os.read(reader, 9) == b"text"
    os.close(reader)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    reader, writer = os.pipe()
    write_text(Path(f"/dev/fd/{writer}"), "text")
    assert os.read(reader, 9) == b"text"
    os.close(reader)
    os.close(writer)


def test_the_content_is_on_disk_before_the_name_is(tmp_path, monkeypatch):
    calls: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(fd):
        calls.append("fsync")
        real_fsync(fd)

    def rename(self, to):
        calls.append("rename")
        return real_replace(self, to)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", rename)
    with replacing(tmp_path / "a") as file:
        file.write(b"x")
    assert calls == ["fsync", "rename", "fsync"]  # the last one is the folder's


def test_temporary_names_cannot_be_guessed(tmp_path):
    names = set()
    for _ in range(20):
        with replacing(tmp_path / "a"):
            names |= {name for name in names_in(tmp_path) if name != "a"}
    assert len(names) == 20
    assert names_in(tmp_path) == ["a"]


def test_a_journal_is_not_written_through_a_link(tmp_path):
    (tmp_path / "precious").write_text('{"mine": 1}\n{"torn')
    (tmp_path / "trials.jsonl").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic link"):
        open_journal(tmp_path / "trials.jsonl")
    with pytest.raises(OSError, match="symbolic link"):
        mend(tmp_path / "trials.jsonl")
    assert (tmp_path / "precious").read_text() == '{"mine": 1}\n{"torn'


def test_names_that_are_not_utf8_survive_in_json(tmp_path):
    value = {"command": [os.fsdecode(b"caf\xe9.toml"), "café", "日本"]}
    write_json(tmp_path / "a.json", value)
    write_json_lines(tmp_path / "a.jsonl", [value])
    assert read_json(tmp_path / "a.json") == value
    assert read_json_lines(tmp_path / "a.jsonl") == [value]


class TestJsonLines:
    def test_a_line_torn_inside_a_character_costs_itself_alone(self, tmp_path):
        file = tmp_path / "trials.jsonl"
        file.write_bytes(b'{"a": 1}\n' + '{"a": "é'.encode()[:-1])
        assert read_json_lines(file) == [{"a": 1}]
        assert mend(file) == [{"a": 1}]
        assert file.read_bytes() == b'{"a": 1}\n'

    @pytest.mark.parametrize("bad", [b'{"a": "\xff"}', b"{]", b"[1]", b"3", b"[" * 100_000, b'{"a": ' + b"9" * 9_000])
    def test_damage_is_located(self, tmp_path, bad):
        file = tmp_path / "trials.jsonl"
        file.write_bytes(b'{"a": 1}\n' + bad + b'\n{"a": 2}\n')
        with pytest.raises(RunError, match=r"trials\.jsonl, line 2: damaged: .*delete that line"):
            read_json_lines(file)
        assert read_json_lines(file, skip_damaged=True) == [{"a": 1}, {"a": 2}]

    def test_a_complete_last_line_without_its_newline_counts_and_gets_it(self, tmp_path):
        file = tmp_path / "trials.jsonl"
        file.write_bytes(b'{"a": 1}\n{"a": 2}')
        assert mend(file) == [{"a": 1}, {"a": 2}]
        with open_journal(file) as journal:
            append_line(journal, {"a": 3})
        assert read_json_lines(file) == [{"a": 1}, {"a": 2}, {"a": 3}]

    @settings(max_examples=60)
    @given(
        rows=st.lists(
            st.dictionaries(st.text(max_size=4), st.text(max_size=6) | st.integers(), max_size=3), max_size=5
        ),
        cut=st.integers(0, 400),
    )
    def test_whatever_a_crash_leaves_the_complete_rows_are_there_and_rows_can_be_appended(
        self, tmp_path_factory, rows, cut
    ):
        file = tmp_path_factory.mktemp("lines") / "trials.jsonl"
        write_json_lines(file, rows)
        whole = file.read_bytes()
        left = whole[: max(len(whole) - cut, 0)]
        file.write_bytes(left)
        complete = left.count(b"\n")
        found = mend(file)
        # the row whose newline alone is lost counts too
        assert found in (rows[:complete], rows[: complete + 1])
        assert file.read_bytes().startswith(left[: left.rfind(b"\n") + 1])
        with open_journal(file) as journal:
            append_line(journal, {"next": 1})
        assert read_json_lines(file) == [*found, {"next": 1}]


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """What is written beyond fails, as on a full disk; the kernel writes the part that fits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("write", [writer for name, writer in WRITERS.items() if name != "json"])
def test_a_file_that_does_not_fit_is_named(tmp_path: Path, write: Callable[[Path], None]) -> None:
    (tmp_path / "file").write_text("old")
    with files_of_at_most(2), pytest.raises(OSError, match=re.escape(str(tmp_path / "file"))):
        write(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "old"
    assert names_in(tmp_path) == ["file"]


def test_a_full_disk_leaves_no_part_of_a_row_in_a_journal_and_names_it(tmp_path: Path) -> None:
    file = tmp_path / "trials.jsonl"
    with open_journal(file) as journal:
        append_line(journal, {"a": 1})
        with files_of_at_most(12), pytest.raises(OSError, match=re.escape(str(file))):
            append_line(journal, {"a": 2})
        append_line(journal, {"a": 3})
    assert read_json_lines(file) == [{"a": 1}, {"a": 3}]


@pytest.mark.slow
@pytest.mark.parametrize("tail", [b'{"torn": "some', b'{"whole": 1}'])
def test_a_kill_at_any_moment_of_the_repair_loses_no_complete_line(tmp_path, tail):
    """A child is killed by SIGKILL at its first, second, … line of Python, in any module, until it gets through."""
    rows = [{"trial_id": f"b0.{i:04d}", "text": "é" * 20} for i in range(20)]
    file, work = tmp_path / "trials.jsonl", tmp_path / "work.jsonl"
    write_json_lines(file, rows)
    with file.open("ab") as opened:
        opened.write(tail)
    kills = 0
    for moment in range(1, 100_000):
        shutil.copyfile(file, work)
        if not _killed_at(moment, work):
            break
        kills += 1
        assert read_json_lines(work)[: len(rows)] == rows, f"killed at line {moment}"
    assert kills > 10
    assert mend(work)[: len(rows)] == rows


def _killed_at(moment: int, file: Path) -> bool:
    """Whether a child that repairs `file` was killed before it was done; parsing, which writes nothing, is left out."""
    child = os.fork()
    if child == 0:
        left = moment
        parsing = {"_json_lines", "_parsed", "require_size", "require_few_containers", "<lambda>"}

        def trace(frame, event, argument):
            nonlocal left
            if frame.f_code.co_name in parsing or "json" in frame.f_code.co_filename:
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        status = 3
        try:
            sys.settrace(trace)
            mend(file)
            sys.settrace(None)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    return status != 0


class TestInside:
    @pytest.fixture
    def folder(self, tmp_path):
        (tmp_path / "secret.png").write_bytes(b"secret")
        run = tmp_path / "run"
        (run / "images").mkdir(parents=True)
        (run / "images" / "a.png").write_bytes(b"picture")
        (run / "images" / "link.png").symlink_to(tmp_path / "secret.png")
        (run / "images" / "folder.png").mkdir()
        os.mkfifo(run / "images" / "pipe.png")
        (run / "elsewhere").symlink_to(tmp_path)
        return run

    def test_a_file_is_opened_even_if_the_folder_itself_is_a_link(self, folder, tmp_path):
        (tmp_path / "link").symlink_to(folder)
        with open_inside(tmp_path / "link", "images/a.png") as file:
            assert file.read() == b"picture"

    @pytest.mark.parametrize(
        "path",
        [
            "../secret.png", "images/../../secret.png", "/etc/passwd", "elsewhere/secret.png", "images/link.png",
            "images/folder.png", "images/pipe.png", "", "images/", "images//a.png", "./images/a.png", "images/a\0.png",
        ],
    )  # fmt: skip
    def test_no_path_leads_out(self, folder, path):
        with pytest.raises(RunError):
            open_inside(folder, path)

    def test_what_is_absent_is_named(self, folder):
        with pytest.raises(FileNotFoundError) as caught:
            open_inside(folder, "images/b.png")
        assert caught.value.filename == str(folder / "images/b.png")

    def test_no_descriptor_is_left_open(self, folder):
        before = len(names_in("/proc/self/fd"))
        for path in ("images/link.png", "images/none.png", "images/folder.png", "elsewhere/secret.png"):
            with pytest.raises((RunError, OSError)):
                open_inside(folder, path)
        open_inside(folder, "images/a.png").close()
        assert len(names_in("/proc/self/fd")) == before


def test_damaged_parquet_is_an_error_of_ours(tmp_path):
    """Polars panics over some of these bytes, which is not an Exception."""
    frame = pl.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"]})
    frame.write_parquet(tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    for place in range(0, len(whole), 3):
        (tmp_path / "a.parquet").write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with contextlib.suppress(RunError):
            files.read_parquet(tmp_path / "a.parquet", {"a": pl.Int64})
    (tmp_path / "a.parquet").write_bytes(whole[:-20])
    with pytest.raises(RunError, match=r"a\.parquet: cannot be read"):
        files.read_parquet(tmp_path / "a.parquet", {"a": pl.Int64})


def test_columns_that_name_rows_must_be_there_and_others_are_filled(tmp_path):
    columns = {"cell_id": pl.String, "energy_j": pl.Float64}
    file = tmp_path / "a.parquet"
    pl.DataFrame({"cell_id": ["a"], "more": [1]}).write_parquet(file)
    assert files.read_parquet(file, columns).to_dicts() == [{"cell_id": "a", "more": 1, "energy_j": None}]
    for frame, words in (
        (pl.DataFrame({"energy_j": [1.0]}), "column cell_id is missing"),
        (pl.DataFrame({"cell_id": ["a", None], "energy_j": [1.0, 2.0]}), "column cell_id has gaps"),
        (pl.DataFrame({"cell_id": ["a"], "energy_j": ["ten"]}), "cannot be read: .*ten"),
    ):
        frame.write_parquet(file)
        with pytest.raises(RunError, match=words):
            files.read_parquet(file, columns)


def test_json_of_any_kind_that_cannot_be_read_is_named(tmp_path):
    for content in (b"{", b"\xff\xfe{\0}\0", b"[" * 200_000, b'"\xff"', b"9" * 9_000):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(RunError, match=r"a\.json"):
            read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"a": 1}).encode())
    assert read_json(tmp_path / "a.json") == {"a": 1}


def test_a_second_name_of_a_journal_is_not_changed(tmp_path):
    """A hard link cannot be told from the file itself, except by their number."""
    (tmp_path / "precious").write_text('{"mine": 1}\n{"torn')
    os.link(tmp_path / "precious", tmp_path / "trials.jsonl")
    for change in (open_journal, mend):
        with pytest.raises(RunError, match=r"trials\.jsonl has another name elsewhere \(a hard link\): put a copy"):
            change(tmp_path / "trials.jsonl")
    assert (tmp_path / "precious").read_text() == '{"mine": 1}\n{"torn'
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RunError, match="pipe is not a regular file"):
        mend(tmp_path / "pipe")


def test_a_pipe_that_nobody_reads_is_not_waited_for(tmp_path):
    """E.g. in the place of a report in a run directory."""
    os.mkfifo(tmp_path / "report.html")
    with pytest.raises(OSError, match="No such device") as caught:
        write_text(tmp_path / "report.html", "text")
    assert caught.value.errno == errno.ENXIO


def test_a_line_without_end_is_not_read(tmp_path):
    file = tmp_path / "trials.jsonl"
    file.write_bytes(b'{"a": 1}\n')
    with file.open("r+b") as opened:
        opened.truncate(2**36)
    for read in (read_json_lines, mend):
        with pytest.raises(RunError, match=r"trials\.jsonl, line 2: has 64 MiB, but perjoule reads at most 64 MiB"):
            read(file)


def test_a_key_that_occurs_twice_is_refused(tmp_path):
    """Readers differ in which one they take."""
    (tmp_path / "a.json").write_text('{"a": {"b": 1, "c": 2, "b": 3}}')
    with pytest.raises(RunError, match=r"a\.json: cannot be read: 'b' appears twice: keep one"):
        read_json(tmp_path / "a.json")
