"""Differences between two runs, without margins and without a verdict: what `perjoule compare` prints.

The pairs and their intervals are those of the gate. Settings that differ are listed, and the differences below include
their effect. Joules of different boundaries or provenances are not compared, and neither are scores of a metric
whose own settings differ.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from perjoule.errors import EvidenceError
from perjoule.gating.decide import EXACT, IDENTICAL, energy_change, quality_change, without_error
from perjoule.gating.evidence import check
from perjoule.gating.pairing import Pairs, pair_runs
from perjoule.gating.records import Difference, GateConfig, Missing
from perjoule.runs.directory import Run
from perjoule.statistics.resampling import LEVEL
from perjoule.types import Estimate

_INTERVALS = GateConfig(alpha=(1 - LEVEL) / 2)
_OF_ENERGY = ("boundary", "provenance")
SESSIONS = "the intervals do not include the variation between sessions; perjoule gate judges by margins"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Changes from the first run to the second, with 95 % intervals.

    `energy` is a share, positive is more; `quality` is in units of the metric, positive is better. None is withheld:
    `RunComparison.differences` has the reason.
    """

    energy: Estimate | None
    quality: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CellChange(Change):
    """Changes of one cell."""

    cell_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunComparison:
    """Result of `compare`.

    Attributes:
        metric: Quality axis.
        change: Mean over the cells of both runs.
        cells: Each of these cells.
        energy_j_per_image: Geometric means of both runs over these cells, as in the report; None if energy is withheld.
        n_prompts: Prompts behind the change of quality.
        n_windows: Energy windows of both runs in these cells, or rows of imported tables.
        provenance: Provenances of the joules.
        identical_images: Whether every image is the same, bit for bit.
        differences: Settings that differ.
        missing: What only one of the runs has.
        notes: What else to know.
    """

    metric: str
    change: Change
    cells: tuple[CellChange, ...]
    energy_j_per_image: tuple[float, float] | None
    n_prompts: int
    n_windows: tuple[int, int]
    provenance: tuple[str, ...]
    identical_images: bool
    differences: tuple[Difference, ...]
    missing: tuple[Missing, ...]
    notes: tuple[str, ...]


def compare(before: Run, after: Run, metric: str | None = None) -> RunComparison:
    """Compare two runs.

    Args:
        before: The first run.
        after: The second run; positive changes mean that it has more.
        metric: Quality axis; the first run's primary metric by default.

    Raises:
        EvidenceError: If the runs have no cell, prompt or metric in common, or if joules are not valid.
    """
    name = metric or before.suite.metrics.primary
    findings = check(before, after, name, GateConfig())
    if findings.invalid:
        raise EvidenceError(f"compare: {'; '.join(findings.invalid)}")
    if absent := [item for item in findings.missing if item.what == "metric"]:
        raise EvidenceError(f"compare: {absent[0].where} lacks metric {name}: {absent[0].detail}")
    pairs = pair_runs(before, after, name)
    if not len(pairs.log_energy) or not len(pairs.quality):
        raise EvidenceError("compare: the runs have no cell whose prompts have joules and scores in both")
    keys = {difference.key for difference in findings.incomparable}
    energy = not keys & set(_OF_ENERGY)
    quality = not any(key.startswith(f"metrics.{name}.") for key in keys)
    if pairs.exact_energy:
        pairs = without_error(pairs)
    notes = (
        *((IDENTICAL,) if pairs.identical_images else ()),
        EXACT if pairs.exact_energy else SESSIONS,
        *findings.notes,
    )
    change = _change(pairs, None, energy, quality)
    return RunComparison(
        metric=name,
        change=change,
        cells=tuple(
            CellChange(cell_id=cell, energy=one.energy, quality=one.quality)
            for i, cell in enumerate(pairs.cells)
            for one in [_change(pairs, i, energy, quality)]
        ),
        energy_j_per_image=pairs.mean_j if energy else None,
        n_prompts=len(pairs.quality),
        n_windows=pairs.windows,
        provenance=pairs.provenance,
        identical_images=pairs.identical_images,
        differences=findings.incomparable,
        missing=findings.missing,
        notes=notes,
    )


def _change(pairs: Pairs, cell: int | None, energy: bool, quality: bool) -> Change:
    """Return the changes of one cell, or of the mean over cells."""
    d, q = (rows.mean(1) if cell is None else rows[:, cell] for rows in (pairs.log_energy, pairs.quality))
    energy_of = energy_change(d, _INTERVALS)
    if len(d) < 2 and not pairs.exact_energy:
        energy_of = replace(energy_of, low=None, high=None, method="one window group, no interval")
    return Change(
        energy=energy_of if energy else None,
        quality=quality_change(q, _INTERVALS, pairs, cell) if quality else None,
    )
