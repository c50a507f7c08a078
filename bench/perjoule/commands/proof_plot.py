"""Draws the windows of a proof: energy over duration, and what is left of it next to the line."""

from __future__ import annotations

from pathlib import Path

from perjoule.files import figure_format, replacing
from perjoule.meters.proof import Proof


def draw(proof: Proof, file: Path) -> None:
    """Write the plot. Raises UsageError for another format, OSError if the file cannot be written."""
    from matplotlib.figure import Figure

    windows = [window for window in proof.windows if window.energy_j is not None]
    lengths = [window.duration_s for window in windows]
    energies = [window.energy_j or 0.0 for window in windows]
    bounds = [window.uncertainty_j or 0.0 for window in windows]
    figure = Figure(figsize=(7.2, 5.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    above.errorbar(lengths, energies, yerr=bounds, fmt="o", ms=3.5, lw=1, color="#2b6cb0", label="windows, with bound")
    longest = max(lengths, default=1.0)
    above.plot([0, longest], [0, proof.work_w * longest], lw=1, color="#c05621", label=f"{proof.work_w:.4g} W")
    above.set_ylabel("energy (J)")
    above.legend(frameon=False)
    above.set_title(f"{proof.device or proof.meter}: {proof.verdict}", loc="left")
    rest = [energy - proof.work_w * length for energy, length in zip(energies, lengths, strict=True)]
    below.axhline(0, lw=1, color="#c05621")
    below.errorbar(lengths, rest, yerr=bounds, fmt="o", ms=3.5, lw=1, color="#2b6cb0")
    below.set_ylabel("difference (J)")
    below.set_xlabel("duration of the window (s)")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    with replacing(file) as stream:
        figure.savefig(stream, format=figure_format(file), dpi=150)
