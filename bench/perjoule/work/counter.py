"""Counts the work of the networks that are called while a counter is open.

    pipeline(…)
     ├─ text_encoder(…)     an outermost call, known    look up by the shapes of its arguments
     ├─ unet(…)             an outermost call, new      run once with every operator counted, then remembered
     ├─ unet(…)             known
     └─ vae.decoder(…)      known

Work depends on shapes only, so each network is counted once per shape and process: counting makes a call about twice as
long, a look-up takes some microseconds. In a window whose energy is measured, new shapes are therefore counted after
the window, by one more call with the same arguments. Networks whose work depends on more than shapes (caches between
steps) are counted in every call, or not at all.

Not counted: what a pipeline computes outside its networks (noise, scheduler, conversion of images), and calls that
another thread makes while a network runs.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary

from perjoule.types import Work, WorkPart

if TYPE_CHECKING:
    from torch import nn


@dataclass(slots=True)
class _Network:
    """What is known of a network: the work of its calls by signature, as long as its structure is the same."""

    structure: tuple[int, bool]
    calls: dict[Any, Work]


@dataclass(slots=True)
class _NewCall:
    """A call of new shape, to be repeated after the window in the same mode."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inference: bool
    times: int = 0


_LOCK = Lock()
_open: list[WorkCounter] = []
_known: WeakKeyDictionary[nn.Module, _Network] = WeakKeyDictionary()


def torch_is_loaded() -> bool:
    """Return whether any network can have been created in this process."""
    return "torch" in sys.modules


class WorkCounter:
    """Counts the calls inside its context. Counters may overlap.

    Args:
        count_new: Count networks and shapes that are not known yet during their calls, which makes these slower;
            otherwise `count_rest` does it, and until then `work` is None.
    """

    def __init__(self, *, count_new: bool) -> None:
        self.count_new = count_new
        self._calls: Counter[Work] = Counter()
        self._new: dict[tuple[int, Any], _NewCall] = {}
        self._uncounted: Counter[str] = Counter()
        self._checked: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()

    def __enter__(self) -> Self:
        """Start."""
        from torch import nn

        with _LOCK:
            if not _open:
                _Original.call = nn.Module.__call__
                nn.Module.__call__ = _counted  # type: ignore[method-assign]
            _open.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop. Stopping twice has no effect."""
        from torch import nn

        with _LOCK:
            if self in _open:
                _open.remove(self)
                if not _open:
                    nn.Module.__call__ = _Original.call  # type: ignore[method-assign]

    @property
    def work(self) -> Work | None:
        """The work so far; None if no network was called, or some calls were not counted (`reason`)."""
        if self._uncounted or self._new or not self._calls:
            return None
        return total_work(self._calls.items())

    @property
    def reason(self) -> str | None:
        """Why `work` is None."""
        missing = Counter(self._uncounted)
        for new in self._new.values():
            missing[type(new.module).__name__] += new.times
        if missing:
            return f"not counted: {', '.join(f'{name} ({count} calls)' for name, count in sorted(missing.items()))}"
        return None if self._calls else "no network of torch was called in this process"

    def count_rest(self) -> None:
        """Count the calls of new shapes by repeating one of each; call it when nothing is measured any more.

        A network that cannot be repeated (it fails, e.g. because its weights have been moved) stays uncounted.
        """
        new, self._new = self._new, {}
        for (_, signature), call in new.items():
            network = self._network(call.module)
            one = network.calls.get(signature)
            if one is None:
                try:
                    one = network.calls[signature] = _repeated(call)
                except Exception:
                    self._uncounted[type(call.module).__name__] += call.times
                    continue
            self._calls[one] += call.times

    def _add(self, module: nn.Module, one: Work | None, signature: Any, args: Any, kwargs: Any) -> None:
        if one is not None:
            self._calls[one] += 1
        elif signature is None or module.training:  # a call would change the state of an argument or of the network
            self._uncounted[type(module).__name__] += 1
        else:
            key = id(module), signature
            if key not in self._new:
                from torch import is_inference_mode_enabled

                self._new[key] = _NewCall(module, args, kwargs, is_inference_mode_enabled())
            self._new[key].times += 1

    def _network(self, module: nn.Module) -> _Network:
        """Return what is known of a network; its structure is checked once per counter."""
        known = _known.get(module)
        if known is None or module not in self._checked:
            structure = _structure(module)
            if known is None or known.structure != structure:
                known = _known[module] = _Network(structure, {})
            self._checked[module] = True
        return known


def total_work(counts: Iterable[tuple[Work, int]]) -> Work:
    """Return the work of several calls, each with how often it is made."""
    counted = [(work, times) for work, times in counts if times]
    parts: dict[str, WorkPart] = {}
    for work, times in counted:
        for part in work.parts:
            so_far = parts.get(part.name, WorkPart(name=part.name, calls=0, flops=0, bytes_moved=0, operators=0))
            parts[part.name] = replace(
                so_far,
                calls=so_far.calls + times * part.calls,
                flops=so_far.flops + times * part.flops,
                bytes_moved=so_far.bytes_moved + times * part.bytes_moved,
                operators=so_far.operators + times * part.operators,
            )

    def names(key: str) -> tuple[str, ...]:
        return tuple(sorted({name for work, _ in counted for name in getattr(work, key)}))

    return Work(
        parts=tuple(sorted(parts.values(), key=lambda part: (-part.flops, part.name))),
        devices=names("devices"),
        dtypes=names("dtypes"),
        unknown=names("unknown"),
    )


class _Original:
    """`torch.nn.Module.__call__` while it is replaced."""

    call: Any = None


def _counted(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Replace `torch.nn.Module.__call__` for outermost calls. Nested calls see the original."""
    with _unwatched():
        return _count(module, args, kwargs)


