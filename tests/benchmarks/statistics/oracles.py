"""Our statistics against the libraries that serve as oracles, on the same data in one run, in alternating pairs.

nice python -m tests.benchmarks.statistics.oracles
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial

import bjontegaard
import moocore
import numpy as np
from scipy import stats

from perjoule.statistics.bd import bd_energy_rows
from perjoule.statistics.curves import Ladders
from perjoule.statistics.hermite import akima_slopes, pchip_slopes
from perjoule.statistics.pareto import hypervolume, hypervolume_rows
from perjoule.statistics.resampling import SEED, bca_limits, resample_means

PAIRS = 15


def main() -> None:
    """Print ratios of run times (ours over theirs) and the largest difference of results."""
    chance = np.random.default_rng(0)
    print(f"{'what':44} {'ours ms':>9} {'theirs ms':>10} {'ratio':>7} {'difference':>11}")
    energy, quality = chance.lognormal(3, 1, 2_000), chance.normal(size=2_000)
    corner = (float(energy.max() * 2), float(quality.min() - 1))
    points = np.stack([np.log2(energy), -quality], 1)
    reference = [np.log2(corner[0]), -corner[1]]
    _line(
        "hypervolume of 2,000 points, moocore",
        lambda: hypervolume(energy, quality, corner),
        lambda: moocore.hypervolume(points, ref=reference),
    )
    rows_e, rows_q = chance.lognormal(3, 1, (1_000, 30)), chance.normal(size=(1_000, 30))
    stacked = np.stack([np.log2(rows_e), -rows_q], 2)
    _line(
        "hypervolume of 30 points, 1,000 resamples",
        lambda: hypervolume_rows(rows_e, rows_q, corner),
        lambda: [moocore.hypervolume(p, ref=reference) for p in stacked],
    )
    curves = [
        (np.cumsum(chance.uniform(1, 9, (500, 8)), 1), np.cumsum(chance.uniform(0.1, 1, (500, 8)), 1)) for _ in "ab"
    ]
    anchor, test = (Ladders(energy_j=e, quality=q) for e, q in curves)
    for method, slopes in (("pchip", pchip_slopes), ("akima", akima_slopes)):
        _line(
            f"BD-energy ({method}) of 500 resamples, bjontegaard",
            partial(bd_energy_rows, test, anchor, slopes),
            partial(_bjontegaards, curves, method),
        )
    one, other = (Ladders(energy_j=c.energy_j[:1], quality=c.quality[:1]) for c in (test, anchor))
    _line(
        "BD-energy (pchip) of one pair, bjontegaard",
        partial(bd_energy_rows, one, other),
        partial(_bjontegaards, [(e[:1], q[:1]) for e, q in curves], "pchip"),
    )
    for n in (64, 1_000):
        sample = chance.lognormal(size=n)

        def ours(sample: np.ndarray = sample) -> np.ndarray:
            means = resample_means(sample[:, None, None], resamples=10_000)
            return np.array(bca_limits(sample.mean(), means.resamples[:, 0], means.jackknife[:, 0]))

        def theirs(sample: np.ndarray = sample) -> np.ndarray:
            found = stats.bootstrap(
                (sample,), np.mean, n_resamples=10_000, method="BCa", rng=np.random.default_rng(SEED)
            ).confidence_interval
            return np.array([found.low, found.high])

        _line(f"BCa of a mean, n = {n}, 10,000 draws, scipy", ours, theirs)


def _bjontegaards(curves: list[tuple[np.ndarray, np.ndarray]], method: str) -> list[float]:
    """BD-rates of rows of curves, as fractions."""
    return [
        bjontegaard.bd_rate(ea, qa, et, qt, method=method, require_matching_points=False, min_overlap=0) / 100
        for ea, qa, et, qt in zip(*curves[0], *curves[1], strict=True)
    ]


def _line(name: str, ours: Callable[[], object], theirs: Callable[[], object]) -> None:
    times: dict[bool, list[float]] = {True: [], False: []}
    results: dict[bool, object] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for pair in range(PAIRS):
            for mine in (True, False) if pair % 2 else (False, True):
                began = time.perf_counter()
                results[mine] = (ours if mine else theirs)()
                times[mine].append(time.perf_counter() - began)
    ratio = statistics.median(a / b for a, b in zip(times[True], times[False], strict=True))
    difference = np.max(np.abs(np.asarray(results[True]) - np.asarray(results[False])))
    milliseconds = [1e3 * statistics.median(times[k]) for k in (True, False)]
    print(f"{name:44} {milliseconds[0]:9.3f} {milliseconds[1]:10.3f} {ratio:7.3f} {difference:11.1e}", flush=True)


if __name__ == "__main__":
    main()
