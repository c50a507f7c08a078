"""Quality against energy of a swept arm: as measured, as pooled over prompts, and as a function between its rungs.

    Curve (prompts, seeds, rungs)  ──resample_means──►  Means  ──►  Ladders (rows, rungs)  ──►  Envelopes
                                                                                                ln E of Q

Prompts are pooled before a curve is drawn, because curves of single prompts are noisy and turn back. Nothing is ever
read off outside the measured range. Between the rungs of a fixed ladder lie further step counts, so that a smooth curve
is read; between the levels of a step policy only mixtures of levels are available (`Ladders.mixes`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from perjoule.errors import EvidenceError
from perjoule.statistics.hermite import HermiteRows, Slopes, pchip_slopes
from perjoule.statistics.hulls import Hulls
from perjoule.statistics.resampling import LEVEL, RESAMPLES, SEED, Array, Means, resample_means, resample_windows
from perjoule.statistics.window_groups import Groups
from perjoule.types import Estimate


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Measured:
    """Energy and quality of the rungs of one arm, by prompt and seed.

    Attributes:
        energy_j: (prompts, seeds, rungs) J/image, or (prompts, rungs) for one seed; NaN where nothing was measured.
        quality: The same shape, higher is better.
        name: For messages.
        groups: (prompts, rungs) window group of each prompt; None where every prompt has windows of its own.
        common: (draws, rungs) error of the mean quality that all prompts have in common, e.g. that of few observers;
            None if there is none.
    """

    energy_j: Array
    quality: Array
    name: str = ""
    groups: Groups | None = None
    common: Array | None = None

    def __post_init__(self) -> None:
        energy, quality = (np.asarray(a, np.float64) for a in (self.energy_j, self.quality))
        if energy.shape != quality.shape or energy.ndim not in (2, 3):
            raise ValueError(
                f"curve {self.name!r}: energy {energy.shape} and quality {quality.shape} must both be "
                "(prompts, seeds, rungs) or (prompts, rungs)"
            )
        if energy.ndim == 2:
            energy, quality = energy[:, None], quality[:, None]
        if np.isinf(energy).any() or np.isinf(quality).any() or (energy <= 0).any():
            raise ValueError(f"curve {self.name!r}: energies are positive and finite, NaN where nothing was measured")
        object.__setattr__(self, "energy_j", energy)
        object.__setattr__(self, "quality", quality)

    @property
    def rungs(self) -> int:
        """How many points the curve has."""
        return int(self.energy_j.shape[2])

    @property
    def window_groups(self) -> Groups:
        """(prompts, rungs) window group of each prompt."""
        prompts, _, rungs = self.energy_j.shape
        return np.tile(np.arange(prompts)[:, None], (1, rungs)) if self.groups is None else self.groups


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curve(_Measured):
    """An arm under a metric that means the same for every model: alignment, preference, sharpness, absolute."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FidelityCurve(_Measured):
    """An arm under a full-reference metric: its numbers are comparable only with those of the same model.

    `family`: the model whose longest run is the reference.
    """

    family: str


# one track or the other, never one of each: a type checker sees it, and so does `require_same_scale`
AnyCurve = TypeVar("AnyCurve", Curve, FidelityCurve)


