"""A fitted profile of counted work for people."""

from __future__ import annotations

from perjoule.commands.tables import work_column, work_unit
from perjoule.statistics.work_profile import WorkCalibration
from perjoule.text_table import Row, text_table


def as_text(done: WorkCalibration, width: int | None = None) -> str:
    """Return the coefficients, the quality of the fit, and the points; `width` is that of a terminal."""
    profile, unit = done.profile, work_unit(point.flops_per_image for point in done.points)
    energy = "mean of windows" if done.provenance == "measured" else "least of windows"
    rows: list[Row] = [
        {
            "cell": point.cell_id,
            "windows": point.windows,
            "images": point.images,
            **work_column(point.flops_per_image, unit),
            "J/image": point.energy_j_per_image,
            "predicted": point.predicted_j_per_image,
            "predicted/actual": point.ratio,
        }
        for point in done.points
    ]
    head = [
        f"profile of {profile.device_model} ({profile.device}, {', '.join(profile.dtypes)}), {profile.origin}",
        f"  E = {profile.j_per_flop:.3g} J/FLOP, {profile.j_per_byte:.3g} J/byte, {profile.j_per_operator:.3g} "
        f"J/operator, {profile.j_per_call:.3g} J/call  [{profile.boundary}]",
        f"  R² {done.r_squared:.4f}, worst cell {done.worst_cell} ({done.worst:.1%}), work left out of the fit "
        f"± {profile.shape_error:.1%} (95 %), level ± {profile.level_error:.1%}",
    ]
    if done.file is None:
        tail = "not written (--out FILE)"
    else:
        tail = f"written to {done.file}; use it with --meter work:{done.file}"
    return "\n".join([*head, "", text_table(rows, width), f"J/image: {energy}", tail])
