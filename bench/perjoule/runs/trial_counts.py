"""Counts the trials of a run: finished, failed by reason, and cells without a finished trial."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from perjoule.errors import RunError
from perjoule.opening import MOST_DOCUMENT_BYTES, open_regular
from perjoule.parquet import read_frame
from perjoule.runs.columns import FINISHED
from perjoule.runs.directory import Run
from perjoule.runs.resume_hint import recorded_command, resume_command
from perjoule.suite.reading import cells_of
from perjoule.suite.smaller import planned_name, smaller_batch
from perjoule.text import one_line
from perjoule.warnings import is_marked, warning

_MOST_CELLS = 4
_MOST_REASON = 300
_MEMORY = "trials did not fit into memory and were drawn with smaller batches: cells of their own"


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureCount:
    """Number of trials that failed for one reason, and their cells."""

    reason: str
    count: int
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialCounts:
    """Counts of the trials of a run.

    Attributes:
        planned: Trials of the plan; None for an imported run, which has no plan.
        done: Trials on disk, failed ones included.
        failed: Trials that failed.
        one_colour: Trials with images of a single colour (W270).
        smaller_batch: Trials that did not fit into memory with the planned batch (W266).
        smaller_cells: The cells that they are, named after their batch.
        failures: Failures by reason, the most frequent first.
        empty_cells: Planned cells without a finished trial of any batch size.
    """

    planned: int | None
    done: int
    failed: int
    one_colour: int
    failures: tuple[FailureCount, ...]
    empty_cells: tuple[str, ...]
    smaller_batch: int = 0
    smaller_cells: tuple[str, ...] = ()

    def words(self) -> Iterator[str]:
        """Yield sentences about problems, failures last, e.g. `4 of 4 trials failed: ValueError: …`."""
        if self.one_colour:
            sentence = f"{self.one_colour} of {self.done} trials have images of a single colour: look at the images"
            yield warning("W270", sentence)
        if self.smaller_batch:
            yield warning("W266", f"{self.smaller_batch} of {self.done} {_MEMORY} ({_some(self.smaller_cells)})")
        if not self.failed:
            return
        if self.empty_cells:
            yield f"no trial finished in {_some(self.empty_cells)}"
        if len(self.failures) == 1:
            (failure,) = self.failures
            yield f"{self.failed} of {self.done} trials failed: {failure.reason} ({_some(failure.cells)})"
            return
        parts = [f"  {f.count} × {f.reason} ({_some(f.cells)})" for f in self.failures]
        yield "\n".join([f"{self.failed} of {self.done} trials failed:", *parts])


def quick_counts(run: Run) -> tuple[int, int, int | None]:
    """Return the numbers of trials done, failed, and planned (None if imported), without parsing the trials."""
    file = run.path / "trials.parquet"
    if file.is_file():
        done, failed = (
            read_frame(file, choose=lambda names: [n for n in names if n == "failure"])
            .select(pl.len(), pl.col("failure").count().alias("failed"))
            .row(0)
        )
        return int(done), int(failed), None
    done = failed = 0
    file = run.path / "trials.jsonl"
    if file.is_file():
        with open_regular(file) as lines:
            for line in iter(lambda: lines.readline(MOST_DOCUMENT_BYTES), b""):
                done += line.endswith(b"\n")
                failed += line.endswith(b"\n") and b'"failure": null' not in line and b'"failure":null' not in line
    return done, failed, run.planned_trials


def trial_counts(run: Run) -> TrialCounts:
    """Count the trials of a run."""
    trials = run.trials
    failed = trials.filter(~FINISHED).select("cell_id", "failure")
    by_reason: dict[str, list[str]] = {}
    for cell_id, failure in failed.iter_rows():
        by_reason.setdefault(one_line(failure)[:_MOST_REASON], []).append(cell_id)
    finished = trials.filter(FINISHED)["cell_id"].unique()
    smaller = trials.filter(is_marked("W266"))["cell_id"]
    filled = {*finished, *map(planned_name, finished)}
    return TrialCounts(
        planned=run.planned_trials,
        done=len(trials),
        failed=len(failed),
        one_colour=trials.filter(is_marked("W270")).height,
        failures=tuple(
            FailureCount(reason=reason, count=len(cells), cells=tuple(dict.fromkeys(cells)))
            for reason, cells in sorted(by_reason.items(), key=lambda item: -len(item[1]))
        ),
        empty_cells=()
        if run.is_imported
        else tuple(cell.cell_id for cell in cells_of(run.suite) if cell.cell_id not in filled),
        smaller_batch=len(smaller),
        smaller_cells=tuple(sorted(filter(smaller_batch, smaller.unique()))),
    )


def require_every_cell(run: Run) -> None:
    """Raise RunError if a planned cell of a run has no finished trial, because it cannot be compared."""
    counts = trial_counts(run)
    if not counts.empty_cells:
        return
    reasons = "; ".join(f"{failure.count} × {failure.reason}" for failure in counts.failures[:3])
    again = resume_command(run.path, recorded_command(run.environment), retry_failed=bool(reasons))
    raise RunError(
        f"{run.path}: no trial finished in {_some(counts.empty_cells)}{f' ({reasons})' if reasons else ''}",
        remedy=f"remove the cause and continue with: {again}",
    )


def _some(cells: tuple[str, ...]) -> str:
    more = f" and {len(cells) - _MOST_CELLS} more cells" if len(cells) > _MOST_CELLS else ""
    return ", ".join(cells[:_MOST_CELLS]) + more
