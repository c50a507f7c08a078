"""Handles functions that only prepare work: coroutines are awaited, generators and futures are refused."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
from collections.abc import AsyncGenerator, Awaitable, Generator
from types import TracebackType
from typing import Any, Self

import pytest

# results whose work has not run yet: the type, its name, and the call to use instead
_UNFINISHED: tuple[tuple[type, str, str], ...] = (
    (Generator, "a generator", "list(function(…))"),
    (AsyncGenerator, "an async generator", "a coroutine that reads it"),
    (map, "a map object", "list(…)"),
    (filter, "a filter object", "list(…)"),
    (zip, "a zip object", "list(…)"),
    (concurrent.futures.Future, "a future", "function(…).result()"),
)


class Finisher:
    """Completes the work of a function's result; used as a context manager.

    All calls of a test share an event loop, because clients and locks belong to a loop.

    Attributes:
        awaits: True once a result was awaited.
    """

    def __init__(self, nodeid: str) -> None:
        """Create the context. `nodeid`: id of the test, for messages."""
        self._nodeid = nodeid
        self._runner: asyncio.Runner | None = None
        self.awaits = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            self._runner.close()

    def __call__(self, result: Any) -> Any:
        """Return the result, awaited if necessary. Fails the test if its work has not run yet."""
        if inspect.isawaitable(result):
            self.awaits = True
            return self._await(result)
        for kind, name, instead in _UNFINISHED:
            if isinstance(result, kind):
                pytest.fail(
                    f"{self._nodeid}: the function returned {name}, so its work has not run inside the window: "
                    f"give energy_benchmark a function that finishes the work, e.g. {instead}",
                    pytrace=False,
                )
        return result

    def _await(self, result: Awaitable[Any]) -> Any:
        if _loop_runs():
            if inspect.iscoroutine(result):
                result.close()
            pytest.fail(
                f"{self._nodeid}: energy_benchmark awaits the coroutine itself, but an event loop is already running: "
                "make the test a plain `def`, and create the objects of the coroutine inside it",
                pytrace=False,
            )
        if self._runner is None:
            self._runner = asyncio.Runner()

        async def awaited() -> Any:
            return await result

        return self._runner.run(awaited())


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
