"""The report as data: one JSON object, rounded, without NaN, the same in `result.json` and inside the HTML."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from perjoule.people.metric import RunWithPeople
from perjoule.statistics.price import price_of
from perjoule.statistics.records import Frontier
from perjoule.suite.reading import IMPORTED
from perjoule.types import Suite
from perjoule.types.documents import document
from perjoule_reports import format as fmt
from perjoule_reports.analysis import Analysis
from perjoule_reports.evidence import Arm, Evidence
from perjoule_reports.pages.schema import (
    Compared,
    Drift,
    Gate,
    Quality,
    Result,
    ResultCell,
    ResultChoices,
    ResultFrontier,
    Trials,
)
from perjoule_reports.records import Headline, RunData, Stamp, Table

_DIGITS = 6
MOST_PROMPTS = 2_000


def payload(
    run: RunData,
    evidence: Evidence,
    analysis: Analysis,
    stamp: Stamp,
    headline: Headline,
    tables: Mapping[str, Table | None],
    choices: ResultChoices | None = None,
) -> dict[str, Any]:
    """Collect everything that other programs may need from a report."""
    estimate, why = analysis.drift
    result = Result(
        suite=_stated(run.suite) if run.is_imported else asdict(run.suite),
        verdict=stamp.word.lower().replace(" ", "-"),  # type: ignore[arg-type]
        gate=None if analysis.verdict is None else _as(Gate, analysis.verdict),
        headline=headline.sentence,
        deploy=headline.deploy,
        beware=headline.beware,
        compared=Compared(test=headline.test or None, anchor=headline.anchor or None),
        choices=choices,
        provenance=evidence.provenance,
        trials=Trials(finished=len(run.trials), planned=run.planned_trials),
        boundaries=evidence.boundaries,
        primary_metric=evidence.primary.name if evidence.primary else None,
        metrics=dict(sorted(run.metrics.items())),
        interval_methods=evidence.interval_methods,
        cells=tuple(map(_cell, evidence.arms)),
        frontier=None if analysis.frontier is None else _shorter(analysis.frontier),
        contrasts=dict(sorted(analysis.contrasts.items())),
        sensitivity=analysis.sensitivity,
        variability=analysis.variability,
        drift=Drift(estimate=estimate, reason=why or None),
        price=price_of(run),
        race=run.race,
        people=run.scale_of_run if isinstance(run, RunWithPeople) else None,
        carbon=analysis.carbon,
        notes={name: [[cell.text for cell in row] for row in table.rows] for name, table in tables.items() if table},
        environment=run.environment,
        prompts=None
        if len(run.prompts) > MOST_PROMPTS  # the run directory holds them all
        else {fmt.clean(k): str(v) for k, v in sorted(run.prompts.items())},
        prompt_count=len(run.prompts),
        # a table may state no prompts, and the digest of nothing is that of no set
        prompt_set_sha256=prompt_digest(run.prompts) if run.prompts or not run.is_imported else None,
    )
    return {key: _plain(value) for key, value in document(result).items()}


def _as(record: Any, other: Any, **more: Any) -> Any:
    """Return `record`, a dataclass, with what the other record has of it."""
    return record(**{f.name: getattr(other, f.name) for f in fields(record) if hasattr(other, f.name)} | more)


def _stated(suite: Suite) -> dict[str, Any]:
    """Return an imported run's suite without default values, because it is not known how the images were made."""
    variants = [
        {key: value for key, value in asdict(variant).items() if key in ("name", "role", "policy", "family")}
        | {"model": None if variant.model == IMPORTED else variant.model}
        | {"steps": list(variant.steps), "batch_size": variant.batch_size}
        for variant in suite.variants
    ]
    return {
        "schema": suite.schema, "name": suite.name, "title": suite.title, "description": suite.description,
        "metrics": {"primary": suite.metrics.primary, "names": suite.metrics.names},
        "prompts": {"source": suite.prompts.source}, "protocol": {"seeds": suite.protocol.seeds}, "variants": variants,
    }  # fmt: skip


def _shorter(frontier: Frontier) -> ResultFrontier:
    """Return the record of `perjoule frontier` without the parts that the result already contains elsewhere."""
    tails = {point.cell_id: point.quality_p10 for point in frontier.points}
    shorter: ResultFrontier = _as(ResultFrontier, frontier, quality_p10=tails)
    return shorter


def prompt_digest(prompts: Mapping[str, str]) -> str:
    """Return the SHA-256 of the sorted prompt texts, separated by NUL."""
    return hashlib.sha256("\0".join(sorted(prompts.values())).encode("utf-8", "replace")).hexdigest()


def to_json(value: Mapping[str, Any]) -> str:
    """Return JSON for a file."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n"


def _cell(arm: Arm) -> ResultCell:
    cell: ResultCell = _as(
        ResultCell,
        arm,
        steps_mean=arm.steps,
        steps_p5_p95=arm.steps_spread,
        nfe_mean=arm.nfe,
        flops_per_image=arm.flops,
        energy_j_per_image=arm.energy,
        energy_bound_j_per_image=arm.energy_bound_j,
        duration_s_per_image=arm.duration_s,
        n_prompts=arm.prompt_count,
        n_seeds=arm.seed_count,
        quality={
            name: _as(
                Quality,
                value,
                on_frontier=arm.on_frontier.get(name, False),
                p_on_frontier=arm.p_on_frontier.get(name),
            )
            for name, value in sorted(arm.quality.items())
        },
    )
    return cell


def _plain(value: Any) -> Any:
    """Return JSON-ready data: rounded floats, null for NaN, lists for tuples, text for anything foreign."""
    if isinstance(value, bool) or value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in value]
    return str(value)
