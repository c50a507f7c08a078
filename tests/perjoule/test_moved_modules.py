from __future__ import annotations

import sys
from importlib import import_module

import pytest

import perjoule


@pytest.mark.parametrize(("old", "new"), perjoule._MOVED.items())
def test_old_names_still_work_and_warn(old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match=f"{old} has moved to {new}"):
        module = import_module(old)
    public = [name for name in vars(import_module(new)) if not name.startswith("__")]
    assert all(getattr(module, name) is getattr(import_module(new), name) for name in public)
