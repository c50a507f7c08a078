"""Runs with several arms and a known truth, for routers: half of the prompts are hard, and a word shows which.

    arm            J/image    quality of easy prompts    of hard ones
    student-002        1                .9                    .4
    teacher-002        2.5              .6                    .5
    teacher-008        8                .9                    .9

At a mean quality of .9 a router saves (8 − 4.5) / 8 of the energy of the best mixture, which is `teacher-008` alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from perjoule.runs.directory import Run
from tests.support.tables_of_runs import imported

ARMS = {("student", 2): (1.0, 0.9, 0.4), ("teacher", 2): (2.5, 0.6, 0.5), ("teacher", 8): (8.0, 0.9, 0.9)}
COLOURS = ("red", "green", "blue", "pink", "grey", "white", "black", "brown", "orange", "purple")
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "heart", "moon", "arrow", "cube")


def texts(count: int, start: int = 0) -> list[str]:
    """Distinct prompts; every second one is hard, which the word `striped` shows."""
    every = [
        f"a {hard}{colour} {shape} {place}"
        for place in ("on the left", "on the right", "in the middle", "near the top")
        for shape in SHAPES
        for colour in COLOURS
        for hard in ("plain ", "striped ")
    ]
    return every[start : start + count]


def is_hard(text: str) -> bool:
    return "striped" in text


def route_table(
    count: int,
    start: int = 0,
    *,
    seeds: int = 2,
    noise: float = 0.03,
    price: float = 1.0,
    device: str = "Board A",
    seed: int = 0,
) -> pl.DataFrame:
    """One row an image. `price` multiplies all joules."""
    chance = np.random.default_rng(seed)
    rows = [
        {
            "variant": variant,
            "role": "distilled" if variant == "student" else "fixed",
            "policy": "fixed",
            "prompt_id": f"p{start + number:04d}",
            "prompt": text,
            "category": "hard" if is_hard(text) else "easy",
            "seed": one,
            "steps": steps,
            "energy_j": price * energy_j * float(np.exp(0.01 * chance.normal())),
            "provenance": "measured",
            "device": device,
            "quality:q": (hard if is_hard(text) else easy) + noise * float(chance.normal()),
        }
        for (variant, steps), (energy_j, easy, hard) in ARMS.items()
        for number, text in enumerate(texts(count, start))
        for one in range(seeds)
    ]
    return pl.DataFrame(rows)


def route_run(folder: Path, name: str, count: int, start: int = 0, **options: object) -> Run:
    """The run of a table of routes."""
    return imported(route_table(count, start, **options), folder, name)  # type: ignore[arg-type]


def with_routed(frame: pl.DataFrame) -> pl.DataFrame:
    """The table with a routed cell that gives the expensive arm to half of the hard prompts: .775 for 2.75 J."""
    hard = pl.col("prompt").str.contains("striped")
    names = frame.filter(hard)["prompt"].unique().sort()[::2].to_list()
    expensive = pl.col("prompt").is_in(names)
    taken = pl.when(expensive).then(pl.col("steps") == 8).otherwise(pl.col("variant") == "student")
    return pl.concat(
        [
            frame,
            frame.filter(taken).with_columns(
                variant=pl.lit("routed"), role=pl.lit("predicted"), policy=pl.lit("router")
            ),
        ]
    )
