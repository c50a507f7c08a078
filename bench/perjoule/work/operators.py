"""Counts the operators of torch that run inside a context, with their floating-point operations and bytes.

FLOPs by the formulas of `torch.utils.flop_counter`, which count matrix products, convolutions and attention, with those
that it lacks added here. A multiply-add counts as two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, mm_flop, sdpa_flop

_NATIVE = {"aten", "prim", "prims", "profiler"}
# operators of torch itself that multiply matrices, if they have no formula
_HEAVY = re.compile(
    r"(^|_)(\w?mm|mv|dot|matmul|linear|conv\w*|\w*attention\w*|lstm|gru|rnn|encoder|fft\w*|linalg(?!_vector_norm)\w*)(_|\d|$)"
)
_FREE = {"empty", "empty_like", "empty_strided", "new_empty", "_unsafe_view", "_reshape_alias", "lift_fresh"}


class OperatorTally(TorchDispatchMode):
    """Adds up everything that runs inside its context.

    Attributes:
        flops: Floating-point operations.
        bytes_moved: Bytes of all operands and results, views left out.
        operators: Number of operators, views left out.
        devices: Kinds of devices.
        dtypes: Data types of the operands of operators with FLOPs.
        unknown: Operators that may multiply matrices and have no formula.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.bytes_moved = self.operators = 0
        self.devices: set[str] = set()
        self.dtypes: set[str] = set()
        self.unknown: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and count it; composite operators are counted by their parts."""
        kwargs = kwargs or {}
        if not isinstance(func, torch._ops.OpOverload):  # an operator with a graph inside, e.g. of torch.compile
            self.unknown.add(str(func))
            return func(*args, **kwargs)
        if func.namespace == "prim":  # a question about a tensor without storage, e.g. its device
            return func(*args, **kwargs)
        formula = _formulas().get(func._overloadpacket)
        if formula is None:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        self._add(func, formula, args, kwargs, result)
        return result

    def _add(self, func: Any, formula: Callable[..., int] | None, args: Any, kwargs: Any, result: Any) -> None:
        name = func._schema.name.split("::")[1]
        if func.is_view or name in _FREE:
            return
        operands = list(_tensors((args, kwargs)))
        results = list(_tensors(result))
        if not operands and not results:
            return
        self.operators += 1
        self.bytes_moved += sum(one.numel() * one.element_size() for one in (*operands, *results))
        if "scaled_dot_product" in name:
            self.bytes_moved += _score_bytes(*operands[:2])
        # numbers, e.g. timesteps, may stay on the CPU
        self.devices |= {one.device.type for one in (*operands, *results) if one.ndim}
        if formula is None:
            if func.namespace not in _NATIVE or _HEAVY.search(name):
                self.unknown.add(f"{func.namespace}::{name}")
            return
        try:
            self.flops += int(formula(*args, **kwargs, out_val=result))
        except (
            AssertionError,
            TypeError,
            ValueError,
            IndexError,
        ):  # the formula does not know this form of the operator
            self.unknown.add(f"{func.namespace}::{name}")
            return
        self.dtypes |= {str(one.dtype).removeprefix("torch.") for one in operands if one.is_floating_point()}


def _rnn_flops(x: torch.Tensor, weights: Sequence[torch.Tensor]) -> int:
    """Return the products of a recurrent layer: every weight, biases left out, once for each step of each row."""
    return 2 * x.shape[0] * x.shape[1] * sum(one.numel() for one in weights if one.ndim > 1)


def _score_bytes(query: torch.Tensor, key: torch.Tensor) -> int:
    """Return the bytes of the attention scores, written and read.

    Fused kernels do not store them, but compute with them; the count should not depend on the kernel.
    """
    return 2 * query.element_size() * query.shape[:-1].numel() * key.shape[-2]


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for one in tree:
            yield from _tensors(one)
    elif isinstance(tree, dict):
        yield from _tensors(list(tree.values()))


@cache
def _formulas() -> dict[Any, Callable[..., int]]:
    """Return the formulas by operator; each takes the operator's arguments and `out_val`."""
    aten = torch.ops.aten
    more: dict[Any, Callable[..., int]] = {
        aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flop,
        aten._scaled_dot_product_fused_attention_overrideable: sdpa_flop,
        aten._int_mm: mm_flop,
        aten.mv: lambda a, b, **_: 2 * a.numel(),
        aten.addmv: lambda _, a, b, **__: 2 * a.numel(),
        aten.mkldnn_rnn_layer: lambda x, of_x, of_h, *_, **__: _rnn_flops(x, (of_x, of_h)),
        aten._cudnn_rnn: lambda x, weights, *_, **__: _rnn_flops(x, weights),
        aten.dot: lambda a, b, **_: 2 * a.numel(),
    }
    return {**flop_registry, **more}
