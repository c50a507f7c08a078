"""CPU seconds, wall seconds and peak memory of `frontier`, `report` and `gate` on big runs stored as Parquet.

    nice python -m tests.benchmarks.statistics.million [FOLDER] [--most 10000000]

30 arms (3 variants at ten step counts), 3 metrics, 10,000 resamples; 10⁴, 10⁵ and 10⁶ trials of one image. Larger runs,
up to `--most`, are ten copies of the run before, each with prompts of its own; only `frontier` is measured on them.
"""

from __future__ import annotations

import argparse
import os
import shutil
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


def enlarged(run: Path, out: Path) -> None:
    """Write ten copies of a run as one, each with prompts of its own."""
    out.mkdir()
    for name in ("environment.json", "metrics.json", "suite.toml"):
        shutil.copy(run / name, out / name)
    lines = (run / "prompts.jsonl").read_text("utf-8").splitlines(keepends=True)
    copies = [line.replace('"p0', f'"p{copy}', 1) for copy in range(10) for line in lines]
    (out / "prompts.jsonl").write_text("".join(copies), "utf-8")
    for table_name, ids in (("scores", ["image_id", "prompt_id"]), ("trials", ["trial_id"])):
        frame = pl.scan_parquet(run / f"{table_name}.parquet")
        parts = []
        for copy in range(10):
            renamed = [pl.col(name).str.replace(r"\bp0", f"p{copy}") for name in ids]
            if table_name == "trials":
                first = pl.col("prompt_ids").list.first().str.replace("^p0", f"p{copy}")
                renamed.append(pl.concat_list(first).alias("prompt_ids"))
            parts.append(frame.with_columns(renamed))
        pl.concat(parts).sink_parquet(out / f"{table_name}.parquet")


def measured(*arguments: str) -> tuple[float, float, float]:
    """Run a command of perjoule. -> (CPU seconds, wall seconds, peak MiB)."""
    command = [str(Path(sys.executable).with_name("perjoule")), *arguments]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)  # of this child alone; the peak of all children is kept otherwise
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1, 3):
        raise subprocess.CalledProcessError(process.returncode, command)
    return used.ru_utime + used.ru_stime, time.perf_counter() - began, used.ru_maxrss / 1024


def main() -> None:
    """Print one line per size and command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--most", type=int, default=1_000_000)
    asked = parser.parse_args()
    root = asked.folder or Path(tempfile.mkdtemp())
    root.mkdir(parents=True, exist_ok=True)
    print(f"{'trials':>9} {'command':>9} {'CPU s':>7} {'wall s':>7} {'peak MiB':>9}")
    for trials in (10**power for power in range(4, 10) if 10**power <= asked.most):
        run = root / f"run-{trials}"
        if not run.exists() and trials > 1_000_000:
            enlarged(root / f"run-{trials // 10}", run)
        elif not run.exists():
            table(trials).write_parquet(root / f"{trials}.parquet")
            import_table(root / f"{trials}.parquet", run)
        commands = {
            "frontier": ("frontier", str(run), "--json"),
            "report": ("report", str(run), "--out", str(root / "report.html")),
            "gate": ("gate", "--baseline", str(run), "--candidate", str(run), "--margin-quality", "0.02", "--json"),
        }
        for name, arguments in commands.items() if trials <= 1_000_000 else [("frontier", commands["frontier"])]:
            cpu, wall, peak = measured(*arguments)
            print(f"{trials:9} {name:>9} {cpu:7.1f} {wall:7.1f} {peak:9.0f}", flush=True)


if __name__ == "__main__":
    main()
