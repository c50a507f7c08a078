"""Options of metrics: a frozen dataclass says which keys there are, their types and their defaults."""

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
    """Check options against a dataclass and fill in its defaults; nothing is converted.

    Args:
        kind: The dataclass; each field's type is a class, or a union of classes.
        metric: Name of the metric, for the message.
        options: As read from a suite file.

    Raises:
        UsageError: Names the key at fault, and the known keys or the type that is wanted.
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
            raise UsageError(f"metric {metric}: option {key} = {value!r}: wanted {_words(wanted[key])}")
        if key == "batch_size" and value < 1:
            raise UsageError(f"metric {metric}: option batch_size = {value!r}: wanted 1 or more")
    return kind(**options)


def resolve_device(name: str, metric: str) -> str:
    """`auto` becomes the GPU if there is one; anything else must be a device that torch can use here.

    Raises:
        UsageError: If torch knows no such device or it is not present.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # a torch without CUDA asserts
        first = str(error).strip().splitlines()[0]
        raise UsageError(f"metric {metric}: option device = {name!r} cannot be used here: {first}") from error
    return name


def _classes(wanted: Any) -> tuple[type, ...]:
    parts = get_args(wanted) if get_origin(wanted) is UnionType else (wanted,)
    return tuple(get_origin(part) or part for part in parts)


def _fits(value: Any, wanted: Any) -> bool:
    classes = _classes(wanted)
    if isinstance(value, bool):  # True is an int to Python, and a slip in a suite file
        return bool in classes
    return isinstance(value, classes) or (float in classes and isinstance(value, int))


def _words(wanted: Any) -> str:
    return " or ".join("nothing" if part is type(None) else part.__name__ for part in _classes(wanted))
