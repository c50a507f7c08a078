"""What the gate decides in worlds whose truth is known: 64 prompts, margins 5 % and 0.15.

nice python -m tests.benchmarks.statistics.gate_power [RUNS] [SD_OF_LN_E]
"""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np

from perjoule.gating.decide import decide
from perjoule.gating.pairing import Pairs
from perjoule.gating.records import Findings, GateConfig, Margin, Margins

PROMPTS, QUALITY_SD = 64, 0.25
MARGINS = Margins(energy=Margin(value=0.05, origin="default"), quality=Margin(value=0.15, origin="default"))
# (name, true ln energy ratio, true quality difference)
TRUTHS = (
    ("no change", 0.0, 0.0),
    ("+4 % energy", np.log(1.04), 0.0),
    ("+5 % energy, at the margin", np.log(1.05), 0.0),
    ("+6 % energy", np.log(1.06), 0.0),
    ("-0.05 quality", 0.0, -0.05),
    ("-0.15 quality, at the margin", 0.0, -0.15),
    ("-0.30 quality, two margins", 0.0, -0.30),
    ("both at the margin", np.log(1.05), -0.15),
)


def main(runs: int = 4_000, energy_sd: float = 0.015) -> None:
    """Print the shares of verdicts by truth."""
    print(f"{runs} runs each, {PROMPTS} prompts, sd of ln E {energy_sd}, sd of quality {QUALITY_SD}")
    for number, (name, energy, quality) in enumerate(TRUTHS):
        chance = np.random.default_rng(number)
        seen: Counter[str] = Counter()
        for _ in range(runs):
            d = energy + energy_sd * chance.normal(size=(PROMPTS, 1))
            pairs = Pairs(
                cells=("c",),
                log_energy=d,
                energy_j=d,
                quality=quality + QUALITY_SD * chance.normal(size=(PROMPTS, 1)),
                total_energy_change=0.0,
                identical_images=False,
                provenance=("simulated",),
            )
            seen[decide(pairs, "q", GateConfig(), Findings(), MARGINS).verdict] += 1
        shares = ", ".join(f"{v} {seen[v] / runs:.4f}" for v in ("pass", "inconclusive", "fail"))
        print(f"{name:30} {shares}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *map(float, sys.argv[2:3]))
