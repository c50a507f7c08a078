"""The page and the figure that the comparison ends in."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from tests.benchmarks.meters.tools import TOOLS

Row = dict[str, Any]
Virtual = dict[str, Any]
TOOL_COLOURS = {"perjoule": "#0072b2", "Zeus 0.16": "#d55e00", "counter difference": "#e69f00"}
INTRODUCTION = """\
# The energy meter compared with other tools

All tools read the same simulated board through the ordinary `pynvml` binding, in real time, each in a process of its
own. Its energy is known in closed form, so every number below is an error, not an opinion. The board: energy counter
refreshed every 100 ms, instant power a mean over 25 ms every 100 ms, `nvmlDeviceGetPowerUsage` a mean over 1 s (as on
Ampere and newer, except A100), 60 W at rest and 300 W at work. Windows have length W + U(0, 100 ms) and begin anywhere:
windows of whole periods stay in phase with the counter and make a bad meter look good.

What no simulation shows: the gain of a real sensor, 5 % in either direction and more
([arXiv 2312.02741](https://arxiv.org/abs/2312.02741)). It is in every tool's number, and in no tool's bound.

Made by `python -m tests.benchmarks.meters`; the windows one by one are in [meters.jsonl](meters.jsonl).
"""


FIGURE = """\
<picture>
  <source media="(prefers-color-scheme: dark)" srcset="images/meters-dark.svg">
  <img alt="Largest error against window length, for work between rests" src="images/meters-light.svg">
</picture>
"""


def errors(rows: Iterable[Row], wave: str) -> dict[tuple[str, float], list[float]]:
    """(tool, length in s) -> relative errors; a window without a number, or with 0 J, is off by all of it."""
    found: dict[tuple[str, float], list[float]] = defaultdict(list)
    for row in rows:
        if row.get("wave") == wave and "truth_j" in row:
            energy_j = row.get("energy_j") or 0.0
            found[row["tool"], row["length_s"]].append(energy_j / row["truth_j"] - 1)
    return found


def write_page(rows: Sequence[Row], virtual: Virtual, file: Path, *, quick: bool, machine: str) -> None:
    """Markdown: a table per wave, the bound's coverage, the fault matrix."""
    parts = [INTRODUCTION, f"{machine}\n"]
    if quick:
        parts.append("**A quick run: a tenth of the windows.**\n")
    parts.append(FIGURE)
    waves = list(dict.fromkeys(row["wave"] for row in rows if row.get("wave")))
    for wave in sorted(waves, key=lambda name: name != "idle-work-idle"):
        parts += [f"## {_title(wave)}\n", _error_table(rows, wave), ""]
    parts += [
        "## Does perjoule's bound hold?\n",
        "In real time, in the windows of the tables above:\n",
        _coverage(rows),
        "",
    ]
    parts += [_virtual(virtual)]
    parts += ["## Faults\n", FAULT_WORDS, _fault_table(rows), ""]
    file.write_text("\n".join(parts), encoding="utf-8")


def _virtual(found: Virtual) -> str:
    """What `virtual` found."""
    claims = found["claims"]
    lines = [
        f"On virtual time, where windows cost nothing: {found['windows']} windows of 50 ms to 5 s over counter periods "
        "of 10, 20, 50, 100 and 200 ms and six waves (work between rests, constant, squares of 1 s, 200 ms and 37 ms, "
        f"bursts of 15 ms), noise 1.5 W. The error is within the bound in {found['covered']:.2%} of them. Median bound "
        f"{found['median_bound_j']:.2f} J, 95th percentile of the error {found['p95_j']:.2f} J. No number at all: "
        f"{found['no_number']}.\n",
        "| counter period | wave | within the bound | median bound | 95th percentile of the error |",
        "|---" * 5 + "|",
    ]
    for cell in found["cells"]:
        lines.append(
            f"| {1000 * cell['period_s']:g} ms | {cell['wave']} | {cell['covered']:.1%} of {cell['windows']} "
            f"| {cell['median_bound_j']:.2f} J | {cell['p95_j']:.2f} J |"
        )
    lines += [
        "",
        "Work between rests on virtual time, without the noise of a machine's scheduler:\n",
        "| | " + " | ".join(_length(one["length_s"]) for one in found["accuracy"]) + " |",
        "|---" * (len(found["accuracy"]) + 1) + "|",
        "| mean / largest error in % | "
        + " | ".join(f"{one['mean']:+.3f} / {one['largest']:.3f}".replace("-", "−") for one in found["accuracy"])
        + " |",
        "| *windows* | " + " | ".join(str(one["windows"]) for one in found["accuracy"]) + " |",
        "",
        f"Asked for 1 % in {claims['windows']} windows of 200 to 300 ms, over the six waves: {claims['claimed']} "
        f"readings claim it, the others carry W201; {claims['false']} of those that claim it are off by more.\n",
    ]
    return "\n".join(lines)


FAULT_WORDS = """\
A window of 6 s over a square wave of 200 ms (1080 J); the fault is there from the start, or comes half way (540 J until
then). *silent*: a number that is off by more than 5 %, and by more than its bound if it has one, with no warning in the
result, in the tool's log or on stderr.
"""


def _title(wave: str) -> str:
    return {"idle-work-idle": "Work between rests (idle noise 1.5 W)"}.get(wave, f"Power that never rests: {wave}")


def _error_table(rows: Sequence[Row], wave: str) -> str:
    found = errors(rows, wave)
    lengths = sorted({length for _, length in found})
    head = "| mean / largest error in % | " + " | ".join(f"{_length(length)}" for length in lengths) + " |"
    lines = [head, "|---" * (len(lengths) + 1) + "|"]
    for tool in TOOLS:
        if any(name == tool for name, _ in found):
            cells = [_cell(found.get((tool, length), [])) for length in lengths]
            lines.append(f"| {'**perjoule**' if tool == 'perjoule' else tool} | " + " | ".join(cells) + " |")
    counts = [len(found.get(("perjoule", length), [])) for length in lengths]
    lines.append("| *windows per tool* | " + " | ".join(str(count) for count in counts) + " |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "no number"
    return f"{100 * fmean(values):+.2f} / {100 * max(map(abs, values)):.2f}".replace("-", "−")


def _length(length_s: float) -> str:
    return f"{1000 * length_s:g} ms" if length_s < 1 else f"{length_s:g} s"


def _coverage(rows: Sequence[Row]) -> str:
    lines = [
        "| wave | windows | error within the bound | median bound | 95th percentile of the error |",
        "|---" * 5 + "|",
    ]
    for wave in dict.fromkeys(row["wave"] for row in rows if row.get("wave")):
        mine = [r for r in rows if r.get("wave") == wave and r["tool"] == "perjoule" and r.get("bound_j") is not None]
        if not mine:
            continue
        off = sorted(abs(r["energy_j"] - r["truth_j"]) for r in mine)
        held = sum(abs(r["energy_j"] - r["truth_j"]) <= r["bound_j"] for r in mine)
        bounds = sorted(r["bound_j"] for r in mine)
        p95 = off[min(math.ceil(0.95 * len(off)) - 1, len(off) - 1)]
        middle = bounds[len(bounds) // 2]
        lines.append(f"| {wave} | {len(mine)} | {held / len(mine):.1%} | {middle:.2f} J | {p95:.2f} J |")
    return "\n".join(lines)


def _fault_table(rows: Sequence[Row]) -> str:
    tools = [tool for tool in TOOLS if any(row["tool"] == tool and row.get("case") for row in rows)]
    lines = ["| fault | " + " | ".join(tools) + " |", "|---" * (len(tools) + 1) + "|"]
    for case in sorted({row["case"] for row in rows if row.get("case")}):
        cells = []
        for tool in tools:
            row = next((one for one in rows if one.get("case") == case and one["tool"] == tool), None)
            cells.append("–" if row is None else verdict(row))
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdict(row: Row) -> str:
    """One cell of the fault matrix."""
    if "died" in row:
        return f"died: {row['died'][:60]}"
    if row.get("raised"):
        kept = f"; kept {row['partial_j']:.0f} J" if row.get("partial_j") else ""
        return f"raised {row['raised'].split(':')[0]}{kept}"
    energy_j, flags = row.get("energy_j"), ", ".join(dict.fromkeys(row.get("flags", [])))
    if energy_j is None:
        part = f", {row['partial_j']:.0f} J until the fault" if row.get("partial_j") else ""
        return f"no number{part} ({flags})"
    off = energy_j / row["truth_j"] - 1 if row["truth_j"] else math.inf
    bound = f" ± {row['bound_j']:.0f}" if row.get("bound_j") else ""
    said = f"{energy_j:.0f}{bound} J ({off:+.1%}".replace("-", "−") + (f", {flags})" if flags else ")")
    within = row.get("bound_j") and abs(energy_j - row["truth_j"]) <= row["bound_j"]
    wrong = abs(off) > 0.05 and not within
    return f"{said} **silent**" if wrong and not flags else said


def write_figure(rows: Sequence[Row], folder: Path) -> None:
    """Largest error against window length, for work between rests: one file for light pages, one for dark ones."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    found = errors(rows, "idle-work-idle")
    folder.mkdir(parents=True, exist_ok=True)
    for theme, ink, paper in (("light", "#1b1f24", "#ffffff"), ("dark", "#e6e6e6", "#14171a")):
        mpl.rcParams.update({"svg.hashsalt": "perjoule", "text.color": ink, "axes.edgecolor": ink, "font.size": 10})
        mpl.rcParams.update({"axes.labelcolor": ink, "xtick.color": ink, "ytick.color": ink, "svg.fonttype": "none"})
        figure, axes = plt.subplots(figsize=(7.2, 4.2), facecolor=paper)
        axes.set_facecolor(paper)
        for tool, marker in zip(TOOLS, "ovsD^x", strict=True):
            points = sorted((length, 100 * max(map(abs, v))) for (name, length), v in found.items() if name == tool)
            if not points:
                continue
            ours = tool == "perjoule"
            axes.plot(
                [length for length, _ in points],
                [max(error, 0.01) for _, error in points],
                label=tool,
                marker=marker,
                color=TOOL_COLOURS.get(tool, "#888888"),
                linewidth=2.4 if ours else 1.2,
                linestyle="-" if tool in TOOL_COLOURS else ":",
                zorder=3 if ours else 2,
            )
        axes.set(xscale="log", yscale="log", xlabel="window length in s", ylabel="largest error in %")
        lengths = sorted({length for _, length in found})
        axes.set_xticks(lengths, [f"{length:g}" for length in lengths])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)
        axes.axhline(1.0, color=ink, linewidth=0.6, linestyle="--")
        axes.set_title("Work between rests: how far off can one window be?", loc="left", fontsize=11)
        axes.grid(True, which="major", linewidth=0.3)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        figure.tight_layout()
        figure.savefig(folder / f"meters-{theme}.svg", metadata={"Date": None})
        plt.close(figure)
