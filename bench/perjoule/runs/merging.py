"""Merges runs that did parts of one plan, e.g. shards of its prompts on several machines of the same kind.

The merged run has all prompts, in the order of the shards, and the trials get the ids that one plan of these prompts
has. So every image and every window must be one of that plan, and none may be there twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from perjoule.errors import RunError, UsageError
from perjoule.files import read_json_lines, write_json_lines
from perjoule.prompts.catalogue import NOT_STATED
from perjoule.prompts.origins import Origin
from perjoule.runs.derived import images_of
from perjoule.runs.directory import Run, load_run, located
from perjoule.runs.lock import being_read
from perjoule.runs.migrations import require_current
from perjoule.runs.pictures import PictureError, copy_picture
from perjoule.runs.stored import DETAILS, FAILURES, SUPERSEDED, Row, image_file, suite_differences
from perjoule.runs.whole import require_creatable, whole_or_nothing
from perjoule.runs.writer import SESSIONS, RunWriter, differing_keys
from perjoule.suite.schedule import make_plan
from perjoule.suite.smaller import planned_name
from perjoule.types import Prompt, PromptSource, Suite

_PROMPTS = "prompts.jsonl"
_COPIES = 8
# what a trial draws, by which it is found in the plan of all prompts
_IDENTITY = ("trial_id", "cell_id", "block", "prompt_ids", "seeds")


def merge_runs(paths: Sequence[Path], out: Path, check: Callable[[Run], None] = lambda run: None) -> Run:
    """Create a run directory from the trials and images of several runs, which stay as they are.

    Args:
        paths: Run directories; shards are put in the order of their numbers, others in the given order.
        out: Directory of the merged run; must be empty or not exist; see `perjoule.runs.whole`.
        check: Raises an error if the merged run is to be refused.

    Raises:
        UsageError: If there are fewer than two runs, one is being written, or `out` is not empty or in one of them.
        RunError: If the runs differ in suite or system (names the key with both values), one was imported, their
            trials are not different parts of one plan, or a picture is not the one that was measured.
    """
    if len(paths) < 2:
        raise UsageError("merge needs at least two runs, which did parts of one plan")
    require_creatable(out)
    _require_outside(out, paths)
    with ExitStack() as held:
        runs = sorted((load_run(path) for path in paths), key=_shard)
        for run in runs:
            held.enter_context(being_read(run.path))
        _merge(runs, out, check)
    return load_run(out)


def _merge(runs: Sequence[Run], out: Path, check: Callable[[Run], None]) -> None:
    for run in runs:
        require_current(run.schema, run.path)
        _require_same_kind(runs[0], run)
    prompts = tuple({prompt.prompt_id: prompt for run in runs for prompt in run.prompt_set}.values())
    suite = runs[0].suite
    sources = [run.suite.prompts for run in runs]
    if any(source != sources[0] for source in sources):  # files that were split by hand
        suite = replace(suite, prompts=PromptSource(source=_PROMPTS, column="text"))
    new_id = _planned_ids(suite, prompts)
    renamed = _new_ids(runs, new_id)
    attempts = {run.path: renamed[run.path] | _attempt_ids(run, new_id) for run in runs}
    with whole_or_nothing(out) as folder:
        writer = RunWriter.create(folder, suite, prompts, _environment(runs, prompts, suite))
        writer.close()
        for run in runs:
            _copy_images(run, folder)
        write_json_lines(folder / "trials.jsonl", (row for run in runs for row in _trials(run, renamed[run.path])))
        for name in (f"{detail}.jsonl" for detail in DETAILS):
            write_json_lines(folder / name, (row for run in runs for row in _details(run, name, renamed[run.path])))
        for name in (FAILURES, SUPERSEDED):
            _write_if_any(folder / name, [row for run in runs for row in _details(run, name, attempts[run.path])])
        _write_if_any(folder / SESSIONS, [row for run in runs for row in _sessions(run)])
        writer.sort([assignment.trial_id for assignment in make_plan(suite, prompts)])
        writer.finish()
        check(load_run(folder))


def _require_outside(out: Path, paths: Sequence[Path]) -> None:
    """Raise UsageError if `out` is in one of the runs, which stay as they are."""
    target = out.resolve()
    for path in paths:
        if path.resolve() in (target, *target.parents):
            raise UsageError(f"--out {out} is in {path}, which is to be merged: choose a directory outside")


def _shard(run: Run) -> int:
    shard = str(run.environment.get("shard", "")).partition("/")[0]
    return int(shard) if shard.isdecimal() else 0


def _require_same_kind(first: Run, run: Run) -> None:
    """Raise RunError if two runs are not parts of one plan on systems of the same kind."""
    if run.is_imported:
        raise RunError(f"{run.path} was imported from a table and has no plan: merge the tables, and import the result")
    if run.race is not None:
        raise RunError(
            f"{run.path} is a race, whose cells have different prompts: measure the parts without --race to merge them"
        )
    differences = suite_differences(first.suite, replace(run.suite, prompts=first.suite.prompts))
    system = [f"{key} is {a!r} and {b!r}" for key, a, b in differing_keys(first.environment, run.environment)]
    suite = [line.replace(" was ", " is ", 1).replace(" and is ", " and ", 1) for line in differences]
    if suite or system:
        raise RunError(
            f"{first.path} and {run.path} cannot be merged: {'; '.join([*suite, *system][:8])}: "
            "compare them with `perjoule gate`, or measure both in the same way"
        )


def _planned_ids(suite: Suite, prompts: Sequence[Prompt]) -> Callable[[Run, Sequence[Any]], str]:
    """Return a function that finds a trial, given by its values of `_IDENTITY`, in the plan of all prompts."""
    planned = {
        (a.cell.cell_id, a.block, tuple(p.prompt_id for p in a.prompts), a.seeds): a.trial_id
        for a in make_plan(suite, prompts)
    }

    def new_id(run: Run, trial: Sequence[Any]) -> str:
        trial_id, cell_id, block, prompt_ids, seeds = trial
        new = planned.get((planned_name(cell_id), block, tuple(prompt_ids), tuple(seeds)))
        if new is None:
            raise RunError(
                f"{run.path}: the images of trial {trial_id} do not share a window in the plan of all "
                f"{len(prompts)} prompts: give every run whole windows of prompts (`perjoule run --shard 1/2`)"
            )
        return new

    return new_id


def _new_ids(runs: Sequence[Run], new_id: Callable[[Run, Sequence[Any]], str]) -> dict[Path, dict[str, str]]:
    """Return the trial ids in the merged plan, by run and old id."""
    owners: dict[str, Run] = {}
    renamed: dict[Path, dict[str, str]] = {}
    for run in runs:
        ids = renamed.setdefault(run.path, {})
        for trial in run.trials.select(_IDENTITY).iter_rows():
            new = new_id(run, trial)
            if new in owners:
                raise RunError(
                    f"{run.path}: trial {trial[0]} is in {owners[new].path} too: merge runs of different prompts or "
                    "trials only"
                )
            owners[new] = run
            ids[trial[0]] = new
    return renamed


def _attempt_ids(run: Run, new_id: Callable[[Run, Sequence[Any]], str]) -> dict[str, str]:
    """Return the trial ids in the merged plan of superseded attempts, by old id; their trials may not be done yet."""
    with located(file := run.path / SUPERSEDED):
        return {
            attempt["trial_id"]: new_id(run, [attempt[name] for name in _IDENTITY]) for attempt in read_json_lines(file)
        }


def _copy_images(run: Run, out: Path) -> None:
    """Copy the images of a run, if they are the ones that were measured."""
    with located(run.path / "trials.jsonl"):
        images = images_of(run.trials).select("image_id", "file", "sha256").rows()

    def copy(image: tuple[str, str, str]) -> None:
        name, file, sha256 = image
        copy_picture(run.path, file, sha256, image_file(out, name))

    # every image is waited for until it is on disk; disks take many at a time as fast as one
    with ThreadPoolExecutor(_COPIES) as pool:
        try:
            list(pool.map(copy, images))
        except PictureError as error:
            raise RunError(
                f"{error}; restore it from a copy, or delete it and continue {run.path} with --resume, which draws it "
                "again"
            ) from error


def _trials(run: Run, ids: dict[str, str]) -> list[Row]:
    """Return the trials of a run under their new ids."""
    with located(file := run.path / "trials.jsonl"):
        return [row | {"trial_id": ids[row["trial_id"]]} for row in read_json_lines(file)]


def _details(run: Run, name: str, ids: dict[str, str]) -> Iterator[Row]:
    with located(file := run.path / name):
        for row in read_json_lines(file):
            if row["trial_id"] in ids:  # others are of a trial that a crash has cut off
                yield row | {"trial_id": ids[row["trial_id"]]}


def _write_if_any(file: Path, rows: Sequence[Row]) -> None:
    if rows:
        write_json_lines(file, rows)


def _sessions(run: Run) -> Iterator[Row]:
    """Return the records of each --resume, with the name of the run."""
    for row in read_json_lines(run.path / SESSIONS, skip_damaged=True):
        yield row | {"run": run.path.name}


def _environment(runs: Sequence[Run], prompts: Sequence[Prompt], suite: Suite) -> dict[str, Any]:
    """Return the record of the first run, with a record of all parts instead of its own command and prompts."""
    first = dict(runs[0].environment)
    for key in ("schema", "prompts_jsonl_sha256", "shard", "prompt_findings"):
        first.pop(key, None)
    parts = [
        {
            "run": run.path.name,
            "trials": len(run.trials),
            "prompts": len(run.prompt_set),
            **{key: run.environment.get(key) for key in ("created_utc", "perjoule", "command", "shard", "meter")},
        }
        for run in runs
    ]
    first["merged_from"] = parts
    if suite.prompts.source == _PROMPTS:
        digest = hashlib.sha256("\n".join(prompt.prompt_id for prompt in prompts).encode()).hexdigest()
        origin = Origin(source=_PROMPTS, files=(), sha256=digest, pinned=False, licence=NOT_STATED, commercial=None)
        first["prompts"] = asdict(origin)
    return first
