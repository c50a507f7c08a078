"""The prompts of a run that goes on: its own, as stored when it began, whatever has become of the prompt file.

Half a run on one prompt set and half on another measures neither. So the file that the suite names is compared with the
digest that the run recorded, a difference is reported, and the trials continue with the stored prompts.
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
from perjoule.types import Prompt, PromptSource
from perjoule.weights.digests import digest_file


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPrompts:
    """What a resumed run draws.

    Attributes:
        source: As the run's own suite file names it, if the suite that was given names the same prompts.
        prompts: In the order of the plan.
        origin: As recorded when the run began.
        note: What has become of the prompt file since, if that matters to a person.
    """

    source: PromptSource
    prompts: tuple[Prompt, ...]
    origin: Origin
    note: str | None


def stored_prompts(run: Run, source: PromptSource, folder: Path) -> StoredPrompts:
    """The prompts that a run was started with.

    Args:
        run: To go on with.
        source: Of the suite that was given now.
        folder: Of that suite's file; a relative source is looked for there first.

    Raises:
        RunError: If `prompts.jsonl` is not what the run wrote (names file and digests).
    """
    _require_untouched(run)
    origin = _origin(run)
    before = run.suite.prompts
    note = None
    if not _is_local(before.source):
        # what was fetched from the web is not asked for again
        if before.source == source.source and before.source.startswith(BUILTIN):
            note = _changed(before.source, _shipped_digest(source), origin.sha256, run)
    elif _is_local(source.source):
        file = folder / source.source
        file = file if file.is_file() else at_home(source.source)
        digest = digest_file(file) if file.is_file() else None
        # a run and its prompt file may have moved: the folder does not matter, the name or the content does
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
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if recorded is not None and recorded != found:
        raise RunError(
            f"{file} has changed since the run began: its SHA-256 is {found}, environment.json says {recorded}: "
            "restore it from a copy, or start again with another --out"
        )


def _origin(run: Run) -> Origin:
    recorded = run.environment.get("prompts")
    source = run.suite.prompts.source
    if not isinstance(recorded, dict):  # an earlier version of perjoule
        return Origin(source=source, files=(), sha256="", pinned=False, licence=NOT_STATED, commercial=None)
    try:
        return Origin(**{**recorded, "files": tuple(recorded["files"])})
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
    what = "is gone" if digest is None else f"has changed since the run began (SHA-256 was {recorded}, is {digest})"
    return (
        f"{name} {what}: the run goes on with the {len(run.prompt_set)} prompts in {run.path / 'prompts.jsonl'}; "
        "start a run of other prompts with another --out"
    )
