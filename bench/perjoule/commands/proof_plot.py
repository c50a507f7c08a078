"""Draws the windows of a proof: energy over duration, and what is left of it next to the line."""

from __future__ import annotations

from pathlib import Path

from perjoule.errors import UsageError
from perjoule.files import replacing
from perjoule.meters.proof import Proof

FORMATS = ("png", "svg", "pdf")


def require_format(file: Path) -> None:
    """Raise UsageError if a plot cannot be written in the format of that file."""
    if file.suffix.lower().removeprefix(".") not in FORMATS:
        raise UsageError(f"--plot {file}: the format is not one of {', '.join(FORMATS)}")


def draw(proof: Proof, file: Path) -> None:
    """Write the plot. Raises OSError if the file cannot be written."""
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
        figure.savefig(stream, format=file.suffix.lower().removeprefix("."), dpi=150)
