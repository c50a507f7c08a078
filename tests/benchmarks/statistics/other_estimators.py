"""Estimators that a sequential gate does not use, in worlds of `sequential_gate`, with the looks of `pocock`.

    nice python -m tests.benchmarks.statistics.other_estimators [GATES]

`hall`: the product's smaller one of Student's t and Hall's transformation. `bootstrap t`: 999 resamples of the
studentised mean. `both`: the larger p-value of these two. `trimmed`: the mean without a tenth at both ends, with Yuen's
standard error; it estimates the mean of symmetric noise only. At last, -2 margins in 50,000 gates, with and without
drift.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from scipy import stats

from perjoule.statistics.sequential import corrected_statistic, nominal_levels
from tests.benchmarks.statistics import sequential_gate as worlds

LOOKS = worlds.SCHEDULES["8, 16, 24, 32, 48, 64"]
RESAMPLES, CHUNK, TRIMMED = 999, 100, 0.1
CASES = (
    ("quality at the margin", "lognormal"), ("+5 % energy, at the margin", "lognormal"), ("no change", "lognormal"),
    ("quality at the margin", "t3"), ("quality -2 margins", "t3"), ("+6 % energy", "t3"), ("no change", "t3"),
    ("quality at the margin", "gaussian"), ("no change", "gaussian"), ("quality -2 margins", "drift"),
)  # fmt: skip
Array = np.ndarray
# values (gates, prompts), larger is worse, and margin -> p-values of passing and of failing
Estimator = Callable[[Array, float], tuple[Array, Array]]


def hall(x: Array, margin: float) -> tuple[Array, Array]:
    """The product's."""
    n = x.shape[1]
    mean, error, skewness = worlds.looks_at(x, (n,))
    t = (mean - margin) / error
    return tuple(stats.t.sf(corrected_statistic(s * t, s * skewness)[:, 0], n - 1) for s in (-1, 1))


def bootstrap_t(x: Array, margin: float) -> tuple[Array, Array]:
    """Resamples of the studentised mean."""
    chance, n = np.random.default_rng(7), x.shape[1]
    passing, failing = [], []
    for start in range(0, len(x), CHUNK):
        part = x[start : start + CHUNK]
        mean, root = part.mean(1), np.sqrt(n)
        t = (mean - margin) / part.std(1, ddof=1) * root
        resamples = part[:, chance.integers(0, n, (RESAMPLES, n))]
        errors = np.maximum(resamples.std(2, ddof=1) / root, 1e-12)
        drawn = (resamples.mean(2) - mean[:, None]) / errors
        passing.append((1 + (drawn <= t[:, None]).sum(1)) / (RESAMPLES + 1))
        failing.append((1 + (drawn >= t[:, None]).sum(1)) / (RESAMPLES + 1))
    return np.concatenate(passing), np.concatenate(failing)


def both(x: Array, margin: float) -> tuple[Array, Array]:
    """The larger p-value of Hall's and the bootstrap's."""
    one, other = hall(x, margin), bootstrap_t(x, margin)
    return np.maximum(one[0], other[0]), np.maximum(one[1], other[1])


def trimmed(x: Array, margin: float) -> tuple[Array, Array]:
    """Yuen's t of the trimmed mean."""
    n = x.shape[1]
    cut = int(TRIMMED * n)
    rest, ordered = n - 2 * cut, np.sort(x, 1)
    winsorised = np.clip(ordered, ordered[:, [cut]], ordered[:, [n - 1 - cut]])
    error = winsorised.std(1, ddof=1) * np.sqrt((n - 1) / (rest * (rest - 1)))
    t = (ordered[:, cut : n - cut].mean(1) - margin) / error
    return stats.t.cdf(t, rest - 1), stats.t.sf(t, rest - 1)


def run(d: Array, q: Array, estimator: Estimator) -> tuple[float, float, float]:
    """Return shares of passes and fails, and mean joules relative to the fixed design."""
    shares = tuple(n / worlds.PROMPTS for n in LOOKS)
    levels = [nominal_levels("pocock", shares, worlds.ALPHA / tests) for tests in (1, worlds.TESTS)]
    outcome, used, open_ = np.zeros(len(d), int), np.full(len(d), worlds.PROMPTS), np.arange(len(d))
    for look, n in enumerate(LOOKS):
        tests = [estimator(x[open_, :n], m) for x, m in ((d, worlds.MARGIN_E), (-q, worlds.MARGIN_Q))]
        passes = np.all([passing <= levels[0][look] for passing, _ in tests], axis=0)
        fails = np.any([failing <= levels[1][look] for _, failing in tests], axis=0)
        outcome[open_] = np.where(fails, -1, passes)
        used[open_] = n
        open_ = open_[~(passes | fails)]
    return float((outcome == 1).mean()), float((outcome == -1).mean()), float(used.mean() / worlds.PROMPTS)


def draw(truth: str, noise: str, gates: int, seed: list[int]) -> tuple[Array, Array]:
    """Draw differences of ln E and of quality."""
    _, energy, quality = next(row for row in worlds.TRUTHS if row[0] == truth)
    chance, shape = np.random.default_rng(seed), (gates, worlds.PROMPTS)
    d = worlds.energies(noise, energy, shape, chance)
    return d, quality + worlds.draw(noise, shape, chance, worlds.QUALITY_SD, -1.0)


def main(gates: int = 2_000) -> None:
    """Print one line per world and estimator."""
    names = [row[0] for row in worlds.TRUTHS]
    for truth, noise in CASES:
        d, q = draw(truth, noise, gates, [names.index(truth), worlds.NOISES.index(noise)])
        for name, estimator in (("hall", hall), ("bootstrap t", bootstrap_t), ("both", both), ("trimmed", trimmed)):
            passed, failed, mean = run(d, q, estimator)
            print(f"{noise:10} {truth:27} {name:12} PASS {passed:.2%} FAIL {failed:.2%} joules {mean:.1%}", flush=True)
    for noise in ("gaussian", "drift"):
        fails = [run(*draw("quality -2 margins", noise, 10_000, [99, part]), hall)[1] for part in range(5)]
        print(f"{noise:10} quality -2 margins, 50,000 gates: FAIL {np.mean(fails):.2%}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
