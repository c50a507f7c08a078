"""Error rates and joules of the sequential gate, in worlds whose truth is known: 64 prompts, margins 5 % and 0.15.

    nice python -m tests.benchmarks.statistics.sequential_gate [GATES] [--schedules]

Every world draws the same GATES (2,000) pairs of runs for all designs. `fixed` judges all prompts once. The others
judge after each block of prompts and stop at PASS or FAIL. Noise: `gaussian`; `t3`, Student's t with 3 degrees of
freedom; `lognormal`, of skewness 1.75, whose long tail is on the worse side; `drift`, a machine that wanders by 3 % in
the session, both sides interleaved. All have the same standard deviations: 1.5 % of ln E and 0.25 of quality.

The limits of looks are corrected for skewness, as in the product; those of the fixed design are Student's t.

joules: of prompts measured until the verdict, relative to the fixed design; median and mean over the gates.
`--schedules` compares schedules of looks instead, in Gaussian worlds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from scipy import stats

from perjoule.statistics.designs import Design
from perjoule.statistics.sequential import corrected_statistic, nominal_levels

PROMPTS, ENERGY_SD, QUALITY_SD = 64, 0.015, 0.25
MARGIN_E, MARGIN_Q, ALPHA = np.log(1.05), 0.15, 0.05
TESTS = 2  # of one cell: energy and quality
# (name, true ln energy ratio, true quality difference)
TRUTHS = (
    ("no change", 0.0, 0.0),
    ("+2 % energy", np.log(1.02), 0.0),
    ("+5 % energy, at the margin", MARGIN_E, 0.0),
    ("+6 % energy", np.log(1.06), 0.0),
    ("+12 % energy", np.log(1.12), 0.0),
    ("quality at the margin", 0.0, -MARGIN_Q),
    ("quality -2 margins", 0.0, -2 * MARGIN_Q),
)
NOISES = ("gaussian", "t3", "lognormal", "drift")
EVERY = (8, 16, 24, 32, 40, 48, 56, 64)
SCHEDULES = {
    "4 equal": (16, 32, 48, 64),
    "doubling": (8, 16, 32, 64),
    "8, 16, 24, 32, 48, 64": (8, 16, 24, 32, 48, 64),
    "8 equal": EVERY,
    "16, 24, 40, 64": (16, 24, 40, 64),
    "12, 20, 28, 44, 64": (12, 20, 28, 44, 64),
}
DESIGNS: tuple[Design, ...] = ("pocock", "obrien-fleming", "confidence-sequence")
FIXED: tuple[int, ...] = (PROMPTS,)


def draw(noise: str, shape: tuple[int, int], chance: np.random.Generator, sd: float, worse: float) -> np.ndarray:
    """Return noise of mean 0; `worse` is the sign of the side with the long tail."""
    if noise == "t3":
        return np.asarray(sd / np.sqrt(3) * chance.standard_t(3, shape))
    if noise == "lognormal":
        s = 0.5
        x = np.exp(s * chance.normal(size=shape) - s**2 / 2)
        return np.asarray(worse * sd * (x - 1) / np.sqrt(np.expm1(s**2)))
    return sd * chance.normal(size=shape)


def energies(noise: str, truth: float, shape: tuple[int, int], chance: np.random.Generator) -> np.ndarray:
    """Return paired differences of ln E, (gates, prompts)."""
    d = truth + draw(noise, shape, chance, ENERGY_SD, 1.0)
    if noise != "drift":
        return d
    # windows of both sides in turn, in an order drawn for every prompt; the machine is a random walk of 3 % in total
    gates, prompts = shape
    walk = np.cumsum(chance.normal(size=(gates, 2 * prompts)) * 0.03 / np.sqrt(2 * prompts), axis=1)
    pairs = walk.reshape(gates, prompts, 2)
    return np.asarray(d + chance.choice([-1.0, 1.0], size=shape) * (pairs[..., 1] - pairs[..., 0]))


def looks_at(x: np.ndarray, looks: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return means, standard errors and skewnesses of the means after each look, (gates, looks)."""
    n = np.array(looks)
    mean, square, cube = (np.cumsum(x**power, 1)[:, n - 1] / n for power in (1, 2, 3))
    variance = np.maximum(square - mean**2, 1e-300)
    skewness = (cube - 3 * mean * square + 2 * mean**3) / variance**1.5 / np.sqrt(n)
    return mean, np.sqrt(variance / (n - 1)), skewness


