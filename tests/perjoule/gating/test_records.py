from __future__ import annotations

from typing import Any

import pytest

from perjoule.errors import UsageError
from perjoule.gating import GateConfig


@pytest.mark.parametrize(
    "bad", [{"margin_energy": 0.0}, {"alpha": 0.7}, {"looks": 4}, {"margin_quality": -1.0}, {"session_sd": -0.1}]
)
def test_bad_config(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(bad))):
        GateConfig(**bad)
