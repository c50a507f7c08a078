from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from perjoule.runs.torch_settings import torch_settings


def test_settings_are_those_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    found = torch_settings()
    assert found["cuda"] == torch.version.cuda
    assert found["cudnn"] == torch.backends.cudnn.version()
    assert found["float32_matmul_precision"] == torch.get_float32_matmul_precision()
    assert found["cudnn_benchmark"] is True
    assert found["variables"]["NVIDIA_TF32_OVERRIDE"] == "0"


def test_nothing_is_loaded_for_a_run_without_torch() -> None:
    code = (
        "import sys; from perjoule.runs.torch_settings import torch_settings as s; print(*s(), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["variables", "False"]


def test_what_torch_refuses_to_report_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> str:
        raise RuntimeError("mix of the legacy and new APIs to set the TF32 status")

    old = SimpleNamespace(
        version=SimpleNamespace(cuda="13.0"),
        backends=SimpleNamespace(cudnn=SimpleNamespace(version=lambda: 91002, benchmark=("a", "b"))),
        get_float32_matmul_precision=refuse,
        are_deterministic_algorithms_enabled=lambda: False,
    )
    monkeypatch.setitem(sys.modules, "torch", old)
    found = torch_settings()
    assert (found["cuda"], found["cudnn"], found["deterministic_algorithms"]) == ("13.0", 91002, False)
    assert found["cudnn_benchmark"] == "('a', 'b')"
    assert found["tf32_matmul"] is None
    assert found["float32_matmul_precision"] is None
