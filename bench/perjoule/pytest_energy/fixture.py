"""The `energy_benchmark` fixture: windows around calls.

one round
──────────┬──────────────────────────────┬──────────
 sync     │ window: the call, repeated   │ sync
──────────┴──────────────────────────────┴──────────
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from perjoule.protocols import EnergyMeter, Window
from perjoule.pytest_energy.records import Judgement, Measured
from perjoule.pytest_energy.session import EnergySession, EnergyWarning
from perjoule.types import EnergyReading

_MOST_ITERATIONS = 100_000


class EnergyBenchmark:
    """Measures a function; a test uses it once.

    Attributes:
        measured: The rounds, after the call.
    """

    def __init__(self, *, session: EnergySession, meter: EnergyMeter, item: Any, benchmark: Any = None) -> None:
        """Set up for one test; `benchmark` is pytest-benchmark's fixture, which keeps the seconds."""
        self._session, self._meter, self._item, self._benchmark = session, meter, item, benchmark
        self.measured: Measured | None = None

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call the function in several windows; -> what it returned last.

        Fails the test if a gate finds its energy above the margin, or cannot judge it at all.
        """
        if self.measured is not None:
            raise pytest.UsageError("energy_benchmark measures one function per test")
        rounds, window_s = self._settings()
        self._session.learn_system(self._meter)
        result, took_s = self._warm_up(function, args, kwargs)
        iterations = min(_MOST_ITERATIONS, max(1, math.ceil(window_s / max(took_s, 1e-7))))
        readings: list[EnergyReading] = []

        def work() -> None:
            nonlocal result
            for _ in range(iterations):
                result = function(*args, **kwargs)

        self._run(work, rounds, readings)
        self.measured = Measured.of(self._item.nodeid, readings, iterations)
        if self._benchmark is not None:
            self._benchmark.extra_info["energy"] = self.measured.as_json()
            self._benchmark.extra_info["energy_j"] = self.measured.mean_j
        judgement = self._session.add(self.measured)
        if self._session.over_budget:
            self._item.session.shouldfail = self._session.over_budget  # after this test
        self._conclude(judgement)
        return result

    def _settings(self) -> tuple[int, float]:
        marker = self._item.get_closest_marker("energy")
        chosen = dict(marker.kwargs) if marker else {}
        return int(chosen.get("rounds", self._session.rounds)), float(chosen.get("window_s", self._session.window_s))

    def _warm_up(self, function: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Any, float]:
        """Two calls: the first one loads and compiles, the second one tells how long a call takes."""
        function(*args, **kwargs)
        sync = _sync()
        sync()
        began = time.perf_counter()
        result = function(*args, **kwargs)
        sync()
        return result, time.perf_counter() - began

    def _run(self, work: Callable[[], None], rounds: int, readings: list[EnergyReading]) -> None:
        """Windows open in the setup and close in the teardown, so that the seconds are those of the work alone."""
        stack = ExitStack()
        window: Window | None = None

        def opening() -> None:
            nonlocal window
            window = stack.enter_context(self._meter.window(label=self._item.nodeid, sync=_sync()))

        def closing(*_: Any) -> None:
            stack.close()
            assert window is not None
            readings.append(window.reading)

        if self._benchmark is not None and self._benchmark.enabled:
            self._benchmark.pedantic(work, setup=opening, teardown=closing, rounds=rounds, iterations=1)
        else:
            if self._benchmark is not None:
                self._benchmark(lambda: None)  # it warns of fixtures that were asked for and not used
            for _ in range(rounds):
                opening()
                try:
                    work()
                finally:
                    closing()

    def _conclude(self, judgement: Judgement | None) -> None:
        if judgement is None:
            return
        text = f"{self._item.nodeid}: {judgement.outcome.upper()}: {judgement.reason}"
        if self._session.gating and judgement.outcome in ("fail", "invalid"):
            pytest.fail(text, pytrace=False)
        if judgement.outcome in ("fail", "invalid", "inconclusive"):
            warnings.warn(EnergyWarning(text), stacklevel=3)


def _sync() -> Callable[[], None]:
    """`torch.cuda.synchronize` if the test itself uses torch on a GPU."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found: Callable[[], None] = torch.cuda.synchronize
        return found
    return lambda: None
