"""The price of certainty: what a measurement itself took, and what half the intervals would take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perjoule.display import duration, quantity
from perjoule.types.energy import Provenance

Shrinks = Literal["energy and quality", "quality"]
TIMES = 4
NOT_INCLUDED = "loading, warm-up, rests and scoring have no window and are not included"


@dataclass(frozen=True, slots=True, kw_only=True)
class Halving:
    """What half the intervals would take, in addition to what was spent.

    Attributes:
        times: How many times the prompts.
        energy_j: Further joules of the windows; None if none is known.
        duration_s: Further seconds of the windows.
        shrinks: Which intervals become half as wide.
    """

    times: int = TIMES
    energy_j: float | None
    duration_s: float | None
    shrinks: Shrinks

    @property
    def words(self) -> str:
        """A sentence, e.g. `Half the intervals take 4 times the prompts: 30 kJ and 48 min more.`."""
        spent = " and ".join(
            [
                *([] if self.energy_j is None else [quantity(self.energy_j, "J")]),
                *([] if self.duration_s is None else [duration(self.duration_s)]),
            ]
        )
        what = "Half the intervals take" if self.shrinks != "quality" else "Half the interval of quality takes"
        exact = "; counted joules repeat exactly, so theirs does not shrink" if self.shrinks == "quality" else ""
        return f"{what} {self.times} times the prompts{f': {spent} more' if spent else ''}{exact}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a measurement took.

    Attributes:
        energy_j: Joules of all windows, of failed and repeated trials too; None if no window has joules.
        duration_s: Seconds of these windows.
        windows: How many they are.
        unmetered: How many of them have no joules.
        provenance: How the joules came about; the weakest of all windows.
        not_included: What the joules do not contain.
        halving: What half the intervals would take.
    """

    energy_j: float | None
    duration_s: float | None
    windows: int
    unmetered: int
    provenance: Provenance | None
    not_included: str = NOT_INCLUDED
    halving: Halving

    @property
    def words(self) -> str:
        """Two sentences, e.g. `Measuring took 10 kJ (simulated) and 16 min in 96 windows. Half the intervals …`."""
        parts = [] if self.energy_j is None else [f"{quantity(self.energy_j, 'J')} ({self.provenance or 'not stated'})"]
        parts += [] if self.duration_s is None else [duration(self.duration_s)]
        gap = f", of which {self.unmetered} have no joules" if self.unmetered and self.energy_j is not None else ""
        spent = " and ".join(parts) or "an unknown energy"
        return f"Measuring took {spent} in {self.windows} windows{gap}. {self.halving.words}"
