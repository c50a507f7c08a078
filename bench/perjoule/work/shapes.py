"""Counts the work of networks without weights and without arithmetic: tensors have a shape, a type, and no content.

    with shapes_only("float16"), WorkCounter(count_new=True) as counter:
        UNet2DConditionModel(**config)(torch.empty(2, 4, 64, 64), torch.tensor(1), torch.empty(2, 77, 768))
    total_work([(counter.work, 25)])     # 25 evaluations

A count takes seconds, whatever the size of the network, and is the same as that of a call with weights on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from perjoule.types import Work, WorkPart


@contextmanager
def shapes_only(dtype: str) -> Iterator[None]:
    """Let all tensors and networks that are created inside have shapes only.

    Args:
        dtype: Name of the type of floating-point tensors, e.g. `float16`.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with FakeTensorMode(), torch.no_grad():
            yield
    finally:
        torch.set_default_dtype(before)


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
