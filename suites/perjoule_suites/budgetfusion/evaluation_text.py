"""An evaluation for people."""

from __future__ import annotations

from collections.abc import Iterator

from perjoule.display import percent_interval
from perjoule_suites.budgetfusion.records import ArmLevels, Comparison, Evaluation, Level


def lines(evaluation: Evaluation) -> Iterator[str]:
    """Yield the lines that `evaluate` prints. Every saving names its metric."""
    seeds = f"{evaluation.seeds} seed{'' if evaluation.seeds == 1 else 's'}"
    yield f"{', '.join(evaluation.metrics)}: {evaluation.prompts} prompts × {seeds}, {', '.join(evaluation.provenance)}"
    if evaluation.judges is not None:
        yield evaluation.judges.sentence
    for cost in evaluation.costs:
        yield f"{cost.family}: {cost.step_j:.3g} J × ({cost.base_steps:.3g} + steps), base by {cost.origin}"
    if evaluation.claims:
        yield f"\nsavings compared with fixed steps ({len(evaluation.claims)} claims, Holm at 5 %):"
        for claim in evaluation.claims:
            verdict = "holds" if claim.holds else "not shown"
            yield f"  {claim.test} against {claim.anchor}: {_saving(claim)}; {verdict}"
    if evaluation.controls:
        yield "\ncontrols:"
        for one in evaluation.controls:
            basis = "" if one.energy == "by steps" else ", joules as run"
            yield f"  {one.test} against {one.anchor}: {_saving(one)}{basis}"
    if evaluation.bounds:
        yield "\nwhat choices save that know the scores:"
        for bound in evaluation.bounds:
            if bound.saving.value is None:
                yield f"  {bound.ladder}, {bound.metric}: {bound.reason}"
            else:
                at = f"{bound.metric} {bound.at_quality:.4g}"
                yield f"  {bound.ladder}, {bound.bound} ({bound.seeds} seeds): {percent_interval(bound.saving)} at {at}"
    shares = [share for share in evaluation.headroom if share.captured.value is not None]
    if shares:
        yield "\nshare of that:"
        for share in shares:
            yield (
                f"  {share.test}: {percent_interval(share.captured)} of the {share.bound} of {share.anchor} "
                f"({share.seeds} seeds) at {share.metric} {share.at_quality:.4g}"
            )
    for arm in evaluation.arms:
        if arm.role == "predicted":
            yield from _arm(arm)
    if evaluation.sensitivity:
        yield "\nsavings in % if the work that does not depend on the steps were that of so many steps:"
        yield from _sensitivity(evaluation)
    if evaluation.validation:
        yield "\ndrawn images compared with those of the ladder at the same steps:"
        for check in evaluation.validation:
            parts = [f"{check.images} images"]
            if check.identical is not None:
                parts.append(f"{check.identical:.1%} identical")
            parts += [f"{m} differs by {d.mean:.2g} (at most {abs(d.largest):.2g})" for m, d in check.scores.items()]
            again = check.reason if check.same_steps is None else f"{check.same_steps:.1%} of the steps predicted again"
            yield f"  {check.arm} and {check.ladder}: {', '.join(parts)}; {again}"


def _arm(arm: ArmLevels) -> Iterator[str]:
    yield f"\n{arm.arm} ({'drawn' if arm.drawn else 'replayed'}), levels; saving at its own quality:"
    for level in arm.levels:
        chosen = [metric for metric, best in arm.best_on_development.items() if best == level.level]
        mark = f"  ← best by {', '.join(chosen)} on development prompts" if chosen else ""
        yield f"  {level.level:.4g}: {_level(level)}{mark}"


def _level(level: Level) -> str:
    parts = [f"{level.steps_mean:.2f} steps", f"{level.energy_j_per_image:.3g} J/image"]
    for metric, score in level.scores.items():
        own = score.saving_at_own_quality
        saving = percent_interval(own) if own.value is not None else "not known"
        parts.append(f"{metric} {score.quality:.4g}: {saving}")
    if level.promised_miss_rate is not None and level.miss_rate is not None:
        promised = f"at most {level.promised_miss_rate:.1%} promised"
        parts.append(f"{percent_interval(level.miss_rate)} miss the floor, {promised}")
    return ", ".join(parts)


def _sensitivity(evaluation: Evaluation) -> Iterator[str]:
    rows: dict[str, dict[float, float | None]] = {}
    for one in evaluation.sensitivity:
        rows.setdefault(f"{one.test} against {one.anchor} at equal {one.metric}", {})[one.base_steps] = one.saving
    for name, savings in rows.items():
        if all(saving is None for saving in savings.values()):
            continue
        values = (f"{base:.3g}: {'?' if saving is None else f'{100 * saving:.1f}'}" for base, saving in savings.items())
        yield f"  {name}: {', '.join(values)}"


def _saving(comparison: Comparison) -> str:
    if comparison.saving.value is None:
        return f"{comparison.metric}: {comparison.reason}"
    return (
        f"{percent_interval(comparison.saving)} less energy at {comparison.metric} {comparison.at_quality or 0.0:.4g}"
    )
