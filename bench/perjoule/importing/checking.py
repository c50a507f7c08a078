"""Checks the values of a foreign table and gives its columns their types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import polars as pl

from perjoule.errors import UnknownNameError, UsageError
from perjoule.importing.columns import COLUMNS, NUMBERS, QUALITY, WHOLE_NUMBERS, without_unit
from perjoule.importing.foreign_table import ForeignTable
from perjoule.importing.metric_specs import MetricFacts
from perjoule.suite.reading import MAX_SEED, MAX_STEPS
from perjoule.text import one_line
from perjoule.types import PROVENANCES, Boundary, Role

_MOST = 2**31 - 1
# beyond these, sums of squares overflow and logarithms are meaningless
_LARGEST, _SMALLEST = 1e100, 1e-100
_RANGES = {
    "seed": (0, MAX_SEED),
    "steps": (1, MAX_STEPS),
    "batch_size": (1, _MOST),
    "block": (0, _MOST),
    "n": (1, _MOST),
}
ROW = "row number"  # a name that none of our columns has


def metrics_of(foreign: ForeignTable, facts: MetricFacts) -> list[str]:
    """Return the metrics of the table, in its order; raises UsageError if a required column is missing."""
    path, columns = foreign.path, foreign.frame.columns
    listed = ", ".join(columns) or "no known columns"
    if "variant" not in columns:
        raise UsageError(f"{path}: column variant is missing; it names what was measured. Found: {listed}")
    metrics = [name.removeprefix(QUALITY) for name in columns if name.startswith(QUALITY)]
    if "energy_j" not in columns and not metrics:
        without_units = without_unit(foreign.ignored)
        hint = (
            f" ({', '.join(without_units)}: name the energy of one image energy_j, energy_kJ, energy_Wh or energy_kWh)"
        )
        raise UsageError(
            f"{path}: column energy_j is missing{hint if without_units else ''}, and there is no column "
            f"{QUALITY}<metric>: at least one of them is required; found: {listed}"
        )
    if "energy_j" not in columns and (without_units := without_unit(foreign.ignored)):
        raise UsageError(
            f"{path}: column {', '.join(without_units)}: the unit is missing. Name the energy of one image energy_j, "
            "energy_kJ, energy_Wh or energy_kWh"
        )
    for name in metrics:
        if name != one_line(name):
            raise UsageError(f"{path}: column {QUALITY}{name!r}: control characters in the name of a metric")
    for name in (*facts.lower, *facts.fidelity, *facts.bounds):
        if name not in metrics:
            raise UnknownNameError("metric", name, metrics, str(path))
    if foreign.frame.is_empty():
        raise UsageError(f"{path}: the table has no rows")
    return metrics


def checked_columns(foreign: ForeignTable, metrics: Sequence[str], notes: list[str]) -> pl.DataFrame:
    """Return all known columns with their types; absent columns are null."""
    numeric_names = [name for name in foreign.frame.columns if name.startswith(QUALITY) or _type(name) == pl.Float64]
    decimal_comma = foreign.decimal_comma(numeric_names)
    if decimal_comma:
        notes.append("numbers were read with a decimal comma")
    columns: dict[str, pl.Series] = {}
    for name in (*COLUMNS, *(QUALITY + metric for metric in metrics)):
        if not foreign.has(name):
            columns[name] = pl.Series([None] * len(foreign.frame), dtype=_type(name))
        elif name in WHOLE_NUMBERS:
            columns[name] = foreign.whole_numbers(name, *_RANGES[name])
        elif _type(name) == pl.Float64:
            columns[name] = foreign.numbers(name, decimal_comma)
        else:
            columns[name] = foreign.texts(name)
    frame = pl.DataFrame([series.alias(name) for name, series in columns.items()]).with_row_index(ROW)
    _check_filled(frame, foreign)
    _check_numbers(frame, foreign)
    return _with_words(frame, foreign)


def _type(name: str) -> Any:
    if name in WHOLE_NUMBERS:
        return pl.UInt64
    return pl.Float64 if name in NUMBERS or name.startswith(QUALITY) else pl.String


def _check_filled(frame: pl.DataFrame, foreign: ForeignTable) -> None:
    """Check that every row has its names, and a seed or a count of repeats if any row has one."""
    for name in ("variant", "prompt_id", "seed"):
        empty = frame.filter(pl.col(name).is_null())
        needed = name == "variant" or (foreign.has(name) and len(empty) < len(frame))
        if len(empty) and needed:
            raise UsageError(
                f"{foreign.place(empty[ROW][0])}: {name} is empty in {len(empty)} rows: give it in every row"
            )


def _check_numbers(frame: pl.DataFrame, foreign: ForeignTable) -> None:
    for name, least, word in (
        ("energy_j", 0.0, "positive and finite"),
        ("duration_s", 0.0, "positive and finite"),
        ("uncertainty_j", -1e-300, "0 or more, and finite"),
        ("nfe_per_image", -1e-300, "0 or more, and finite"),
        ("flops_per_image", -1e-300, "0 or more, and finite"),
    ):
        invalid = frame.filter((pl.col(name) <= least) | pl.col(name).is_infinite())
        if len(invalid):
            raise foreign.fault(invalid[ROW][0], name, f"must be {word}; leave it empty if it is unknown")
    for name in (column for column, kind in frame.schema.items() if kind == pl.Float64):
        size = pl.col(name).abs()
        # an infinite quality, such as the PSNR of equal images, counts as unscored
        extreme = frame.filter(size.is_finite() & ((size > _LARGEST) | ((size < _SMALLEST) & (pl.col(name) > 0))))
        if len(extreme):
            remedy = f"must be from {_SMALLEST:g} to {_LARGEST:g}; leave it empty if it is unknown"
            raise foreign.fault(extreme[ROW][0], name, remedy)


def _with_words(frame: pl.DataFrame, foreign: ForeignTable) -> pl.DataFrame:
    """Return the columns of fixed words in our spelling, with their defaults."""
    for name, known, default in (
        ("role", get_args(Role), "fixed"),
        ("provenance", PROVENANCES, "not stated"),
        ("boundary", get_args(Boundary), None),
    ):
        frame = frame.with_columns(pl.col(name).str.to_lowercase().fill_null(pl.lit(default, pl.String)))
        unknown = frame.filter(~pl.col(name).is_in(known))
        if len(unknown):
            where = f"{foreign.place(unknown[ROW][0])}: {name}"
            raise UnknownNameError(name, str(unknown[name][0]), known, where)
    kinds = sorted(frame.filter(pl.col("energy_j").is_not_null())["boundary"].drop_nulls().unique())
    if len(kinds) > 1:
        raise UsageError(
            f"{foreign.path}: boundary: {', '.join(kinds)}: different boundaries are not comparable; import them apart"
        )
    # provenance and boundary are meaningless without joules
    has_energy = pl.col("energy_j").is_not_null()
    return frame.with_columns(
        pl.when(has_energy).then(pl.col(name)).alias(name) for name in ("provenance", "boundary", "uncertainty_j")
    )
