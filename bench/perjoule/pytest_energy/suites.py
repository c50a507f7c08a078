"""Suite files as test files: `pytest --benchmark suites/` runs each cell of each suite as an energy test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from perjoule.errors import PerjouleError
from perjoule.types import Cell, Variant


class SuiteFile(pytest.File):
    """A suite: its cells are the tests."""

    def collect(self) -> Iterator[pytest.Item]:
        """One test a cell."""
        from perjoule.suite import cells_of, load_suite

        try:
            suite = load_suite(self.path)
        except PerjouleError as error:
            raise self.CollectError(str(error)) from None
        for cell in cells_of(suite):
            yield CellItem.from_parent(self, name=cell.cell_id, cell=cell)


class CellItem(pytest.Item):
    """One variant at one step count: a pipeline call with the suite's first prompt and seed."""

    def __init__(self, *, cell: Cell, **kwargs: Any) -> None:
        """Keep the cell."""
        super().__init__(**kwargs)
        self.cell = cell
        self.add_marker(pytest.mark.energy)

    def runtest(self) -> None:
        """Measure."""
        from dataclasses import replace

        from perjoule.prompts import load_prompts
        from perjoule.pytest_energy.fixture import EnergyBenchmark
        from perjoule.pytest_plugin import session_of
        from perjoule.suite import load_suite

        suite = load_suite(self.path)
        source = suite.prompts
        if not source.source.startswith("builtin:"):
            source = replace(source, source=str((self.path.parent / source.source).resolve()))
        prompt = load_prompts(replace(source, limit=1), where=f"{self.path}: prompts.source")[0]
        generator = _generator(self.config, self.cell.variant, str(self.path))
        meter = _meter(self.config)
        EnergyBenchmark(session=session_of(self.config), meter=meter, item=self)(
            generator.generate, [prompt.text], [suite.protocol.seeds[0]], self.cell.steps
        )

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        """Our own errors are sentences already."""
        if isinstance(excinfo.value, PerjouleError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Any, int, str]:
        """Where it stands."""
        return self.path, 0, f"{self.path.name}: {self.name}"


_GENERATOR = pytest.StashKey[tuple[Variant, Any]]()
_METER = pytest.StashKey[Any]()


def _generator(config: pytest.Config, variant: Variant, where: str) -> Any:
    """The pipeline of a variant; one is kept, since two large ones seldom fit."""
    kept = config.stash.get(_GENERATOR, None)
    if kept is not None and kept[0] == variant:
        return kept[1]
    from perjoule import registry

    if kept is not None:
        del config.stash[_GENERATOR], kept  # let go of the old weights before the new ones are read
    loaded = registry.load("generators", "diffusers", kind="generator")(variant, where=where)
    config.stash[_GENERATOR] = (variant, loaded)
    return loaded


def _meter(config: pytest.Config) -> Any:
    """A meter for the session, closed with it."""
    if _METER not in config.stash:
        from perjoule.meters import open_meter

        meter = open_meter(config.getoption("--energy-meter"))
        config.stash[_METER] = meter.__enter__()
        config.add_cleanup(lambda: meter.__exit__(None, None, None))
    return config.stash[_METER]
