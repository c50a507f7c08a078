"""Rows of the table of operating points as records, for the readers of `points.parquet`."""

from __future__ import annotations

from dataclasses import dataclass, fields

import polars as pl

from perjoule.runs.columns import POINT_COLUMNS
from perjoule.statistics.facts import finite
from perjoule.statistics.records import Point
from perjoule.statistics.resampling import LEVEL
from perjoule.types import Direction, Estimate, Provenance, Role, Track


@dataclass(frozen=True, slots=True, kw_only=True)
class PointRow:
    """A cell under one metric: a field for each of `POINT_COLUMNS`. Numbers that are NaN or infinite are None.

    `metric` is None in a run without quality. Columns that the run's version of perjoule did not have are None.
    """

    cell_id: str
    variant: str
    role: Role | None
    policy: str | None
    family: str | None
    steps_mean: float | None
    nfe_mean: float | None
    flops_per_image: float | None
    energy_j_per_image: float | None
    energy_low: float | None
    energy_high: float | None
    energy_bound_j_per_image: float | None
    energy_n: int | None
    energy_method: str | None
    metric: str | None
    direction: Direction | None
    track: Track | None
    quality: float | None
    quality_low: float | None
    quality_high: float | None
    quality_n: int | None
    quality_method: str | None
    unscored_count: int | None
    duration_s_per_image: float | None
    n_prompts: int | None
    n_seeds: int | None
    provenance: Provenance | None
    boundary: str | None
    on_frontier: bool | None
    p_on_frontier: float | None
    dropped: str | None

    @property
    def energy_estimate(self) -> Estimate:
        """Energy in J/image with its interval."""
        return Estimate(
            value=self.energy_j_per_image,
            low=self.energy_low,
            high=self.energy_high,
            level=LEVEL,
            n=self.energy_n or 0,
            method=self.energy_method or "",
        )

    @property
    def quality_estimate(self) -> Estimate:
        """Quality with its interval."""
        return Estimate(
            value=self.quality,
            low=self.quality_low,
            high=self.quality_high,
            level=LEVEL,
            n=self.quality_n or 0,
            method=self.quality_method or "",
        )

    def point(self, quality_p10: Estimate) -> Point:
        """Return the operating point, with the quality that one image in ten does not reach."""
        shared = {name: getattr(self, name) for name in _SHARED}
        estimates = {"energy_j_per_image": self.energy_estimate, "quality": self.quality_estimate}
        return Point(**shared | estimates, quality_p10=quality_p10)


_SHARED = [field.name for field in fields(Point) if field.name != "quality_p10"]


def point_rows(table: pl.DataFrame) -> list[PointRow]:
    """Return the rows of a table with the columns of `POINT_COLUMNS`; further columns are ignored."""
    return [PointRow(**row) for row in finite(table.select(*POINT_COLUMNS)).iter_rows(named=True)]
