"""The database of `perjoule study serve`: every answer once, on disk before the page is told so.

One thread writes. What waits is written in one transaction, so that many observers share one wait for the disk.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Self

from perjoule.errors import RunError
from perjoule.people.records import Answer, as_object

_TABLES = (
    "CREATE TABLE IF NOT EXISTS study (study_id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS answers (observer TEXT, trial_id TEXT, answer TEXT NOT NULL, "
    "PRIMARY KEY (observer, trial_id)) STRICT",
    "CREATE TABLE IF NOT EXISTS sessions (observer TEXT PRIMARY KEY, number INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    # answers that arrive after their observer has deleted them are refused
    "CREATE TABLE IF NOT EXISTS deleted (observer TEXT PRIMARY KEY) STRICT, WITHOUT ROWID",
)
_SCHEMA = "SELECT type, name, sql FROM sqlite_schema"
_MOST_BYTES = 2**20  # of one answer
_Job = tuple[Callable[[sqlite3.Connection], Any], Future[Any]]


class AnswerStore:
    """Answers and sessions of one study; a context manager. Methods return a future that is done after the commit."""

    def __init__(self, file: Path, study_id: str) -> None:
        """Open or create the database.

        Raises:
            RunError: If the file is not a database, or belongs to another study.
        """
        self.file = file
        if file.is_symlink() or (file.exists() and not file.is_file()):
            raise RunError(f"{file} is not a regular file: move it away")
        with _named(file):
            self._connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False, timeout=10)
            try:
                _prepare(self._connection, study_id, file)
            except BaseException:
                self._connection.close()
                raise
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="perjoule-answers", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what waits, and leave one file: a database without a write-ahead log, which can be copied as it is."""
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()
            with suppress(sqlite3.OperationalError):  # another process reads it
                self._connection.execute("PRAGMA journal_mode = DELETE")
            self._connection.close()

    def add(self, answers: Sequence[Answer]) -> Future[set[str]]:
        """Store answers unless they are stored already; the first answer to a trial counts.

        The result has the observers who have deleted their answers; nothing of theirs is stored.
        """
        rows = [(answer.observer, answer.trial_id, _line(answer)) for answer in answers]

        def insert(connection: sqlite3.Connection) -> set[str]:
            gone = {observer for observer, *_ in rows if _has(connection, "deleted", observer)}
            connection.executemany(
                "INSERT INTO answers VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                [row for row in rows if row[0] not in gone],
            )
            return gone

        return self._submit(insert)

    def session(self, observer: str, count: int, most_observers: int) -> Future[int | None]:
        """Number of the session of an observer, out of `count`: the one that the fewest observers have.

        The result is None if the study has `most_observers` already.
        """

        def assign(connection: sqlite3.Connection) -> int | None:
            row = connection.execute("SELECT number FROM sessions WHERE observer = ?", (observer,)).fetchone()
            if row is not None:
                return int(row[0])
            used = dict(connection.execute("SELECT number, count(*) FROM sessions GROUP BY number"))
            if sum(used.values()) >= most_observers:
                return None
            number = min(range(count), key=lambda session: used.get(session, 0))
            connection.execute("INSERT INTO sessions VALUES (?, ?)", (observer, number))
            return number

        return self._submit(assign)

    def delete(self, observer: str) -> Future[None]:
        """Delete all that is stored of an observer, except that the random id was deleted."""

        def erase(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM answers WHERE observer = ?", (observer,))
            connection.execute("DELETE FROM sessions WHERE observer = ?", (observer,))
            connection.execute("INSERT INTO deleted VALUES (?) ON CONFLICT DO NOTHING", (observer,))

        return self._submit(erase)

    def _submit(self, job: Callable[[sqlite3.Connection], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        self._jobs.put((job, future))
        return future

    def _work(self) -> None:
        while True:
            waiting = [self._jobs.get()]
            while True:
                try:
                    waiting.append(self._jobs.get_nowait())
                except Empty:
                    break
            jobs = [entry for entry in waiting if entry is not None and entry[1].set_running_or_notify_cancel()]
            try:
                with _transaction(self._connection):
                    results = [job(self._connection) for job, _ in jobs]
            except Exception as error:
                for _, future in jobs:
                    future.set_exception(error)
            else:
                for (_, future), result in zip(jobs, results, strict=True):
                    future.set_result(result)
            if None in waiting:
                return


def foreign_part(connection: sqlite3.Connection) -> str | None:
    """Return the first part of a database that is not one of our tables, e.g. a view that never ends, or None."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_BYTES)
    with closing(sqlite3.connect(":memory:")) as own:
        for table in _TABLES:
            own.execute(table)
        known = set(own.execute(_SCHEMA).fetchall())
    try:
        for part in connection.execute(f"{_SCHEMA} LIMIT {len(known) + 1}"):
            if part not in known:
                return f"{part[0]} {str(part[1])[:60]!r}"
    except UnicodeDecodeError:
        return "name that is not UTF-8"
    return None


def _prepare(connection: sqlite3.Connection, study_id: str, file: Path) -> None:
    if foreign := foreign_part(connection):
        raise RunError(f"{file}: contains a {foreign} that `perjoule study serve` did not make: move the file away")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = ON")
    with _transaction(connection):
        for table in _TABLES:
            connection.execute(table)
        connection.execute("INSERT INTO study SELECT ? WHERE NOT EXISTS (SELECT 1 FROM study)", (study_id,))
        (stored,) = connection.execute("SELECT study_id FROM study").fetchone()
    if stored != study_id:
        raise RunError(f"{file}: answers to study {stored[:12]}…, not to {study_id[:12]}…: move the file away")


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _named(file: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise RunError(f"{file}: {error}: move the file away, or restore it from a copy") from error


def _has(connection: sqlite3.Connection, table: str, observer: str) -> bool:
    return connection.execute(f"SELECT 1 FROM {table} WHERE observer = ?", (observer,)).fetchone() is not None


def _line(answer: Answer) -> str:
    return json.dumps(as_object(answer), ensure_ascii=False, sort_keys=True)
