"""The page and the figure that the comparison ends in."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, median
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
    parts += _recorded(rows, virtual)
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


RECORDED = """\
## Power of real boards

Recordings of real boards by Yang, Adamek and Armour ([arXiv 2312.02741](https://arxiv.org/abs/2312.02741), MIT licence)
have the power of all lines of a board, by an external meter at 4.9 kHz, before, during and after work. The simulated
board draws that power, and the tools read its counter. A window is work of 50 ms to 5 s (drawn on a logarithmic scale),
cut out of the middle of the recorded work, so that rise and fall are the recorded ones; the rest after it is the
recorded one too. Truth is the external meter. Nothing in the meter was fitted to these boards.

Real boards differ from the board above in three ways. They fall to their rest over milliseconds after the device is
done (4090: 203 W for 3 ms at the end of the work, and 87 W from then on). They rest at a higher power after work than
before it (3090: 134 and 162 W), and come down after seconds. And nobody says whether the counter lags. So the meter

- takes the rest after the work from the refreshes after it, and the rest before it from those before it;
- adds what a fall of at most 10 ms can draw to the bound, and less as soon as windows have shown less: an edge shortly
  after the end of the work shows what is still to come;
- closes a window late enough for a lag of 0.1 s until windows have shown that nothing comes later, and treats a rest
  that is higher after the work as possible work until a long average is excluded (W218);
- warns of a change of idle power (W208) only when it is not the usual one and moves net energy by 2 % or more.

"""


def _recorded(rows: Sequence[Row], virtual: Virtual) -> list[str]:
    """The section on recorded boards; empty if there were no recordings."""
    mine = [row for row in rows if row.get("board")]
    parts = []
    if mine:
        parts += [
            RECORDED,
            "In real time, counter refreshed every 100 ms:\n",
            _recorded_table(mine),
            "",
            FIGURE.replace("meters-", "recorded-").replace(
                "Largest error against window length, for work between rests",
                "95th percentile of the error against window length, on recorded boards",
            ),
            "The bound in real time, counter refreshed every 20, 50 and 100 ms:\n",
            _recorded_bounds(mine),
            "",
        ]
    found = virtual.get("recorded")
    if found:
        words = ("within the bound", "median bound", "95th percentile of the error", "mean error", "W208")
        every = found["all"]
        parts += [
            f"On virtual time, {every['windows']} windows: the error is within the bound in {every['covered']:.2%} of "
            f"them, the median bound is {every['median_bound_j']:.2f} J, the 95th percentile of the error "
            f"{every['p95_j']:.2f} J. W208 is in {every['w208']:.1%} of the windows.\n",
            "| board | counter period | " + " | ".join(words) + " |",
            "|---" * (len(words) + 2) + "|",
        ]
        for cell in [*found["cells"], *({"board": name, **one} for name, one in found["boards"].items())]:
            period = f"{1000 * cell['period_s']:g} ms" if "period_s" in cell else "all"
            parts.append(
                f"| {cell['board']} | {period} | {cell['covered']:.1%} of {cell['windows']} "
                f"| {cell['median_bound_j']:.2f} J | {cell['p95_j']:.2f} J | {cell['mean_j']:+.2f} J "
                f"| {cell['w208']:.1%} |".replace("-", "−", 1).replace("−half", "-half")
            )
        parts.append("")
    return parts


BINS_S = ((0.0, 0.15), (0.15, 0.5), (0.5, 1.5), (1.5, 6.0))


def _recorded_errors(rows: Sequence[Row]) -> dict[tuple[str, int], list[float]]:
    """(tool, number of the bin) -> relative errors at 100 ms; a window without a number is off by all of it."""
    found: dict[tuple[str, int], list[float]] = defaultdict(list)
    for row in rows:
        if row.get("board") and "truth_j" in row and row["period_s"] == 0.1:
            place = next(i for i, (low, high) in enumerate(BINS_S) if low <= row["length_s"] < high)
            found[row["tool"], place].append((row.get("energy_j") or 0.0) / row["truth_j"] - 1)
    return found


def _recorded_table(rows: Sequence[Row]) -> str:
    found = _recorded_errors(rows)
    heads = [f"{_length(max(low, 0.05))} to {_length(min(high, 5.0))}" for low, high in BINS_S]
    lines = ["| mean / largest error in % | " + " | ".join(heads) + " |", "|---" * (len(BINS_S) + 1) + "|"]
    for tool in TOOLS:
        if any(name == tool for name, _ in found):
            cells = [_cell(found.get((tool, place), [])) for place in range(len(BINS_S))]
            lines.append(f"| {'**perjoule**' if tool == 'perjoule' else tool} | " + " | ".join(cells) + " |")
    counts = [len(found.get(("perjoule", place), [])) for place in range(len(BINS_S))]
    lines.append("| *windows per tool* | " + " | ".join(str(count) for count in counts) + " |")
    return "\n".join(lines)


def _recorded_bounds(rows: Sequence[Row]) -> str:
    lines = [
        "| board | windows | error within the bound | median bound | 95th percentile of the error |",
        "|---" * 5 + "|",
    ]
    ours = [row for row in rows if row["tool"] == "perjoule" and row.get("bound_j") is not None]
    groups = [(name, [row for row in ours if row["board"] == name]) for name in dict.fromkeys(r["board"] for r in ours)]
    for name, group in [*groups, ("all", ours)]:
        off = sorted(abs(row["energy_j"] - row["truth_j"]) for row in group)
        held = fmean(abs(row["energy_j"] - row["truth_j"]) <= row["bound_j"] for row in group)
        p95_j = off[math.ceil(0.95 * len(off)) - 1]
        middle_j = median(row["bound_j"] for row in group)
        lines.append(f"| {name} | {len(group)} | {held:.1%} | {middle_j:.2f} J | {p95_j:.2f} J |")
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


def write_figures(rows: Sequence[Row], folder: Path) -> None:
    """Error against window length, for work between rests and for recorded boards."""
    every = errors(rows, "idle-work-idle")
    points = {
        tool: sorted((length, 100 * max(map(abs, v))) for (name, length), v in every.items() if name == tool)
        for tool in TOOLS
    }
    _figure(points, folder / "meters", "largest error in %", "Work between rests: how far off can one window be?")
    recorded = _recorded_errors(rows)
    points = {
        tool: [
            (math.sqrt(max(low, 0.05) * min(high, 5.0)), 100 * _p95(recorded[tool, place]))
            for place, (low, high) in enumerate(BINS_S)
            if (tool, place) in recorded
        ]
        for tool in TOOLS
    }
    if any(points.values()):
        title = "Recorded boards: how far off is one window in twenty?"
        _figure(points, folder / "recorded", "95th percentile of the error in %", title)


def _p95(values: Sequence[float]) -> float:
    return sorted(map(abs, values))[math.ceil(0.95 * len(values)) - 1]


def _figure(points: dict[str, list[tuple[float, float]]], file: Path, what: str, title: str) -> None:
    """One file for light pages, one for dark ones."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    file.parent.mkdir(parents=True, exist_ok=True)
    for theme, ink, paper in (("light", "#1b1f24", "#ffffff"), ("dark", "#e6e6e6", "#14171a")):
        mpl.rcParams.update({"svg.hashsalt": "perjoule", "text.color": ink, "axes.edgecolor": ink, "font.size": 10})
        mpl.rcParams.update({"axes.labelcolor": ink, "xtick.color": ink, "ytick.color": ink, "svg.fonttype": "none"})
        figure, axes = plt.subplots(figsize=(7.2, 4.2), facecolor=paper)
        axes.set_facecolor(paper)
        for tool, marker in zip(TOOLS, "ovsD^x", strict=True):
            if not points.get(tool):
                continue
            ours = tool == "perjoule"
            axes.plot(
                [length for length, _ in points[tool]],
                [max(error, 0.01) for _, error in points[tool]],
                label=tool,
                marker=marker,
                color=TOOL_COLOURS.get(tool, "#888888"),
                linewidth=2.4 if ours else 1.2,
                linestyle="-" if tool in TOOL_COLOURS else ":",
                zorder=3 if ours else 2,
            )
        axes.set(xscale="log", yscale="log", xlabel="window length in s", ylabel=what)
        lengths = sorted({length for some in points.values() for length, _ in some})
        axes.set_xticks(lengths, [f"{length:.2g}" for length in lengths])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)
        axes.axhline(1.0, color=ink, linewidth=0.6, linestyle="--")
        axes.set_title(title, loc="left", fontsize=11)
        axes.grid(True, which="major", linewidth=0.3)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        figure.tight_layout()
        figure.savefig(file.with_name(f"{file.name}-{theme}.svg"), metadata={"Date": None})
        plt.close(figure)
