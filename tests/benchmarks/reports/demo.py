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

# the prompt is the first of the suite that a caption leaves half open
METRIC, CATEGORY = "scene", "half open"
SHOWN = {"sd-tiny-lcm-001": "few-step student", "sd-tiny-004": "full model", "sd-tiny-012": "full model"}
BLUE, ORANGE, GREY, GREEN, PURPLE, PINK = "#1f5f99", "#c8571b", "#555555", "#1a7f5a", "#7a4fa3", "#c2528b"
FILES = (
    "devices.jsonl", "environment.json", "images.parquet", "metrics.json", "points.parquet", "power.parquet",
    "prompts.jsonl", "scores.parquet", "suite.toml", "traces.jsonl", "trials.jsonl",
)  # fmt: skip


def shown_prompt(run: Path) -> dict[str, Any]:
    """The prompt of the images."""
    prompts = [json.loads(line) for line in (run / "prompts.jsonl").read_text(encoding="utf-8").splitlines()]
    found: dict[str, Any] = next(prompt for prompt in prompts if prompt["category"] == CATEGORY)
    return found


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
    names = shown_images(run) | {f"{cell}.{shown_prompt(run)['prompt_id']}.s1.png" for cell in SHOWN}
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
    """Draw the frontier next to some images of one prompt."""
    points = load_run(run).points.filter(pl.col("metric") == METRIC)
    prompt = shown_prompt(run)
    figure = plt.figure(figsize=(11, 4.4), dpi=150, layout="constrained")
    grid = figure.add_gridspec(1, 1 + len(SHOWN), width_ratios=(2.4, *[0.72] * len(SHOWN)))
    axes = figure.add_subplot(grid[0])
    for variant, colour, marker, label in (
        ("sd-tiny", BLUE, "o", "fixed steps"),
        ("sd-tiny-trailing", GREY, "v", "fixed steps, evenly spaced"),
        ("budgetfusion", ORANGE, "s", "steps predicted per prompt"),
        ("shuffled", GREY, "x", "control: predicted steps, shuffled"),
        ("peek", PINK, "D", "steps predicted after a peek"),
        ("sd-tiny-lcm", GREEN, "^", "few-step student"),
        ("sd-tiny-pruned", PURPLE, "P", "pruned student"),
    ):
        rows = points.filter(pl.col("variant") == variant)
        x, y = rows["energy_j_per_image"].to_numpy(), rows["quality"].to_numpy()
        across = [x - rows["energy_low"].to_numpy(), rows["energy_high"].to_numpy() - x]
        up = [y - rows["quality_low"].to_numpy(), rows["quality_high"].to_numpy() - y]
        axes.errorbar(x, y, up, across, fmt=marker, color=colour, ms=6, lw=1, alpha=0.9, label=label)
    front = points.filter(pl.col("on_frontier")).sort("energy_j_per_image")
    axes.step(
        front["energy_j_per_image"], front["quality"], where="post", color=BLUE, lw=1, alpha=0.5, label="frontier"
    )
    for row in points.filter(pl.col("variant") == "sd-tiny").iter_rows(named=True):
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
    ticks = [0.1, 0.2, 0.5, 1, 2]
    axes.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("J/image, estimated from counted work (95 % intervals over prompts)")
    axes.set_ylabel("scene: share of the caption's facts × integrity")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", fontsize=9)
    for column, (cell, label) in enumerate(SHOWN.items(), start=1):
        row = points.row(by_predicate=pl.col("cell_id") == cell, named=True)
        image = figure.add_subplot(grid[column])
        with Image.open(run / "images" / f"{cell}.{prompt['prompt_id']}.s1.png") as pixels:
            image.imshow(pixels.convert("RGB"), interpolation="nearest")
        image.set_axis_off()
        steps = row["steps_mean"]
        image.set_title(
            f"{label}\n{steps:.0f} step{'s' if steps > 1 else ''}, {row['energy_j_per_image']:.2f} J\n"
            f"scene {row['quality']:.2f}",
            fontsize=10,
        )
    figure.supxlabel(
        f'Images: "{prompt["text"]}"; joules and scene are means over the 96 images of a cell',
        fontsize=9,
        x=0.99,
        ha="right",
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
