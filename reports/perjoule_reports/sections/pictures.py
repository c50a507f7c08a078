"""What a joule buys: images of the same prompt and seed, side by side and along the ladder.

    side by side    the prompts with the best, the median and the worst difference between two arms
    along the ladder    prompts at evenly spaced ranks from the hardest to the easiest

The scores determine which prompts are shown; nobody selects them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import polars as pl

from perjoule_reports import format as fmt
from perjoule_reports.drawing.thumbs import MOST_PICTURES, Stored, encode_all
from perjoule_reports.evidence import Arm, Axis, Evidence
from perjoule_reports.records import Album, Headline, RunData, Section, Strip, Thumb

T = TypeVar("T")

MOST_ARMS = 4
MOST_RUNGS, LEAST_PROMPTS = 7, 2
_LONGEST_PROMPT = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    """The columns of an image that are read here."""

    image_id: str
    cell_id: str
    steps: int | None
    file: str
    sha256: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """An image to be shown."""

    arm: Arm
    image: _Image
    score: float | None
    flag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Images of one prompt and seed."""

    prompt_id: str
    remark: str
    shots: tuple[Shot, ...]
    label: str = ""
    series: int | None = None


def pictures_section(run: RunData, evidence: Evidence, headline: Headline) -> Section:
    """Section 9 of a report: the two cells of the headline, and the ladder."""
    if evidence.imported:
        return Section(
            anchor="pictures",
            title="Images",
            how_to_read="",
            empty="images (an imported table has none)",
        )
    shown = albums(run, evidence, headline)
    score = evidence.primary.name if evidence.primary else "score"
    return Section(
        anchor="pictures",
        title="Images",
        how_to_read="Images in a row have the same prompt and seed; they are the images that were metered. Under each "
        f"image: its steps, the mean energy per image of its cell, and its own {score}. The scores determine which "
        "prompts are shown; nobody selected them. Outlined images belong to cells on the frontier.",
        sample=f"{fmt.plural(sum(len(s.thumbs) for a in shown for s in a.strips), 'thumbnail')} of "
        f"{fmt.plural(run.images.height, 'image')}; at most {MOST_PICTURES} are shown.",
        interval="There is none: best and worst are extremes; they show the range of single prompts, not the average.",
        change="Another seed gives other images of the same prompts; people may rank them differently.",
        paragraphs=() if shown else ("The run contains no images.",),
        albums=shown,
    )


def albums(run: RunData, evidence: Evidence, headline: Headline | None = None) -> tuple[Album, ...]:
    """Choose and encode the images, at most `MOST_PICTURES` within the budget of bytes; empty without images."""
    if run.images.is_empty():
        return ()
    if run.is_imported:  # it names images but does not contain them
        return ()
    gallery = _Gallery(run, evidence, headline)
    paired = gallery.side_by_side()
    ladder = gallery.along_the_ladder(MOST_PICTURES - sum(len(row.shots) for row in paired))
    shots = [shot for row in (*paired, *ladder) for shot in row.shots]
    stored = [Stored(folder=run.path, file=shot.image.file, sha256=shot.image.sha256) for shot in shots]
    encoded = iter(encode_all(stored))
    drawn = [_strip(run, evidence, row, encoded) for row in (*paired, *ladder)]
    split = len(paired)
    return tuple(
        album
        for album in (
            Album(title="Side by side", note=gallery.paired_note, strips=tuple(drawn[:split])),
            Album(title="Along the step ladder", note=gallery.ladder_note, strips=tuple(drawn[split:])),
        )
        if album.strips
    )


def pictured_arms(evidence: Evidence, headline: Headline | None = None) -> list[Arm]:
    """Return the arms to show side by side: the cell under test, its anchor, then one per other variant.

    Test and anchor are those of the headline; without them, the anchor is the longest fixed run and the test the best
    of the others. A variant is represented by its cell on the frontier, else by its best cell; controls come last.
    """
    axis = evidence.primary
    if axis is None:
        return list(evidence.arms[:MOST_ARMS])
    by_cell = {a.cell_id: a for a in evidence.arms}
    scored = [a for a in evidence.arms if axis.name in a.quality and a.quality[axis.name].value is not None]
    if not scored:
        return list(evidence.arms[:MOST_ARMS])
    anchor = by_cell.get(headline.anchor) if headline else None
    anchor = anchor or max(scored, key=lambda a: (a.role == "fixed", a.steps or 0, a.energy.value or 0))
    test = by_cell.get(headline.test) if headline else None
    comparable = [a for a in scored if not axis.within_family or a.family == anchor.family]

    def worth(arm: Arm) -> tuple[bool, bool, float, float]:
        quality = arm.quality[axis.name].value or 0.0
        on = arm.on_frontier.get(axis.name, False)
        return arm.role != "control", on, quality if axis.higher else -quality, -(arm.energy.value or 0.0)

    best: dict[str, Arm] = {}
    for arm in sorted(comparable, key=worth, reverse=True):
        if arm not in (anchor, test):
            best.setdefault(arm.variant, arm)
    others = [arm for arm in best.values() if test is None or arm.variant not in {test.variant, anchor.variant}]
    first = [test] if test is not None else others[:1]
    return [*first, anchor, *(arm for arm in others if arm not in first)][:MOST_ARMS]


