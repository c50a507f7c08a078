"""Quality metrics: found by name, loaded when first used, and all behind one protocol.

A metric is a factory `(options) -> QualityMetric` under the entry point group `perjoule.metrics`. The names
`pyiqa:NAME` are answered by one adapter. Importing this package loads neither torch nor any model.
"""

from __future__ import annotations

from typing import Any

from perjoule import registry
from perjoule.errors import UsageError
from perjoule.protocols import QualityMetric

__all__ = ["load_metric", "metric_names"]

_PYIQA = "pyiqa:"


def metric_names() -> list[str]:
    """The registered metrics, sorted; what the extra offers as `pyiqa:NAME` is not among them."""
    return sorted(registry.registered("metrics"))


def load_metric(name: str, options: dict[str, Any], where: str) -> QualityMetric:
    """Make a metric ready; weights are read when its `spec` or `score` is first asked for.

    Args:
        name: A registered name or `pyiqa:NAME`.
        options: Passed to the metric; see each factory for the keys it knows.
        where: File and key that asked for it, for the message.

    Raises:
        UnknownNameError: If no metric has that name, or a name among the options is not known.
        UsageError: If an option is not known or does not fit, or the metric needs an extra that is missing.
    """
    try:
        if name.startswith(_PYIQA):
            from perjoule.quality.pyiqa_adapter import pyiqa_metric

            return pyiqa_metric(name.removeprefix(_PYIQA), options)
        factory = registry.load("metrics", name, kind="metric")
        metric: QualityMetric = factory(options)
    except UsageError as error:
        # factories know the option at fault but not the file it stands in
        error.args = (f"{where}: {error}",)
        raise
    return metric
