"""The rounds of a race: measure, score, look, and go on with the cells that are left.

    round 1: all cells, prompts 1 to 12 ──► scores of the primary metric ──► look 1 ──► race.json
    round 2: the cells that are left, prompts 13 to 18 ──► …

A look is stored before the next window is measured. An interrupted race continues after its last stored look: earlier
looks are read, not repeated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from perjoule.errors import UsageError
from perjoule.protocols import QualityMetric, judges_images
from perjoule.quality.keeping import let_go
from perjoule.running.execute import Round
from perjoule.running.failures import free_memory
from perjoule.running.prepared import Prepared
from perjoule.running.scoring import image_set, open_work, score_images
from perjoule.running.stage import Reporter
from perjoule.runs.derived import derive_tables
from perjoule.runs.directory import Run, load_run, write_scores
from perjoule.runs.race_record import Race, RaceLook, write_race
from perjoule.statistics.raced import new_race, take_look
from perjoule.suite.schedule import rounds_of


def race_of(prepared: Prepared) -> Race:
    """Return the design of a race of a suite. Raises UsageError as `new_race`, or if only a shard is measured."""
    if prepared.shard is not None:
        raise UsageError(
            f"--race: with --shard {prepared.shard} every shard would drop other cells, and they could not be merged: "
            "leave one of the options out"
        )
    return new_race(prepared.suite, len(prepared.prompts), prepared.full_reference)


def continued_race(run: Run, prepared: Prepared, wanted: bool) -> Race | None:
    """Return the race that `--resume` continues, if the run is one; raises UsageError if only `wanted` says so."""
    if wanted and run.race is None and run.trials.is_empty():  # stopped before its race was written
        return race_of(prepared)
    if wanted and run.race is None:
        raise UsageError(
            f"--race: {run.path} was begun without it, with all prompts for all cells: leave the option out, or choose "
            "another --out"
        )
    return run.race


def rounds(prepared: Prepared, race: Race, path: Path, reporter: Reporter) -> Iterator[Round]:
    """Yield one round after the other; a round must be done when the next one is asked for.

    Raises:
        EvidenceError: If the cells cannot be compared after a round, because they have no scores or no joules.
    """
    ends = (*race.look_prompts, race.prompts)
    parts = list(zip(ends, rounds_of(prepared.plan, prepared.prompts, ends), strict=True))
    for number in range(len(parts)):
        now, *later = ([a for a in part if race.prompts_of(a.cell.cell_id) >= end] for end, part in parts[number:])
        yield Round(trials=now, later=[assignment for part in later for assignment in part])
        if number == len(race.looks) and number < len(race.look_prompts):
            look = take_look(_scored(path, prepared), race)
            race = replace(race, looks=(*race.looks, look))
            write_race(path, race)
            reporter.message(words(race, look))


def words(race: Race, look: RaceLook) -> str:
    """Return a look in a sentence or two, e.g. `look 1 of 4, after 12 prompts: 9 of 12 cells remain; dropped: …`."""
    remaining = len(look.compared) - len(look.dropped)
    dropped = ", ".join(f"{cell.cell_id} (dominated by {cell.by})" for cell in look.dropped)
    return (
        f"look {len(race.looks)} of {len(race.look_prompts)}, after {look.prompts} prompts: {remaining} of "
        f"{len(race.cells)} cells are measured further{f'; dropped: {dropped}' if dropped else ''}"
    )


def _scored(path: Path, prepared: Prepared) -> Run:
    """Score the images so far with the primary metric, free its memory, and return the run."""
    derive_tables(load_run(path))
    run = load_run(path)
    work = open_work(run, image_set(run), [_primary(prepared)])
    write_scores(run, score_images(run, image_set(run), work, lambda name, count: None), [one.spec for one in work])
    let_go()
    free_memory()
    return load_run(path)


def _primary(prepared: Prepared) -> QualityMetric:
    metrics = prepared.suite.metrics
    metric = prepared.metrics[metrics.names.index(metrics.primary)]
    assert judges_images(metric)  # checked when the suite was prepared
    return metric
