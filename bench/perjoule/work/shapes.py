"""Counts the work of networks without weights and without arithmetic: tensors have a shape, a type, and no content.

    with shapes_only("float16"), WorkCounter(count_new=True) as counter:
        UNet2DConditionModel(**config)(torch.empty(2, 4, 64, 64), torch.tensor(1), torch.empty(2, 77, 768))
    total_work([(counter.work, 25)])     # 25 evaluations

A count takes seconds, whatever the size of the network, and is the same as that of a call with weights on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


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
