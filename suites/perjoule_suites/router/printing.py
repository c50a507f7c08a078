"""The text that `perjoule route` prints."""

from __future__ import annotations

from perjoule.display import percent_interval
from perjoule.text import provenance_words
from perjoule_suites.router.records import Evaluation, PolicyPoint, Trained


def trained_lines(trained: Trained) -> list[str]:
    """Return what `train` prints."""
    promise = trained.promise
    return [
        f"{trained.router}: {len(trained.arms)} arms, {trained.prompts} prompts × {trained.seeds} seeds; R² of the "
        f"forecasts {trained.validation_r_squared:.2f}",
        f"J/image on {trained.device}, {provenance_words(trained.provenance)}: "
        + ", ".join(f"{cell_id} {energy_j:.3g}" for cell_id, energy_j in trained.arms.items()),
        f"at most {promise.miss_rate:.1%} of images below {promise.metric} = {promise.floor:g}, on average over "
        f"calibrations; on the {promise.calibration_prompts} calibration prompts {promise.calibration_misses:.1%} and "
        f"{promise.calibration_j_per_image:.3g} J/image",
    ]


def evaluation_lines(evaluation: Evaluation) -> list[str]:
    """Return what `evaluate` prints."""
    lines = [
        f"{evaluation.metric}, {evaluation.prompts} prompts × {evaluation.seeds} seeds; joules of {evaluation.device}, "
        f"{provenance_words(evaluation.provenance)}"
    ]
    if evaluation.judges is not None:
        lines.append(evaluation.judges.sentence)
    cost = evaluation.own_cost
    if cost.energy_j_per_image is None:
        lines.append(f"the router's own energy is not included: {cost.reason}")
    else:
        lines.append(f"the router's own energy is included: {cost.energy_j_per_image:.2g} J/image ({cost.method})")
    checked = evaluation.verifier_cost
    if checked is not None:
        lines.append(
            f"the cascade's verifier, {evaluation.verifier}, is included: {checked.energy_j_per_image:.2g} J/image "
            f"({checked.method})"
        )
    for point in evaluation.points:
        mixture = " + ".join(f"{share:.0%} {cell_id}" for cell_id, share in point.mixture.items())
        lines += ["", f"at {evaluation.metric} {point.at_quality:.4g}: {mixture}, {point.mixture_j_per_image:.4g} J"]
        lines += [f"  {_saving(policy)}" for policy in point.policies]
        captured = "not known" if point.captured is None else percent_interval(point.captured)
        lines.append(
            f"  captured of the prompt-level bound: {captured}"
            + (f" ({point.captured_reason})" if point.captured_reason else "")
        )
    if evaluation.as_run:
        lines += ["", "as run, with all switches of models:"]
    for cell in evaluation.as_run:
        shares = {"decision": cell.decision_share, "switches": cell.switch_share}
        known = ", ".join(f"{name} {share:.2%} of the time" for name, share in shares.items() if share is not None)
        saving = f"{percent_interval(cell.saving)} less than the mixture of equal quality"
        if cell.saving.value is None:
            saving = "no mixture reaches its quality"
        outcome = f"{cell.energy_j_per_image:.4g} J, {saving} ({cell.quality:.4g})"
        lines.append("; ".join(part for part in (f"  {cell.cell_id}: {outcome}", known) if part))
    lines.append("")
    if evaluation.floor is None:
        lines.append(f"no floor: {evaluation.floor_reason}")
        return lines
    floor = evaluation.floor
    lines += [
        f"floor {evaluation.metric} = {floor.floor:g}: promised at most {floor.promised:.1%} misses, found "
        f"{percent_interval(floor.miss_rate)}; fallback for {floor.fallback_share:.0%} of the prompts",
        f"  {_saving(floor.point)}",
        "promises, calibrated on half of these prompts and checked on the others:",
    ]
    for check in evaluation.promises:
        parts = [] if check.reason is None else [check.reason]
        if check.miss_rate is not None:
            rate = f"{check.miss_rate:.1%} ± {check.standard_error:.1%} in {check.splits} splits"
            parts.insert(0, f"{rate}, {check.energy_j_per_image:.4g} J/image")
        lines.append(f"  at most {check.promised:.0%}: {'; '.join(parts)}")
    return lines


def _saving(point: PolicyPoint) -> str:
    if point.saving is None or point.saving.value is None:
        return f"{point.policy}: {point.reason}"
    return (
        f"{point.policy}: {point.energy_j_per_image:.4g} J, {percent_interval(point.saving)} less than the mixture of "
        f"equal quality ({point.quality:.4g})"
    )
