"""Checks promises of the floor on prompts of one run, by repeated random halves."""

from __future__ import annotations

import numpy as np

from perjoule.statistics.resampling import Array
from perjoule.statistics.risk_control import calibrated_margin, cheapest_safe, prompts_needed
from perjoule_suites.router.records import PromiseCheck
from perjoule_suites.router.router import Router

RATES = (0.05, 0.1, 0.2)
SPLITS = 200
_SEED = 20_250_617


def check_promises(router: Router, forecast: Array, quality: Array, splits: int = SPLITS) -> tuple[PromiseCheck, ...]:
    """Calibrate on a random half of the prompts and count misses on the other half, for each of `RATES`.

    Args:
        router: The router with its floor.
        forecast: (prompts, arms).
        quality: (prompts, seeds, arms).
        splits: Number of random halves. Those that cannot promise a rate are left out, and `reason` counts them.
    """
    order = np.argsort(router.prices, kind="stable")
    missed = (quality < router.config.level).mean(1)[:, order]
    lead = ((forecast - router.config.level) / router.labels.error)[:, order]
    fallback = int(np.flatnonzero(order == router.fallback)[0])
    return tuple(_check(lead, missed, router.prices[order], fallback, rate, splits) for rate in RATES)


def _check(lead: Array, missed: Array, prices: Array, fallback: int, promised: float, splits: int) -> PromiseCheck:
    chance, half = np.random.default_rng(_SEED), len(lead) // 2
    needed = prompts_needed(promised) or 0
    rates, energies = [], []
    for _ in range(splits if half >= needed else 0):
        places = chance.permutation(len(lead))
        known, new = places[:half], places[half:]
        margin = calibrated_margin(lead[known], missed[known], fallback, promised)
        if margin is not None:
            arms = cheapest_safe(lead[new], margin, fallback)
            rates.append(float(missed[new, arms].mean()))
            energies.append(float(prices[arms].mean()))
    reason, best = None, float(missed[:, fallback].mean())
    if half < needed:
        reason = f"{half} of the run's prompts can calibrate, but {needed} are needed"
    elif not rates:
        reason = f"the best arm itself misses the floor in {best:.1%} of the images"
    elif len(rates) < splits:  # what passes a test by luck keeps less than it promises
        reason = (
            f"the best arm itself misses the floor in {best:.1%} of the images, so {splits - len(rates)} of {splits} "
            "splits cannot promise this, and the others can by luck"
        )
    return PromiseCheck(
        promised=promised,
        splits=len(rates),
        miss_rate=float(np.mean(rates)) if rates else None,
        standard_error=float(np.std(rates) / np.sqrt(len(rates))) if rates else None,
        energy_j_per_image=float(np.mean(energies)) if energies else None,
        reason=reason,
    )
