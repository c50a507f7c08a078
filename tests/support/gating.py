"""Two comparable runs that pass, and what is edited in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from perjoule.gating import GateConfig, gate
from perjoule.gating.records import Verdict
from perjoule.runs.directory import Run
from tests.support.tables_of_runs import imported, table, with_margin

# 50 prompts × 1 seed × 2 rungs: 100 windows, so that 5 % of them are 5
HUNDRED: dict[str, Any] = {"ladder": (4, 16), "variants": (("ladder", 1.0),), "prompts": 50, "seeds": 1}


WIDE = GateConfig(margin_energy=0.3, margin_quality=0.3)


def of(pair: tuple[Run, Run], side: str, edit: Callable[[Run], Run]) -> tuple[Run, Run]:
    """The pair with one side edited."""
    base, candidate = pair
    return (edit(base), candidate) if side == "baseline" else (base, edit(candidate))


def refused(pair: tuple[Run, Run], *words: str) -> Verdict:
    found = gate(*pair, config=WIDE)
    assert (found.verdict, found.exit_code) == ("invalid", 4)
    text = "\n".join(found.reasons)
    assert all(word in text for word in words), text
    assert (found.energy.outcome, found.energy.change.value) == ("invalid", None)
    return found


SMALL: dict[str, Any] = {"ladder": (4, 16), "variants": (("ladder", 1.0),)}


def runs(folder: Path, **changes: Any) -> tuple[Run, Run]:
    baseline = with_margin(imported(table(**SMALL), folder, "base"))
    return baseline, with_margin(imported(table(**{"seed": 1, **SMALL, **changes}), folder, "candidate"))