def require_same_scale(first: Curve | FidelityCurve, *others: Curve | FidelityCurve) -> None:
    """Refuse to compare full-reference scores across models.

    Raises:
        EvidenceError: If the curves are of different tracks, or of the fidelity track and of different families.
    """
    scales = [curve.family if isinstance(curve, FidelityCurve) else None for curve in (first, *others)]
    if len(set(scales)) > 1:
        arms = ", ".join(
            f"{curve.name or 'curve'} ({'across models' if scale is None else f'family {scale!r}'})"
            for curve, scale in zip((first, *others), scales, strict=True)
        )
        raise EvidenceError(
            f"a full-reference score compares images of one model only: {arms}. "
            "Use a metric of another track (alignment, absolute, sharpness) across models"
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ladders:
    """Pooled curves, one a row: (rows, rungs) J/image and quality.

    `mixes`: whether only random choices between rungs are available between them.
    """

    energy_j: Array
    quality: Array
    mixes: bool = False

    def without(self, rung: int) -> Ladders:
        """The same without one rung."""
        keep = [i for i in range(self.energy_j.shape[1]) if i != rung]
        return replace(self, energy_j=self.energy_j[:, keep], quality=self.quality[:, keep])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairedCurves:
    """Several arms on one draw.

    Attributes:
        means: Each arm's energies, then its qualities, drawn by window groups.
        prompts: How many prompts the arms have in common.
        rungs: How many each arm has.
        draw_by_prompt: Makes `by_prompt`, which few statistics need.
        mixes: Whether the arms mix their rungs, see `Ladders`.
    """

    means: Means
    prompts: int
    rungs: tuple[int, ...]
    draw_by_prompt: Callable[[], Means]
    mixes: bool = False
    # of the arrays in `means`, by their id: `Envelopes.of` finds out only once what is not beaten in the same ladders
    _ladders: dict[int, tuple[Ladders, ...]] = field(default_factory=dict, init=False, repr=False)

    @property
    def by_prompt(self) -> Means:
        """Each arm's qualities, drawn by prompts."""
        return self.draw_by_prompt()

    @property
    def is_drawn(self) -> bool:
        """False if nothing was drawn, or an energy has no draws because its cell has one window group."""
        return bool(len(self.means.resamples) and np.isfinite(self.means.resamples).any(0).all())

    @property
    def point(self) -> tuple[Ladders, ...]:
        """The pooled curves as found, one row each."""
        return self.split(self.means.point)

    def estimate(self, of: Callable[..., Array], what: str, level: float = LEVEL) -> Estimate:
        """A statistic of the arms with its interval. `of` takes one `Ladders` per arm -> (rows,)."""
        return self.means.estimate(lambda rows: of(*self.split(rows)), level=level, what=what)

    def column(self, arm: int, rung: int) -> tuple[int, int]:
        """The columns of energy and quality of a rung in `means`; a negative rung counts from the end."""
        start, width = 2 * sum(self.rungs[:arm]), self.rungs[arm]
        place = range(width)[rung]
        return start + place, start + width + place

    def only(self, *rungs: Sequence[int]) -> PairedCurves:
        """The same draws, of some rungs of each arm."""
        picked = [self.column(arm, rung) for arm, places in enumerate(rungs) for rung in places]
        columns, counts = [], [len(places) for places in rungs]
        for at in range(len(counts)):
            part = picked[sum(counts[:at]) : sum(counts[: at + 1])]
            columns += [energy for energy, _ in part] + [quality for _, quality in part]
        qualities = columns_of(self.rungs)[1]
        alone = [qualities.index(quality) for _, quality in picked]
        return replace(
            self, means=self.means.of(columns), rungs=tuple(counts), draw_by_prompt=lambda: self.by_prompt.of(alone)
        )

    def split(self, rows: Array) -> tuple[Ladders, ...]:
        """Rows of means -> one `Ladders` per arm; the same ones again for the same array of `means`."""
        if id(rows) in self._ladders:
            return self._ladders[id(rows)]
        parts, at = [], 0
        for rungs in self.rungs:
            energy_j, quality = rows[:, at : at + rungs], rows[:, at + rungs : at + 2 * rungs]
            parts.append(Ladders(energy_j=energy_j, quality=quality, mixes=self.mixes))
            at += 2 * rungs
        ladders = tuple(parts)
        if any(rows is known for known in (self.means.point, self.means.resamples, self.means.jackknife)):
            self._ladders[id(rows)] = ladders
        return ladders


def pair(*curves: AnyCurve, mixes: bool = False, resamples: int = RESAMPLES, seed: int = SEED) -> PairedCurves:
    """Put arms on one draw: only (prompt, seed) pairs that every rung of every arm has are used.

    Args:
        curves: With the same prompts and seeds in the same places.
        mixes: Whether the arms mix their rungs, see `Ladders`.
        resamples: Draws.
        seed: Seed of the draws.

    Raises:
        EvidenceError: See `require_same_scale`, and if no pair is left.
    """
    require_same_scale(*curves)
    shapes = {curve.energy_j.shape[:2] for curve in curves}
    if len(shapes) > 1:
        raise ValueError(f"curves of different prompts and seeds cannot be paired: {sorted(shapes)}")
    stacked = np.concatenate([a for curve in curves for a in (curve.energy_j, curve.quality)], axis=2)
    common = np.isfinite(stacked).all(2)
    if not common.any():
        names = " and ".join(curve.name or "curve" for curve in curves)
        raise EvidenceError(f"{names}: no prompt and seed was measured and scored in every cell of both")
    values = np.where(common[..., None], stacked, np.nan)
    rungs = tuple(curve.rungs for curve in curves)
    energies, qualities = columns_of(rungs)
    groups = np.concatenate([curve.window_groups for curve in curves], axis=1)
    common_errors = [np.zeros((1, c.rungs)) if c.common is None else c.common for c in curves]
    errors = np.concatenate([np.resize(one, (max(map(len, common_errors)), one.shape[1])) for one in common_errors], 1)
    means = resample_windows(values, energies, groups, resamples=resamples, seed=seed).plus(errors, qualities)

    def draw_by_prompt() -> Means:
        return resample_means(values[..., qualities], resamples=resamples, seed=seed).plus(errors)

    prompts = int(common.any(1).sum())
    return PairedCurves(means=means, prompts=prompts, rungs=rungs, draw_by_prompt=draw_by_prompt, mixes=mixes)


def columns_of(rungs: Sequence[int]) -> tuple[list[int], list[int]]:
    """Which columns of paired arms are energies, and which are qualities."""
    energies: list[int] = []
    qualities: list[int] = []
    for count in rungs:
        at = len(energies) + len(qualities)
        energies += range(at, at + count)
        qualities += range(at + count, at + 2 * count)
    return energies, qualities


def envelope(energy: Array, quality: Array) -> NDArray[np.bool_]:
    """Rungs that no rung of the same row beats: the upper monotone envelope. (rows, rungs) -> (rows, rungs).

    Of rungs that tie in both, the first stays; NaN never does.
    """
    known = np.isfinite(energy) & np.isfinite(quality)
    cost, gain = np.where(known, energy, np.inf), np.where(known, quality, -np.inf)
    order = np.argsort(-gain, axis=1, kind="stable")
    order = np.take_along_axis(order, np.argsort(np.take_along_axis(cost, order, 1), axis=1, kind="stable"), axis=1)
    ranked = np.take_along_axis(gain, order, 1)
    best_before = np.maximum.accumulate(np.column_stack([np.full(len(gain), -np.inf), ranked[:, :-1]]), axis=1)
    on_envelope = np.zeros_like(known)
    np.put_along_axis(on_envelope, order, ranked > best_before, axis=1)
    return on_envelope


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Envelopes:
    """ln E as a function of quality along the upper envelope of each row, and the other way round.

    Attributes:
        quality: (rows, rungs) quality of the kept rungs, rising; NaN behind the last.
        log_energy: Their ln E, rising.
        count: (rows,) how many rungs were kept.
        highest_log_energy: (rows,) ln E of the most expensive rung, kept or not.
        slopes: Slopes of the curve at the rungs.
        hulls: The cheapest mixtures, which are read instead of a curve, if the rungs are mixed.
    """

    quality: Array
    log_energy: Array
    count: NDArray[np.intp]
    highest_log_energy: Array
    slopes: Slopes = pchip_slopes
    hulls: Hulls | None = None

    @classmethod
    @lru_cache(maxsize=8)  # several statistics read the same ladders one after the other
    def of(cls, ladders: Ladders, slopes: Slopes = pchip_slopes) -> Envelopes:
        """Drop what is beaten and sort what is left."""
        highest = np.log(np.fmax.reduce(ladders.energy_j, axis=1))
        if ladders.mixes:
            hulls = Hulls.of(ladders.energy_j, ladders.quality)
            return cls(
                quality=hulls.quality,
                log_energy=np.log(hulls.energy_j),
                count=hulls.count,
                highest_log_energy=highest,
                hulls=hulls,
            )
        on_envelope = envelope(ladders.energy_j, ladders.quality)
        gain = np.where(on_envelope, ladders.quality, np.nan)
        order = np.argsort(gain, axis=1, kind="stable")  # NaN goes last
        rows = np.arange(len(gain))[:, None]
        with np.errstate(invalid="ignore"):
            cost = np.log(np.where(on_envelope, ladders.energy_j, np.nan))
        return cls(
            quality=gain[rows, order],
            log_energy=cost[rows, order],
            count=on_envelope.sum(1),
            highest_log_energy=highest,
            slopes=slopes,
        )

    @property
    def lowest(self) -> Array:
        """(rows,) quality of the cheapest rung."""
        return self.quality[:, 0]

    @property
    def highest(self) -> Array:
        """(rows,) quality of the best rung."""
        return np.asarray(np.fmax.reduce(self.quality, axis=1))

    def log_energy_at(self, quality: Array) -> Array:
        """Ln E that buys a quality: (rows,) or (rows, m) -> the same; NaN outside the measured range."""
        if self.hulls is not None:
            return np.asarray(np.log(_by_rows(self.hulls.energy_at, quality)))
        return self._read(self.quality, self.log_energy, quality)

    def quality_at(self, log_energy: Array) -> Array:
        """The quality that ln E buys: (rows,) or (rows, m) -> the same; NaN outside the measured range.

        Up to the most expensive measured rung, the best rung stays the best available.
        """
        top = np.fmax.reduce(self.log_energy, axis=1)
        highest = self.highest_log_energy
        if log_energy.ndim > 1:
            top, highest = top[:, None], highest[:, None]
        beaten = (log_energy > top) & (log_energy <= highest)
        places = np.where(beaten, top, log_energy)
        if self.hulls is not None:
            lines = replace(self.hulls, energy_j=np.exp(self.log_energy))  # as the places, with their rounding
            return _by_rows(lines.quality_at, np.exp(places))
        return self._read(self.log_energy, self.quality, places)

    def log_energy_integral(self, low: Array, high: Array) -> Array:
        """∫ ln E dQ, low and high (rows,) -> (rows,)."""
        if self.hulls is not None:
            return self.hulls.log_energy_integral(low, high)
        return self._integrate(self.quality, self.log_energy, low, high)

    def _read(self, x: Array, y: Array, at: Array) -> Array:
        places = at if at.ndim == 2 else at[:, None]
        values = np.full(places.shape, np.nan)
        for rows, curves in self._by_count(x, y):
            values[rows] = curves.value(places[rows])
        single = self.count == 1  # a point is a curve on its own spot
        values[single] = np.where(places[single] == x[single, :1], y[single, :1], np.nan)
        return values if at.ndim == 2 else values[:, 0]

    def _integrate(self, x: Array, y: Array, low: Array, high: Array) -> Array:
        integrals = np.full(len(x), np.nan)
        for rows, curves in self._by_count(x, y):
            integrals[rows] = curves.integral(low[rows], high[rows])
        return integrals

    def _by_count(self, x: Array, y: Array) -> Iterator[tuple[NDArray[np.intp], HermiteRows]]:
        """Rows with equally many knots can be interpolated together."""
        for count in np.unique(self.count[self.count > 1]):
            rows = np.flatnonzero(self.count == count)
            knots, heights = x[rows, :count], y[rows, :count]
            yield rows, HermiteRows(x=knots, y=heights, slopes=self.slopes(knots, heights))


def _by_rows(of: Callable[[Array], Array], at: Array) -> Array:
    """Apply a function of (rows, m) places to (rows,) places as well."""
    return of(at) if at.ndim == 2 else of(at[:, None])[:, 0]


def dropped(ladder: Ladders) -> Sequence[int]:
    """Indices of the rungs of a single pooled curve that the envelope drops."""
    return [int(i) for i in np.flatnonzero(~envelope(ladder.energy_j, ladder.quality)[0])]
