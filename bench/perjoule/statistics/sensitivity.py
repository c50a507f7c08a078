"""BD-energy under every metric and interpolator: does a saving hang on the yardstick?

One record per arm and metric, all on the draws that were made for the frontier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from perjoule.errors import EvidenceError
from perjoule.runs.directory import Run
from perjoule.statistics.bd import bd_energy_of
from perjoule.statistics.comparisons import anchor_of
from perjoule.statistics.drawn import Drawn, evidence_of


def bd_by_metric(run: Run, drawn: Drawn, compared: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Arm × metric, in the order of the draws' metrics; arms without an anchor under a metric are left out.

    `compared`: a record of `frontier_of` on the same draws, whose metric is then not worked out again.
    """
    known = compared["metric"] if compared else ""
    found = _taken(known, compared["comparisons"]) if compared else []
    for metric in drawn.grid.quality:
        if metric == known:
            continue
        evidence = evidence_of(run, drawn, metric)
        sign = evidence.spec.sign
        bound = evidence.spec.bounds[1 if sign > 0 else 0]
        for arm in evidence.arms:
            anchor = anchor_of(arm, evidence.arms, evidence.spec)
            if anchor is None or min(len(arm.columns), len(anchor.columns)) < 2:
                continue
            record: dict[str, Any] = {"metric": metric, "test": arm.variant, "anchor": anchor.variant}
            try:
                bd = bd_energy_of(evidence.paired(arm, anchor), None if bound is None else sign * bound)
            except EvidenceError as error:
                found.append(record | {"bd_energy": None, "reason": str(error)})
                continue
            found.append(
                record
                | {
                    "bd_energy": asdict(bd.estimate),
                    "akima": bd.akima,
                    "saturating": bd.saturating,
                    "leave_one_out": bd.leave_one_out,
                    "overlap": bd.overlap,
                    "dropped": [len(bd.dropped[0]), len(bd.dropped[1])],
                    "resolved": bd.resolved,
                    "reason": bd.reason,
                }
            )
    return found


def _taken(metric: str, comparisons: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same records from comparisons that are there already."""
    found: list[dict[str, Any]] = []
    for record in comparisons:
        details = record.get("bd")
        if details is None or min(details["rungs"]) < 2:
            continue
        names = ("test", "anchor", "bd_energy", "overlap", "resolved")
        found.append(
            {"metric": metric}
            | {name: record[name] for name in names}
            | {name: details[name] for name in ("akima", "saturating", "leave_one_out", "reason")}
            | {"dropped": [len(details["dropped"][side]) for side in ("test", "anchor")]}
        )
    return found
