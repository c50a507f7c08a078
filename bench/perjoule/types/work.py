"""Counted work of a neural network: what its calls compute, independent of time and machine."""

from __future__ import annotations

from dataclasses import dataclass

COUNTED = "counted work"  # how the method of a reading begins whose joules were counted


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkPart:
    """Work of all calls of one kind of network, e.g. of all evaluations of the denoiser.

    Attributes:
        name: Class of the network, e.g. `UNet2DConditionModel`.
        calls: Calls of it.
        flops: Floating-point operations of matrix products, convolutions and attention; a multiply-add counts as two.
        bytes_moved: Bytes of all operands and results of all operators.
        operators: Operators that compute something; views are free.
    """

    name: str
    calls: int
    flops: int
    bytes_moved: int
    operators: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Counted work of a window.

    Attributes:
        parts: By class of the network, the most operations first.
        devices: Kinds of devices that computed, e.g. `cpu`, `cuda`.
        dtypes: Data types of the operands of the counted operations, e.g. `float32`.
        unknown: Operators whose operations could not be counted.
    """

    parts: tuple[WorkPart, ...]
    devices: tuple[str, ...]
    dtypes: tuple[str, ...]
    unknown: tuple[str, ...] = ()

    @property
    def calls(self) -> int:
        """Calls of all networks."""
        return sum(part.calls for part in self.parts)

    @property
    def flops(self) -> int:
        """Floating-point operations of all networks."""
        return sum(part.flops for part in self.parts)

    @property
    def bytes_moved(self) -> int:
        """Bytes of all networks."""
        return sum(part.bytes_moved for part in self.parts)

    @property
    def operators(self) -> int:
        """Operators of all networks."""
        return sum(part.operators for part in self.parts)
