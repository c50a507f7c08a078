"""Recordings of real boards next to an external meter (arXiv 2312.02741), where they exist; else tests are skipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

BOARDS = Path(__file__).parents[2].parent / "shared" / "data" / "boards"
if not BOARDS.is_dir():  # a worktree is one folder deeper
    BOARDS = Path(__file__).parents[3].parent / "shared" / "data" / "boards"
NAMES = ("3090", "4090", "k40m", "3090-half-duty")
PRESENT = all((BOARDS / name / "meter.parquet").is_file() for name in NAMES)


class Truth:
    """The energy of a recording, by its external meter."""

    def __init__(self, name: str) -> None:
        table = pl.read_parquet(BOARDS / name / "meter.parquet")
        self.t_s, power_w = table["t_s"].to_numpy(), table["power_w"].to_numpy()
        self._total_j = np.concatenate([[0], np.cumsum((power_w[1:] + power_w[:-1]) / 2 * np.diff(self.t_s))])

    def energy_j(self, begin_s: float, end_s: float) -> float:
        """Return the energy between two times."""
        begin_j, end_j = np.interp([begin_s, end_s], self.t_s, self._total_j)
        return float(end_j - begin_j)
