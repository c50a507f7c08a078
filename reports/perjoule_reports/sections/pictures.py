"""What a joule buys: images of the same prompt and seed, side by side, of all prompts, and along the ladder.

    side by side    the prompts with the best, the median and the worst difference between two cells, or two runs
    all prompts     the same two for every prompt, from the worst to the best
    along the ladder    prompts at evenly spaced ranks from the hardest to the easiest

The scores determine which prompts are shown; nobody selects them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import polars as pl

from perjoule_reports import format as fmt
from perjoule_reports.drawing.thumbs import MOST_PICTURES, SHEET_BUDGET, SHEET_SIDES_PX, Encoded
from perjoule_reports.evidence import Arm, Axis, Evidence, read_evidence
from perjoule_reports.records import Album, Headline, RunData, Section, Strip
from perjoule_reports.sections.strips import Row, encoded, steps_of, strips
from perjoule_reports.shots import Pair, Shot, Side, deciding_axes, mean_scores, pairs, shots
from perjoule_reports.viewer import folder_from, viewer

T = TypeVar("T")

MOST_ARMS = 4
MOST_RUNGS, LEAST_PROMPTS = 7, 2
MOST_TILES = 120
_LONGEST_PROMPT = 240


def pictures_section(
    run: RunData,
    evidence: Evidence,
    headline: Headline,
    baseline: RunData | None = None,
    page: Path | None = None,
    recommended: str = "",
) -> Section:
    """Section of images: the two cells of the headline, or one cell of the baseline and of this run.

    Args:
        run: The run of the report.
        evidence: Its contents.
        headline: Names the cells to compare.
        baseline: The run that the gate compares with.
        page: The HTML file, from which images in the run directory are linked; without it none are linked.
        recommended: The cell to deploy; the step ladder shows it, and the cells of the headline.
    """
    if evidence.imported:
        return Section(
            anchor="pictures",
            title="Images",
            how_to_read="",
            empty="images (an imported table has none)",
        )
    gallery = None if run.images.is_empty() else Gallery(run, evidence, headline, baseline, recommended)
    shown = gallery.albums() if gallery else ()
    how, interval = _explained(evidence.primary if mean_scores(run, evidence.primary) else None)
    compared = viewer(gallery, evidence, page) if gallery and shown else None
    return Section(
        anchor="pictures",
        title="Images",
        how_to_read=how,
        sample=f"{fmt.plural(sum(len(s.thumbs) for a in shown for s in a.strips), 'thumbnail')} of "
        f"{fmt.plural(run.images.height, 'image')}.",
        interval=interval,
        change="Another seed gives other images of the same prompts; people may rank them differently.",
        paragraphs=gallery.remarks(page) if gallery and shown else ("The run contains no images.",),
        albums=shown,
        viewer=compared,
    )


def _explained(scored: Axis | None) -> tuple[str, str]:
    """Return how to read the images, and what their interval is; `scored` is the metric that has scores, if any."""
    under = f"its steps, its energy, and its own {scored.label}" if scored else "its steps and its energy"
    chosen = (
        "The scores determine which prompts are shown" if scored else "Which prompts are shown depends on their ids"
    )
    outlined = " Outlined images belong to cells on the frontier." if scored else ""
    how = (
        "Images in a row have the same prompt and seed; they are the images that were metered. Under each image: "
        f"{under}. The energy is that of the image if its windows contain no other image, else the mean of its cell. "
        f"{chosen}; nobody selected them.{outlined}"
    )
    if scored is None:
        return how, "There is none: these are single prompts, not the average."
    return how, "There is none: best and worst are extremes; they show the range of single prompts, not the average."


def albums(
    run: RunData, evidence: Evidence, headline: Headline | None = None, baseline: RunData | None = None
) -> tuple[Album, ...]:
    """Choose and encode the images; empty for a run without images, also an imported one, which only names them."""
    if run.images.is_empty() or run.is_imported:
        return ()
    return Gallery(run, evidence, headline, baseline).albums()


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


class Gallery:
    """Chooses the images of a run, and of its baseline.

    Attributes:
        sides: The cells that are shown side by side.
        every: All cells that can be compared, the first two those of the pairs.
        ranked: Pairs of the first two, from the worst to the best.
        axes: The metrics that rank them.
        kept: Cells that the step ladder shows if they are on it.
    """

    def __init__(
        self,
        run: RunData,
        evidence: Evidence,
        headline: Headline | None,
        baseline: RunData | None = None,
        recommended: str = "",
    ) -> None:
        self.run, self.evidence, self.axis = run, evidence, evidence.primary
        self.kept = {recommended, *((headline.test, headline.anchor) if headline else ())}
        own = [Side(run=run, arm=arm) for arm in pictured_arms(evidence, headline)]
        self.sides = _gated(run, evidence, headline, baseline) or own
        self.is_gate = bool(self.sides and self.sides[0].name)
        self.lacks_baseline = baseline is not None and not self.is_gate
        self.axes: list[Axis] = []
        self.ranked: list[Pair] = []
        if len(self.sides) > 1:
            test, anchor = self._test_and_anchor()
            self.axes = deciding_axes(evidence, test.arm, anchor.arm)
            self.ranked = pairs(test, anchor, self.axes)
            if any(pair.differences[:1] != (None,) for pair in self.ranked):
                self.ranked = [pair for pair in self.ranked if pair.differences[:1] != (None,)]
        known = {(side.name, side.arm.cell_id) for side in self.sides}
        name = "candidate" if self.is_gate else ""
        rest = [Side(run=run, arm=arm, name=name) for arm in evidence.arms if (name, arm.cell_id) not in known]
        if baseline is not None and self.is_gate:
            rest += [
                Side(run=baseline, arm=arm, name="baseline")
                for arm in read_evidence(baseline).arms
                if ("baseline", arm.cell_id) not in known
            ]
        self.every = [*self.sides, *rest]
        self._known: dict[tuple[str, str], dict[tuple[str, int], Shot]] = {}

    @property
    def is_scored(self) -> bool:
        """True if any pair has a difference."""
        return any(d is not None for pair in self.ranked for d in pair.differences)

    def shots(self, side: Side) -> dict[tuple[str, int], Shot]:
        """Return the images of a cell by prompt and seed."""
        key = (side.name, side.arm.cell_id)
        if key not in self._known:
            self._known[key] = shots(side, self.axis)
        return self._known[key]

    def _test_and_anchor(self) -> tuple[Side, Side]:
        first, second = self.sides[:2]
        return (second, first) if self.is_gate else (first, second)

    def text(self, prompt_id: str) -> str:
        """Return the text of a prompt for the page."""
        text = fmt.clean(self.run.prompts.get(prompt_id, prompt_id))
        return fmt.shorten(text, _LONGEST_PROMPT) or "(empty prompt)"

    def albums(self) -> tuple[Album, ...]:
        """Return the albums that are not empty, encoded within their budgets of bytes."""
        paired = self._side_by_side()
        ladder = self._along_the_ladder(MOST_PICTURES - sum(len(row.shots) for row in paired))
        tiles = [row for row in map(self._tile, self.tiles()) if row is not None]
        large, small = encoded([*paired, *ladder]), encoded(tiles, SHEET_BUDGET, SHEET_SIDES_PX)
        sheet = [strip for strip in self._strips(tiles, small) if all(thumb.uri for thumb in strip.thumbs)]
        made = (
            Album(
                title="Baseline and candidate" if self.is_gate else "Side by side",
                note=self._pair_note(),
                strips=self._strips(paired, large),
            ),
            Album(title=self._sheet_title(len(sheet)), note=self._sheet_note(), strips=tuple(sheet), sheet=True),
            Album(title="Along the step ladder", note=self._ladder_note(), strips=self._strips(ladder, large)),
        )  # fmt: skip
        return tuple(album for album in made if album.strips)

    def tiles(self) -> list[Pair]:
        """Return one pair per prompt, of its lowest seed, from the worst to the best; at most `MOST_TILES`."""
        lowest: dict[str, int] = {}
        for pair in self.ranked:
            lowest[pair.prompt_id] = min(pair.seed, lowest.get(pair.prompt_id, pair.seed))
        return _spread([pair for pair in self.ranked if pair.seed == lowest[pair.prompt_id]], MOST_TILES)

    def remarks(self, page: Path | None) -> tuple[str, ...]:
        """Return what readers must know before they look."""
        said = []
        if self.lacks_baseline:
            said.append("The baseline contains no images, so only those of this run are shown.")
        if self.ranked and all(pair.same for pair in self.ranked):
            said.append("Both sides are the same images, bit for bit.")
        elif self.ranked and not self.is_scored:
            said.append("The images are not scored, so they are in the order of their prompts.")
        elif self.ranked and self.axes and not any(d for pair in self.ranked for d in pair.differences):
            said.append(f"No pair differs in {_listed([axis.label for axis in self.axes])}.")
        folder = folder_from(page, self.run.path)
        if folder is not None:
            said.append(
                f"All images of the run are in the folder {folder}images, named CELL.PROMPT.sSEED.png. Those that "
                "are not part of this page are read from there when you choose them."
            )
        return tuple(said)

    def _side_by_side(self) -> list[Row]:
        """Return one row each for the best, the median and the worst difference; one row if no pair differs."""
        if not self.ranked or self.axis is None:
            return []
        last = len(self.ranked) - 1
        places = {"best": last, "median": last // 2, "worst": 0}
        if not any(d for pair in self.ranked for d in pair.differences):
            places = {"median": last // 2}
        rows: dict[int, Row] = {}
        for name, place in places.items():
            nearest = sorted(range(len(self.ranked)), key=lambda at, place=place: (abs(at - place), at))  # type: ignore[misc]
            at = next((at for at in nearest if self._is_stored(self.ranked[at])), place)
            if at in rows:
                continue  # fewer than three pairs
            pair = self.ranked[at]
            where = name if at == place else f"near the {name}"
            difference = f"{where} difference: " if self.is_scored else ""
            remark = f"{difference}{self._difference(pair)}, seed {pair.seed}"
            rows[at] = replace(self._row(pair, self.sides), remark=remark)
        return list(rows.values())

    def _is_stored(self, pair: Pair) -> bool:
        shown = self._row(pair, self.sides[:2]).shots
        return all((shot.side.run.path / shot.file).is_file() for shot in shown)

    def _difference(self, pair: Pair, *, named: bool = True) -> str:
        """Return the difference of a pair; if other pairs have the same one, that of the metric that ranks them."""
        parts = []
        for axis, value in zip(self.axes, pair.differences, strict=True):
            if value is not None:
                parts.append(f"{f'{axis.label} ' if named else ''}{'+' if value > 0 else ''}{fmt.number(value)}")
            place = len(parts) - 1
            equal = [p for p in self.ranked if p.differences[: place + 1] == pair.differences[: place + 1]]
            if len(equal) < 2 or len(parts) > 1:
                break
        return (", " if named else ", then ").join(parts) or "not scored"

    def _tile(self, pair: Pair) -> Row | None:
        row = self._row(pair, self.sides[:2])
        if len(row.shots) != 2:
            return None
        return replace(row, remark=self._difference(pair, named=False))

    def _row(self, pair: Pair, sides: Sequence[Side]) -> Row:
        found = [self.shots(side).get((pair.prompt_id, pair.seed)) for side in sides]
        return Row(prompt_id=pair.prompt_id, remark="", shots=tuple(shot for shot in found if shot is not None))

    def _pair_note(self) -> str:
        if not self.ranked:
            return ""
        test, anchor = self._test_and_anchor()
        cell = f" of {test.arm.words}" if self.is_gate else ""
        over = f"{fmt.plural(len(self.ranked), 'pair')} of images of the same prompt and seed"
        if not self.is_scored:
            return f"One of {over}{cell}; they are not scored."
        return f"{test.label} minus {anchor.label}{cell} in {self.axes[0].label}, over {over}."

    def _sheet_title(self, count: int) -> str:
        total = len({pair.prompt_id for pair in self.ranked})
        return "All prompts" if count == total else f"{count} of {total} prompts"

    def _sheet_note(self) -> str:
        if len(self.sides) < 2:
            return ""
        left, right = self.sides[:2]
        seeds = sorted({pair.seed for pair in self.tiles()})
        axes = ", then in ".join(axis.label for axis in self.axes[:2])
        by = f", from the worst to the best difference in {axes}" if axes and self.is_scored else ""
        return f"Left {left.label}, right {right.label}{by}, seed {_listed(list(map(str, seeds)))}."

    def _along_the_ladder(self, room: int) -> list[Row]:
        """Return rows of one variant's step counts, and the predictor's choice, for as many prompts as fit."""
        rungs, predicted = self._ladder()
        kept = [place for place, arm in enumerate(rungs) if arm.cell_id in self.kept]
        if not rungs or room < 1:
            return []
        each = min(MOST_RUNGS, len(rungs) + bool(predicted), max(room // LEAST_PROMPTS, 1))
        # without scores the gallery shows the same images in the same order
        count = max(1, room // each) if mean_scores(self.run, self.axis) else LEAST_PROMPTS
        rungs = _spread(rungs, min(len(rungs), room, each - bool(predicted)), kept)
        seed = int(self.run.images.select(pl.col("seed").min()).item())
        rows = []
        for prompt_id, remark in self._ranked(count):
            at = (prompt_id, seed)
            found = [shot for arm in rungs if (shot := self.shots(self._side(arm)).get(at)) is not None]
            guest = self.shots(self._side(predicted)).get(at) if predicted else None
            # if it equals a rung it is shown next to it, because it has its own joules
            every = sorted([*found, *([guest] if guest else [])], key=lambda s: (steps_of(s) or 0, s is guest))
            rows.append(
                Row(
                    prompt_id=prompt_id,
                    remark=f"{remark}, seed {seed}",
                    shots=tuple(every),
                    flagged=frozenset([guest.key] if guest else []),
                    label=rungs[0].label or rungs[0].variant,
                    series=self.evidence.series(rungs[0].variant),
                )
            )
        return [row for row in rows if row.shots]

    def _side(self, arm: Arm) -> Side:
        return next(side for side in self.every if side.run is self.run and side.arm.cell_id == arm.cell_id)

    def _ladder_note(self) -> str:
        _, predicted = self._ladder()
        if predicted is None:
            return ""
        return f"The flag shows the number of steps that {predicted.words} chose for this prompt."

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
        means = mean_scores(self.run, self.axis)
        sign = 1 if self.axis is None or self.axis.higher else -1
        known = sorted(set(self.run.images.get_column("prompt_id")))
        ranked = sorted(means, key=lambda p: (sign * means[p], p)) or known
        by = f"by mean {self.axis.label}, hardest first" if self.axis and means else "by id"
        places = _spread(list(range(len(ranked))), min(count, len(ranked)))
        return [(ranked[p], f"prompt {p + 1} of {len(ranked)} {by}") for p in places]

    def _strips(self, rows: Sequence[Row], images: Iterator[Encoded]) -> tuple[Strip, ...]:
        return strips(rows, images, self.evidence, self.text)


def _gated(run: RunData, evidence: Evidence, headline: Headline | None, baseline: RunData | None) -> list[Side]:
    """Return the baseline's and the candidate's images of one cell; empty if the baseline has none."""
    if baseline is None or baseline.is_imported or run.is_imported:
        return []
    stored = {
        str(cell)
        for cell, file in baseline.images.unique("cell_id", keep="first").select("cell_id", "file").iter_rows()
        if (baseline.path / file).is_file()
    }
    before = {arm.cell_id: arm for arm in read_evidence(baseline).arms if arm.cell_id in stored} if stored else {}
    after = {arm.cell_id: arm for arm in evidence.arms}
    wanted = [headline.test, headline.anchor] if headline else []
    cell = next((c for c in (*wanted, *reversed(after)) if c in before and c in after), None)
    if cell is None:
        return []
    return [
        Side(run=baseline, arm=before[cell], name="baseline"),
        Side(run=run, arm=after[cell], name="candidate"),
    ]


def _spread(items: Sequence[T], count: int, kept: Sequence[int] = ()) -> list[T]:
    """Return `count` items at evenly spaced places including both ends; the middle item if `count` is 1.

    Each of the places `kept` takes the nearest other place, first between the ends.
    """
    last = len(items) - 1
    if count > last:
        return list(items)
    if count < 1:
        return []
    places = [len(items) // 2] if count == 1 else [round(i * last / (count - 1)) for i in range(count)]
    for place in kept:
        free = sorted(set(places) - set(kept), key=lambda other: (other in (0, last), abs(other - place), other))
        if place not in places and free:
            places[places.index(free[0])] = place
    return [items[place] for place in sorted(places)]


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else "any metric"
