"""Rules that choose a number of steps from predicted curves.

    rule               stops where                                            its parameter (a sweep of it is a curve)
    plateau            metrics are within τ of their own last value           τ (a plateau rule after the paper)
    equal-marginal     the next joule gains less than elsewhere                J per unit of quality
    energy-budget      the same, at the price that meets a mean energy        J/image on average
    quality-floor      an image is below the floor with chance at most p      the floor

The plateau rule normalises each curve to its own range, which removes the prompt's difficulty; the other rules use the
metric's scale. The paper publishes neither its threshold nor how its three metrics become one number of steps. Prices
and guarantees are calibrated on prompts outside the training set. The chance p of the quality floor is a mean over
prompts and over calibrations, see `QualityFloor`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from perjoule.errors import EvidenceError, SuiteError, UnknownNameError, UsageError
from perjoule.shares import below_one
from perjoule.statistics.mixtures import best_buys
from perjoule.statistics.risk_control import calibrated_margin, cheapest_safe

Array = NDArray[np.float64]
Index = NDArray[np.intp]

COMBINATIONS: Mapping[str, Callable[..., Any]] = {"max": np.nanmax, "median": np.nanmedian, "mean": np.nanmean}
_BISECTIONS = 60
NOT_BY_PROMPT = (
    "rule quality-floor: the predictor does not record which calibration images share a prompt, so its guarantee "
    "could only be per image, which is violated too often: train it again (`perjoule budgetfusion train`), "
    'or add "calibration_seeds", the seeds per prompt of its calibration run, to its predictor.json'
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CurveForecast:
    """Predicted curves of n prompts (or images).

    Attributes:
        grid: (g,) step counts, increasing.
        energy_j: (g,) J/image at each.
        metrics: (m,) names.
        values: (n, g, m) predicted, higher is better.
    """

    grid: NDArray[np.int64]
    energy_j: Array
    metrics: tuple[str, ...]
    values: Array

    def of(self, metric: str) -> Array:
        """Return (n, g) values of one metric. Raises UnknownNameError."""
        if metric not in self.metrics:
            raise UnknownNameError("predicted metric", metric, self.metrics)
        return np.asarray(self.values[..., self.metrics.index(metric)], np.float64)

    def at(self, steps: Sequence[int]) -> CurveForecast:
        """Return the forecast for some step counts of the grid."""
        places = [int(np.flatnonzero(self.grid == n)[0]) for n in steps]
        return replace(self, grid=self.grid[places], energy_j=self.energy_j[places], values=self.values[:, places])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """Forecasts and true values of prompts outside the training set.

    Attributes:
        forecast: Forecasts of n images.
        truth: (n, g, m) true values.
        prompts: (n,) prompt of each image; None if unknown.
    """

    forecast: CurveForecast
    truth: Array
    prompts: Index | None

    def of(self, metric: str) -> Array:
        """Return (n, g) true values of one metric."""
        return np.asarray(self.truth[..., self.forecast.metrics.index(metric)], np.float64)

    def at(self, steps: Sequence[int]) -> Calibration:
        """Return the calibration for some step counts of the grid."""
        places = [int(np.flatnonzero(self.forecast.grid == n)[0]) for n in steps]
        return replace(self, forecast=self.forecast.at(steps), truth=self.truth[:, places])


def saving_on(calibration: Calibration, chosen: Index, metric: str) -> tuple[float, float]:
    """Return J/image of some choices on the calibration images, and of the fixed steps with the same mean quality.

    Args:
        calibration: The images.
        chosen: (n,) grid indices.
        metric: The quality.
    """
    energy_j, quality = calibration.forecast.energy_j, calibration.of(metric)
    fixed = np.maximum.accumulate(quality.mean(0))
    reached = quality[np.arange(len(quality)), chosen].mean()
    return float(energy_j[chosen].mean()), float(np.interp(reached, fixed, energy_j))


class Rule(Protocol):
    """Chooses a grid index for each forecast curve."""

    def choose(self, forecast: CurveForecast, calibration: Calibration) -> Index:
        """Return (n,) indices into `forecast.grid`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Plateau:
    """A plateau rule after the paper: t* = the combination over metrics of min{t : m(last) − m(t) ≤ τ}.

    Each curve is made non-decreasing and scaled to [0, 1] between its first and last value. A curve whose range is
    below the error of its forecasts is ignored, because scaling would amplify noise; if all are, the fewest steps do.

    Attributes:
        tolerance: τ.
        metrics: The metrics; all predicted ones if empty.
        combine: A key of `COMBINATIONS`. A mean between two step counts of the grid takes the larger one.
    """

    tolerance: float
    metrics: tuple[str, ...] = ()
    combine: str = "max"

    def choose(self, forecast: CurveForecast, calibration: Calibration) -> Index:
        """Choose grid indices, see `Rule`."""
        each = [self._steps(forecast.of(name), name, calibration, forecast.grid) for name in self._names(forecast)]
        steps = np.stack(each, axis=-1)  # (n, m)
        steps[np.isnan(steps).all(-1)] = forecast.grid[0]
        wanted = COMBINATIONS[self.combine](steps, axis=-1) - 1e-9
        return np.asarray(np.searchsorted(forecast.grid, wanted), np.intp)

    def _names(self, forecast: CurveForecast) -> tuple[str, ...]:
        return self.metrics or forecast.metrics

    def _steps(self, values: Array, name: str, calibration: Calibration, grid: NDArray[np.int64]) -> Array:
        """Return (n,) the steps at which one metric's curves reach their plateau; NaN for curves that are ignored."""
        error = np.abs(calibration.forecast.of(name) - calibration.of(name)).mean()
        rising = np.maximum.accumulate(values, axis=1)
        height = rising[:, -1:] - rising[:, :1]
        is_clear = ((height > error) & (height > 0))[:, 0]
        scaled = (rising - rising[:, :1]) / np.where(height > 0, height, 1.0)
        return np.where(is_clear, grid[(1.0 - scaled <= self.tolerance).argmax(1)], np.nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualMarginal:
    """Add steps until another joule gains less than elsewhere: argmax of λ·Q − E, with λ in J per unit of quality."""

    metric: str
    joules_per_unit: float

    def choose(self, forecast: CurveForecast, calibration: Calibration) -> Index:
        """Choose grid indices, see `Rule`."""
        return _best_buy(forecast, self.metric, self.joules_per_unit)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyBudget:
    """Maximise mean quality for a mean energy: the equal-marginal rule at the price that uses `mean_j` on average.

    The price is found on the calibration prompts, so other kinds of prompts may use more or less.
    """

    metric: str
    mean_j: float

    def choose(self, forecast: CurveForecast, calibration: Calibration) -> Index:
        """Choose grid indices, see `Rule`. Raises EvidenceError if even the fewest steps exceed the budget."""
        return _best_buy(forecast, self.metric, self.price(calibration.forecast))

    def price(self, known: CurveForecast) -> float:
        """Return the largest λ whose mean energy is within the budget."""
        if known.energy_j[0] > self.mean_j:
            raise EvidenceError(
                f"rule energy-budget: {self.mean_j:g} J/image is less than {known.grid[0]} steps cost "
                f"({known.energy_j[0]:.3g} J)"
            )
        quality = known.of(self.metric)
        steepest = np.abs(np.diff(quality, axis=1) / np.diff(known.energy_j)).max()
        low, high = 0.0, 1e9 / max(float(steepest), 1e-12)
        for _ in range(_BISECTIONS):
            middle = np.sqrt(max(low, 1e-12) * high)
            spent = known.energy_j[_best_buy(known, self.metric, float(middle))].mean()
            low, high = (float(middle), high) if spent <= self.mean_j else (low, float(middle))
        return low


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityFloor:
    """Choose the fewest steps with which an image misses the floor with a chance of at most `miss_rate`.

    Conformal risk control (see `perjoule.statistics.risk_control`): the forecast must exceed the floor by a margin. It
    is calibrated by prompt, because images of one prompt miss together: taken as independent they promise too much.

    The guarantee is a mean over prompts like those of the calibration and over calibrations: a particular calibration
    may miss more often, and so may a particular kind of prompt. If no number of steps is forecast to reach the floor,
    the largest is used.
    """

    metric: str
    floor: float
    miss_rate: float = 0.1

    def choose(self, forecast: CurveForecast, calibration: Calibration) -> Index:
        """Choose grid indices, see `Rule`. Raises EvidenceError if the calibration prompts violate the guarantee."""
        lead = forecast.of(self.metric) - self.floor
        return cheapest_safe(lead, self.margin(calibration), lead.shape[1] - 1)

    def margin(self, calibration: Calibration) -> float:
        """Return the margin by which the forecast must exceed the floor. Raises EvidenceError like `choose`."""
        if calibration.prompts is None:
            raise EvidenceError(NOT_BY_PROMPT)
        lead, missed = calibration.forecast.of(self.metric) - self.floor, calibration.of(self.metric) < self.floor
        _, prompt, images = np.unique(calibration.prompts, return_inverse=True, return_counts=True)
        parts = missed / images[prompt, None]  # of the share of its prompt's images that miss
        margin = calibrated_margin(lead, parts, lead.shape[1] - 1, self.miss_rate, len(images))
        if margin is None:
            risk = (parts[:, -1].sum() + 1) / (len(images) + 1)
            raise EvidenceError(
                f"rule quality-floor: even {calibration.forecast.grid[-1]} steps miss {self.metric} = {self.floor:g} "
                f"in {risk:.1%} of the images of the {len(images)} calibration prompts: {self.miss_rate:.1%} cannot be "
                "promised; lower the floor, allow more misses, or calibrate on more prompts"
            )
        return margin


def _best_buy(forecast: CurveForecast, metric: str, joules_per_unit: float) -> Index:
    return best_buys(forecast.of(metric), forecast.energy_j, np.array([joules_per_unit]))[:, 0]


RULES = ("plateau", "equal-marginal", "energy-budget", "quality-floor")


def make_rule(
    name: str,
    metric: str,
    level: float,
    miss_rate: float = 0.1,
    *,
    metrics: tuple[str, ...] = (),
    combine: str = "max",
    where: str = "",
) -> Rule:
    """Create the rule of a name with one value of its parameter.

    Args:
        name: One of `RULES`.
        metric: Metric of the rule; the plateau rule uses `metrics`.
        level: Its parameter, see the table above.
        miss_rate: Rate of the quality floor.
        metrics: Metrics of the plateau rule; all predicted ones if empty.
        combine: How the plateau rule combines them, see `Plateau`.
        where: Suite file and key, for messages.

    Raises:
        UnknownNameError: The rule or the combination does not exist.
        SuiteError: The level or rate is out of range, or another rule is given the plateau rule's arguments.
    """
    if name not in RULES:
        raise UnknownNameError("rule", name, RULES, where)
    if combine not in COMBINATIONS:
        raise UnknownNameError("combination", combine, COMBINATIONS, where)
    if name != "plateau" and (metrics or combine != "max"):
        raise SuiteError(f"{where}: rule {name} reads one metric; `metrics` and `combine` belong to the plateau rule")
    if name == "plateau" and not 0 <= level < 1:
        raise SuiteError(f"{where}: plateau level {level:g}: must be a share of the curve's height, from 0 to below 1")
    if name in ("equal-marginal", "energy-budget") and not 0 < level < np.inf:
        raise SuiteError(f"{where}: {name} level {level:g}: must be a positive number of joules")
    try:
        below_one(miss_rate, f"{where}: miss_rate")
    except UsageError as error:
        raise SuiteError(str(error)) from None
    if name == "plateau":
        return Plateau(tolerance=level, metrics=metrics, combine=combine)
    if name == "equal-marginal":
        return EqualMarginal(metric=metric, joules_per_unit=level)
    if name == "energy-budget":
        return EnergyBudget(metric=metric, mean_j=level)
    return QualityFloor(metric=metric, floor=level, miss_rate=miss_rate)
