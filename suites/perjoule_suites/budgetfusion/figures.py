"""Figures of the study: curves, steps by kind of prompt, predicted against true t*, and the plane of all arms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from perjoule.files import replacing
from perjoule.types import Role
from perjoule_suites.budgetfusion.replay import Arm, Arms
from perjoule_suites.budgetfusion.study import true_steps

# Okabe and Ito's palette, with a marker for each role of an arm
_LOOKS: dict[Role, tuple[str, str]] = {
    "fixed": ("#000000", "o"),
    "predicted": ("#0072B2", "D"),
    "control": ("#999999", "x"),
    "distilled": ("#D55E00", "^"),
}
_MOST_PANELS = 6
_PREDICTED = ("#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#F0E442", "#8C510A")


def draw_all(arms: Arms, folder: Path, metric: str) -> list[Path]:
    """Write the figures as PNG; returns the files.

    Args:
        arms: Ladders and adaptive arms.
        folder: Folder of the figures.
        metric: The quality on the axes.
    """
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()  # not the matplotlibrc of the working directory, which can have LaTeX executed
        files = {"study-curves.png": _curves(arms), "study-frontier.png": _frontier(arms, metric)}
        arm = _first_predicted(arms)
        if arm is not None:
            files |= {"study-steps.png": _steps(arms, arm), "study-predicted.png": _predicted_and_true(arms, arm)}
        for file, figure in files.items():
            with replacing(folder / file) as opened:
                figure.savefig(opened, format="png", dpi=120, metadata={"Software": None})
    return [folder / file for file in files]


def _figure(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _ladder(arms: Arms) -> Arm:
    return arms.ladders[next(iter(arms.costs.values())).ladder]


def _first_predicted(arms: Arms) -> Arm | None:
    """Return the first predicted arm on the ladder's own schedules, or the first of all; None without one."""
    predicted = [arm for arm in arms.adaptive.values() if arm.role == "predicted"]
    return next((arm for arm in predicted if arms.ladder_of(arm.variant) is _ladder(arms)), next(iter(predicted), None))


def _rows_by_kind(arms: Arms) -> dict[str, Any]:
    """Return the rows of the grid by kind of prompt."""
    return {str(kind) or "all": np.flatnonzero(arms.kinds == kind) for kind in np.unique(arms.kinds)}


def _curves(arms: Arms) -> Any:
    """Draw the mean curves of each kind of prompt along the ladder, one panel per metric."""
    ladder = _ladder(arms)
    metrics = [m for m in ("iclip", "cvvdp", "scene") if m in arms.run.metrics] or list(arms.run.metrics)[:3]
    figure, panels = _figure(3.6 * len(metrics), 3.2, len(metrics))
    for panel, metric in zip(panels, metrics, strict=True):
        for (kind, rows), colour in zip(_rows_by_kind(arms).items(), _PREDICTED, strict=False):
            means = np.nanmean(ladder.quality[metric][rows], axis=(0, 1))
            panel.plot(ladder.rungs, means, marker="o", ms=3, color=colour, label=kind)
        panel.set_xscale("log", base=2)
        panel.set_xticks(ladder.rungs, [str(n) for n in ladder.rungs])
        panel.minorticks_off()
        panel.set_title(metric, loc="left", fontsize=10)
        panel.set_xlabel("denoising steps")
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize=7, frameon=False)
    return figure


def _places(arm: Arm) -> list[int]:
    """Return the levels that are drawn: all, or of many some that are evenly spread."""
    count = len(arm.levels)
    return [round(i) for i in np.linspace(0, count - 1, min(count, _MOST_PANELS))]