class _Gallery:
    """Finds images by prompt, cell and seed."""

    def __init__(self, run: RunData, evidence: Evidence, headline: Headline | None) -> None:
        self.evidence, self.axis, self.arms = evidence, evidence.primary, pictured_arms(evidence, headline)
        self.images = run.images
        self.scores = _primary_scores(run, evidence.primary)
        self.paired_note = self.ladder_note = ""

    def side_by_side(self) -> list[Row]:
        """Return one row each for the best, the median and the worst difference between the first two arms."""
        arms = self.arms
        if len(arms) < 2 or self.axis is None or self.scores.is_empty():
            return []
        test, anchor = arms[0], arms[1]
        pairs = self._pairs(test, anchor)
        if not pairs:
            return []
        self.paired_note = (
            f"{test.cell_id} minus {anchor.cell_id} in {self.axis.name}, over "
            f"{fmt.plural(len(pairs), 'pair')} of images of the same prompt and seed."
        )
        places = {"best": len(pairs) - 1, "median": (len(pairs) - 1) // 2, "worst": 0}
        rows = []
        for name, place in places.items():
            if any(place == other for other in list(places.values())[: list(places).index(name)]):
                continue  # fewer than three pairs
            difference, prompt_id, seed = pairs[place]
            shots = self._shots(prompt_id, seed, arms)
            signed = f"+{fmt.number(difference)}" if difference > 0 else fmt.number(difference)
            rows.append(
                Row(
                    prompt_id=prompt_id,
                    remark=f"{name} difference: {self.axis.name} {signed}, seed {seed}",
                    shots=tuple(shots),
                )
            )
        return rows

    def along_the_ladder(self, room: int) -> list[Row]:
        """Return rows of one variant's step counts, and the predictor's choice, for as many prompts as fit."""
        rungs, predicted = self._ladder()
        if not rungs or room < len(rungs):
            rungs = _spread(rungs, min(len(rungs), max(room, 0)))
        if not rungs:
            return []
        each = min(MOST_RUNGS, len(rungs) + bool(predicted), max(room // LEAST_PROMPTS, 1))
        count = max(1, room // each)
        rungs = _spread(rungs, each - bool(predicted))
        seed = int(self.images.select(pl.col("seed").min()).item())
        rows = []
        for prompt_id, remark in self._ranked(count):
            shots = self._shots(prompt_id, seed, rungs)
            if predicted:
                shots = _marked(shots, self._shots(prompt_id, seed, [predicted]))
            series = self.evidence.series(rungs[0].variant)
            rows.append(
                Row(prompt_id=prompt_id, remark=f"{remark}, seed {seed}", shots=tuple(shots),
                    label=rungs[0].variant, series=series)
            )  # fmt: skip
        if predicted:
            self.ladder_note = (
                f"The flag shows the number of steps that {predicted.cell_id} chose for this prompt; "
                "its joules are those of that arm."
            )
        return [row for row in rows if row.shots]

    def _pairs(self, test: Arm, anchor: Arm) -> list[tuple[float, str, int]]:
        """Return (test minus anchor, prompt id, seed) from the worst to the best."""
        assert self.axis is not None
        by_cell = [
            self.images.filter(pl.col("cell_id") == arm.cell_id)
            .select("image_id", "prompt_id", "seed")
            .join(self.scores, on="image_id", maintain_order="left")
            for arm in (test, anchor)
        ]
        joined = by_cell[0].join(by_cell[1], on=["prompt_id", "seed"], suffix="_anchor")
        pairs = [
            (float(a) - float(b), str(prompt), int(seed))
            for prompt, seed, a, b in joined.select("prompt_id", "seed", "value", "value_anchor").iter_rows()
        ]
        sign = 1 if self.axis.higher else -1
        return sorted(pairs, key=lambda pair: (sign * pair[0], pair[1], pair[2]))

    def _ladder(self) -> tuple[list[Arm], Arm | None]:
        """Return the longest fixed ladder and a cell of the same family whose steps were predicted."""
        fixed = [a for a in self.evidence.arms if a.policy == "fixed" and a.steps is not None]
        by_variant: dict[str, list[Arm]] = {}
        for arm in fixed or self.evidence.arms:
            by_variant.setdefault(arm.variant, []).append(arm)
        if not by_variant:
            return [], None
        rungs = max(by_variant.values(), key=lambda arms: (arms[0].role == "fixed", len(arms)))
        guests = [a for a in self.evidence.arms if a.role == "predicted" and a.family == rungs[0].family]
        same = [a for a in guests if a.variant == guests[0].variant]
        return rungs, same[len(same) // 2] if same else None

    def _ranked(self, count: int) -> list[tuple[str, str]]:
        """Return prompt ids at evenly spaced ranks, hardest first, each with a remark on its rank."""
        known = set(self.images.get_column("prompt_id"))
        means: dict[str, float] = {}
        if self.axis is not None and not self.scores.is_empty():
            grouped = self.images.select("image_id", "prompt_id").join(
                self.scores, on="image_id", maintain_order="left"
            )
            sign = 1 if self.axis.higher else -1
            means = {
                str(prompt): sign * float(value)
                for prompt, value in grouped.group_by("prompt_id").agg(pl.col("value").mean()).iter_rows()
            }
        ranked = sorted(means, key=lambda p: (means[p], p)) or sorted(known)
        by = f"by mean {self.axis.name}, hardest first" if self.axis and means else "by id"
        places = _spread(list(range(len(ranked))), min(count, len(ranked)))
        return [(ranked[p], f"prompt {p + 1} of {len(ranked)} {by}") for p in places]

    def _shots(self, prompt_id: str, seed: int, arms: Sequence[Arm]) -> list[Shot]:
        rows = self.images.filter((pl.col("prompt_id") == prompt_id) & (pl.col("seed") == seed))
        images = [_Image(**row) for row in rows.select(f.name for f in fields(_Image)).iter_rows(named=True)]
        by_cell = {image.cell_id: image for image in images}
        scores = dict(self.scores.filter(pl.col("image_id").is_in([i.image_id for i in images])).iter_rows())
        return [
            Shot(arm=arm, image=image, score=scores.get(image.image_id))
            for arm in arms
            if (image := by_cell.get(arm.cell_id)) is not None
        ]


def _primary_scores(run: RunData, axis: Axis | None) -> pl.DataFrame:
    if axis is None:
        return pl.DataFrame(schema={"image_id": pl.String, "value": pl.Float64})
    wanted = (pl.col("metric") == axis.name) & pl.col("value").is_finite()
    return run.scores.filter(wanted).select("image_id", "value")


def _spread(items: Sequence[T], count: int) -> list[T]:
    """Return `count` items at evenly spaced places including both ends; the middle item if `count` is 1."""
    if count >= len(items):
        return list(items)
    if count == 1:
        return [items[len(items) // 2]]
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)] if count > 0 else []


def _marked(shots: list[Shot], guests: list[Shot]) -> list[Shot]:
    """Insert the predictor's own image at its step count on the ladder."""
    flagged = [
        Shot(arm=g.arm, image=g.image, score=g.score, flag="predicted") for g in guests
    ]  # if it equals a rung it is shown next to it, because it has its own joules
    return sorted([*shots, *flagged], key=lambda s: (_steps(s) or 0, bool(s.flag)))


def _steps(shot: Shot) -> float | None:
    return shot.arm.steps if shot.image.steps is None else shot.image.steps


def _strip(run: RunData, evidence: Evidence, row: Row, encoded: Iterator[tuple[str, bool]]) -> Strip:
    text = fmt.clean(run.prompts.get(row.prompt_id, row.prompt_id))
    unit = fmt.scale((shot.arm.energy.value for shot in row.shots), "J")
    axis = evidence.primary
    thumbs = []
    for shot, (uri, pixelated) in zip(row.shots, encoded, strict=False):
        arm, steps = shot.arm, fmt.step_count(_steps(shot))
        joules = f"{fmt.interval(arm.energy, unit)[0]} {unit.unit} {arm.brand}".strip()
        thumbs.append(
            Thumb(
                uri=uri,
                alt=f"{fmt.shorten(text, _LONGEST_PROMPT)} ({arm.variant}, {steps})",
                label=steps if row.label else fmt.clean(arm.cell_id),
                series=evidence.series(arm.variant) if shot.flag or not row.label else None,
                cell_id=arm.cell_id,
                flag=shot.flag,
                lines=(
                    *(() if row.label else (steps,)),
                    joules if arm.energy.value is not None else "J not measured",
                    f"{axis.name if axis else 'score'} {fmt.number(shot.score)}"
                    if shot.score is not None
                    else "not scored",
                ),
                marked=bool(axis and arm.on_frontier.get(axis.name)),
                pixelated=pixelated,
            )
        )
    return Strip(
        prompt=fmt.shorten(text, _LONGEST_PROMPT) or "(empty prompt)",
        remark=row.remark,
        variant=row.label,
        series=row.series,
        thumbs=tuple(thumbs),
    )
