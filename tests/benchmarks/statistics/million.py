"""Run time and memory of `perjoule frontier --json` on big runs stored as Parquet.

    nice python -m tests.benchmarks.statistics.million [FOLDER]

30 arms (3 variants at ten step counts), 3 metrics, 10,000 resamples; 10⁴, 10⁵ and 10⁶ trials of one image.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from perjoule.importing.conversion import import_table

STEPS = np.array([1, 2, 3, 4, 6, 8, 12, 20, 35, 50])
VARIANTS = {"ladder": 1.0, "quick": 0.8, "slow": 1.3}
SEEDS = 4


def table(trials: int) -> pl.DataFrame:
    """One row an image."""
    chance = np.random.default_rng(0)
    prompts = trials // (len(STEPS) * len(VARIANTS) * SEEDS)
    hardness = chance.normal(0, 0.1, prompts)
    parts = []
    for name, cost in VARIANTS.items():
        shape = (len(STEPS), prompts, SEEDS)
        steps, prompt, seed = (a.ravel() for a in np.indices(shape))
        base = 1 - np.exp(-STEPS[steps] / 8) + hardness[prompt]
        parts.append(
            pl.DataFrame(
                {
                    "variant": [name] * len(steps),
                    "prompt_id": np.char.add("p", np.char.zfill(prompt.astype(str), 6)),
                    "seed": seed,
                    "steps": STEPS[steps],
                    "energy_j": cost * (1 + STEPS[steps]) * np.exp(0.02 * chance.normal(size=len(steps))),
                    **{f"quality:q{i}": base + 0.05 * chance.normal(size=len(steps)) for i in range(3)},
                }
            )
        )
    return pl.concat(parts)


def main(folder: str | None = None) -> None:
    """Print one line per size."""
    root = Path(folder or tempfile.mkdtemp())
    root.mkdir(parents=True, exist_ok=True)
    print(f"{'trials':>9} {'prompts':>8} {'seconds':>8} {'peak MiB':>9} {'import s':>9}")
    for trials in (10_000, 100_000, 1_000_000):
        run = root / f"run-{trials}"
        made = 0.0
        if not run.exists():
            file = root / f"{trials}.parquet"
            table(trials).write_parquet(file)
            began = time.perf_counter()
            import_table(file, run)
            made = time.perf_counter() - began
        began = time.perf_counter()
        command = [str(Path(sys.executable).with_name("perjoule")), "frontier", str(run), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        took = time.perf_counter() - began
        found = json.loads(done.stdout)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        prompts = found["points"][0]["n_prompts"]
        print(f"{trials:9} {prompts:8} {took:8.1f} {peak:9.0f} {made:9.1f}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
