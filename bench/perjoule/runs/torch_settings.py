"""Settings of torch and CUDA that change joules or images, for `environment.json`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

# variables that change kernels, memory or the start of the GPU
_VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_DEVICE_MAX_CONNECTIONS",
    "CUDA_DEVICE_ORDER",
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_MODULE_LOADING",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_TF32_OVERRIDE",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)


def torch_settings() -> dict[str, Any]:
    """Return the settings of torch, if the process has loaded it, and the variables of CUDA that are set.

    A setting that this version of torch does not have, or refuses to report, is None. Loads nothing, and creates no
    CUDA context.
    """
    variables = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    torch = sys.modules.get("torch")
    if torch is None:
        return {"variables": variables}
    settings: dict[str, Callable[[], Any]] = {
        "cuda": lambda: torch.version.cuda,
        "cudnn": torch.backends.cudnn.version,
        "float32_matmul_precision": torch.get_float32_matmul_precision,
        "tf32_matmul": lambda: torch.backends.cuda.matmul.allow_tf32,
        "tf32_cudnn": lambda: torch.backends.cudnn.allow_tf32,
        "fp16_reduced_precision_reduction": (lambda: torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction),
        "cudnn_benchmark": lambda: torch.backends.cudnn.benchmark,
        "cudnn_deterministic": lambda: torch.backends.cudnn.deterministic,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled,
    }
    return {name: _answer(read) for name, read in settings.items()} | {"variables": variables}


def _answer(read: Callable[[], Any]) -> Any:
    try:
        return _plain(read())
    except (AttributeError, RuntimeError):  # RuntimeError: new and old ways of setting TF32 were mixed
        return None


def _plain(value: Any) -> Any:
    """Return numbers, texts and None unchanged, and others, e.g. pairs of newer versions, as text."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
