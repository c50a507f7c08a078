"""Figures of the study: curves, steps by kind of prompt, predicted against true t*, and the plane of all arms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from perjoule.files import replacing
from perjoule.runs.directory import Run
from perjoule.types import Role
from perjoule_suites.budgetfusion.study import Arms, arms_of, has_short_first, true_steps, with_full_batches

# Okabe and Ito's palette, with a marker for each role of an arm
_LOOKS: dict[Role, tuple[str, str]] = {
    "fixed": ("#000000", "o"),
    "predicted": ("#0072B2", "D"),
    "control": ("#999999", "x"),
    "distilled": ("#D55E00", "^"),
}
_PREDICTED = ("#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#F0E442", "#8C510A")


def draw_all(run: Run, folder: Path, metric: str | None = None) -> list[Path]:
    """Write the figures as PNG; returns the files.

    Args:
        run: A scored run with a ladder and adaptive arms.
        folder: Folder of the figures.
        metric: The quality on the axes; the suite's primary metric by default.
    """
    import matplotlib as mpl

    arms, name = arms_of(run), metric or run.suite.metrics.primary
    with mpl.rc_context():
        mpl.rcdefaults()  # not the matplotlibrc of the working directory, which can have LaTeX executed
        files = {
            "study-curves.png": _curves(arms),
            "study-steps.png": _steps(arms),
            "study-predicted.png": _predicted_and_true(arms),
            "study-frontier.png": _frontier(arms, name),
        }
        for file, figure in files.items():
            with replacing(folder / file) as opened:
                figure.savefig(opened, format="png", dpi=120, metadata={"Software": None})
    return [folder / file for file in files]


def _figure(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _ladder(arms: Arms) -> str:
    return next(name for name in arms.cells if arms.variant(name).policy == "fixed")


def _first_predicted(arms: Arms) -> str:
    """Return the first predicted arm on the ladder's own schedules, or the first of all."""
    names = [name for name in arms.cells if arms.variant(name).role == "predicted"]
    own = has_short_first(arms.variant(_ladder(arms)))
    return next((name for name in names if has_short_first(arms.variant(name)) == own), names[0])


def _categories(arms: Arms) -> dict[str, list[int]]:
    """Return the rows of the grid by kind of prompt."""
    kinds = {prompt.prompt_id: prompt.category for prompt in arms.run.prompt_set}
    rows_by_kind: dict[str, list[int]] = {}
    for row, prompt in enumerate(arms.grid.prompts):
        rows_by_kind.setdefault(kinds.get(prompt, "") or "all", []).append(row)
    return dict(sorted(rows_by_kind.items()))


def _curves(arms: Arms) -> Any:
    """Draw the mean curves of each kind of prompt along the ladder, one panel per metric."""
    name = _ladder(arms)
    metrics = [m for m in ("iclip", "cvvdp", "scene") if m in arms.run.metrics] or list(arms.run.metrics)[:3]
    figure, panels = _figure(3.6 * len(metrics), 3.2, len(metrics))
    steps = [cell.steps for cell in arms.cells[name]]
    for panel, metric in zip(panels, metrics, strict=True):
        for (kind, rows), colour in zip(_categories(arms).items(), _PREDICTED, strict=False):
            values = arms.quality(metric)[rows][:, :, arms.columns(name)]
            panel.plot(steps, np.nanmean(values, axis=(0, 1)), marker="o", ms=3, color=colour, label=kind)
        panel.set_xscale("log", base=2)
        panel.set_xticks(steps, [str(n) for n in steps])
        panel.minorticks_off()
        panel.set_title(metric, loc="left", fontsize=10)
        panel.set_xlabel("denoising steps")
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize=7, frameon=False)
    return figure


