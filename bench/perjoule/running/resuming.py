"""Prompts of a resumed run: those stored when it began, even if the prompt file has changed.

A run must not mix two prompt sets. So the suite's prompt file is compared with the digest that the run recorded, a
difference is reported, and the trials continue with the stored prompts.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from perjoule.errors import RunError, SuiteError, first_line
from perjoule.files import at_home
from perjoule.prompts import Origin, locate, prompt_id
from perjoule.prompts.catalogue import NOT_STATED
from perjoule.prompts.origins import BUILTIN, HUB, PUBLIC, WEB
from perjoule.runs.directory import Run
from perjoule.types import Prompt, PromptSelection, PromptSource
from perjoule.weights.digests import digest_file


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPrompts:
    """Prompts of a resumed run.

    Attributes:
        source: Source in the run's own suite file, if the given suite names the same prompts.
        prompts: Prompts in the order of the plan.
        origin: Origin recorded when the run began.
        note: Message for the user about changes of the prompt file, if any.
    """

    source: PromptSource
    prompts: tuple[Prompt, ...]
    origin: Origin
    note: str | None


def stored_prompts(run: Run, source: PromptSource, folder: Path) -> StoredPrompts:
    """Return the prompts that a run was started with.

    Args:
        run: Run to continue.
        source: Source in the suite that was given now.
        folder: Folder of that suite's file; a relative source is searched for there first.

    Raises:
        RunError: If `prompts.jsonl` was changed (the message names file and digests).
    """
    _require_untouched(run)
    origin = _origin(run)
    before = run.suite.prompts
    note = None
    if not _is_local(before.source):
        # downloaded files are not requested again
        if before.source == source.source and before.source.startswith(BUILTIN):
            note = _changed(before.source, _shipped_digest(source), origin.sha256, run)
    elif _is_local(source.source):
        file = folder / source.source
        file = file if file.is_file() else at_home(source.source)
        digest = digest_file(file) if file.is_file() else None
        # a run and its prompt file may have been moved: only the name or the content matters, not the folder
        if Path(before.source).name == file.name or digest == origin.sha256:
            source = replace(source, source=before.source)
            note = _changed(str(file), digest, origin.sha256, run)
    return StoredPrompts(source=source, prompts=run.prompt_set, origin=origin, note=note)


def _require_untouched(run: Run) -> None:
    file = run.path / "prompts.jsonl"
    if not run.prompt_set:
        raise RunError(f"{file}: no prompts: restore it from a copy, or start again with another --out")
    for prompt in run.prompt_set:
        if not isinstance(prompt.text, str) or prompt.prompt_id != prompt_id(prompt.text):
            raise RunError(f"{file}: prompt_id = {prompt.prompt_id!r} does not belong to its text: restore the file")
    recorded = run.environment.get("prompts_jsonl_sha256")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if recorded is not None and recorded != digest:
        raise RunError(
            f"{file} has changed since the run began: its SHA-256 is {digest}, but environment.json has {recorded}: "
            "restore it from a copy, or start again with another --out"
        )


def _origin(run: Run) -> Origin:
    recorded = run.environment.get("prompts")
    source = run.suite.prompts.source
    if not isinstance(recorded, dict):  # an earlier version of perjoule
        return Origin(source=source, files=(), sha256="", pinned=False, licence=NOT_STATED, commercial=None)
    try:
        chosen = recorded.get("selection")
        selection = PromptSelection(**chosen) if chosen else None
        return Origin(**{**recorded, "files": tuple(recorded["files"]), "selection": selection})
    except (TypeError, KeyError) as error:
        raise RunError(f"{run.path / 'environment.json'}: prompts: {first_line(error)}") from error


def _is_local(source: str) -> bool:
    return not source.startswith((BUILTIN, PUBLIC, HUB, *WEB))


def _shipped_digest(source: PromptSource) -> str | None:
    try:
        return locate(replace(source, sha256=None), "prompts.source").origin.sha256
    except SuiteError:
        return None


def _changed(name: str, digest: str | None, recorded: str, run: Run) -> str | None:
    if digest == recorded or not recorded:
        return None
    what = "is missing" if digest is None else f"has changed since the run began (SHA-256 was {recorded}, is {digest})"
    return (
        f"{name} {what}: the run continues with the {len(run.prompt_set)} prompts in {run.path / 'prompts.jsonl'}; "
        "use another --out to run other prompts"
    )
