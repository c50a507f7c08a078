"""Two cells prompt by prompt: where the mean difference comes from, and which kinds of prompt pay for it.

    ΔQ_i = Q_i(test) − Q_i(anchor)          means over the seeds of prompt i, on the metric's own scale
    ΔE_i = E_i(test)/E_i(anchor) − 1        J/image of the windows that prompt i was in

Slices are chosen after the fact and many at a time: exploratory, with false discovery rates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perjoule.statistics.comparisons import Evidence
from perjoule.statistics.multiplicity import benjamini_hochberg, p_differs_from_zero
from perjoule.statistics.resampling import Array, over_seeds, resample_means
from perjoule.statistics.window_groups import common_groups
from perjoule.types import Estimate

MIN_SLICE = 3  # prompts below which a slice has no interval worth printing
_ROWS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PerPrompt:
    """Differences of two cells.

    Attributes:
        test: One cell.
        anchor: The other.
        prompts: Ids.
        quality: (prompts,) differences.
        energy_change: (prompts,) shares; NaN if unknown. Prompts of one window group have the windows' mean.
        groups: (prompts,) labels of the window groups that both cells have in common; a single one if one of the cells
            has but one.
        higher: True if higher is better.
    """

    test: str
    anchor: str
    prompts: tuple[str, ...]
    quality: Array
    energy_change: Array
    groups: NDArray[np.intp]
    higher: bool

    def worst(self, count: int) -> list[int]:
        """Places of the prompts that lose most, worst first."""
        order = np.argsort(self.quality if self.higher else -self.quality, kind="stable")
        return [int(i) for i in order[:count]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A kind of prompt. `q_value`: false discovery rate of a quality difference (Benjamini and Hochberg), or None."""

    name: str
    n: int
    quality: Estimate
    energy_change: Estimate
    q_value: float | None


def per_prompt(evidence: Evidence, test: str, anchor: str) -> PerPrompt | None:
    """The differences over the prompts that both cells have scores for; None if there is no such prompt."""
    one, other = (evidence.grid.cells.index(cell) for cell in (test, anchor))
    sign = evidence.spec.sign
    quality = sign * (over_seeds(evidence.quality[..., one]) - over_seeds(evidence.quality[..., other]))
    energy = evidence.grid.energy_j
    with np.errstate(invalid="ignore", divide="ignore"):
        change = over_seeds(energy[..., one]) / over_seeds(energy[..., other]) - 1
    groups, lone = common_groups(evidence.grid.groups[:, [one, other]], evidence.grid.energy_known[:, [one, other]])
    if lone.any():  # nothing is known of the scatter of one of the energies, nor of their change
        groups = np.zeros_like(groups)
    known = np.flatnonzero(np.isfinite(quality))
    if not len(known):
        return None
    return PerPrompt(
        test=test,
        anchor=anchor,
        prompts=tuple(evidence.grid.prompts[i] for i in known),
        quality=quality[known],
        energy_change=change[known],
        groups=groups[known],
        higher=sign > 0,
    )


def slices(pair: PerPrompt, category: Mapping[str, str]) -> tuple[Slice, ...]:
    """One record per category of prompts, in the order of their names; none if the prompts have no categories."""
    names = np.array([category.get(p, "") for p in pair.prompts])
    made: list[Slice] = []
    tests: dict[str, float] = {}
    for name in sorted(set(names) - {""}):
        member = names == name
        n = int(member.sum())
        rows = _ROWS if n >= MIN_SLICE else 0
        drawn = resample_means(pair.quality[member, None, None], resamples=rows)
        change = resample_means(pair.energy_change[member, None, None], resamples=rows, groups=pair.groups[member])
        quality, energy = (means.estimate(lambda m: m[:, 0], what="mean over prompts") for means in (drawn, change))
        if n >= MIN_SLICE:
            tests[str(name)] = p_differs_from_zero(drawn.resamples[:, 0])
        made.append(Slice(name=str(name), n=n, quality=quality, energy_change=energy, q_value=None))
    rates = benjamini_hochberg(tests)
    return tuple(
        Slice(name=s.name, n=s.n, quality=s.quality, energy_change=s.energy_change, q_value=rates.get(s.name))
        for s in made
    )
