"""Pictures along the step ladder: what the joules bought, as a person would see it.

Which prompts are shown is not anybody's taste: they stand at evenly spaced ranks of the mean primary score, from the
hardest to the easiest. One seed, the first of the suite, is shown for all.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path

import polars as pl
from PIL import Image, UnidentifiedImageError

from perjoule_reports import format as fmt
from perjoule_reports.evidence import Arm, Evidence
from perjoule_reports.records import RunData, Strip, Thumb

MAX_PROMPTS, MAX_THUMBS = 6, 60
BYTES_BUDGET = 1_200_000
_SIDES_PX = (128, 96, 64, 48)
_NATIVE_PX = 128  # up to here an image is shown as it is, pixel for pixel


def strips(run: RunData, evidence: Evidence) -> tuple[Strip, ...]:
    """Choose prompts and draw one strip per prompt and variant, within the budget of bytes."""
    needed = {"cell_id", "prompt_id", "seed", "file", "image_id"}
    if run.images.is_empty() or not needed <= set(run.images.columns):
        return ()
    seed = run.images["seed"].min()
    rows = run.images.filter(pl.col("seed") == seed).sort("image_id").to_dicts()
    files = {(str(r["prompt_id"]), str(r["cell_id"])): r for r in rows}
    arms = [a for a in evidence.arms if any(key[1] == a.cell_id for key in files)]
    chosen = _prompts(run, evidence, {key[0] for key in files}, max(1, MAX_THUMBS // max(1, len(arms))))
    scores = _scores(run, evidence)
    for side in _SIDES_PX:
        drawn = [
            _strip(run, evidence, prompt, remark, variant, arms, files, scores, side)
            for prompt, remark in chosen
            for variant in dict.fromkeys(a.variant for a in arms)
        ]
        if sum(len(t.uri) for s in drawn for t in s.thumbs) <= BYTES_BUDGET:
            break
    return tuple(drawn)


def _prompts(run: RunData, evidence: Evidence, known: set[str], count: int) -> list[tuple[str, str]]:
    """Return prompt ids at evenly spaced ranks, hardest first, with a remark on the rank."""
    count = min(MAX_PROMPTS, count, len(known))
    axis = evidence.primary
    means: dict[str, float] = {}
    if axis is not None and "prompt_id" in run.scores.columns:
        frame = run.scores.filter((pl.col("metric") == axis.name) & pl.col("value").is_finite())
        for row in frame.group_by("prompt_id").agg(pl.col("value").mean()).iter_rows():
            means[str(row[0])] = row[1] if axis.higher else -row[1]
    ranked = sorted(known & set(means), key=lambda p: (means[p], p)) or sorted(known)
    count = min(count, len(ranked))
    if count < 2:
        places = [len(ranked) // 2][: len(ranked)]
    else:
        places = [round(i * (len(ranked) - 1) / (count - 1)) for i in range(count)]
    by = f"by mean {axis.name}" if axis and means else "by id"
    return [(ranked[p], f"prompt {p + 1} of {len(ranked)} {by}, hardest first") for p in places]


def _scores(run: RunData, evidence: Evidence) -> dict[str, float]:
    if evidence.primary is None or run.scores.is_empty():
        return {}
    frame = run.scores.filter((pl.col("metric") == evidence.primary.name) & pl.col("value").is_finite())
    return {str(image): float(value) for image, value in frame.select("image_id", "value").iter_rows()}


def _strip(
    run: RunData,
    evidence: Evidence,
    prompt: str,
    remark: str,
    variant: str,
    arms: list[Arm],
    files: Mapping[tuple[str, str], Mapping[str, object]],
    scores: Mapping[str, float],
    side: int,
) -> Strip:
    text = fmt.clean(run.prompts.get(prompt, prompt))
    unit = fmt.scale((a.energy.value for a in arms), "J")
    thumbs = []
    for arm in (a for a in arms if a.variant == variant):
        row = files.get((prompt, arm.cell_id))
        if row is None:
            continue
        uri, pixelated = _encode(run.path / str(row["file"]), side)
        taken = _number(row.get("steps"), arm.steps)
        energy = (
            f"{fmt.interval(arm.energy, unit)[0]} {unit.unit} {arm.brand}".strip()
            if arm.energy.value is not None
            else "J not measured"
        )
        score = scores.get(str(row["image_id"]))
        quality = fmt.number(score) if score is not None else "not scored"
        thumbs.append(
            Thumb(
                uri=uri,
                alt=f"{fmt.shorten(text, 300)} ({variant}, {fmt.step_count(taken)})",
                lines=(fmt.step_count(taken), energy, quality),
                marked=bool(evidence.primary and arm.on_frontier.get(evidence.primary.name)),
                pixelated=pixelated,
            )
        )
    return Strip(prompt=text, remark=remark, variant=variant, series=evidence.series(variant), thumbs=tuple(thumbs))


def _encode(file: Path, side: int) -> tuple[str, bool]:
    """Return a data URI of at most `side` pixels and whether its pixels are to be shown as squares."""
    try:
        with Image.open(file) as opened:
            image = opened.convert("RGB")
    except (OSError, UnidentifiedImageError):
        return "", False
    native = max(image.size) <= min(side, _NATIVE_PX)
    if not native:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small = max(image.size) <= 64
    if native and small:
        image.save(buffer, "WEBP", lossless=True, quality=90, method=4)
    else:
        image.save(buffer, "WEBP", quality=82, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode(), native and small


def _number(value: object, otherwise: float | None) -> float | None:
    found = fmt.finite(value)
    return otherwise if found is None else found
