"""Is a replayed arm the drawn arm? Drawn images compared with the ladder's images of the same steps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from perjoule.errors import PerjouleError
from perjoule_suites.budgetfusion.records import Difference, Validation
from perjoule_suites.budgetfusion.replay import Arm, Arms, images_in


def validations(arms: Arms) -> Iterator[Validation]:
    """Yield the comparison of each drawn adaptive arm with the ladder on its schedules."""
    places = {place: image["sha256"] for place, image in images_in(arms.run, arms.grid)}
    for arm in arms.adaptive.values():
        ladder = arms.ladder_of(arm.variant) if arm.cells else None
        if ladder is not None:
            yield _validation(arms, arm, ladder, places)


def _validation(arms: Arms, arm: Arm, ladder: Arm, digests: dict[tuple[int, int, int], str]) -> Validation:
    column = {cell.cell_id: arms.grid.cells.index(cell.cell_id) for cell in (*arm.cells, *ladder.cells)}
    rungs = {steps: rung for rung, steps in enumerate(ladder.rungs)}
    pairs = [
        (row, seed, level, rungs[int(steps)])
        for (row, seed, level), steps in np.ndenumerate(arm.steps)
        if np.isfinite(steps) and int(steps) in rungs
    ]
    same = [
        (
            digests.get((row, seed, column[arm.cells[level].cell_id])),
            digests.get((row, seed, column[ladder.cells[rung].cell_id])),
        )
        for row, seed, level, rung in pairs
    ]
    known = [one == other for one, other in same if one and other]
    scores = {}
    for metric in arm.quality:
        apart = np.array([arm.quality[metric][r, s, k] - ladder.quality[metric][r, s, g] for r, s, k, g in pairs])
        apart = arms.run.metrics[metric].sign * apart[np.isfinite(apart)]
        if len(apart):
            scores[metric] = Difference(mean=float(apart.mean()), largest=float(apart[np.abs(apart).argmax()]))
    same_steps, reason = _same_steps(arms, arm)
    return Validation(
        arm=arm.name,
        ladder=ladder.name,
        images=len(pairs),
        identical=float(np.mean(known)) if known else None,
        scores=scores,
        same_steps=same_steps,
        reason=reason,
    )


def _same_steps(arms: Arms, arm: Arm) -> tuple[float | None, str | None]:
    """Return the share of the arm's images whose steps its policy predicts again, or why that is not known."""
    if arm.variant.policy != "budgetfusion":
        return None, f"policy {arm.variant.policy} looks at evaluations, which a ladder does not store"
    from perjoule_suites.budgetfusion.step_policies import decided_steps

    ids = [prompt.prompt_id for prompt in arms.run.prompt_set]
    try:
        texts = [arms.run.prompts[prompt] for prompt in ids]
        again = [dict(zip(ids, steps, strict=True)) for steps in decided_steps(arm.cells, texts)]
    except (PerjouleError, KeyError) as error:
        return None, str(error)
    predicted = np.array([[by_prompt[prompt] for by_prompt in again] for prompt in arms.grid.prompts])
    drawn = np.isfinite(arm.steps)
    return float((arm.steps == predicted[:, None])[drawn].mean()), None
