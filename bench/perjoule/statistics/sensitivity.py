"""BD-energy under every metric and interpolator: does a saving hang on the yardstick?

One record per arm and metric, all on the draws that were made for the frontier.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from perjoule.errors import EvidenceError
from perjoule.run_directory import Run
from perjoule.statistics.bd import bd_energy_of
from perjoule.statistics.comparisons import anchor_of
from perjoule.statistics.drawn import Drawn, evidence_of


def bd_by_metric(run: Run, drawn: Drawn) -> list[dict[str, Any]]:
    """Arm × metric, in the order of the draws' metrics; arms without an anchor under a metric are left out."""
    found = []
    for metric in drawn.grid.quality:
        evidence = evidence_of(run, drawn, metric)
        sign = 1.0 if evidence.spec.direction == "higher" else -1.0
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
