"""perjoule: measures the perceptual gain per joule of diffusion models.

Public names are imported when first used, so that `import perjoule` costs milliseconds.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perjoule.gating import gate
    from perjoule.meters import open_meter
    from perjoule.runs.directory import Run, load_run
    from perjoule.statistics.frontier import frontier

__version__ = "0.1.0"
__all__ = ["Run", "__version__", "frontier", "gate", "load_run", "open_meter"]

_HOMES = {
    "open_meter": "perjoule.meters",
    "load_run": "perjoule.runs.directory",
    "Run": "perjoule.runs.directory",
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


_MOVED = {
    "perjoule.catalogue": "perjoule.weights.catalogue",
    "perjoule.models": "perjoule.weights.models",
    "perjoule.nfe": "perjoule.forecast.nfe",
    "perjoule.pytest_plugin": "perjoule.pytest_energy.plugin",
    "perjoule.reporting": "perjoule.running.reporting",
}


class _Moved:
    """Finds modules at their new location under the names that README and docs of 0.1.0 used; for one release."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in _MOVED else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Use the default module object."""

    def exec_module(self, module: Any) -> None:
        import warnings
        from importlib import import_module

        home = _MOVED[module.__name__]
        warnings.warn(f"{module.__name__} has moved to {home}", DeprecationWarning, stacklevel=2)
        target = import_module(home)
        vars(module).update({name: value for name, value in vars(target).items() if not name.startswith("__")})


sys.meta_path.append(_Moved())