def verdicts(
    d: np.ndarray, q: np.ndarray, looks: Sequence[int], levels: Sequence[Sequence[float]], *, sequential: bool
) -> np.ndarray:
    """Return (gates, looks) of 1 pass, -1 fail, 0 open; `levels[j]` are the nominal levels at alpha/(j + 1)."""
    df = np.array(looks) - 1
    at_pass, at_fail = (-stats.t.ppf(np.array(levels[j]), df) for j in (0, TESTS - 1))
    passes, fails = np.ones((len(d), len(looks)), bool), np.zeros((len(d), len(looks)), bool)
    for x, margin in ((d, MARGIN_E), (-q, MARGIN_Q)):  # larger is worse
        mean, se, skewness = looks_at(x, looks)
        t = (mean - margin) / se
        worse, better = t, -t
        if sequential:
            worse, better = corrected_statistic(t, skewness), corrected_statistic(-t, -skewness)
        passes &= better >= at_pass
        fails |= worse >= at_fail
    return np.where(fails, -1, np.where(passes, 1, 0))


def run(d: np.ndarray, q: np.ndarray, looks: Sequence[int], design: Design | None) -> tuple[float, float, float, float]:
    """Return shares of passes and fails, and median and mean of the joules relative to the fixed design."""
    if design is None:
        levels = [[ALPHA / j] for j in range(1, TESTS + 1)]
    else:
        shares = tuple(n / PROMPTS for n in looks)
        levels = [list(nominal_levels(design, shares, ALPHA / j)) for j in range(1, TESTS + 1)]
    table = verdicts(d, q, looks, levels, sequential=design is not None)
    decided = table != 0
    first = np.where(decided.any(1), decided.argmax(1), len(looks) - 1)
    final = table[np.arange(len(table)), first]
    used = np.array(looks)[first] / PROMPTS
    return (final == 1).mean(), (final == -1).mean(), float(np.median(used)), float(used.mean())


def main(gates: int = 2_000, *, schedules: bool = False) -> None:
    """Print one line per world and design."""
    print(f"{gates} gates each, {PROMPTS} prompts, sd of ln E {ENERGY_SD}, sd of quality {QUALITY_SD}")
    print(f"{'noise':10} {'truth':27} {'design':44} {'PASS':>6} {'FAIL':>6} {'median':>7} {'mean':>6}   joules")
    for number, (name, energy, quality) in enumerate(TRUTHS):
        for noise in NOISES[:1] if schedules else NOISES:
            chance = np.random.default_rng([number, NOISES.index(noise)])
            d = energies(noise, energy, (gates, PROMPTS), chance)
            q = quality + draw(noise, (gates, PROMPTS), chance, QUALITY_SD, -1.0)
            plans: list[tuple[str, tuple[int, ...], Design | None]] = [("fixed", FIXED, None)]
            if schedules:
                plans += [
                    (f"{design}, {label}", looks, design) for design in DESIGNS for label, looks in SCHEDULES.items()
                ]
            else:
                plans += [(design, SCHEDULES["8, 16, 24, 32, 48, 64"], design) for design in DESIGNS]
            for label, looks, design in plans:
                passed, failed, median, mean = run(d, q, looks, design)
                print(
                    f"{noise:10} {name:27} {label:44} {passed:6.4f} {failed:6.4f} {median:7.1%} {mean:6.1%}", flush=True
                )


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:] if word.isdecimal()]
    main(*numbers[:1], schedules="--schedules" in sys.argv)
