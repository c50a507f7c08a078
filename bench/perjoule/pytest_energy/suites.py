"""Collects suite files as test files: `pytest --benchmark suites/` runs each cell of each suite as an energy test.

One call generates the same images as the first trial of the cell in `perjoule run`: with the same prompts, seeds,
pipeline, step policy and code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from perjoule.errors import PerjouleError
from perjoule.pytest_energy.fixture import EnergyBenchmark
from perjoule.running.trial import Cells, NotLoadedError, draw_cell, problem_of, texts_of
from perjoule.runs.pictures import pixel_digest
from perjoule.types import Assignment


class SuiteFile(pytest.Module):
    """A suite whose cells are the tests. For pytest it is a module, so that module-scoped fixtures work."""

    obj = ModuleType("suite")

    def collect(self) -> Iterator[pytest.Item]:
        """Collect one test per cell."""
        from perjoule.suite.reading import cells_of, load_suite

        try:
            suite = load_suite(self.path)
        except PerjouleError as error:
            raise self.CollectError(str(error)) from None
        for cell in cells_of(suite):
            yield CellItem.from_parent(self, name=cell.cell_id, callobj=_test_of(self.path, cell.cell_id))


class CellItem(pytest.Function):
    """One variant at one step count, or at one level of its step policy."""

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        """Show our own errors as sentences, without a traceback."""
        if isinstance(excinfo.value, PerjouleError | NotLoadedError):
            return str(excinfo.value)
        return super().repr_failure(excinfo)  # without a style, so that --tb applies

    def reportinfo(self) -> tuple[Any, int, str]:
        """Return the suite file and the cell."""
        return self.path, 0, f"{self.path.name}: {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSuite:
    """An open suite with its prompts.

    Attributes:
        path: Its file.
        first: First trial of the plan by cell id.
        cells: Loads cells.
        threads: torch CPU threads of the protocol.
    """

    path: Path
    first: dict[str, Assignment]
    cells: Cells
    threads: int | None


_OPEN = pytest.StashKey[OpenSuite]()


def _test_of(path: Path, cell_id: str) -> Callable[..., None]:
    def test(request: pytest.FixtureRequest, energy_benchmark: EnergyBenchmark) -> None:
        suite = _open(request.config, path)
        trial = suite.first[cell_id]
        from perjoule.running.device import torch_threads
        from perjoule.running.examining import suite_folder
        from perjoule.weights.models import relative_to

        with torch_threads(suite.threads), relative_to(suite_folder(path)):
            ready = suite.cells.ready(trial.cell)
            energy_benchmark.call = _identity(trial)
            drawn = energy_benchmark(draw_cell, ready, [prompt.text for prompt in trial.prompts], trial.seeds)
        if problem := problem_of(drawn, len(trial.seeds)):
            pytest.fail(problem, pytrace=False)
        energy_benchmark.extra_info["image_sha256"] = [pixel_digest(picture) for picture in drawn.images]

    return test


def _open(config: pytest.Config, path: Path) -> OpenSuite:
    """Return the suite of a file. Only one is kept, because two large pipelines rarely fit into memory."""
    open_suite = config.stash.get(_OPEN, None)
    if open_suite is not None and open_suite.path == path:
        return open_suite
    from perjoule.running.device import generators_of
    from perjoule.running.prepared import with_prompts
    from perjoule.suite.reading import load_suite
    from perjoule.suite.schedule import make_plan

    if open_suite is not None:
        del config.stash[_OPEN], open_suite  # release memory before the next weights are read
    suite, prompts, _ = with_prompts(load_suite(path), path)
    plan = make_plan(suite, prompts)
    first: dict[str, Assignment] = {}
    for trial in plan:
        first.setdefault(trial.cell.cell_id, trial)
    config.stash[_OPEN] = OpenSuite(
        path=path,
        first=first,
        cells=Cells(generators_of(suite, path), texts_of(plan)),
        threads=suite.protocol.threads,
    )
    return config.stash[_OPEN]


def _identity(trial: Assignment) -> str:
    """Return a description of a call's images. A baseline with other prompts or seeds is not comparable."""
    drawn = [(prompt.prompt_id, seed) for prompt, seed in zip(trial.prompts, trial.seeds, strict=True)]
    return f"{len(drawn)} images, prompts and seeds {hashlib.sha256(repr(drawn).encode()).hexdigest()[:10]}"
