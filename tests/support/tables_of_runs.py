"""Runs made from tables, for tests of what is done with runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from perjoule.importing.conversion import import_table
from perjoule.runs.directory import Run, load_run

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
            "provenance": "measured",
            "quality:q": 1 - np.exp(-steps / 8) + hardness[prompt] + noise * chance.normal() + shift,
        }
        for name, cost in variants
        for steps in ladder
        for prompt in range(prompts)
        for number in range(seeds)
    ]
    return pl.DataFrame(rows)


def imported(frame: pl.DataFrame, folder: Path, name: str = "run", **options: Any) -> Run:
    """The run of a table."""
    file = folder / f"{name}.parquet"
    frame.write_parquet(file)
    import_table(file, folder / name, **options)
    return load_run(folder / name)


def rewrite(run: Run, file: str, edit: Callable[[Any], object]) -> Run:
    """The run with a JSON file of it edited."""
    path = run.path / file
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return load_run(run.path)


def rewrite_table(run: Run, name: str, *columns: pl.Expr) -> Run:
    """The run with columns of a table computed anew."""
    path = run.path / f"{name}.parquet"
    pl.read_parquet(path).with_columns(*columns).write_parquet(path)
    return load_run(run.path)


def as_own(run: Run) -> Run:
    """The run as if it had been measured here: its rows are windows."""
    return rewrite(run, "environment.json", lambda e: e.pop("imported_from"))


def with_margin(run: Run, margin: float = 0.15) -> Run:
    """The run with a margin declared for its first metric."""
    return rewrite(run, "metrics.json", lambda m: m["metrics"][0].update(margin=margin))
