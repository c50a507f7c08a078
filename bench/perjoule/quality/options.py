"""Options of metrics: a frozen dataclass defines the keys, their types and their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from perjoule.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    T = TypeVar("T", bound=DataclassInstance)
else:
    T = TypeVar("T")


def read_options(kind: type[T], metric: str, options: Mapping[str, Any]) -> T:
    """Check options against a dataclass and fill in its defaults, without conversion.

    Args:
        kind: The dataclass; each field's type is a class, or a union of classes.
        metric: Name of the metric, for the message.
        options: As read from a suite file.

    Raises:
        UsageError: An option is invalid; the message names the key, and the known keys or the required type.
    """
    known = [field.name for field in fields(kind)]
    wanted = get_type_hints(kind)
    for key, value in options.items():
        if key not in known:
            near = get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UsageError(
                f"metric {metric}: unknown option {key!r}: {hint}known: {', '.join(sorted(known)) or 'none'}"
            )
        if not _fits(value, wanted[key]):
            raise UsageError(f"metric {metric}: option {key} = {value!r}: must be {_words(wanted[key])}")
        if key == "batch_size" and value < 1:
            raise UsageError(f"metric {metric}: option batch_size = {value!r}: must be 1 or more")
    return kind(**options)


def resolve_device(name: str, metric: str) -> str:
    """Return a torch device; `auto` is the GPU if there is one, otherwise the CPU.

    Raises:
        UsageError: If torch does not know the device or it is not present.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA raises AssertionError
        first = str(error).strip().splitlines()[0]
        raise UsageError(f"metric {metric}: option device = {name!r} cannot be used here: {first}") from error
    return name


def _classes(wanted: Any) -> tuple[type, ...]:
    parts = get_args(wanted) if get_origin(wanted) is UnionType else (wanted,)
    return tuple(get_origin(part) or part for part in parts)


def _fits(value: Any, wanted: Any) -> bool:
    classes = _classes(wanted)
    if isinstance(value, bool):  # in Python True is an int, but in a suite file it is a mistake
        return bool in classes
    return isinstance(value, classes) or (float in classes and isinstance(value, int))


def _words(wanted: Any) -> str:
    return " or ".join("nothing" if part is type(None) else part.__name__ for part in _classes(wanted))
