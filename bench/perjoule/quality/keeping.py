"""Cache for models of metrics: they are loaded once per process and released together."""

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
    """Release all cached models, so that their memory can be freed."""
    for clear in _CLEAR:
        clear()
