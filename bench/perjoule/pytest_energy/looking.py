"""Looks at the rounds of a test while they are measured: the gate may stop as soon as its verdict is decided.

Every look is a chance to be wrong. By Bonferroni's inequality the chances of all looks together stay below alpha if
their levels add up to it, however the looks depend on each other. The early looks get a tenth of an even share, the
last look the rest (as Haybittle and Peto proposed), so that looking costs almost nothing if no look stops the test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

ALPHA = 0.05  # one-sided level of a verdict
FEWEST_ROUNDS = 3
_MOST_LOOKS = 5
_EARLY_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A look after `rounds` rounds, at the one-sided level `alpha`."""

    rounds: int
    alpha: float


def looks(most_rounds: int, alpha: float = ALPHA) -> tuple[Look, ...]:
    """Return the looks of a test with at most `most_rounds` rounds; their levels add up to `alpha`.

    Args:
        most_rounds: Planned number of rounds, at least 2. The last look is after all of them.
        alpha: One-sided level of the verdict.

    The looks are spaced by equal factors of rounds, from 3 rounds on, at most 5 of them.
    """
    if most_rounds <= FEWEST_ROUNDS:
        return (Look(rounds=most_rounds, alpha=alpha),)
    count = min(_MOST_LOOKS, most_rounds - FEWEST_ROUNDS + 1)
    ratio = most_rounds / FEWEST_ROUNDS
    places = sorted({math.ceil(FEWEST_ROUNDS * ratio ** (n / (count - 1)) - 1e-9) for n in range(count)})
    early = _EARLY_SHARE * alpha / len(places)
    last = alpha - early * (len(places) - 1)
    return tuple(Look(rounds=rounds, alpha=last if rounds == most_rounds else early) for rounds in places)
