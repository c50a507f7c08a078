"""Prompt sets that are known by name: their contents, licences, and whether they are local."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from perjoule import registry
from perjoule.errors import SuiteError
from perjoule.prompts.reading import Layout, read_rows
from perjoule.prompts.sampling import clean
from perjoule.weights.digests import digest_file, digest_named
from perjoule.weights.downloads import cached_file
from perjoule.weights.licences import allows_commerce

NOT_STATED = "not stated"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicFile:
    """A file of a public set: its address, its SHA-256 if known, and its layout."""

    url: str
    sha256: str | None
    layout: Layout

    @property
    def name(self) -> str:
        """The last part of the address."""
        return cached_file(self.url).name


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicSet:
    """A prompt set published by others.

    Attributes:
        name: Name after `public:`.
        title: Short description.
        licence: SPDX name, or another name.
        commercial: Whether it allows commercial use; None if that is not stated.
        count: Number of prompts according to the authors; equal prompts are used once.
        files: Files to download.
    """

    name: str
    title: str
    licence: str
    commercial: bool | None
    count: int
    files: tuple[PublicFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSetRow:
    """A line of `perjoule list prompts`.

    Attributes:
        prompts: Value of `source` in a suite.
        count: Number of distinct prompts; for public sets, the number according to the authors.
        licence: SPDX name, or another name.
        commercial: Whether the licence allows commercial use; None if that is not stated.
        sha256: Digest of the file, or of the `sha256sum` listing of several; None if neither pinned nor downloaded.
        pinned: Whether the digest is fixed beforehand.
        cached: Whether it can be read without a network.
        title: Short description.
    """

    prompts: str
    count: int
    licence: str
    commercial: bool | None
    sha256: str | None
    pinned: bool
    cached: bool
    title: str


def prompt_sets() -> list[PromptSetRow]:
    """Return all sets known by name, without downloading anything."""
    shipped = [_shipped_row(name, *entry) for name, entry in sorted(shipped_files().items())]
    return shipped + [_public_row(public_set) for _, public_set in sorted(public_sets().items())]


def shipped_files() -> dict[str, tuple[Path, str]]:
    """Return file and licence of every set in a package, by name."""
    files: dict[str, tuple[Path, str]] = {}
    for point in registry.registered("prompts").values():
        files |= {name: (Path(file), _licence_of(point)) for name, file in point.load()().items()}
    return files


@cache
def public_sets() -> dict[str, PublicSet]:
    """Return all public sets by name, from tables that packages register under `perjoule.public_prompts`.

    Raises:
        SuiteError: If a table cannot be read.
    """
    sets: dict[str, PublicSet] = {}
    for point in registry.registered("public_prompts").values():
        file = Path(point.load()())
        try:
            table = tomllib.loads(file.read_text(encoding="utf-8"))
            sets |= {name: _public_set(name, entry) for name, entry in table.items()}
        except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
            raise SuiteError(f"{file}: public prompt sets cannot be read: {type(error).__name__}: {error}") from error
    return sets


def digest_of(files: dict[str, Path]) -> str:
    """Return the SHA-256 of a single file, or of the output of `sha256sum` for several, by their names."""
    return digest_file(next(iter(files.values()))) if len(files) == 1 else digest_named(files)


def _public_set(name: str, entry: dict[str, Any]) -> PublicSet:
    columns = {key: entry[key] for key in ("column", "category", "challenge") if key in entry}
    files = tuple(
        PublicFile(
            url=file["url"],
            sha256=file.get("sha256"),
            layout=Layout(**columns, fixed_category=file.get("category", ""), member=file.get("member", "")),
        )
        for file in entry["files"]
    )
    return PublicSet(
        name=name,
        title=entry["title"],
        licence=entry["licence"],
        commercial=entry.get("commercial"),
        count=entry["count"],
        files=files,
    )


def _licence_of(point: EntryPoint) -> str:
    metadata = point.dist.metadata if point.dist is not None else None
    return str((metadata["License-Expression"] if metadata is not None else None) or NOT_STATED)


def _shipped_row(name: str, file: Path, licence: str) -> PromptSetRow:
    prompts = clean(read_rows(file, Layout(), name), name)
    return PromptSetRow(
        prompts=f"builtin:{name}",
        count=len(prompts),
        licence=licence,
        commercial=allows_commerce(licence),
        sha256=digest_file(file),
        pinned=True,
        cached=True,
        title="part of the package",
    )


def _public_row(public_set: PublicSet) -> PromptSetRow:
    files = {file.name: cached_file(file.url) for file in public_set.files}
    cached = all(path.is_file() for path in files.values())
    pinned = all(file.sha256 for file in public_set.files)
    return PromptSetRow(
        prompts=f"public:{public_set.name}",
        count=public_set.count,
        licence=public_set.licence,
        commercial=public_set.commercial,
        sha256=digest_of(files) if cached else public_set.files[0].sha256,
        pinned=pinned,
        cached=cached,
        title=public_set.title,
    )
