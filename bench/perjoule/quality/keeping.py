"""Models of metrics: loaded once in a process, and let go of together."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cache
from typing import ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")

_CLEAR: list[Callable[[], None]] = []


def kept(load: Callable[P, T]) -> Callable[P, T]:
    """Call `load` once for each set of arguments, as `functools.cache` does, until `let_go`."""
    cached = cache(cast(Callable[..., Hashable], load))
    _CLEAR.append(cached.cache_clear)
    return cast(Callable[P, T], cached)


def let_go() -> None:
    """Forget everything that is kept, so that its memory can be freed."""
    for clear in _CLEAR:
        clear()
