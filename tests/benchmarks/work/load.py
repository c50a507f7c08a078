"""Do joules repeat? Runs a suite next to other busy processes, by CPU time (`estimate`) and by counted work (`work`).

    python -m tests.benchmarks.work.load demo --limit 6 --busy 0,2,4,8 --repeats 2 --out DIR

Runs that exist in DIR are not repeated. Prints for each meter the spread of a cell's J/image over all runs, the order
of the cells, ladders that are not monotone, and the point that `perjoule recommend` chooses.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import polars as pl

from perjoule.runs.directory import load_run
from perjoule.suite.reading import cells_of

METERS = ("estimate", "work")
_PERJOULE = [sys.executable, "-m", "perjoule"]


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep processes busy meanwhile."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def run_all(suite: str, limit: int, loads: list[int], repeats: int, out: Path) -> dict[str, list[Path]]:
    """Return the runs of each meter."""
    runs: dict[str, list[Path]] = {meter: [] for meter in METERS}
    for load in loads:
        for repeat in range(repeats):
            for meter in METERS:
                path = out / f"{meter}-{load}-{repeat}"
                if not (path / "points.parquet").exists():
                    with busy(load):
                        subprocess.run(
                            [*_PERJOULE, "run", suite, "--limit", str(limit), "--meter", meter, "--out", path, "-q"],
                            check=True,
                        )
                runs[meter].append(path)
    return runs


def energies(paths: list[Path]) -> pl.DataFrame:
    """Return mean J/image: one row per cell, one column per run."""
    frames = []
    for path in paths:
        windows = load_run(path).windows
        means = windows.group_by("cell_id").agg(pl.col("energy_j_per_image").mean().alias(path.name))
        frames.append(means)
    frame = frames[0]
    for other in frames[1:]:
        frame = frame.join(other, on="cell_id")
    return frame.sort("cell_id")


def report(paths: list[Path]) -> Iterator[str]:
    """Yield lines about the runs of a meter."""
    table = energies(paths)
    names = [path.name for path in paths]
    spreads = table.select("cell_id", spread=pl.max_horizontal(names) / pl.min_horizontal(names) - 1).sort("spread")
    worst = spreads.row(-1)
    median = float(spreads["spread"].to_numpy()[len(spreads) // 2])
    yield f"  spread of a cell over {len(paths)} runs: median {median:.2%}, worst {worst[1]:.2%} ({worst[0]})"
    orders = {tuple(table.sort(name)["cell_id"]) for name in names}
    yield f"  orders of the {len(table)} cells by J/image: {len(orders)}"
    run = load_run(paths[0])
    rungs = [cell for cell in cells_of(run.suite) if cell.steps is not None]
    falls, pairs = 0, 0
    for variant in {cell.variant.name for cell in rungs}:
        steps = sorted((cell.steps or 0, cell.cell_id) for cell in rungs if cell.variant.name == variant)
        for (_, lower), (_, upper) in pairwise(steps):
            for name in names:
                low, high = (table.filter(pl.col("cell_id") == c)[name].item() for c in (lower, upper))
                falls, pairs = falls + (high <= low), pairs + 1
    yield f"  more steps that cost less: {falls} of {pairs} neighbouring rungs"
    yield f"  recommended at 0.95 of the best mean quality: {', '.join(sorted(map(str, advice(paths))))}"


def advice(paths: list[Path]) -> set[str | None]:
    """Return the points that are recommended for the same wanted quality."""
    points = load_run(paths[0]).points
    metric = load_run(paths[0]).suite.metrics.primary
    best = points.filter(pl.col("metric") == metric)["quality"].max()
    chosen = set()
    for path in paths:
        done = subprocess.run(
            [*_PERJOULE, "recommend", path, "--min-quality", str(0.95 * float(best)), "--by-point", "--json"],  # type: ignore[arg-type]
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        chosen.add(json.loads(done.stdout)["chosen"]["cell_id"] if done.returncode == 0 else None)
    return chosen


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite")
    parser.add_argument("--limit", type=int, default=6)
    parser.add_argument("--busy", default="0,2,4,8")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    loads = [int(word) for word in chosen.busy.split(",")]
    for meter, paths in run_all(chosen.suite, chosen.limit, loads, chosen.repeats, chosen.out).items():
        print(meter, *report(paths), sep="\n")


if __name__ == "__main__":
    main()
