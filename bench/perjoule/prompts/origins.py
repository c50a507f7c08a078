"""Resolves the prompt source of a suite to local files, which are checked against their pinned digests."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from perjoule.errors import SuiteError, UsageError
from perjoule.files import at_home, exists
from perjoule.prompts.catalogue import NOT_STATED, digest_of, public_sets, shipped_files
from perjoule.prompts.reading import Layout
from perjoule.types import PromptSelection, PromptSource
from perjoule.weights.downloads import fetch_file
from perjoule.weights.licences import allows_commerce

BUILTIN, PUBLIC, HUB = "builtin:", "public:", "hub:"
WEB = ("https://", "http://")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Origin of the prompts of a run, stored in its `environment.json`.

    Attributes:
        source: Source in the suite.
        files: Paths or addresses that were read.
        sha256: Digest of the file, or of the `sha256sum` listing of several.
        pinned: Whether the content was fixed beforehand, by a digest or a commit.
        licence: SPDX name, or another name.
        commercial: Whether the licence allows commercial use; None if that is unknown.
        selection: How the prompts were selected; None for the first ones in stratified order.
    """

    source: str
    files: tuple[str, ...]
    sha256: str
    pinned: bool
    licence: str
    commercial: bool | None
    selection: PromptSelection | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """Files with their layouts, and the origin to record. name: used in messages."""

    name: str
    files: tuple[tuple[Path, Layout], ...]
    origin: Origin


def locate(source: PromptSource, where: str) -> Located:
    """Find the files of a source, and download them if necessary.

    A downloaded file that is not pinned causes a warning with its digest.

    Raises:
        SuiteError: If the source does not exist, cannot be downloaded, or differs from the pinned file.
    """
    name = source.source
    try:
        if name.startswith(BUILTIN):
            return _checked(source, where, *_shipped(name, where), fixed=True)
        if name.startswith(PUBLIC):
            return _public(source, where)
        if name.startswith(HUB):
            from perjoule.prompts.hub import fetch_data_set

            fetched = fetch_data_set(source, where)
            fixed = _COMMIT.fullmatch(source.revision or "") is not None
            return _checked(
                source, where, fetched.files, fetched.licence, fetched.commercial, fetched.addresses, fixed=fixed
            )
        if name.startswith(WEB):
            path = fetch_file(name, sha256=source.sha256, where=where)
            return _checked(source, where, {path.name: path}, NOT_STATED, None, (name,))
    except SuiteError:
        raise
    except UsageError as error:
        raise SuiteError(str(error)) from error
    path = at_home(name)
    if not (exists(path) and path.is_file()):
        raise SuiteError(
            f"{where} = {name!r}: no such file; use a path, {BUILTIN}NAME, {PUBLIC}NAME, {HUB}ORG/NAME or https://"
        )
    return _checked(source, where, {path.name: path}, NOT_STATED, None, (str(path),), local=True)


def _shipped(name: str, where: str) -> tuple[dict[str, Path], str, bool | None, tuple[str, ...]]:
    files = shipped_files()
    file, licence = files.get(name.removeprefix(BUILTIN), (None, ""))
    if file is None:
        named = ", ".join(f"{BUILTIN}{n}" for n in sorted(files))
        raise SuiteError(f"{where} = {name!r}: unknown prompt set; known: {named}")
    return {file.name: file}, licence, allows_commerce(licence), (file.name,)


def _public(source: PromptSource, where: str) -> Located:
    public_set = public_sets().get(source.source.removeprefix(PUBLIC))
    if public_set is None:
        named = ", ".join(f"{PUBLIC}{n}" for n in sorted(public_sets()))
        raise SuiteError(f"{where} = {source.source!r}: unknown prompt set; known: {named}")
    layout = Layout(column=source.column, category=source.category, challenge=source.challenge)
    if layout != Layout():
        raise SuiteError(f"{where} = {source.source!r}: a public set has fixed columns: remove those keys")
    fetched = [(file, fetch_file(file.url, sha256=file.sha256, where=where)) for file in public_set.files]
    located = _checked(
        source,
        where,
        {file.name: path for file, path in fetched},
        public_set.licence,
        public_set.commercial,
        tuple(file.url for file in public_set.files),
        fixed=all(file.sha256 for file in public_set.files),
    )
    files = tuple((path, file.layout) for file, path in fetched)
    return Located(name=located.name, files=files, origin=located.origin)


def _checked(
    source: PromptSource,
    where: str,
    files: dict[str, Path],
    licence: str,
    commercial: bool | None,
    addresses: tuple[str, ...],
    *,
    fixed: bool = False,
    local: bool = False,
) -> Located:
    """Check the suite's pin, and warn about a downloaded set without a pin. fixed: the set has its own pin."""
    sha256 = digest_of(files)
    if source.sha256 is not None and source.sha256 != sha256:
        raise SuiteError(
            f"{where} = {source.source!r}: SHA-256 is {sha256}, but prompts.sha256 = {source.sha256}: the file differs "
            "from the pinned one"
        )
    pinned = fixed or source.sha256 is not None
    if not pinned and not local:
        logging.getLogger(__name__).warning(
            '%s = %r is not pinned: set prompts.sha256 = "%s" to detect changes', where, source.source, sha256
        )
    layout = Layout(column=source.column, category=source.category, challenge=source.challenge)
    origin = Origin(
        source=source.source, files=addresses, sha256=sha256, pinned=pinned, licence=licence, commercial=commercial
    )
    name = source.source if not local else str(next(iter(files.values())))
    return Located(name=name, files=tuple((path, layout) for path in files.values()), origin=origin)
