"""BD-energy under every metric and interpolator: does a saving hang on the yardstick?

One record per arm and metric, all on the draws that were made for the frontier.
"""

from __future__ import annotations

from collections.abc import Iterator

from perjoule.errors import EvidenceError
from perjoule.runs.directory import Run
from perjoule.statistics.bd import bd_energy
from perjoule.statistics.comparisons import anchor_of
from perjoule.statistics.drawn import Drawn, evidence_of
from perjoule.statistics.records import Frontier, Sensitivity


def bd_by_metric(run: Run, drawn: Drawn, compared: Frontier | None = None) -> tuple[Sensitivity, ...]:
    """Arm × metric, in the order of the draws' metrics; arms without an anchor under a metric are left out.

    `compared`: a record of `frontier_of` on the same draws, whose metric is then not worked out again.
    """
    rows = [] if compared is None else list(_taken(compared))
    for metric in drawn.grid.quality:
        if compared is None or metric != compared.metric:
            rows += _under(run, drawn, metric)
    return tuple(rows)


def _under(run: Run, drawn: Drawn, metric: str) -> Iterator[Sensitivity]:
    evidence = evidence_of(run, drawn, metric)
    sign = evidence.spec.sign
    bound = evidence.spec.bounds[1 if sign > 0 else 0]
    for arm in evidence.arms:
        anchor = anchor_of(arm, evidence.arms, evidence.spec)
        if anchor is None or min(len(arm.columns), len(anchor.columns)) < 2:
            continue
        try:
            bd = bd_energy(evidence.paired(arm, anchor), None if bound is None else sign * bound)
        except EvidenceError as error:
            yield Sensitivity(metric=metric, test=arm.variant, anchor=anchor.variant, reason=str(error))
            continue
        yield Sensitivity(
            metric=metric,
            test=arm.variant,
            anchor=anchor.variant,
            bd_energy=bd.estimate,
            akima=bd.akima,
            saturating=bd.saturating,
            leave_one_out=bd.leave_one_out,
            overlap=bd.overlap,
            dropped=(len(bd.dropped[0]), len(bd.dropped[1])),
            resolved=bd.resolved,
            reason=bd.reason,
        )


def _taken(compared: Frontier) -> Iterator[Sensitivity]:
    """The same records from comparisons that are there already."""
    for record in compared.comparisons:
        details = record.bd
        if details is not None and min(details.rungs) >= 2:
            yield Sensitivity(
                metric=compared.metric or "",
                test=record.test,
                anchor=record.anchor,
                bd_energy=record.bd_energy,
                akima=details.akima,
                saturating=details.saturating,
                leave_one_out=details.leave_one_out,
                overlap=record.overlap,
                dropped=(len(details.dropped.test), len(details.dropped.anchor)),
                resolved=record.resolved,
                reason=details.reason,
            )
