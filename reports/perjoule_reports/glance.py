"""What the top of the page shows next to the headline: one pair of images and a small frontier."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from perjoule_reports import format as fmt
from perjoule_reports.analysis import Analysis
from perjoule_reports.drawing.figures import panels
from perjoule_reports.drawing.overview import Overview
from perjoule_reports.drawing.thumbs import Encoded, Stored, encode_all
from perjoule_reports.evidence import Arm, Evidence, read_evidence
from perjoule_reports.naming import capitalised
from perjoule_reports.records import Figure, Glance, Headline, RunData, Thumb

_LONGEST = 120
_MOST_TRIED = 12  # a stored run may contain only some of its images


def glance(
    run: RunData, baseline: RunData | None, evidence: Evidence, analysis: Analysis, top: Headline, recommended: str = ""
) -> Glance:
    """Return the pair of images and the small frontier; each is None if the run does not have it.

    `recommended` is the cell to deploy, or empty.
    """
    return replace(_pair(run, baseline, evidence, top), figure=_figure(evidence, analysis, top, recommended))


def _figure(evidence: Evidence, analysis: Analysis, top: Headline, recommended: str) -> Figure | None:
    """Return the panel of the anchor as a small figure; its data are in the section Frontier."""
    if evidence.primary is None:
        return None
    every = panels(evidence, evidence.primary)
    if not every:
        return None
    panel = next((p for p in every if any(a.cell_id == analysis.anchor for a in p.arms)), every[0])
    drawn = Overview(evidence=evidence, panel=panel, recommended=recommended, compared=(top.test, top.anchor))
    label = capitalised(evidence.primary.label, evidence.primary.name)
    return drawn.figure("glance", f"{label} against energy per image")


def _pair(run: RunData, baseline: RunData | None, evidence: Evidence, top: Headline) -> Glance:
    """Return the images of one prompt and seed whose difference is the median: anchor and test, or both runs."""
    by_cell = {arm.cell_id: arm for arm in evidence.arms}
    if baseline is None:
        sides = [(run, by_cell.get(cell), "") for cell in (top.anchor, top.test)]
    else:
        shared = set(baseline.images.get_column("cell_id"))
        arm = next((by_cell[c] for c in (top.test, top.anchor, *by_cell) if c in by_cell and c in shared), None)
        before_arms = {one.cell_id: one for one in read_evidence(baseline).arms}
        sides = [(baseline, before_arms.get(arm.cell_id) if arm else None, "baseline"), (run, arm, "candidate")]
    found = [(one, arm, name) for one, arm, name in sides if arm is not None and not one.is_imported]
    if len(found) < 2:
        return Glance()
    before, after = ((one, arm.cell_id) for one, arm, _ in found)
    both = _joined(before, after, evidence)
    if both.is_empty():
        return Glance()
    higher = evidence.primary is None or evidence.primary.higher
    ranked = both.sort(pl.col("difference") * (1 if higher else -1), "prompt_id", "seed", nulls_last=True)
    middle = (len(ranked) - 1) // 2
    for place in sorted(range(len(ranked)), key=lambda place: (abs(place - middle), place))[:_MOST_TRIED]:
        row = ranked.row(place, named=True)
        stored = [
            Stored(folder=one.path, file=row[f"file{end}"], sha256=row[f"sha256{end}"])
            for (one, _, _), end in zip(found, ("", "_test"), strict=True)
        ]
        encoded = encode_all(stored)
        if all(image.uri for image in encoded):
            break
    else:
        return Glance()
    text = fmt.clean(run.prompts.get(row["prompt_id"], row["prompt_id"]))
    unit = evidence.energy_unit
    changed = "" if baseline is None else f"{_change(found[0][1], found[1][1], unit)}; "
    thumbs = [
        _thumb(evidence, arm, name, text, image, unit, row[f"value{end}"])
        for (_, arm, name), image, end in zip(found, encoded, ("", "_test"), strict=True)
    ]
    return Glance(
        prompt=fmt.shorten(text, _LONGEST) or "(empty prompt)",
        remark=f"{changed}{'the' if place == middle else 'near the'} median of {fmt.plural(len(both), 'pair')}, "
        f"seed {row['seed']}",
        images=tuple(thumbs),
    )


def _change(before: Arm, after: Arm, unit: fmt.Scale) -> str:
    """Return the cell of a gate's pair and its joules, e.g. `The full model at 8 steps, 3.39 → 3.80 J per image`."""
    name = capitalised(after.words, after.variant)
    if before.energy.value is None or after.energy.value is None:
        return name
    ends = (fmt.number(arm.energy.value / unit.factor) for arm in (before, after) if arm.energy.value is not None)
    return f"{name}, {' → '.join(ends)} {unit.unit}{f' {after.brand}' if after.brand else ''} per image"


def _joined(before: tuple[RunData, str], after: tuple[RunData, str], evidence: Evidence) -> pl.DataFrame:
    """Return the pairs of images of the same prompt and seed, with their scores and the difference."""
    wanted = [] if evidence.primary is None else [evidence.primary.name]
    frames = []
    for run, cell in (before, after):
        scores = run.scores.filter(pl.col("metric").is_in(wanted) & pl.col("value").is_finite())
        images = run.images.filter(pl.col("cell_id") == cell).select("image_id", "prompt_id", "seed", "file", "sha256")
        frames.append(images.join(scores.select("image_id", "value"), on="image_id", how="left"))
    both = frames[0].join(frames[1], on=["prompt_id", "seed"], suffix="_test")
    return both.with_columns(difference=pl.col("value_test") - pl.col("value"))


def _thumb(
    evidence: Evidence,
    arm: Arm,
    name: str,
    text: str,
    image: Encoded,
    unit: fmt.Scale,
    score: float | None,
) -> Thumb:
    """Return an image with its joules in `unit`; `name` is baseline or candidate in a gate, otherwise empty."""
    lines = []
    if arm.energy.value is not None:
        mark = f" {arm.brand}" if arm.brand else ""
        lines.append(f"{fmt.number(arm.energy.value / unit.factor)} {unit.unit}{mark} per image")
    axis = evidence.primary
    if axis is not None and score is not None:
        lines.append(f"{axis.label} {fmt.number(score)}")
    return Thumb(
        uri=image.uri,
        alt=f"{fmt.shorten(text, _LONGEST)} ({name or arm.words})",
        label=name or capitalised(arm.words, arm.variant),
        series=None if name else evidence.series(arm.variant),
        cell_id=arm.cell_id,
        lines=tuple(lines),
        pixelated=image.pixelated,
    )