def _steps(arms: Arms, arm: Arm) -> Any:
    """Draw the steps of an arm for each kind of prompt, one panel per level."""
    places = _places(arm)
    figure, panels = _figure(2.5 * len(places), 2.8, len(places))
    choices = sorted({int(n) for n in arm.steps.ravel() if np.isfinite(n)})
    for place, panel in zip(places, panels, strict=True):
        below = np.zeros(len(choices))
        for (kind, rows), colour in zip(_rows_by_kind(arms).items(), _PREDICTED, strict=False):
            taken = arm.steps[rows][:, :, place].ravel()
            counts = np.array([(taken == n).sum() for n in choices]) / arm.steps[:, :, place].size
            panel.bar(range(len(choices)), counts, bottom=below, color=colour, label=kind)
            below += counts
        panel.set_xticks(range(len(choices)), [str(n) for n in choices], fontsize=7)
        panel.set_ylim(0, 1)
        panel.set_title(f"level {arm.levels[place]:.3g}", loc="left", fontsize=8)
        panel.set_xlabel("steps")
    panels[0].set_ylabel(f"share of images\n{arm.name}", fontsize=7)
    panels[0].legend(fontsize=6, frameon=False)
    return figure


def _frontier(arms: Arms, metric: str) -> Any:
    """Draw energy against quality for every arm of the ladder's family: by steps, and as run where arms were drawn."""
    drawn = any(arm.cells for arm in arms.adaptive.values())
    figure, panels = _figure(11.0 if drawn else 5.5, 4.6, 2 if drawn else 1)
    for panel, as_run in zip(panels, (False, True), strict=False):
        _plane(panel, arms, metric, as_run=as_run)
        panel.set_title("joules as run" if as_run else "joules by steps", loc="left", fontsize=10)
    panels[0].legend(fontsize=6, frameon=False, loc="lower right")
    return figure


def _plane(panel: Any, arms: Arms, metric: str, *, as_run: bool) -> None:
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    ladder = _ladder(arms)
    colours = iter(_PREDICTED)
    for arm in (*arms.ladders.values(), *arms.adaptive.values()):
        if arm.family != ladder.family and arms.run.metrics[metric].track == "fidelity":
            continue  # a full-reference score of another model has another scale
        if arm.family not in arms.costs or (as_run and not arm.cells):
            continue
        colour, marker = _LOOKS[arm.role]
        colour = next(colours, colour) if arm.role == "predicted" else colour
        curve = arms.curve_as_run(arm, metric) if as_run else arms.curve(arm, metric)
        energy, quality = (np.nanmean(values, axis=(0, 1)) for values in (curve.energy_j, curve.quality))
        line = "-" if arm.role == "fixed" else "--" if len(arm.levels) > 1 else "none"
        panel.plot(energy, quality, line, marker=marker, color=colour, label=arm.name, ms=5, lw=1)
    # the first two rungs are far below the interesting range
    steep = np.sort(np.nanmean(ladder.quality[metric], axis=(0, 1)))
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


def _predicted_and_true(arms: Arms, arm: Arm) -> Any:
    """Draw actual against ideal steps (from true curves), one panel per level of an equal-marginal arm."""
    places = _places(arm)
    figure, panels = _figure(2.5 * len(places), 2.8, len(places))
    rungs = _ladder(arms).rungs
    for place, panel in zip(places, panels, strict=True):
        true = true_steps(arm, place, _ladder(arms))
        if true is None:
            panel.set_axis_off()
            continue
        pairs = np.stack([true, np.nanmean(arm.steps[:, :, place], axis=1)])
        points, counts = np.unique(pairs, axis=1, return_counts=True)
        panel.scatter(*points, s=4 * counts, color="#0072B2", alpha=0.6)
        panel.plot([rungs[0], rungs[-1]], [rungs[0], rungs[-1]], color="#999999", lw=0.8)
        panel.set(xscale="log", yscale="log", xlabel="true t*", title=f"level {arm.levels[place]:.3g}")
        panel.set_xticks(rungs[::2], [str(n) for n in rungs[::2]])
        panel.set_yticks(rungs[::2], [str(n) for n in rungs[::2]])
        panel.minorticks_off()
        panel.title.set_fontsize(8)
    panels[0].set_ylabel("predicted t*")
    return figure
