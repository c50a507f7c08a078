"""The `energy_benchmark` fixture, which measures calls in windows.

one round
──────────┬──────────────────────────────┬──────────
 sync     │ window: the call, repeated   │ sync
──────────┴──────────────────────────────┴──────────

If pytest-benchmark is loaded, its fixture gets the seconds per call of the same rounds. With `--benchmark-disable`,
there is no meter, and each function is called once.
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from perjoule.protocols import EnergyMeter, Window
from perjoule.pytest_energy.finishing import Finisher
from perjoule.pytest_energy.records import Judgement, Measured
from perjoule.pytest_energy.session import EnergySession, EnergyWarning
from perjoule.types import EnergyReading

_MOST_ITERATIONS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """Work to measure, as in pytest-benchmark's `pedantic`: `setup` may return (args, kwargs) for its round."""

    function: Callable[..., Any]
    args: Sequence[Any] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    setup: Callable[[], Any] | None = None
    teardown: Callable[..., Any] | None = None
    count: int
    iterations: int = 1

    def arguments(self) -> tuple[Sequence[Any], dict[str, Any]]:
        """Return the arguments of the next round."""
        arguments = self.setup() if self.setup is not None else None
        if not arguments:
            return self.args, self.kwargs
        if self.args or self.kwargs:
            raise TypeError("energy_benchmark.pedantic: args and kwargs are given, but setup returns arguments too")
        args, kwargs = arguments
        return args, kwargs


class _EnoughRounds(BaseException):
    """Ends the rounds of pytest-benchmark, which counts an `Exception` as an error of the function."""


