"""The share of wall time per pipeline phase, as numbers, a table and a figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from perjoule.statistics.facts import was_stopped
from perjoule_reports.drawing.canvas import Room, render
from perjoule_reports.drawing.svg import CARD, SERIES, Svg, embed
from perjoule_reports.evidence import Arm, Evidence
from perjoule_reports.format import clean, finite
from perjoule_reports.records import Cell, Column, RunData, Table
from perjoule_reports.sections.tables import arm_cell

# in the order of the pipeline: display names and colours, the same in every figure
PHASES = {
    "text_encoder": ("text encoder", SERIES[4]),
    "predictor": ("predictor", SERIES[3]),
    "denoise": ("denoise", SERIES[0]),
    "vae_decode": ("VAE", SERIES[2]),
    "host": ("host", SERIES[5]),
}
_OTHER = SERIES[1]


def phase_word(phase: str) -> str:
    """Return the display name of a phase."""
    return PHASES[phase][0] if phase in PHASES else phase


def phase_colour(phase: str) -> str:
    """Return a phase's colour; phases that only some pipelines have share one."""
    return PHASES[phase][1] if phase in PHASES else _OTHER


def in_order(names: Iterable[str]) -> list[str]:
    """Return phases in the order of the pipeline, unknown ones before the VAE."""
    places = [*PHASES]
    unknown = places.index("vae_decode") - 0.5
    return sorted(dict.fromkeys(names), key=lambda n: places.index(n) if n in PHASES else unknown)


def phase_seconds(run: RunData, evidence: Evidence) -> list[tuple[Arm, dict[str, float]]]:
    """Sum the wall seconds per phase over the trials of each cell; cells that recorded none are left out."""
    by_cell = _sums(run)
    every = ((arm, by_cell.get(arm.cell_id, {})) for arm in evidence.arms)
    return [(arm, seconds) for arm, seconds in every if sum(seconds.values()) > 0]


def _sums(run: RunData) -> dict[str, dict[str, float]]:
    trials = run.trials.filter(~was_stopped() & ~pl.col("phases_s").str.strip_chars().is_in(["", "{}"]))
    if trials.is_empty():
        return {}
    cells, phases = trials.select("cell_id", "phases_s").get_columns()
    seconds = phases.str.json_decode(infer_schema_length=None).struct.unnest()
    sums = seconds.cast(pl.Float64, strict=False).with_columns(cells).group_by("cell_id", maintain_order=True).sum()
    by_cell = {}
    for row in sums.iter_rows(named=True):
        cell = str(row.pop("cell_id"))
        by_cell[cell] = {clean(name): value for name, value in row.items() if finite(value)}
    return by_cell


def phase_table(evidence: Evidence, cells: Sequence[tuple[Arm, dict[str, float]]]) -> Table:
    """The numbers of the phase bars."""
    names = in_order(phase for _, seconds in cells for phase in seconds)
    rows = []
    for arm, seconds in cells:
        shares = [100 * seconds.get(name, 0.0) / sum(seconds.values()) for name in names]
        rows.append((arm_cell(evidence, arm), *(Cell(text=f"{s:.1f}", sort=s) for s in shares)))
    columns = (
        Column(title="cell"),
        *(Column(title=phase_word(name), unit="% of time", numeric=True) for name in names),
    )
    return Table(caption="Share of wall time per phase", columns=columns, rows=tuple(rows))


def phase_shares(cells: Sequence[tuple[str, dict[str, float]]], name: str, size: tuple[float, float]) -> Svg:
    """Draw the share of wall time per pipeline phase, one bar per cell.

    Args:
        cells: Label and seconds by phase of each cell.
        name: Prefix of ids.
        size: Size in inches; the height follows from the number of cells.
    """
    names = in_order(phase for _, seconds in cells for phase in seconds)

    def draw(axes: Axes) -> None:
        left = [0.0] * len(cells)
        for phase in names:
            shares = [100 * s.get(phase, 0.0) / sum(s.values()) for _, s in cells]
            colour = phase_colour(phase)
            bars = [  # one collection per phase: patches of their own take twice as long
                [(start, row - 0.36), (start + share, row - 0.36), (start + share, row + 0.36), (start, row + 0.36)]
                for row, (start, share) in enumerate(zip(left, shares, strict=True))
            ]
            axes.add_collection(
                PolyCollection(bars, facecolor=colour, edgecolor=CARD, linewidth=1.5, label=phase_word(phase)),
                autolim=False,
            )
            for row, share in enumerate(shares):
                if share >= (7 if size[0] > 6 else 13):
                    axes.text(left[row] + share / 2, row, f"{share:.0f}", ha="center", va="center", fontsize=8.5,
                              color=CARD, fontweight="bold")  # fmt: skip
            left = [a + b for a, b in zip(left, shares, strict=True)]
        axes.set_yticks(range(len(cells)), [label for label, _ in cells], fontsize=9)
        axes.set_ylim(len(cells) - 0.5, -0.5)
        axes.set_xlim(0, 100)
        axes.set_xlabel("share of wall time (%), not of joules")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=6 if size[0] > 6 else 2, frameon=False, fontsize=9,
                    handlelength=1.2, handletextpad=0.5, columnspacing=1.4, borderaxespad=0.2)  # fmt: skip

    height = 1.0 + 0.25 * len(cells)
    return embed(
        render(draw, (size[0], height), Room(top=0.3 + 0.2 * -(-len(names) // (6 if size[0] > 6 else 2)))),
        name=name,
        title="Share of wall time per pipeline phase",
        description="Stacked bars, one per cell; the table next to the figure contains the numbers.",
        tooltips={},
    )
