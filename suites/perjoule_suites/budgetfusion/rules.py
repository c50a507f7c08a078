"""From predicted curves to a number of steps.

    rule               stops where                                            its parameter (a sweep of it is a curve)
    plateau            all metrics are within τ of their own last value       τ, the paper's (0.05 is our default)
    equal-marginal     the next joule buys less than elsewhere                J worth paying for a unit of quality
    energy-budget      the same, at the price that meets a mean energy        J/image on average
    quality-floor      an image falls short of the floor no oftener than p    the floor

The paper's rule normalises each curve to its own range, which divides the prompt's difficulty out; the others stay on
the metric's scale. Prices are found, and promises are calibrated, on prompts that the predictor was not trained on. The
chance p of the quality floor is a mean over prompts and over calibrations, see `QualityFloor`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from perjoule.errors import EvidenceError, SuiteError, UnknownNameError, UsageError
from perjoule.shares import below_one

Array = NDArray[np.float64]
Index = NDArray[np.intp]

_BISECTIONS = 60
NOT_BY_PROMPT = (
    "rule quality-floor: the predictor does not say which of its calibration images are of one prompt, so its promise "
    "could only be by image, which is missed more often than promised: train it again (`perjoule budgetfusion train`), "
    'or add "calibration_seeds", the seeds per prompt of its calibration run, to its predictor.json'
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forecast:
    """Predicted curves of n prompts (or images).

    Attributes:
        grid: (g,) step counts, rising.
        energy_j: (g,) J/image at each.
        metrics: (m,) names.
        values: (n, g, m) predicted, higher is better.
    """

    grid: NDArray[np.int64]
    energy_j: Array
    metrics: tuple[str, ...]
    values: Array

    def of(self, metric: str) -> Array:
        """(n, g) of one metric. Raises UnknownNameError."""
        if metric not in self.metrics:
            raise UnknownNameError("predicted metric", metric, self.metrics)
        return np.asarray(self.values[..., self.metrics.index(metric)], np.float64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """What came true on prompts that were not trained on.

    Attributes:
        forecast: Of n images.
        truth: (n, g, m).
        prompts: (n,) which prompt each image is of; None if that is not known.
    """

    forecast: Forecast
    truth: Array
    prompts: Index | None

    def of(self, metric: str) -> Array:
        """(n, g) true values of one metric."""
        return np.asarray(self.truth[..., self.forecast.metrics.index(metric)], np.float64)


class Rule(Protocol):
    """Chooses a place on the grid for each forecast curve."""

    def choose(self, forecast: Forecast, calibration: Calibration) -> Index:
        """-> (n,) indices into `forecast.grid`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Plateau:
    """The paper's rule, with our threshold: t* = max over metrics of min{t : m(last) − m(t) ≤ τ}.

    Each curve is made non-decreasing and scaled to [0, 1] between its first and last value. A curve whose range is
    below the error of its forecasts abstains, since scaling would blow up noise.
    """

    tolerance: float

    def choose(self, forecast: Forecast, calibration: Calibration) -> Index:
        """See `Rule`."""
        error = np.abs(calibration.forecast.values - calibration.truth).mean((0, 1))  # (m,)
        rising = np.maximum.accumulate(forecast.values, axis=1)
        first, last = rising[:, :1], rising[:, -1:]
        height = last - first
        speaks = (height > error) & (height > 0)
        scaled = (rising - first) / np.where(height > 0, height, 1.0)
        reached = (1.0 - scaled <= self.tolerance) | ~speaks
        return np.asarray(reached.argmax(1).max(-1), np.intp)


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualMarginal:
    """Spend until another joule buys less than it buys elsewhere: argmax of λ·Q − E. λ in J per unit of quality."""

    metric: str
    joules_per_unit: float

    def choose(self, forecast: Forecast, calibration: Calibration) -> Index:
        """See `Rule`."""
        return _best_buy(forecast, self.metric, self.joules_per_unit)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyBudget:
    """The best mean quality for a mean energy: the equal-marginal rule at the price that spends `mean_j` on average.

    The price is found on the calibration prompts, so prompts of another kind may spend more or less.
    """

    metric: str
    mean_j: float

    def choose(self, forecast: Forecast, calibration: Calibration) -> Index:
        """See `Rule`. Raises EvidenceError if even the fewest steps cost more than the budget."""
        return _best_buy(forecast, self.metric, self.price(calibration.forecast))

    def price(self, known: Forecast) -> float:
        """The largest λ whose mean energy stays within the budget."""
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
    """The fewest steps with which an image misses the floor with a chance of at most `miss_rate`.

    Conformal risk control (Angelopoulos et al., arXiv:2208.02814): a safety margin on the forecast, the least for which
    (sum of the losses of n calibration prompts + 1) / (n + 1) ≤ miss_rate. The loss of a prompt is the share of its
    seeds whose image misses the floor. Prompts are exchangeable, images are not: those of one prompt miss together, so
    counting them as independent promises more than is kept.

    What is promised is a mean, over prompts like those of the calibration and over calibrations: one calibration in
    particular may miss more often, and so may one kind of prompt. Where no number of steps is forecast to do, the most
    is taken.
    """

    metric: str
    floor: float
    miss_rate: float = 0.1

    def choose(self, forecast: Forecast, calibration: Calibration) -> Index:
        """See `Rule`. Raises EvidenceError if the promise cannot be kept on the calibration prompts."""
        return _fewest(forecast.of(self.metric) - self.margin(calibration), self.floor)

    def margin(self, calibration: Calibration) -> float:
        """How much the forecast must exceed the floor. Raises EvidenceError as `choose` does."""
        if calibration.prompts is None:
            raise EvidenceError(NOT_BY_PROMPT)
        predicted, true = calibration.forecast.of(self.metric), calibration.of(self.metric)
        rows = np.arange(len(true))
        _, prompt, images = np.unique(calibration.prompts, return_inverse=True, return_counts=True)
        share = 1 / images[prompt]  # of a prompt's loss, that an image is

        def risk(margin: float) -> float:
            missed = true[rows, _fewest(predicted - margin, self.floor)] < self.floor
            return float((share[missed].sum() + 1) / (len(images) + 1))

        safe = np.inf  # everyone takes the most steps
        if risk(safe) > self.miss_rate:
            raise EvidenceError(
                f"rule quality-floor: even {calibration.forecast.grid[-1]} steps miss {self.metric} = {self.floor:g} "
                f"in {risk(safe):.1%} of the images of the {len(images)} calibration prompts: {self.miss_rate:.1%} "
                "cannot be promised; lower the floor, allow more misses, or calibrate on more prompts"
            )
        # the choice changes only where a forecast minus the margin crosses the floor
        for margin in np.unique(predicted - self.floor)[::-1]:
            if risk(float(margin)) > self.miss_rate:
                break
            safe = float(margin)
        return safe


