"""A CUDA context before idle power is measured, on machines where torch sees CUDA."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from perjoule.meters.context import create_context


class Torch:
    """What is needed of torch; `available` may be an error."""

    def __init__(self, available: bool | Exception) -> None:
        self.calls: list[str] = []
        self._available = available
        self.cuda = SimpleNamespace(is_available=self._is_available, synchronize=lambda: self.calls.append("sync"))

    def _is_available(self) -> bool:
        if isinstance(self._available, Exception):
            raise self._available
        return self._available

    def zeros(self, count: int, *, device: str) -> Any:
        self.calls.append(f"zeros on {device}")


@pytest.mark.parametrize(
    ("available", "calls"),
    [(True, ["zeros on cuda", "sync"]), (False, []), (RuntimeError("forked"), [])],
    ids=["cuda", "no cuda", "error"],
)
def test_a_context_is_created_where_torch_sees_cuda(
    monkeypatch: pytest.MonkeyPatch, available: bool | Exception, calls: list[str]
) -> None:
    torch = Torch(available)
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert create_context() is bool(calls)
    assert torch.calls == calls


def test_torch_is_not_imported_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert create_context() is False
    assert "torch" not in sys.modules
