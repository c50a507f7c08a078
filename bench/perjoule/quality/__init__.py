"""Quality metrics: found by name, loaded when first used, all with the same interface.

A metric is a factory `(options) -> QualityMetric` under the entry point group `perjoule.metrics`. The names
`pyiqa:NAME` are answered by one adapter. `@metric` makes a factory of a function that takes an image. Importing this
package loads neither torch nor any model.
"""

from __future__ import annotations

from typing import Any, TypeGuard

from perjoule import registry
from perjoule.errors import UsageError, missing_extra
from perjoule.protocols import CardedMetric, QualityMetric, SetMetric
from perjoule.quality.functions import metric
from perjoule.types import MetricSpec

__all__ = ["load_metric", "metric", "metric_names", "metric_rows", "uses_reference"]

_PYIQA = "pyiqa:"


def metric_names() -> list[str]:
    """Return the registered metrics, sorted, without the metrics `pyiqa:NAME` of the extra."""
    return sorted(registry.registered("metrics"))


def metric_rows() -> list[dict[str, Any]]:
    """Return the lines of `perjoule list metrics`, for every metric without options; nothing is downloaded.

    `cached` is True if the metric can score without a network; properties that need its weights are None.
    """
    rows = [_registered_row(name) for name in metric_names()]
    from perjoule.quality.pyiqa_adapter import LICENCE, is_installed

    rows.append(
        {
            **_row(f"{_PYIQA}NAME", None, is_installed()),
            "licence": LICENCE,
            "commercial": False,
            "weights": "extra perjoule[pyiqa]",
            "description": "any metric of pyiqa, with direction and track from its registry",
        }
    )
    return rows


def uses_reference(metric: QualityMetric | SetMetric) -> bool:
    """Return whether a metric compares images with references; needs no weights if the metric has a card."""
    return (metric.card if _has_card(metric) else metric.spec).needs_reference


def _registered_row(name: str) -> dict[str, Any]:
    card = None
    try:
        metric = load_metric(name, {}, "list metrics")
        if not _has_card(metric):
            return _row(name, None, None)
        card = metric.card
        return _row(name, card, metric.weights_here())
    except ModuleNotFoundError as error:
        if (needed := missing_extra(error)) is None:
            raise
        return _row(name, card, False) | {"weights": needed}


def _has_card(metric: object) -> TypeGuard[CardedMetric]:
    return hasattr(type(metric), "card")


def _row(name: str, card: MetricSpec | None, cached: bool | None) -> dict[str, Any]:
    columns = (
        "direction", "track", "advisory", "margin", "scale", "licence", "commercial", "weights", "description",
    )  # fmt: skip
    return {"metric": name, "cached": cached} | {column: getattr(card, column, None) for column in columns}


def load_metric(name: str, options: dict[str, Any], where: str) -> QualityMetric | SetMetric:
    """Create a metric; its weights are read when `spec` or `score` is first used.

    Args:
        name: A registered name or `pyiqa:NAME`.
        options: Passed to the metric; see each factory for its keys.
        where: File and key that name the metric, for messages.

    Raises:
        UnknownNameError: If no metric has that name, or a name in the options is unknown.
        UsageError: If an option is unknown or invalid, or the metric needs an extra that is not installed.
    """
    try:
        if name.startswith(_PYIQA):
            from perjoule.quality.pyiqa_adapter import pyiqa_metric

            return pyiqa_metric(name.removeprefix(_PYIQA), options)
        factory = registry.load("metrics", name, kind="metric")
        metric: QualityMetric | SetMetric = factory(options)
    except UsageError as error:
        # factories know the invalid option but not its file
        error.args = (f"{where}: {error}",)
        raise
    return metric
