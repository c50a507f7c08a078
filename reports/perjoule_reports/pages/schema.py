"""The JSON Schema of `result.json`, for `perjoule schema`."""

from __future__ import annotations

from typing import Any

from perjoule.types import PROVENANCES
from perjoule_reports.pages.payload import SCHEMA

_NUMBER: dict[str, Any] = {"type": ["number", "null"]}
_TEXT: dict[str, Any] = {"type": ["string", "null"]}
_TEXTS: dict[str, Any] = {"type": "array", "items": {"type": "string"}}
_QUADRANTS = ("cheaper_and_better", "dearer_and_better", "cheaper_and_worse", "dearer_and_worse")
_ESTIMATE: dict[str, Any] = {"$ref": "#/$defs/Estimate"}


def result_schema() -> dict[str, Any]:
    """Return the JSON Schema of the result that `perjoule report` writes next to the page and embeds in it."""
    properties: dict[str, Any] = {
        "schema": {"const": SCHEMA},
        "kind": {"const": "perjoule-result"},
        "suite": {"type": "object"},
        "verdict": {"enum": ["pass", "fail", "inconclusive", "invalid", "no-gate"]},
        "gate": {"type": ["object", "null"], "description": "as printed by perjoule gate --json"},
        "headline": {"type": "string"},
        "deploy": _TEXTS,
        "beware": _TEXTS,
        "compared": _object(test=_TEXT, anchor=_TEXT),
        "provenance": {"enum": [*PROVENANCES, None]},
        "trials": _object(finished={"type": "integer"}, planned={"type": ["integer", "null"]}),
        "boundaries": _TEXTS,
        "primary_metric": _TEXT,
        "metrics": {"type": "object"},
        "interval_methods": _TEXTS,
        "cells": {"type": "array", "items": {"$ref": "#/$defs/Cell"}},
        "frontier": {
            "type": ["object", "null"],
            "description": "as printed by perjoule frontier --json, without points",
        },
        "contrasts": {"type": "object", "additionalProperties": {"$ref": "#/$defs/Contrast"}},
        "sensitivity": {"type": "array", "items": {"$ref": "#/$defs/Sensitivity"}},
        "variability": {"type": "array", "items": {"$ref": "#/$defs/Source"}},
        "drift": _object(estimate={"anyOf": [_ESTIMATE, {"type": "null"}]}, reason=_TEXT),
        "carbon": {"type": ["object", "null"]},
        "notes": {"type": "object"},
        "environment": {"type": "object"},
        "prompts": {"type": ["object", "null"]},
        "prompt_count": {"type": "integer"},
        "prompt_set_sha256": _TEXT,
    }
    return _object(**properties) | {"$defs": _definitions()}


def _definitions() -> dict[str, Any]:
    interval = _object(value=_NUMBER, low=_NUMBER, high=_NUMBER)
    quality = _object(value=_NUMBER, low=_NUMBER, high=_NUMBER, on_frontier={"type": "boolean"}, p_on_frontier=_NUMBER)
    texts = {name: {"type": "string"} for name in ("cell_id", "variant", "role", "policy", "family")}
    numbers = ("steps_mean", "nfe_mean", "energy_bound_j_per_image", "mean_power_w", "duration_s_per_image")
    return {
        "Estimate": _object(
            value=_NUMBER, low=_NUMBER, high=_NUMBER, level={"type": "number"}, n={"type": "integer"},
            method={"type": "string"},
        ),
        "Cell": _object(
            **texts,
            **dict.fromkeys(numbers, _NUMBER),
            steps_p5_p95={"type": ["array", "null"], "items": {"type": "number"}},
            energy_j_per_image=interval,
            provenance=_TEXT,
            boundary=_TEXT,
            n_prompts={"type": "integer"},
            n_seeds={"type": "integer"},
            quality={"type": "object", "additionalProperties": quality},
        ),
        "Contrast": _object(
            cell_id={"type": "string"}, anchor_cell_id={"type": "string"}, energy_ratio=_ESTIMATE, quality=_ESTIMATE,
            quadrants={"anyOf": [_object(**{name: {"type": "number"} for name in _QUADRANTS}), {"type": "null"}]},
        ),
        "Sensitivity": {
            "type": "object",
            "properties": {
                "metric": {"type": "string"}, "test": {"type": "string"}, "anchor": {"type": "string"},
                "bd_energy": {"anyOf": [_ESTIMATE, {"type": "null"}]}, "akima": _NUMBER, "saturating": _NUMBER,
                "leave_one_out": _NUMBER, "overlap": {"type": "number"}, "resolved": {"type": "boolean"},
                "reason": _TEXT,
            },
            "required": ["metric", "test", "anchor", "bd_energy", "reason"],
        },
        "Source": _object(
            name={"type": "string"}, energy=_NUMBER, quality=_NUMBER, n={"type": "integer"}, inside={"type": "boolean"},
            reason={"type": "string"},
        ),
    }  # fmt: skip


def _object(**properties: Any) -> dict[str, Any]:
    """Return the schema of an object whose properties are all required."""
    return {"type": "object", "properties": properties, "required": list(properties)}