@contextmanager
def _unwatched() -> Iterator[None]:
    """Let calls of networks see the original `__call__`."""
    from torch import nn

    if _open:
        nn.Module.__call__ = _Original.call  # type: ignore[method-assign]
    try:
        yield
    finally:
        with _LOCK:
            if _open:
                nn.Module.__call__ = _counted  # type: ignore[method-assign]


def _count(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    counters = list(_open)
    if not counters:
        return module(*args, **kwargs)
    network = counters[0]._network(module)
    signature = None if network.structure[1] else _signature((args, kwargs))
    one = None if signature is None else network.calls.get(signature)
    if one is None and any(counter.count_new for counter in counters):
        one, result = _run_counted(module, args, kwargs)
        if signature is not None:
            network.calls[signature] = one
    else:
        result = module(*args, **kwargs)
    for counter in counters:
        counter._add(module, one, signature, args, kwargs)
    return result


def _repeated(call: _NewCall) -> Work:
    """Return the work of a call by making it once more; random numbers drawn afterwards stay the same."""
    import torch

    boards = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    mode = torch.inference_mode() if call.inference else torch.no_grad()
    with _unwatched(), torch.random.fork_rng(boards), mode:
        return _run_counted(call.module, call.args, call.kwargs)[0]


def _run_counted(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Work, Any]:
    from perjoule.work.operators import OperatorTally

    tally = OperatorTally()
    with _eager(), tally:
        result = module(*args, **kwargs)
    part = WorkPart(
        name=type(module).__name__,
        calls=1,
        flops=tally.flops,
        bytes_moved=tally.bytes_moved,
        operators=tally.operators,
    )
    one = Work(
        parts=(part,),
        devices=tuple(sorted(tally.devices)),
        dtypes=tuple(sorted(tally.dtypes)),
        unknown=tuple(sorted(tally.unknown)),
    )
    return one, result


def _eager() -> AbstractContextManager[Any]:
    """Return a context in which compiled networks run uncompiled, because compiled code hides its operators."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    from torch.compiler import set_stance

    stance: AbstractContextManager[Any] = set_stance("force_eager")
    return stance


def _structure(module: nn.Module) -> tuple[int, bool]:
    """Return the number of modules, and whether the work may depend on more than the shapes of the arguments.

    Adapters change the number. Caches between steps replace `forward` of single modules, or use diffusers' hooks.
    """
    modules = list(module.modules())
    # torch.compile replaces `forward` too, but not what it computes
    replaced = ("forward" in one.__dict__ and "_orig_mod" not in one._modules for one in modules)
    return len(modules), any(replaced) or any(hasattr(one, "_diffusers_hook") for one in modules)


def _signature(tree: Any) -> Any:
    """Return everything that the work may depend on, hashable; None if there is an object that may have a state."""
    if hasattr(tree, "shape") and hasattr(tree, "dtype"):
        return ("tensor", tuple(tree.shape), str(tree.dtype), str(getattr(tree, "device", "")))
    if isinstance(tree, float):  # a guidance scale, a timestep
        return "float"
    if tree is None or isinstance(tree, (bool, int, str)):
        return tree
    if isinstance(tree, Mapping):
        tree = list(tree.items())
    if isinstance(tree, (tuple, list)):
        parts = tuple(_signature(one) for one in tree)
        # None is also the signature of None, so it is marked
        return None if any(part is None and one is not None for part, one in zip(parts, tree, strict=True)) else parts
    return None