def _steps(arms: Arms) -> Any:
    """Draw the steps of the first predicted arm for each kind of prompt, one panel per level."""
    name = _first_predicted(arms)
    cells = arms.cells[name]
    figure, panels = _figure(2.5 * len(cells), 2.8, len(cells))
    kinds = _categories(arms)
    choices = sorted({int(n) for n in arms.steps[:, :, arms.columns(name)].ravel() if np.isfinite(n)})
    for panel, cell, column in zip(panels, cells, arms.columns(name), strict=True):
        below = np.zeros(len(choices))
        for (kind, rows), colour in zip(kinds.items(), _PREDICTED, strict=False):
            taken = arms.steps[rows][:, :, column].ravel()
            counts = np.array([(taken == n).sum() for n in choices]) / arms.steps[:, :, column].size
            panel.bar(range(len(choices)), counts, bottom=below, color=colour, label=kind)
            below += counts
        panel.set_xticks(range(len(choices)), [str(n) for n in choices], fontsize=7)
        panel.set_ylim(0, 1)
        panel.set_title(f"{name}, level {cell.level:g}", loc="left", fontsize=8)
        panel.set_xlabel("steps")
    panels[0].set_ylabel("share of images")
    panels[0].legend(fontsize=6, frameon=False)
    return figure


def _frontier(arms: Arms, metric: str) -> Any:
    """Draw energy against quality for every arm of the ladder's family: as run, and with full batches."""
    figure, panels = _figure(11.0, 4.6, 2)
    titles = ("as run", "if equal steps always filled a batch")
    for panel, basis, title in zip(panels, (arms, with_full_batches(arms)), titles, strict=True):
        _plane(panel, basis, metric)
        panel.set_title(title, loc="left", fontsize=10)
    panels[0].legend(fontsize=7, frameon=False, ncols=2)
    return figure


def _plane(panel: Any, arms: Arms, metric: str) -> None:
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    ladder = arms.variant(_ladder(arms))
    colours = iter(_PREDICTED)
    for name in arms.cells:
        variant = arms.variant(name)
        same = variant.family_name == ladder.family_name
        if not same and arms.run.metrics[metric].track == "fidelity":
            continue  # a full-reference score of another model has another scale
        colour, marker = _LOOKS[variant.role]
        colour = next(colours, colour) if variant.role == "predicted" else colour
        columns = arms.columns(name)
        energy = np.nanmean(arms.grid.energy_j[:, :, columns], axis=(0, 1))
        quality = np.nanmean(arms.quality(metric)[:, :, columns], axis=(0, 1))
        line = "-" if variant.role == "fixed" else "--" if len(columns) > 1 else "none"
        panel.plot(energy, quality, line, marker=marker, color=colour, label=name, ms=5, lw=1)
    # the first two rungs are far below the interesting range
    steep = np.sort(np.nanmean(arms.quality(metric)[:, :, arms.columns(ladder.name)], axis=(0, 1)))
    top = steep[-1] + 0.05 * (steep[-1] - steep[len(steep) // 4])
    panel.set_ylim(steep[len(steep) // 4] - 0.2 * (steep[-1] - steep[len(steep) // 4]), top)
    provenance = ", ".join(sorted(set(arms.run.trials["provenance"].drop_nulls())))
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 4, 6, 8)))
    panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panel.minorticks_off()
    panel.set_xlabel(f"J/image ({provenance})")
    panel.set_ylabel(metric)
    panel.grid(alpha=0.3, which="both")


def _predicted_and_true(arms: Arms) -> Any:
    """Draw actual against ideal steps (from true curves), one panel per level of the first equal-marginal arm."""
    name = _first_predicted(arms)
    cells = arms.cells[name]
    figure, panels = _figure(2.5 * len(cells), 2.8, len(cells))
    for panel, cell, column in zip(panels, cells, arms.columns(name), strict=True):
        true = true_steps(arms, cell, _ladder(arms))
        if true is None:
            panel.set_axis_off()
            continue
        pairs = np.stack([true, np.nanmean(arms.steps[:, :, column], axis=1)])
        places, counts = np.unique(pairs, axis=1, return_counts=True)
        panel.scatter(*places, s=4 * counts, color="#0072B2", alpha=0.6)
        panel.plot([1, 25], [1, 25], color="#999999", lw=0.8)
        panel.set(xscale="log", yscale="log", xlabel="true t*", title=f"level {cell.level:g}")
        panel.set_xticks([1, 2, 4, 8, 25], ["1", "2", "4", "8", "25"])
        panel.set_yticks([1, 2, 4, 8, 25], ["1", "2", "4", "8", "25"])
        panel.minorticks_off()
        panel.title.set_fontsize(8)
    panels[0].set_ylabel("predicted t*")
    return figure
