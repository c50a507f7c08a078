"""Reads a folder of runs: one row per run, grouped by suite, and the runs that could not be read with the reason.

Only small files are read (suite, environment, points, result); trials are counted, and parsed only for the joules of a
run that has not been scored, which has no points.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from perjoule.errors import PerjouleError, RunError
from perjoule.runs.directory import Run, is_run, load_run
from perjoule.runs.result import stored_result
from perjoule.runs.trial_counts import quick_counts
from perjoule.statistics.point_rows import PointRow
from perjoule.statistics.points import known_points
from perjoule.types import Interval, weakest
from perjoule_reports.evidence import plain_interval
from perjoule_reports.format import clean, plural
from perjoule_reports.pages.payload import prompt_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class CellNumbers:
    """A cell's energy per image in J and its primary quality."""

    energy: Interval
    quality: Interval
    steps: float | None
    fixed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLine:
    """One readable run. `doubts` lists what is unfinished about it, `verdict` is that of its last report with a gate.

    `prompt_set` is the digest of its prompts: means over other prompts are not comparable.
    """

    folder: str
    suite: str
    title: str
    created: str
    provenance: str | None
    boundary: str
    device: str
    meter: str
    comparability_key: str
    prompt_set: str
    imported: bool
    metric: str
    higher: bool
    cells: Mapping[str, CellNumbers]
    trials_done: int
    trials_planned: int | None
    headline: str
    verdict: str
    report: str
    doubts: tuple[str, ...]

    @property
    def series(self) -> tuple[str, ...]:
        """Key that must be equal for two runs to be joined by a line."""
        partial = self.folder if self.is_partial else ""  # its cells may lack prompts
        return self.comparability_key, self.provenance or "", self.boundary, self.prompt_set, partial

    @property
    def is_partial(self) -> bool:
        """Whether trials of the plan are missing."""
        return self.trials_planned is not None and self.trials_done < self.trials_planned

    @property
    def counts(self) -> str:
        """Numbers of trials and cells, e.g. `1 trial, 1 cell`."""
        return f"{plural(self.trials_done, 'trial')}, {plural(len(self.cells), 'cell')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenRun:
    """A folder that looks like a run but cannot be read as one; `problem` is the reason with the path as given."""

    folder: str
    reason: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteRuns:
    """The runs of one suite, oldest first. `cell_id` is the cell that is plotted over all of them.

    Imported tables that have no second run of their name are one group: it has no cell that all of them could share.
    """

    suite: str
    title: str
    metric: str
    higher: bool
    cell_id: str
    runs: tuple[RunLine, ...]

    def series(self) -> list[tuple[str, ...]]:
        """Return the keys of groups of comparable runs, in order of appearance."""
        return list(dict.fromkeys(run.series for run in self.runs))

    def shown(self, run: RunLine) -> tuple[str, CellNumbers | None]:
        """Return the cell of a run whose numbers are listed: the common one, or in a mixed group the run's own."""
        cell_id = self.cell_id or _followed([run])
        return cell_id, run.cells.get(cell_id)


def read_folder(folder: Path) -> tuple[tuple[SuiteRuns, ...], tuple[BrokenRun, ...]]:
    """Read every run directly below `folder`. Suites are sorted by their newest run, newest first."""
    lines: list[RunLine] = []
    broken: list[BrokenRun] = []
    for child in sorted(child for child in folder.iterdir() if is_run(child)):
        try:
            lines.append(read_line(child))
        except (PerjouleError, pl.exceptions.PolarsError, OSError, ValueError, KeyError, TypeError) as error:
            reason = clean(str(error)) or type(error).__name__
            problem = reason if str(child) in reason else f"{child}: {reason}"
            broken.append(BrokenRun(folder=child.name, reason=reason.replace(str(child), child.name), problem=problem))
    by_suite: dict[str, list[RunLine]] = {}
    for line in sorted(lines, key=lambda line: (line.created, line.folder)):
        by_suite.setdefault(line.suite, []).append(line)
    single = [runs[0] for runs in by_suite.values() if len(runs) == 1 and runs[0].imported]
    suites = [_suite(runs) for runs in by_suite.values() if len(single) < 2 or runs[0] not in single]
    if len(single) > 1:
        suites.append(
            SuiteRuns(suite="", title="Imported tables", metric="", higher=True, cell_id="", runs=tuple(single))
        )
    return tuple(sorted(suites, key=lambda s: s.runs[-1].created, reverse=True)), tuple(broken)


