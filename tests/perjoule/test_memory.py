from __future__ import annotations

import gc

import pytest

from perjoule.memory import collecting_later


def test_collection_is_suspended_and_comes_back_as_it_was() -> None:
    with collecting_later():
        assert not gc.isenabled()
        with collecting_later():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError, match="x"), collecting_later():
        raise ValueError("x")
    assert gc.isenabled()
