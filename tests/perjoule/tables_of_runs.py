"""Runs made from tables, for tests of what is done with runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from perjoule.importing import import_table
from perjoule.run_directory import Run, load_run

LADDER = (2, 4, 8, 16, 32, 64)


def table(
    *,
    factor: float = 1.0,
    shift: float = 0.0,
    prompts: int = 64,
    seeds: int = 2,
    seed: int = 0,
    noise: float = 0.03,
    ladder: tuple[int, ...] = LADDER,
    variants: tuple[tuple[str, float], ...] = (("ladder", 1.0), ("quick", 0.8)),
) -> pl.DataFrame:
    """One row an image: quality levels off with the steps, `factor` multiplies joules, `shift` is added to quality."""
    chance = np.random.default_rng(seed)
    hardness = np.random.default_rng(99).normal(0, 0.1, prompts)
    rows = [
        {
            "variant": name,
            "prompt_id": f"p{prompt:03d}",
            "seed": number,
            "steps": steps,
            "energy_j": factor * cost * (1 + steps) * np.exp(0.02 * chance.normal()),
            "duration_s": 0.1 * steps,
            "quality:q": 1 - np.exp(-steps / 8) + hardness[prompt] + noise * chance.normal() + shift,
        }
        for name, cost in variants
        for steps in ladder
        for prompt in range(prompts)
        for number in range(seeds)
    ]
    return pl.DataFrame(rows)


def imported(frame: pl.DataFrame, folder: Path, name: str = "run", **options: list[str]) -> Run:
    """The run of a table."""
    file = folder / f"{name}.parquet"
    frame.write_parquet(file)
    import_table(file, folder / name, **options)
    return load_run(folder / name)
