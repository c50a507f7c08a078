"""Images of a run with what is known of each: score, steps, joules; and pairs of images, from the worst to the best.

The joules of an image are its own if its windows contain no other image; otherwise they are the mean of its cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from perjoule_reports import format as fmt
from perjoule_reports.evidence import Arm, Axis, Evidence
from perjoule_reports.records import RunData


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One image.

    Attributes:
        side: Whose image it is.
        prompt_id: Its prompt.
        seed: Its seed.
        steps: Its own steps; None if they are not known.
        file: Path in the run directory.
        sha256: Digest of its pixels.
        score: Its score under the primary metric.
        own_j: Joules of its own windows; None if they contain other images too.
        windows: Number of these windows.
    """

    side: Side
    prompt_id: str
    seed: int
    steps: int | None
    file: str
    sha256: str | None
    score: float | None
    own_j: float | None
    windows: int

    @property
    def key(self) -> str:
        """Name in the page, unique over both runs of a gate."""
        return f"{self.side.name}/{self.side.arm.cell_id}/{self.prompt_id}/{self.seed}"

    def joules(self, unit: fmt.Scale) -> str:
        """Return the joules with their provenance, and whose they are."""
        arm = self.side.arm
        brand = f" {fmt.brand(arm.provenance)}".rstrip()
        if self.own_j is not None:
            of = "this image" if self.windows == 1 else f"this image, {self.windows} windows"
            return f"{fmt.number(self.own_j / unit.factor)} {unit.unit}{brand}, {of}"
        if arm.energy.value is None:
            return "J not measured"
        low, high = map(fmt.steps, arm.steps_spread or (None, None))
        over = f", {low} to {high} steps" if low != high else ""  # another number of steps than the image has
        return f"{fmt.interval(arm.energy, unit)[0]} {unit.unit}{brand}, mean of the cell{over}"


@dataclass(frozen=True, kw_only=True)
class Side:
    """One cell of a run; `name` is baseline or candidate in a gate, otherwise empty."""

    run: RunData
    arm: Arm
    name: str = ""

    @property
    def label(self) -> str:
        """What is written over its images."""
        return self.name or self.arm.words


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Test minus anchor for one prompt and seed, by metric (None if one of them is not scored).

    `same` is True if both images are equal, bit for bit.
    """

    prompt_id: str
    seed: int
    differences: tuple[float | None, ...]
    same: bool


def shots(side: Side, axis: Axis | None) -> dict[tuple[str, int], Shot]:
    """Return the images of a cell by prompt and seed."""
    images = side.run.images.filter(pl.col("cell_id") == side.arm.cell_id)
    scored = images.join(_scores(side.run, axis), on="image_id", how="left", maintain_order="left")
    own = _own_joules(side)
    return {
        (str(row["prompt_id"]), int(row["seed"])): Shot(
            side=side,
            prompt_id=str(row["prompt_id"]),
            seed=int(row["seed"]),
            steps=row["steps"],
            file=str(row["file"]),
            sha256=row["sha256"],
            score=row["value"],
            own_j=own.get((str(row["prompt_id"]), int(row["seed"])), (None, 0))[0],
            windows=own.get((str(row["prompt_id"]), int(row["seed"])), (None, 0))[1],
        )
        for row in scored.iter_rows(named=True)
    }


def pairs(test: Side, anchor: Side, axes: Sequence[Axis]) -> list[Pair]:
    """Return the pairs of images, the worst difference first; ties are broken by the next metric, then by prompt.

    The first axis decides; a pair without a score under it comes last.
    """
    sides = [
        side.run.images.filter(pl.col("cell_id") == side.arm.cell_id).select("image_id", "prompt_id", "seed", "sha256")
        for side in (test, anchor)
    ]
    joined = sides[0].join(sides[1], on=["prompt_id", "seed"], suffix="_anchor")
    for place, axis in enumerate(axes):
        for side, end in ((test, ""), (anchor, "_anchor")):
            scores = _scores(side.run, axis).rename({"image_id": f"image_id{end}", "value": f"{place}{end}"})
            joined = joined.join(scores, on=f"image_id{end}", how="left")
        joined = joined.with_columns((pl.col(f"{place}") - pl.col(f"{place}_anchor")).alias(f"d{place}"))
    made = [
        Pair(
            prompt_id=str(row["prompt_id"]),
            seed=int(row["seed"]),
            differences=tuple(row[f"d{place}"] for place in range(len(axes))),
            same=row["sha256"] is not None and row["sha256"] == row["sha256_anchor"],
        )
        for row in joined.iter_rows(named=True)
    ]
    signs = [1 if axis.higher else -1 for axis in axes]

    def rank(pair: Pair) -> tuple[object, ...]:
        values = [(d is None, 0.0 if d is None else sign * d) for d, sign in zip(pair.differences, signs, strict=True)]
        return (*values, pair.prompt_id, pair.seed)

    return sorted(made, key=rank)


def deciding_axes(evidence: Evidence, test: Arm, anchor: Arm) -> list[Axis]:
    """Return the metrics by which two cells may be ranked: the primary one, then those that break its ties."""
    rest = [a for a in evidence.axes if a is not evidence.primary and not a.advisory]
    every = [evidence.primary, *rest] if evidence.primary else rest
    return [axis for axis in every if not axis.within_family or test.family == anchor.family]


def mean_scores(run: RunData, axis: Axis | None) -> dict[str, float]:
    """Return the mean score of each prompt over cells and seeds; empty without scores."""
    scored = run.images.select("image_id", "prompt_id").join(_scores(run, axis), on="image_id", maintain_order="left")
    means = scored.group_by("prompt_id").agg(pl.col("value").mean())
    return {str(prompt): float(value) for prompt, value in means.iter_rows()}


def _scores(run: RunData, axis: Axis | None) -> pl.DataFrame:
    if axis is None:
        return pl.DataFrame(schema={"image_id": pl.String, "value": pl.Float64})
    wanted = (pl.col("metric") == axis.name) & pl.col("value").is_finite()
    return run.scores.filter(wanted).select("image_id", "value")


def _own_joules(side: Side) -> dict[tuple[str, int], tuple[float, int]]:
    """Return the mean joules and the number of the windows that contain one image, by prompt and seed."""
    single = side.run.windows.filter((pl.col("cell_id") == side.arm.cell_id) & (pl.col("image_count") == 1))
    rows = (
        single.filter(pl.col("energy_j_per_image").is_finite())
        .select(pl.col("prompt_ids", "seeds").list.first(), "energy_j_per_image")
        .group_by("prompt_ids", "seeds", maintain_order=True)
        .agg(pl.col("energy_j_per_image").mean(), n=pl.len())
    )
    return {(str(pid), int(seed)): (float(e), int(n)) for pid, seed, e, n in rows.iter_rows()}
