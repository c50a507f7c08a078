"""perjoule: how much do people perceptually gain from a generated image, per joule?

Public names are imported when first used, so that `import perjoule` costs milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perjoule.gating import gate
    from perjoule.meters import open_meter
    from perjoule.run_directory import Run, load_run
    from perjoule.statistics.frontier import frontier

__version__ = "0.1.0"
__all__ = ["Run", "__version__", "frontier", "gate", "load_run", "open_meter"]

_HOMES = {
    "open_meter": "perjoule.meters",
    "load_run": "perjoule.run_directory",
    "Run": "perjoule.run_directory",
    "frontier": "perjoule.statistics.frontier",
    "gate": "perjoule.gating",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'perjoule' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