def _best_buy(forecast: Forecast, metric: str, joules_per_unit: float) -> Index:
    worth = joules_per_unit * forecast.of(metric) - forecast.energy_j
    return np.asarray(worth.argmax(1), np.intp)


def _fewest(safe: Array, floor: float) -> Index:
    """The first place on the grid that reaches the floor; the last where none does."""
    enough = safe >= floor
    enough[:, -1] = True
    return np.asarray(enough.argmax(1), np.intp)


def _plateau(metric: str, level: float, miss_rate: float) -> Rule:
    return Plateau(tolerance=level)


def _equal_marginal(metric: str, level: float, miss_rate: float) -> Rule:
    return EqualMarginal(metric=metric, joules_per_unit=level)


def _energy_budget(metric: str, level: float, miss_rate: float) -> Rule:
    return EnergyBudget(metric=metric, mean_j=level)


def _quality_floor(metric: str, level: float, miss_rate: float) -> Rule:
    return QualityFloor(metric=metric, floor=level, miss_rate=miss_rate)


RULES: dict[str, Callable[[str, float, float], Rule]] = {
    "plateau": _plateau,
    "equal-marginal": _equal_marginal,
    "energy-budget": _energy_budget,
    "quality-floor": _quality_floor,
}


def make_rule(name: str, metric: str, level: float, miss_rate: float = 0.1, *, where: str = "") -> Rule:
    """The rule of a name at one value of its parameter.

    Args:
        name: A key of `RULES`.
        metric: What it optimises or promises; the plateau rule looks at all metrics.
        level: Its parameter, see the table above.
        miss_rate: Of the quality floor.
        where: Suite file and key, for messages.

    Raises:
        UnknownNameError: No such rule.
        SuiteError: A level or rate out of range.
    """
    if name not in RULES:
        raise UnknownNameError("rule", name, RULES, where)
    if name == "plateau" and not 0 <= level < 1:
        raise SuiteError(f"{where}: plateau level {level:g}: a share of the curve's height, from 0 to below 1")
    if name in ("equal-marginal", "energy-budget") and not 0 < level < np.inf:
        raise SuiteError(f"{where}: {name} level {level:g}: a positive number of joules")
    try:
        below_one(miss_rate, f"{where}: miss_rate")
    except UsageError as error:
        raise SuiteError(str(error)) from None
    return RULES[name](metric, level, miss_rate)
