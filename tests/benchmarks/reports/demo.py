"""Make what the docs show of a run of the suite `demo`: a picture, and the part of the run that its report needs.

python -m tests.benchmarks.reports.demo RUN docs
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import polars as pl
from PIL import Image

from perjoule.runs.directory import load_run
from perjoule_reports import build_report, render_html

METRIC, FAMILY, PROMPT = "cvvdp", "sd-tiny", "039d5a1413"
SHOWN = ("sd-tiny-ddim-004", "sd-tiny-ddim-025")
BLUE, ORANGE, GREY = "#1f5f99", "#c8571b", "#555555"
FILES = (
    "devices.jsonl", "environment.json", "images.parquet", "metrics.json", "points.parquet", "power.parquet",
    "prompts.jsonl", "scores.parquet", "suite.toml", "traces.jsonl", "trials.jsonl",
)  # fmt: skip


def shown_images(run: Path) -> set[str]:
    """Names of the image files that the report of a run opens."""
    names: set[str] = set()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and str(arguments[0]).endswith(".png"):
            names.add(Path(arguments[0]).name)

    sys.addaudithook(hook)
    render_html(build_report(load_run(run)))
    return names


def bundle(run: Path, out: Path) -> None:
    """Write the run, with only the images that its report and the README show, and without paths of this machine."""
    names = shown_images(run) | {f"{cell}.{PROMPT}.s1.png" for cell in SHOWN}
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    environment |= {
        "command": ["perjoule", "run", "demo", "--out", "runs/demo"],
        "suite_folder": "perjoule_suites/files",
    }
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in [*FILES, *(f"images/{name}" for name in sorted(names))]:
            data = (
                json.dumps(environment, indent=2).encode() if name == "environment.json" else (run / name).read_bytes()
            )
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)


def picture(run: Path, out: Path) -> None:
    """Draw the frontier of the teacher's family next to two of its images."""
    points = load_run(run).points.filter(pl.col("metric") == METRIC, pl.col("family") == FAMILY)
    figure = plt.figure(figsize=(11, 4.4), dpi=150, layout="constrained")
    grid = figure.add_gridspec(1, 3, width_ratios=(2.1, 1, 1))
    axes = figure.add_subplot(grid[0])
    for role, colour, marker, label in (
        ("fixed", BLUE, "o", "fixed steps"),
        ("predicted", ORANGE, "s", "steps predicted per prompt"),
        ("control", GREY, "x", "control: predicted steps, shuffled"),
    ):
        rows = points.filter(pl.col("role") == role)
        x, y = rows["energy_j_per_image"].to_numpy(), rows["quality"].to_numpy()
        across = [x - rows["energy_low"].to_numpy(), rows["energy_high"].to_numpy() - x]
        up = [y - rows["quality_low"].to_numpy(), rows["quality_high"].to_numpy() - y]
        axes.errorbar(x, y, up, across, fmt=marker, color=colour, ms=6, lw=1, alpha=0.9, label=label)
    front = points.filter(pl.col("on_frontier")).sort("energy_j_per_image")
    axes.step(
        front["energy_j_per_image"], front["quality"], where="post", color=BLUE, lw=1, alpha=0.5, label="frontier"
    )
    for row in points.filter(pl.col("role") == "fixed").iter_rows(named=True):
        axes.annotate(
            f"{row['steps_mean']:.0f}",
            (row["energy_j_per_image"], row["quality"]),
            textcoords="offset points",
            xytext=(-7, 6),
            ha="right",
            fontsize=9,
            color=BLUE,
        )
    axes.set_xscale("log")
    axes.set_xticks([1, 2, 5, 10, 20, 50], labels=["1", "2", "5", "10", "20", "50"])
    axes.minorticks_off()
    axes.set_xlabel("J/image, ESTIMATED (95 % intervals)")
    axes.set_ylabel("fidelity to the 25-step image, JOD")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", fontsize=9)
    for column, cell in enumerate(SHOWN, start=1):
        row = points.row(by_predicate=pl.col("cell_id") == cell, named=True)
        image = figure.add_subplot(grid[column])
        with Image.open(run / "images" / f"{cell}.{PROMPT}.s1.png") as pixels:
            image.imshow(pixels.convert("RGB"), interpolation="nearest")
        image.set_axis_off()
        image.set_title(
            f"{row['steps_mean']:.0f} steps: {row['energy_j_per_image']:.1f} J, estimated\n{row['quality']:.1f} JOD",
            fontsize=11,
        )
    prompts = [json.loads(line) for line in (run / "prompts.jsonl").read_text(encoding="utf-8").splitlines()]
    (text,) = (prompt["text"] for prompt in prompts if prompt["prompt_id"] == PROMPT)
    figure.supxlabel(
        f'Images: "{text}"; joules and JOD are means over the 48 images of a cell', fontsize=9, x=0.99, ha="right"
    )
    figure.savefig(out)
    with Image.open(out) as whole:
        whole.convert("RGB").save(out, optimize=True)


def main(run: str, docs: str) -> None:
    """Make both."""
    bundle(Path(run), Path(docs) / "demo-run.zip")
    picture(Path(run), Path(docs) / "images" / "demo-frontier.png")


if __name__ == "__main__":
    main(*sys.argv[1:3])
