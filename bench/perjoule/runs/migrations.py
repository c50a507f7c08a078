"""Migrations of run directories from earlier schema versions to the current one.

A change of the meaning of a file increases `SCHEMA`, and adds what turns a record of the version before into one of the
next, e.g. if version 2 called `energy_j` in trials `gross_energy_j`:

    MIGRATIONS = {1: {"trials.jsonl": lambda row: row | {"gross_energy_j": row["energy_j"]}}}

A record is a JSON document, the table of `suite.toml`, a row of a `.jsonl` file, or the frame of a Parquet table.
Further columns and keys need no migration: where they are absent, they are null. Runs are migrated when they are read;
their files stay as they are, so a run of an earlier version can be read, but not continued.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from perjoule.errors import RunError
from perjoule.runs.columns import SCHEMA

Migration = Callable[[Any], Any]

# version -> name of the file -> migration of its records to the next version
MIGRATIONS: dict[int, dict[str, Migration]] = {}


def readable_version(schema: object, file: Path) -> int:
    """Return the schema version of a run. Raises RunError if this version of perjoule cannot read it (names `file`)."""
    if isinstance(schema, bool) or not isinstance(schema, int) or schema < 1:
        raise RunError(f"{file}: schema = {schema!r}: must be a version from 1 to {SCHEMA}: restore the file")
    if schema > SCHEMA:
        raise RunError(
            f"{file}: schema = {schema}: a later version of perjoule wrote it, and this version reads up to {SCHEMA}: "
            "update perjoule"
        )
    return schema


def migration(file: str, version: int) -> Migration:
    """Return what turns a record of `file` in a run of `version` into one of the current version."""
    steps = [MIGRATIONS[v][file] for v in range(version, SCHEMA) if file in MIGRATIONS.get(v, {})]

    def migrate(record: Any) -> Any:
        for step in steps:
            record = step(record)
        return record

    return migrate


def require_current(version: int, path: Path) -> None:
    """Raise RunError if a run is of an earlier version, because its files cannot be extended."""
    if version != SCHEMA:
        raise RunError(
            f"{path}: schema = {version}: this version of perjoule reads it, but only extends runs of schema {SCHEMA}: "
            "use the version that wrote it (see environment.json), or start a new run"
        )
