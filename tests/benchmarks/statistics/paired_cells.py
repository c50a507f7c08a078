"""Two cells of a scored run, paired by prompt: joules, and the difference of each metric with its 95 % interval.

python -m tests.benchmarks.statistics.paired_cells RUN half-012:guided-012
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

from perjoule.runs.directory import Run, load_run
from perjoule.statistics.grid import read_grid
from perjoule.statistics.resampling import over_seeds, resample_means


def lines(run: Run, first: str, second: str) -> Iterator[str]:
    """Yield the joules of two cells, and first − second of each metric."""
    grid = read_grid(run, tuple(run.metrics))
    one, other = grid.cells.index(first), grid.cells.index(second)
    mine_j, their_j = np.nanmean(grid.energy_j[:, :, [one, other]], axis=(0, 1))
    yield f"{first}: {mine_j:.3g} J/image, {1 - mine_j / their_j:.1%} less than {second}"
    for name, values in grid.quality.items():
        difference = over_seeds(values[:, :, one]) - over_seeds(values[:, :, other])
        estimate = resample_means(difference[:, None, None]).estimate(lambda rows: rows[:, 0], what="difference")
        yield f"  {name}: {estimate.value:+.4f} [{estimate.low:+.4f}, {estimate.high:+.4f}], n = {estimate.n}"


def main() -> None:
    """Print the pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("pairs", nargs="+", metavar="CELL:CELL")
    chosen = parser.parse_args()
    run = load_run(chosen.run)
    for pair in chosen.pairs:
        print(*lines(run, *pair.split(":")), sep="\n")


if __name__ == "__main__":
    main()
