"""Choices and ratings collected elsewhere, from a table.

    observer, prompt_id, arm_a, arm_b, choice      choice: a, b or tie
    observer, variant, prompt_id, rating           any numbers, higher is better

Two ratings of one observer for one prompt are a choice: the higher rating wins, equal ratings are a tie. Ratings of
different observers are not compared, because people use scales differently. A column `provenance` states who answered:
people, simulated or model; without it that is not stated, and the answers do not count as those of people.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import get_args

import numpy as np
import polars as pl

from perjoule.errors import EvidenceError, UsageError
from perjoule.importing.foreign_table import ForeignTable, first_marked
from perjoule.importing.reading import read_table
from perjoule.people.choices import Choices, one_provenance
from perjoule.types import JudgeProvenance

_CHOICES = ("observer", "prompt_id", "arm_a", "arm_b", "choice")
_RATINGS = ("observer", "variant", "prompt_id", "rating")
_WON = {"a": 1.0, "b": 0.0, "tie": 0.5}


def table_of_choices(path: Path, arms: Sequence[str] | None = None) -> Choices:
    """Read a table of choices or ratings.

    Args:
        path: CSV, TSV, JSON, JSON lines or Parquet.
        arms: The arms that may occur, e.g. the cells of a run; None for any.

    Raises:
        UsageError: If the table is damaged (names row, column, value and remedy), or has an unknown arm.
        EvidenceError: If it has no choice, only one arm, or unlike provenances.
    """
    table = read_table(path, (*_CHOICES, *_RATINGS))
    kinds = [columns for columns in (_CHOICES, _RATINGS) if all(table.has(name) for name in columns)]
    if not kinds:
        raise UsageError(
            f"{path}: columns {', '.join(table.frame.columns) or 'none'}: a table of choices needs "
            f"{', '.join(_CHOICES)}; a table of ratings needs {', '.join(_RATINGS)}"
        )
    frame = _choice_rows(table) if kinds[0] is _CHOICES else _rating_pairs(table)
    if frame.is_empty():
        raise EvidenceError(f"{path}: no observer compared two arms for the same prompt: there is nothing to scale")
    return _choices(table, frame, arms)


def _texts(table: ForeignTable, names: Sequence[str]) -> pl.DataFrame:
    """Columns of identifiers, with `row`; raises UsageError if one is empty."""
    frame = pl.DataFrame([table.texts(name).alias(name) for name in names]).with_row_index("row")
    for name in names:
        if (row := first_marked(frame[name].is_null())) is not None:
            raise table.fault(row, name, "must not be empty")
    return frame


def _choice_rows(table: ForeignTable) -> pl.DataFrame:
    frame = _texts(table, _CHOICES).with_columns(pl.col("choice").str.to_lowercase())
    if (row := first_marked(~frame["choice"].is_in(list(_WON)))) is not None:
        raise table.fault(row, "choice", "must be a, b or tie")
    if (row := first_marked(frame["arm_a"] == frame["arm_b"])) is not None:
        raise table.fault(row, "arm_b", "is also arm_a: a choice is between two arms")
    return frame.with_columns(won=pl.col("choice").replace_strict(_WON, return_dtype=pl.Float64))


def _rating_pairs(table: ForeignTable) -> pl.DataFrame:
    """Choices from pairs of ratings of the same observer and prompt; means if an observer rated a picture twice."""
    frame = _texts(table, _RATINGS[:3]).with_columns(rating=table.numbers("rating"))
    if (row := first_marked(~frame["rating"].is_finite().fill_null(False))) is not None:
        raise table.fault(row, "rating", "must be a number")
    means = (
        frame.group_by("observer", "prompt_id", "variant")
        .agg(pl.col("rating").mean(), pl.col("row").min())
        .sort("observer", "prompt_id", "row")
    )
    rows = []
    for (observer, prompt), part in means.group_by(["observer", "prompt_id"], maintain_order=True):
        for one, other in combinations(part.select("variant", "rating", "row").rows(), 2):
            won = 0.5 * (1 + np.sign(one[1] - other[1]))
            rows.append((one[2], observer, prompt, one[0], other[0], float(won)))
    kinds = {"row": pl.UInt32, "observer": pl.String, "prompt_id": pl.String, "arm_a": pl.String, "arm_b": pl.String,
             "won": pl.Float64}  # fmt: skip
    return pl.DataFrame(rows, schema=kinds, orient="row")


def _choices(table: ForeignTable, frame: pl.DataFrame, known: Sequence[str] | None) -> Choices:
    seen = pl.concat([frame["arm_a"], frame["arm_b"].alias("arm_a")]).unique(maintain_order=True).to_list()
    if known is not None and (unknown := [arm for arm in seen if arm not in set(known)]):
        row = int(frame.filter((pl.col("arm_a") == unknown[0]) | (pl.col("arm_b") == unknown[0]))["row"][0])
        name = next(n for n in ("variant", "arm_a", "arm_b") if table.has(n) and table.texts(n)[row] == unknown[0])
        raise table.fault(row, name, f"unknown arm: known are {', '.join(known)}")
    arms = [arm for arm in known if arm in set(seen)] if known is not None else sorted(seen)
    names = {"observer": frame["observer"].unique().sort(), "prompt_id": frame["prompt_id"].unique().sort()}

    def places(column: str, values: Sequence[str]) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
        order = {value: i for i, value in enumerate(values)}
        return np.array([order[value] for value in frame[column]], np.intp)

    return Choices(
        arms=tuple(arms),
        prompts=tuple(names["prompt_id"]),
        observers=tuple(names["observer"]),
        observer=places("observer", names["observer"].to_list()),
        prompt=places("prompt_id", names["prompt_id"].to_list()),
        first=places("arm_a", arms),
        second=places("arm_b", arms),
        won=frame["won"].to_numpy().astype(np.float64),
        provenance=_provenance(table),
    )


def _provenance(table: ForeignTable) -> JudgeProvenance:
    if not table.has("provenance"):
        return "not stated"
    stated = table.texts("provenance")
    known: tuple[JudgeProvenance, ...] = get_args(JudgeProvenance)
    if (row := first_marked(~stated.is_in(list(known)).fill_null(False))) is not None:
        raise table.fault(row, "provenance", f"must be {', '.join(known)}")
    return one_provenance((kind for kind in known if kind in set(stated)), str(table.path))