class EnergyBenchmark:
    """Measures a function; a test may use it once.

    Attributes:
        measured: The rounds, after the call.
        call: Description of one call, for tests whose name does not contain it; a baseline of a different call is not
            comparable.
    """

    def __init__(self, *, session: EnergySession, meter: EnergyMeter | None, item: Any, benchmark: Any = None) -> None:
        """Create the fixture of one test.

        Args:
            session: Records of the pytest session.
            meter: The meter; without one, the function is called once.
            item: The test.
            benchmark: The fixture of that name, from any plugin.
        """
        self._session, self._meter, self._item, self._benchmark = session, meter, item, benchmark
        self._used = False
        self._extra_info: dict[str, Any] = {}
        self.measured: Measured | None = None
        self.call = ""

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call the function in several windows; return its last result.

        A coroutine or another awaitable is awaited inside the window. A generator is refused, because its work has not
        run.

        Fails the test if its energy exceeds the margin of a gate, or the evidence for the gate is invalid.
        """
        rounds, window_s = self._settings()
        if self._meter is None:
            return self._call_once(Rounds(function=function, args=args, kwargs=kwargs, count=1))
        with Finisher(self._item.nodeid) as finish:
            took_s = _warm_up(lambda: finish(function(*args, **kwargs)))
            iterations = min(_MOST_ITERATIONS, max(1, math.ceil(window_s / max(took_s, 1e-7))))
            plan = Rounds(function=function, args=args, kwargs=kwargs, count=rounds, iterations=iterations)
            return self._measure(plan, finish)

    def pedantic(
        self,
        target: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
        setup: Callable[[], Any] | None = None,
        teardown: Callable[..., Any] | None = None,
        rounds: int | None = None,
        warmup_rounds: int = 0,
        iterations: int = 1,
    ) -> Any:
        """Measure with full control, like pytest-benchmark's `pedantic`; return the last result of `target`.

        Args:
            target: The function.
            args: Its arguments.
            kwargs: Its keyword arguments.
            setup: Called before each window; may return `(args, kwargs)` for it.
            teardown: Called after each window with the arguments of that round.
            rounds: Number of windows; `--energy-rounds` by default. A gate needs at least two.
            warmup_rounds: Rounds before the first window, not measured.
            iterations: Calls inside each window; a window shorter than the meter's refresh has a wide bound.
        """
        for name, value, least in (
            ("rounds", rounds, 1),
            ("warmup_rounds", warmup_rounds, 0),
            ("iterations", iterations, 1),
        ):
            if value is not None and (not isinstance(value, int) or value < least):
                raise pytest.UsageError(f"energy_benchmark.pedantic({name}={value!r}): must be an integer >= {least}")
        if setup is not None and iterations > 1:
            raise pytest.UsageError(
                "energy_benchmark.pedantic: setup runs once per window, so with setup iterations must be 1"
            )
        plan = Rounds(
            function=target, args=args, kwargs=kwargs or {}, setup=setup, teardown=teardown,
            count=rounds or self._settings()[0], iterations=iterations,
        )  # fmt: skip
        if self._meter is None:
            return self._call_once(plan)
        with Finisher(self._item.nodeid) as finish:
            for _ in range(warmup_rounds):
                own_args, own_kwargs = plan.arguments()
                for _ in range(iterations):
                    finish(target(*own_args, **own_kwargs))
                if teardown is not None:
                    teardown(*own_args, **own_kwargs)
            return self._measure(plan, finish)

    @property
    def extra_info(self) -> dict[str, Any]:
        """Extra information for pytest-benchmark's JSON, if pytest-benchmark is loaded."""
        info = getattr(self._benchmark, "extra_info", None)
        return info if isinstance(info, dict) else self._extra_info

    def _use(self) -> None:
        if self._used:
            raise pytest.UsageError("energy_benchmark measures one function per test")
        self._used = True

    def _call_once(self, plan: Rounds) -> Any:
        """Call the function once, like a disabled pytest-benchmark."""
        self._use()
        if issubclass(type(self._benchmark), _benchmark_class()):
            self._benchmark(lambda: None)  # avoids its warning about unused fixtures
        args, kwargs = plan.arguments()
        try:
            with Finisher(self._item.nodeid) as finish:
                return finish(plan.function(*args, **kwargs))
        finally:
            if plan.teardown is not None:
                plan.teardown(*args, **kwargs)

    def _measure(self, plan: Rounds, finish: Finisher) -> Any:
        self._use()
        assert self._meter is not None
        self._session.learn_system(self._meter)
        looks = {look.rounds: look for look in self._session.looks(self._item.nodeid, plan.count)}

        def decided(readings: list[EnergyReading]) -> bool:
            look = looks.get(len(readings))
            if look is None:
                return False
            return self._session.judgement(self._record(readings, plan), look).outcome != "inconclusive"

        result, readings = self._windows(plan, finish, decided)
        self.measured = self._record(readings, plan)
        self.extra_info["energy"] = self.measured.as_json()
        self.extra_info["energy_j"] = self.measured.mean_j
        judgement = self._session.add(self.measured, looks.get(len(readings)), plan.count)
        if self._session.over_budget:
            self._item.session.shouldfail = self._session.over_budget  # after this test
        self._conclude(judgement)
        return result

    def _record(self, readings: list[EnergyReading], plan: Rounds) -> Measured:
        return Measured.of(self._item.nodeid, readings, plan.iterations, call=self.call)

    def _settings(self) -> tuple[int, float]:
        """Return rounds and window of this test, from the marker or else from the session."""
        marker = self._item.get_closest_marker("energy")
        if marker is None:
            return self._session.rounds, self._session.window_s
        unknown = set(marker.kwargs) - {"rounds", "window_s"}
        if marker.args or unknown:
            named = ", ".join([*map(repr, marker.args), *sorted(unknown)])
            raise pytest.UsageError(
                f"{self._item.nodeid}: @pytest.mark.energy({named}): the arguments are rounds= and window_s="
            )
        rounds = marker.kwargs.get("rounds", self._session.rounds)
        window_s = marker.kwargs.get("window_s", self._session.window_s)
        if not isinstance(rounds, int) or rounds < 2:
            raise pytest.UsageError(f"{self._item.nodeid}: @pytest.mark.energy(rounds={rounds!r}): must be 2 or more")
        if not 0 <= window_s < math.inf:
            raise pytest.UsageError(
                f"{self._item.nodeid}: @pytest.mark.energy(window_s={window_s!r}): must be 0 or more seconds"
            )
        return rounds, float(window_s)

    def _windows(
        self, plan: Rounds, finish: Finisher, decided: Callable[[list[EnergyReading]], bool]
    ) -> tuple[Any, list[EnergyReading]]:
        """Do the rounds until `decided`; return the last result of the function, and a reading per round."""
        function, seconds, meter = plan.function, _of_pytest_benchmark(self._benchmark), self._meter
        assert meter is not None
        readings: list[EnergyReading] = []
        stack = ExitStack()
        window: Window | None = None
        args, kwargs = plan.args, plan.kwargs
        result: Any = None

        def opening() -> None:
            nonlocal window, args, kwargs
            if decided(readings):
                raise _EnoughRounds
            args, kwargs = plan.arguments()
            if seconds is not None:
                # it divides the seconds of a round by this, for seconds per call like the joules
                seconds.stats.iterations = plan.iterations
            window = stack.enter_context(meter.window(label=self._item.nodeid, sync=_synchronize))

        def work() -> None:
            nonlocal result
            result = finish(function(*args, **kwargs))
            if finish.awaits:
                for _ in range(plan.iterations - 1):
                    result = finish(function(*args, **kwargs))
            else:
                for _ in range(plan.iterations - 1):
                    result = function(*args, **kwargs)
                result = finish(result)
            _synchronize()  # the seconds include work that still runs on the device

        def closing(*_: Any) -> None:
            nonlocal window
            if window is not None:
                stack.close()
                readings.append(window.reading)
                window = None
            if plan.teardown is not None:
                plan.teardown(*args, **kwargs)

        try:
            if seconds is not None:
                seconds.pedantic(work, setup=opening, teardown=closing, rounds=plan.count)
            else:
                for _ in range(plan.count):
                    opening()
                    work()
                    closing()
        except _EnoughRounds:
            pass
        finally:
            stack.close()  # after an error, because the next test opens a window too
        if seconds is None:
            self._hand_over(plan, finish)
        return result, readings[: plan.count]  # --benchmark-cprofile adds a round under the profiler

    def _hand_over(self, plan: Rounds, finish: Finisher) -> None:
        """Let a benchmark fixture that cannot use our seconds do its own measurement, outside all windows."""
        benchmark = self._benchmark
        if issubclass(type(benchmark), _benchmark_class()):
            benchmark(lambda: None)  # disabled under xdist: this only avoids its warning about unused fixtures
        elif callable(benchmark) and hasattr(benchmark, "pedantic"):  # e.g. pytest-codspeed

            def once(*args: Any, **kwargs: Any) -> Any:
                return finish(plan.function(*args, **kwargs))

            if plan.setup is None and plan.teardown is None:
                benchmark(once, *plan.args, **plan.kwargs)
            else:
                benchmark.pedantic(once, args=plan.args, kwargs=plan.kwargs, setup=plan.setup, teardown=plan.teardown)

    def _conclude(self, judgement: Judgement | None) -> None:
        if judgement is None:
            return
        text = f"{self._item.nodeid}: {judgement.outcome.upper()}: {judgement.reason}"
        if self._session.gating and judgement.outcome in ("fail", "invalid"):
            pytest.fail(text, pytrace=False)
        if judgement.outcome in ("fail", "invalid", "inconclusive"):
            warnings.warn(EnergyWarning(text), stacklevel=4)


def _warm_up(call: Callable[[], Any]) -> float:
    """Call twice, because the first call loads and compiles. Returns the seconds of the second call."""
    call()
    _synchronize()
    began = time.perf_counter()
    call()
    _synchronize()
    return time.perf_counter() - began


def _of_pytest_benchmark(benchmark: Any) -> Any:
    """Return the fixture if it is that of pytest-benchmark and enabled; others cannot use our seconds."""
    # not isinstance, which is also True for pytest-codspeed's fixture
    return benchmark if issubclass(type(benchmark), _benchmark_class()) and benchmark.enabled else None


def _benchmark_class() -> type:
    try:
        from pytest_benchmark.fixture import BenchmarkFixture
    except ImportError:
        return type("NotInstalled", (), {})
    fixture_class: type = BenchmarkFixture
    return fixture_class


def _synchronize() -> None:
    """Wait for the GPU if the test uses torch on one; do not create a CUDA context."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if cuda is not None and cuda.is_initialized():
        cuda.synchronize()