def read_line(folder: Path) -> RunLine:
    """Read one run.

    Raises:
        PerjouleError: If a file of the run cannot be read; the message names it.
    """
    run = load_run(folder)
    system, suite = run.system, run.suite
    rows, problem = _rows(run)
    cells, provenance, boundary = _cells(rows, suite.metrics.primary)
    done, failed, planned = quick_counts(run)
    device = (system.comparability and system.comparability.device) or ""
    doubts = []
    if planned is not None and done < planned:
        doubts.append(f"stopped after {done} of {planned} trials")
    if failed:
        doubts.append(f"{failed} failed")
    if not run.has_points:
        doubts.append("not scored yet")
    elif all(cell.quality.value is None for cell in cells.values()):
        doubts.append("no scores")
    if all(cell.energy.value is None for cell in cells.values()):
        doubts.append(f"no joules{problem and f': {problem}'}")
    result = stored_result(folder)
    specs = run.metrics
    primary = suite.metrics.primary
    return RunLine(
        folder=folder.name,
        suite=clean(suite.name),
        title=clean(suite.title or suite.name),
        created=clean(system.created_utc or ""),
        provenance=provenance,
        boundary=boundary,
        device=clean(", ".join(device) if isinstance(device, list) else device),
        meter=clean((system.meter and system.meter.name) or ""),
        comparability_key=clean(system.comparability_key or ""),
        prompt_set=_prompt_set(run),
        imported=run.is_imported,
        metric=clean(primary),
        higher=specs[primary].direction == "higher" if primary in specs else True,
        cells=cells,
        trials_done=done,
        trials_planned=planned,
        headline=clean(result.headline),
        verdict="" if result.verdict == "no-gate" else clean(result.verdict),
        report="report.html" if (folder / "report.html").is_file() else "",
        doubts=tuple(doubts),
    )


def _rows(run: Run) -> tuple[list[PointRow], str]:
    """Return a row per cell and metric, or none with the reason, e.g. if windows of a cell belong to two devices."""
    try:
        return known_points(run), ""
    except RunError as error:
        if run.has_points:
            raise
        return [], clean(str(error)).replace(str(run.path), run.path.name)


def _cells(rows: Sequence[PointRow], primary: str) -> tuple[dict[str, CellNumbers], str | None, str]:
    chosen = {row.cell_id: row for row in rows} | {row.cell_id: row for row in rows if row.metric == primary}
    cells = {
        cell: CellNumbers(
            energy=plain_interval(row.energy_estimate),
            quality=plain_interval(row.quality_estimate) if row.metric == primary else Interval(),
            steps=row.steps_mean,
            fixed=row.role == "fixed",
        )
        for cell, row in chosen.items()
    }
    metered = [row for row in rows if row.energy_j_per_image is not None]
    boundaries = sorted({clean(row.boundary) for row in metered if row.boundary})
    return cells, weakest(row.provenance for row in metered), " and ".join(boundaries)


def _prompt_set(run: Run) -> str:
    """Return a short digest of the prompts; of their ids if an imported table does not state the texts."""
    prompts = run.prompts or {name: name for name in run.images.get_column("prompt_id").drop_nulls().unique()}
    return prompt_digest(prompts)[:8] if prompts else ""


def _suite(runs: list[RunLine]) -> SuiteRuns:
    newest = runs[-1]
    return SuiteRuns(
        suite=newest.suite,
        title=newest.title,
        metric=newest.metric,
        higher=newest.higher,
        cell_id=_followed(runs),
        runs=tuple(runs),
    )


def _followed(runs: Iterable[RunLine]) -> str:
    """Return the cell that most runs have; if there are several, the middle of the fixed ladder.

    The longest run would be useless under a full-reference metric, because it is the reference.
    """
    counts: dict[str, int] = {}
    cells: dict[str, CellNumbers] = {}
    for run in runs:
        for cell_id, cell in run.cells.items():
            counts[cell_id] = counts.get(cell_id, 0) + (cell.energy.value is not None)
            cells[cell_id] = cell
    most = [cell_id for cell_id, count in counts.items() if count == max(counts.values())]
    ladder = [cell_id for cell_id in most if cells[cell_id].fixed] or most
    ladder.sort(key=lambda cell_id: (cells[cell_id].steps or 0.0, cell_id))
    return ladder[len(ladder) // 2] if ladder else ""
