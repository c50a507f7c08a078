"""The database of a served study: each answer once, nothing lost, nothing of another study."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perjoule.errors import RunError, UsageError
from perjoule.people.folder import _from_database
from perjoule.people.records import DATABASE_FILE, Answer, Choice, parsed_answer
from perjoule.people.store import AnswerStore

STUDY = "a" * 64


def answer(observer: str = "o", trial: str = "t", choice: Choice = "left") -> Answer:
    return Answer(
        study_id=STUDY, observer=observer, trial_id=trial, left="a", right="b", choice=choice, shown_at_ms=0.0,
        response_ms=1.0, provenance="simulated",
    )  # fmt: skip


def stored_answers(folder: Path) -> tuple[Answer, ...]:
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as connection:
        rows = connection.execute("SELECT observer, trial_id, answer FROM answers ORDER BY rowid").fetchall()
    answers = tuple(parsed_answer(text, "row") for *_, text in rows)
    assert [(a.observer, a.trial_id) for a in answers] == [(observer, trial) for observer, trial, _ in rows]
    return answers


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AnswerStore]:
    with AnswerStore(tmp_path / DATABASE_FILE, STUDY) as store:
        yield store


def test_the_first_answer_counts(store: AnswerStore) -> None:
    assert store.add([answer(choice="left"), answer(choice="right"), answer(trial="u")]).result() == set()
    store.add([answer(choice="equal")]).result()
    assert stored_answers(store.file.parent) == (answer(), answer(trial="u"))


def test_what_is_done_is_on_disk_and_waits_for_it(store: AnswerStore) -> None:
    store.add([answer()]).result()
    with sqlite3.connect(store.file) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert other.execute("SELECT observer, trial_id FROM answers").fetchall() == [("o", "t")]
    other.close()
    assert store._connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("delete"), st.sampled_from("xy")),
            st.lists(
                st.tuples(st.sampled_from("xyz"), st.sampled_from("tuv"), st.sampled_from(["left", "right"])),
                max_size=4,
            ),
        ),
        max_size=8,
    )
)  # fmt: skip
def test_a_dictionary_that_forgets(tmp_path_factory: pytest.TempPathFactory, jobs: list[Any]) -> None:
    file = tmp_path_factory.mktemp("store") / DATABASE_FILE
    expected: dict[tuple[str, str], str] = {}
    gone: set[str] = set()
    with AnswerStore(file, STUDY) as store:
        for job in jobs:
            if isinstance(job, tuple):
                store.delete(job[1])
                gone.add(job[1])
                expected = {key: value for key, value in expected.items() if key[0] != job[1]}
            else:
                result = store.add([answer(*parts) for parts in job])
                assert result.result() == gone & {observer for observer, *_ in job}
                for observer, trial, choice in job:
                    if observer not in gone:
                        expected.setdefault((observer, trial), choice)
    assert {(a.observer, a.trial_id): a.choice for a in stored_answers(file.parent)} == expected


def test_deleted_answers_are_not_in_the_file(tmp_path: Path) -> None:
    with AnswerStore(tmp_path / DATABASE_FILE, STUDY) as store:
        for number in range(50):
            store.add([answer("somebody", f"trial-{number}")]).result()
        store.delete("somebody").result()
    content = (tmp_path / DATABASE_FILE).read_bytes()
    assert b"trial-7" not in content
    assert [file.name for file in tmp_path.iterdir()] == [DATABASE_FILE]  # no log that has them


def test_sessions_are_given_out_evenly_and_once(store: AnswerStore) -> None:
    numbers = [store.session(f"o{i}", 3, 100).result() for i in range(7)]
    assert numbers == [0, 1, 2, 0, 1, 2, 0]
    assert store.session("o1", 3, 100).result() == 1
    store.delete("o1").result()
    assert store.session("new", 3, 100).result() == 1
    assert store.session("more", 3, 7).result() is None
    assert store.session("o2", 3, 7).result() == 2


def test_many_at_once(store: AnswerStore) -> None:
    with ThreadPoolExecutor(16) as pool:
        futures = list(pool.map(lambda i: store.add([answer(f"o{i % 16}", f"t{i}")]), range(400)))
    assert [future.result() for future in futures] == [set()] * 400
    assert len(stored_answers(store.file.parent)) == 400


def test_a_full_disk_is_an_error_and_the_store_goes_on(store: AnswerStore) -> None:
    store.add([answer()]).result()
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        store.add([answer(trial=f"{i}" * 500) for i in range(100)]).result()
    store._connection.execute("PRAGMA max_page_count = 100000")
    store.add([answer(trial="u")]).result()
    assert [a.trial_id for a in stored_answers(store.file.parent)] == ["t", "u"]


def test_another_study_and_another_file_are_refused(tmp_path: Path) -> None:
    file = tmp_path / DATABASE_FILE
    AnswerStore(file, STUDY).close()
    with pytest.raises(RunError, match=r"answers\.sqlite: answers to study aaaaaaaaaaaa…, not to bbbbbbbbbbbb…"):
        AnswerStore(file, "b" * 64)
    file.write_bytes(b"not a database at all" * 100)
    with pytest.raises(RunError, match=r"answers\.sqlite: file is not a database: move the file away"):
        AnswerStore(file, STUDY)


@pytest.mark.slow
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    code = f"""
from dataclasses import replace
from pathlib import Path
from tests.perjoule.people.test_store import STUDY, answer
from perjoule.people.store import AnswerStore
store = AnswerStore(Path({str(tmp_path / DATABASE_FILE)!r}), STUDY)
for number in range(100_000):
    waiting = [store.add([answer(f"o{{i}}", f"t{{number}}")]) for i in range(5)]
    for future in waiting:
        future.result()
    print(number, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = 0
    deadline = time.monotonic() + 30
    for line in process.stdout:
        acknowledged = int(line)
        if acknowledged >= 40 or time.monotonic() > deadline:
            process.kill()
    process.wait()
    assert acknowledged >= 40
    found = {(a.observer, a.trial_id) for a in stored_answers(tmp_path)}
    assert {(f"o{i}", f"t{n}") for i in range(5) for n in range(acknowledged + 1)} <= found
    with AnswerStore(tmp_path / DATABASE_FILE, STUDY) as store:
        assert store._connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        store.add([replace(answer(), trial_id="after")]).result()


FOREIGN = {
    "a view that never ends": (
        "CREATE VIEW answers AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x AS answer, "
        "x AS observer, x AS trial_id FROM c",
    ),
    "a column of gigabytes": (
        "CREATE TABLE answers (observer TEXT, trial_id TEXT, answer TEXT AS (hex(zeroblob(500000000))))",
    ),
    "a trigger": (
        "CREATE TABLE deleted (observer TEXT PRIMARY KEY) STRICT, WITHOUT ROWID",
        "CREATE TRIGGER t AFTER INSERT ON deleted BEGIN DELETE FROM deleted; END",
    ),
    "cookies of a browser": ("CREATE TABLE moz_cookies (host TEXT)",),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_database_with_anything_but_our_tables_is_neither_read_nor_written(tmp_path: Path, kind: str) -> None:
    file = tmp_path / DATABASE_FILE
    with closing(sqlite3.connect(file)) as database:
        for command in FOREIGN[kind]:
            database.execute(command)
    before = file.read_bytes()
    with pytest.raises(RunError, match=r"answers\.sqlite: contains a (table|view|trigger) '\w+' that"):
        AnswerStore(file, STUDY)
    with pytest.raises(UsageError, match=r"answers\.sqlite: cannot be read as answers .* contains a"):
        _from_database(file)
    assert file.read_bytes() == before


def test_a_database_elsewhere_is_not_written_through_a_link(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "other.sqlite").close()
    (tmp_path / DATABASE_FILE).symlink_to(tmp_path / "other.sqlite")
    with pytest.raises(RunError, match=r"answers\.sqlite is not a regular file"):
        AnswerStore(tmp_path / DATABASE_FILE, STUDY)
    assert (tmp_path / "other.sqlite").stat().st_size == 0


def test_a_database_of_ours_is_ours(store: AnswerStore) -> None:
    store.add([answer()]).result()
    assert [parsed for _, parsed in _from_database(store.file)] == [answer()]


def test_a_database_whose_schema_is_not_utf8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / DATABASE_FILE
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE answers (cookies TEXT)")
    file.write_bytes(file.read_bytes().replace(b"cookies", b"cook\xc8es"))
    with pytest.raises(UsageError, match=r"answers\.sqlite: cannot be read as answers"):
        _from_database(file)
