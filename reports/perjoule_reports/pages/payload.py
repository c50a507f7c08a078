"""The report as data: one JSON object, rounded, without NaN, the same in `result.json` and inside the HTML."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from perjoule.suite.reading import IMPORTED
from perjoule.types import Suite
from perjoule_reports import format as fmt
from perjoule_reports.analysis import Analysis, missing_trials
from perjoule_reports.evidence import Arm, Evidence
from perjoule_reports.records import Headline, RunData, Stamp, Table

SCHEMA = 1
_DIGITS = 6
MOST_PROMPTS = 2_000


def payload(
    run: RunData,
    evidence: Evidence,
    analysis: Analysis,
    stamp: Stamp,
    headline: Headline,
    tables: Mapping[str, Table | None],
) -> dict[str, Any]:
    """Collect everything that other programs may need from a report."""
    estimate, why = analysis.drift
    done, planned = missing_trials(run)
    return {
        "schema": SCHEMA,
        "kind": "perjoule-result",
        "suite": _plain(_stated(run.suite) if run.is_imported else asdict(run.suite)),
        "verdict": stamp.word.lower().replace(" ", "-"),
        "gate": None if analysis.verdict is None else _plain(analysis.verdict.as_json()),
        "headline": headline.sentence,
        "deploy": list(headline.deploy),
        "beware": list(headline.beware),
        "compared": {"test": headline.test or None, "anchor": headline.anchor or None},
        "provenance": evidence.provenance,
        "trials": {"finished": done, "planned": planned or None},
        "boundaries": list(evidence.boundaries),
        "primary_metric": evidence.primary.name if evidence.primary else None,
        "metrics": {name: _plain(asdict(spec)) for name, spec in sorted(run.metrics.items())},
        "interval_methods": list(evidence.interval_methods),
        "cells": [_cell(arm) for arm in evidence.arms],
        "frontier": None if analysis.frontier is None else _plain(_shorter(analysis.frontier)),
        "contrasts": {cell: _plain(asdict(found)) for cell, found in sorted(analysis.contrasts.items())},
        "sensitivity": _plain(analysis.sensitivity),
        "variability": [_plain(asdict(source)) for source in analysis.variability],
        "drift": {"estimate": None if estimate is None else _plain(asdict(estimate)), "reason": why or None},
        "carbon": None if analysis.carbon is None else _plain(asdict(analysis.carbon)),
        "notes": {name: [[cell.text for cell in row] for row in table.rows] for name, table in tables.items() if table},
        "environment": _plain(run.environment),
        **_prompts(run),
    }


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


def _shorter(frontier: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of `perjoule frontier` without the parts that the result already contains elsewhere."""
    return {key: value for key, value in frontier.items() if key not in ("schema", "suite", "points")} | {
        "quality_p10": {point["cell_id"]: point["quality_p10"] for point in frontier["points"]}
    }


def _prompts(run: RunData) -> dict[str, Any]:
    """Return prompt texts by id; for large sets only the digest, since the run directory contains all texts."""
    # a table may state no prompts, and a digest of nothing would not identify any set
    sha256 = prompt_digest(run.prompts) if run.prompts or not run.is_imported else None
    digest: dict[str, Any] = {"prompt_set_sha256": sha256, "prompt_count": len(run.prompts)}
    if len(run.prompts) > MOST_PROMPTS:
        return digest | {"prompts": None}
    return digest | {"prompts": {fmt.clean(k): str(v) for k, v in sorted(run.prompts.items())}}


def prompt_digest(prompts: Mapping[str, str]) -> str:
    """Return the SHA-256 of the sorted prompt texts, separated by NUL."""
    return hashlib.sha256("\0".join(sorted(prompts.values())).encode("utf-8", "replace")).hexdigest()


def to_json(value: Mapping[str, Any]) -> str:
    """Return JSON for a file."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n"


def to_script(value: Mapping[str, Any]) -> str:
    """Return JSON that is safe inside a script element: nothing in it can end the element or open a comment."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _cell(arm: Arm) -> dict[str, Any]:
    found = {
        "cell_id": arm.cell_id,
        "variant": arm.variant,
        "role": arm.role,
        "policy": arm.policy,
        "family": arm.family,
        "steps_mean": arm.steps,
        "steps_p5_p95": arm.steps_spread,
        "nfe_mean": arm.nfe,
        "energy_j_per_image": asdict(arm.energy),
        "energy_bound_j_per_image": arm.energy_bound_j,
        "mean_power_w": arm.mean_power_w,
        "duration_s_per_image": arm.duration_s,
        "provenance": arm.provenance,
        "boundary": arm.boundary,
        "n_prompts": arm.prompt_count,
        "n_seeds": arm.seed_count,
        "quality": {
            name: {
                **asdict(value),
                "on_frontier": arm.on_frontier.get(name, False),
                "p_on_frontier": arm.p_on_frontier.get(name),
            }
            for name, value in sorted(arm.quality.items())
        },
    }
    return {key: _plain(value) for key, value in found.items()}


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
