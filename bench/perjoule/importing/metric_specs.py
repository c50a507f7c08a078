"""Specs of the metrics of an imported table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from perjoule.errors import PerjouleError
from perjoule.quality import load_metric, metric_names
from perjoule.suite.reading import IMPORTED
from perjoule.types import MetricSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricFacts:
    """Properties of metrics that a table does not contain.

    Attributes:
        lower: Metrics for which lower is better.
        fidelity: Full-reference metrics, compared only within one family.
        bounds: Smallest and largest possible value, None where unbounded.
    """

    lower: Sequence[str] = ()
    fidelity: Sequence[str] = ()
    bounds: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)


def spec_of(name: str, facts: MetricFacts, notes: list[str]) -> MetricSpec:
    """Return the spec of perjoule's metric of that name, else one that is better if higher and has no bounds."""
    spec = _known_spec(name)
    if spec is None:
        spec = MetricSpec(
            name=name, direction="higher", track="absolute", needs_reference=False, unit="", weights_digest=IMPORTED,
            licence="unknown", description="Imported.", advisory=False, bounds=(None, None),
        )  # fmt: skip
    elif spec.direction == "lower" or spec.track == "fidelity":
        kind = "full-reference, compared within one family" if spec.track == "fidelity" else "compared across variants"
        notes.append(f"{name} is treated as perjoule's metric of that name: {spec.direction} is better, {kind}")
    if name in facts.lower:
        spec = replace(spec, direction="lower")
    if name in facts.fidelity:
        spec = replace(spec, track="fidelity", needs_reference=True)
    return replace(spec, bounds=facts.bounds.get(name, spec.bounds))


def _known_spec(name: str) -> MetricSpec | None:
    """Return direction, track, unit and bounds of one of our metrics; it is unknown which program scored the table."""
    if name not in metric_names():
        return None
    try:
        card = getattr(load_metric(name, {}, "import"), "card", None)
    except PerjouleError:
        return None
    if not isinstance(card, MetricSpec):
        return None
    return replace(
        card, name=name, weights_digest=IMPORTED, licence="unknown", commercial=None, weights="", temperature=None,
        advisory=False, description="Imported.", margin=None, scale="",
    )  # fmt: skip
