"""The settings of a suite that can change joules, images or the primary metric: their digest, and their texts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from perjoule.text import one_line
from perjoule.types import Suite

_DIGITS = 12
_SETTING_LETTERS = 120
# keys of the suite that change neither images nor joules; the prompts have their own digest, wherever their file is
_WITHOUT_EFFECT = {
    "title", "description", "label", "labels", "margins", "reference", "schema", "order_seed", "timeout_s", "source",
}  # fmt: skip


def suite_digest(suite: Suite) -> str:
    """Return a digest of the settings that can change joules, images or the primary metric.

    Defaults are left out, so that a new key of a later version does not change it.
    """
    text = json.dumps(_with_effect(suite), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def settings_of(suite: Suite) -> dict[str, str]:
    """Return the settings of `suite_digest` as texts, those of a variant by its name, e.g. `{"shipped.steps": "3"}`."""
    stated, metric = _with_effect(suite)
    variants = {variant["name"]: variant for variant in stated.pop("variants", ())}
    return dict(_flat("", stated)) | dict(_flat("metrics", metric)) | dict(_flat("", variants))


def _with_effect(suite: Suite) -> list[dict[str, Any]]:
    stated = _stated(suite)
    metrics = stated.pop("metrics")
    stated.pop("name")
    return [
        stated,
        {"primary": metrics["primary"], "options": metrics.get("options", {}).get(metrics["primary"])},
    ]


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the texts of nested settings; a list of one value is that value."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), part)
    elif value is not None:
        single = value[0] if isinstance(value, list) and len(value) == 1 else value
        text = single if isinstance(single, str) else json.dumps(single, ensure_ascii=False, default=str)
        yield prefix, one_line(text)[:_SETTING_LETTERS]


def _stated(value: Any) -> Any:
    if is_dataclass(value):
        return {
            field.name: _stated(stated)
            for field in fields(value)
            if field.name not in _WITHOUT_EFFECT and (stated := getattr(value, field.name)) != _default(field)
        }
    return [_stated(item) for item in value] if isinstance(value, tuple | list) else value


def _default(field: Any) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default
