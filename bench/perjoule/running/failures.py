"""Failures of the work inside a trial: their description, and recovery before the next trial.

an exception of the pipeline      one failed trial with type, message and traceback; the run continues
out of memory                     the same, and the device's cache is emptied first; or another attempt with a smaller
                                  batch (`protocol.on_out_of_memory`)
the GPU's context is dead         the run ends: every later call in this process would fail as well
"""

from __future__ import annotations

import contextlib
import gc
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from perjoule.text import without_uuids

_MOST_CHARACTERS = 2_000
_MOST_TRACE_CHARACTERS = 20_000
# according to CUDA's manual the process must be terminated and relaunched after these errors
# (https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html, cudaError)
_STICKY_CODES = frozenset({214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 999})
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cublas_status_alloc_failed")
_STICKY_WORDS = (
    "illegal memory access",
    "device-side assert",
    "unspecified launch failure",
    "launch timed out and was terminated",
    "illegal instruction",
    "misaligned address",
    "hardware stack error",
    "invalid program counter",
    "operation not supported on global/shared address space",
    "context is destroyed",
    "uncorrectable ecc error",
    "uncorrectable nvlink error",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Reason why a trial failed.

    Attributes:
        reason: Type and message of the exception, for tables and the report.
        traceback: Traceback for debugging; stored only in the run directory.
        kills_context: Whether no further work is possible on this device in this process.
        out_of_memory: Whether the work did not fit into the memory of device or host.
    """

    reason: str
    traceback: str = ""
    kills_context: bool = False
    out_of_memory: bool = False


def failure_of(error: BaseException, synchronize: Callable[[], None] | None = None) -> Failure:
    """Describe an exception of the work, then release all objects that it keeps alive.

    This frees the memory of the failed call, so that a trial after an out-of-memory error starts with an empty cache.

    Args:
        error: The exception; the frames of its traceback are cleared.
        synchronize: Waits for the device. Raises if the device's context is dead.
    """
    # records are shared, so a board that a message of the driver names is named by its digest
    reason = without_uuids(f"{type(error).__name__}: {error}").strip().removesuffix(":")[:_MOST_CHARACTERS]
    trace = without_uuids("".join(traceback.format_exception(error)))[-_MOST_TRACE_CHARACTERS:]
    dead, full = kills_context(error), is_out_of_memory(error)
    _release(error)
    if not dead and synchronize is not None:
        try:
            synchronize()
        except Exception as second:
            # a context that fails without pending work is dead
            dead = not is_out_of_memory(second)
            _release(second)
    if not dead:
        free_memory()
    return Failure(reason=reason, traceback=trace, kills_context=dead, out_of_memory=full and not dead)


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an allocation failed, in Python, in torch on a CPU or GPU, or in cuBLAS."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _OUT_OF_MEMORY)


def kills_context(error: BaseException) -> bool:
    """Return True for "sticky" CUDA errors, after which all CUDA calls in this process fail."""
    if not isinstance(error, RuntimeError):
        return False
    text = str(error).lower()
    code = getattr(error, "error_code", None)  # attribute of torch.AcceleratorError
    if code is not None and int(code) in _STICKY_CODES:
        return True
    return ("cuda" in text or "accelerator" in text) and any(words in text for words in _STICKY_WORDS)


def _release(error: BaseException) -> None:
    """Delete the local variables of the frames of the traceback, which keep the tensors of the failed call."""
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__


def free_memory() -> None:
    """Free unreferenced memory: pipelines and metrics contain reference cycles, and CUDA has a cache."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return
    with contextlib.suppress(RuntimeError):
        torch.cuda.empty_cache()
