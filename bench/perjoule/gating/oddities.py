"""Oddities in the joules of a run, and the cells that must not be recommended because of them.

steps      a cell with more steps costs less than one with fewer, in one variant     more steps cannot cost less
windows    more than 5 % of a cell's windows are not valid for a verdict             the gate refuses them as well
load       the machine was busy with other work during most windows of this cell     and of few other cells
drift      energy drifted by a tenth, and the cell was measured early or late        interleaving prevents it

`recommend` and the report leave such cells out of their advice. Their joules may be right; nobody can tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import polars as pl

from perjoule.display import quantity
from perjoule.gating.disturbances import TOLERATED_SHARE, disturbances
from perjoule.runs.directory import Run
from perjoule.statistics.facts import CellFacts, cell_facts
from perjoule.statistics.noise import drift
from perjoule.text import one_line
from perjoule.warnings import is_marked, read_warning

TOLERANCE = 0.1  # of a cell's energy
SPREAD = 0.5  # of the run, between the first and the last window of a cell
_BUSY = "W264"
_LISTED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Oddity:
    """What is odd, in sentences, and the ids of the cells that are not recommended because of it."""

    sentence: str
    cells: tuple[str, ...]

    @property
    def words(self) -> str:
        """The sentence, with the cells that are left out."""
        if not self.cells:
            return self.sentence
        more = f" and {len(self.cells) - _LISTED} more" if len(self.cells) > _LISTED else ""
        verb = "is" if len(self.cells) == 1 else "are"
        return f"{self.sentence} {', '.join(map(one_line, self.cells[:_LISTED]))}{more} {verb} not recommended."


def oddities(run: Run) -> tuple[Oddity, ...]:
    """Return the oddities of a run."""
    # windows without joules are missing from the cell's energy, so they do not disturb it
    windows = run.windows.filter(pl.col("energy_j").is_finite().fill_null(False) & (pl.col("energy_j") > 0))
    found = [*_steps(run, windows), *_invalid(windows)]
    if not run.is_counted:  # counted joules depend neither on time nor on other work
        found += [*_load(windows), *_drift(run, windows)]
    return tuple(found)


def left_out(odd: Iterable[Oddity]) -> frozenset[str]:
    """Return the cells that are not recommended."""
    return frozenset(cell for oddity in odd for cell in oddity.cells)


def _steps(run: Run, windows: pl.DataFrame) -> Iterator[Oddity]:
    """Yield the ladders whose energy falls by more than a tenth with more steps."""
    energies = dict(
        windows.group_by("cell_id").agg(pl.col("energy_j").sum() / pl.col("images").sum()).sort("cell_id").iter_rows()
    )
    devices = dict(windows.group_by("cell_id").agg(pl.col("device").unique().sort()).iter_rows())
    ladders: dict[tuple[object, ...], list[tuple[float, str, CellFacts]]] = {}
    for cell, facts in cell_facts(run.trials).items():
        # the means of a policy's steps need not rise with its cost, e.g. if it chooses among models
        if cell not in energies or facts.steps_mean is None or facts.policy not in (None, "fixed"):
            continue
        alike = (facts.variant, facts.provenance, facts.boundary, *devices[cell])
        ladders.setdefault(alike, []).append((facts.steps_mean, cell, facts))
    for _, ladder in sorted(ladders.items(), key=lambda item: str(item[0])):
        ladder.sort(key=lambda rung: rung[:2])
        cells = [cell for _, cell, _ in ladder]
        longest = _longest_rise([energies[cell] for cell in cells])
        if longest == len(cells):
            continue
        # what every longest rising part of the ladder contains is above suspicion
        suspected = tuple(
            cell
            for place, cell in enumerate(cells)
            if _longest_rise([energies[other] for other in (*cells[:place], *cells[place + 1 :])]) == longest
        )
        falls = [
            (fewer, more)
            for fewer, more in pairwise(ladder)
            if energies[more[1]] < (1 - TOLERANCE) * energies[fewer[1]] and more[0] > fewer[0]
        ]
        if not falls:
            continue
        pairs = "; ".join(
            f"{fewer[0]:g} {'step costs' if fewer[0] == 1 else 'steps cost'} {quantity(energies[fewer[1]], 'J')} per "
            f"image and {more[0]:g} steps only {quantity(energies[more[1]], 'J')}"
            for fewer, more in falls
        )
        kind = ladder[0][2].provenance
        mark = "" if kind == "measured" else f" ({kind})"
        why = (
            ": check the table."
            if run.is_imported
            else ", so a window was disturbed: measure again on an idle machine."
        )
        yield Oddity(
            sentence=f"{one_line(ladder[0][2].variant)}: {pairs}{mark}. More steps cannot cost less{why}",
            cells=suspected,
        )


def _longest_rise(energies: Sequence[float]) -> int:
    """Return the length of the longest part in which no energy is more than a tenth below the one before it."""
    lengths: list[int] = []
    for place, energy in enumerate(energies):
        before = [lengths[i] for i in range(place) if energy >= (1 - TOLERANCE) * energies[i]]
        lengths.append(1 + max(before, default=0))
    return max(lengths, default=0)


def _invalid(windows: pl.DataFrame) -> Iterator[Oddity]:
    """Yield the cells of which the gate would refuse too many windows, by the code of the first warning."""
    cells: dict[str, list[str]] = {}
    firsts: dict[str, str] = {}
    marked = windows.select("cell_id", text=disturbances(windows["warnings"])).group_by("cell_id", maintain_order=True)
    counted = marked.agg(pl.col("text").drop_nulls().first(), marked=pl.col("text").count(), of=pl.len())
    for cell, text, count, of in counted.iter_rows():
        if count > TOLERATED_SHARE * of:
            code = read_warning(text).code
            firsts.setdefault(code, f"{count} of {of} windows of {one_line(cell)}: {one_line(text)}")
            cells.setdefault(code, []).append(str(cell))
    for code, named in sorted(cells.items()):
        yield Oddity(sentence=f"Disturbed windows, e.g. {firsts[code]}.", cells=tuple(sorted(named)))


def _load(windows: pl.DataFrame) -> Iterator[Oddity]:
    """Yield the cells whose windows were mostly measured on a busy machine, if most windows of the run were not."""
    busy = windows.select("cell_id", busy=is_marked(_BUSY))
    count = int(busy["busy"].sum())
    if not count or 2 * count > len(busy):
        return
    shares = busy.group_by("cell_id").agg(pl.col("busy").sum(), of=pl.len()).sort("cell_id")
    mostly = shares.filter(2 * pl.col("busy") > pl.col("of"))
    if mostly.is_empty():
        return
    yield Oddity(
        sentence=f"The machine was busy with other work in {mostly['busy'].sum()} of {mostly['of'].sum()} windows of "
        f"these cells, and in {count - mostly['busy'].sum()} of {len(busy) - mostly['of'].sum()} of the others "
        f"({_BUSY}), so their joules cannot be compared.",
        cells=tuple(mostly["cell_id"]),
    )


def _drift(run: Run, windows: pl.DataFrame) -> Iterator[Oddity]:
    """Yield a drift of more than a tenth, with the cells whose energy it changes by as much.

    A drift can be extrapolated only if the windows of a cell are spread over the run.
    """
    change, _ = drift(run)
    if change is None or change.value is None or change.low is None or change.high is None:
        return
    place = pl.col("place") / max(1, len(run.trials) - 1)
    places = windows.group_by("cell_id").agg(mean=place.mean(), span=place.max() - place.min()).sort("cell_id")
    spread = len(places) > 0 and float(places["span"].to_numpy().mean()) >= SPREAD
    if change.low <= 0 <= change.high or abs(change.value) <= TOLERANCE or not spread:
        return
    cells = tuple(
        cell
        for cell, mean in places.select("cell_id", "mean").iter_rows()
        if abs((1 + change.value) ** (mean - 0.5) - 1) > TOLERANCE
    )
    which = (
        "these cells were measured early or late"
        if cells
        else "the cells took turns, so it affects all of them about equally"
    )
    yield Oddity(
        sentence=f"Energy drifted by {100 * change.value:+.0f} % from the first window to the last; {which}.",
        cells=cells,
    )
