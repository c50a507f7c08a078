"""Rows of images of one prompt and seed: thumbnails with their steps, joules and score."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from perjoule_reports import format as fmt
from perjoule_reports.drawing.thumbs import Encoded, Stored, encode_all
from perjoule_reports.evidence import Evidence
from perjoule_reports.records import Strip, Thumb
from perjoule_reports.shots import Shot


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Images of one prompt and seed. `flagged` ones were chosen by a predictor."""

    prompt_id: str
    remark: str
    shots: tuple[Shot, ...]
    flagged: frozenset[str] = frozenset()
    label: str = ""
    series: int | None = None


def encoded(rows: Sequence[Row], *limits: object) -> Iterator[Encoded]:
    """Encode the images of all rows, in their order, within the limits of `encode_all`."""
    stored = [
        Stored(folder=shot.side.run.path, file=shot.file, sha256=shot.sha256) for row in rows for shot in row.shots
    ]
    return iter(encode_all(stored, *limits))  # type: ignore[arg-type]


def strips(
    rows: Sequence[Row], images: Iterator[Encoded], evidence: Evidence, text_of: Callable[[str], str]
) -> tuple[Strip, ...]:
    """Return the rows as they are shown.

    Args:
        rows: The rows.
        images: Their encoded images, in their order; those of these rows are taken.
        evidence: Contents of the report.
        text_of: Prompt id -> its text for the page.
    """
    return tuple(_strip(row, images, evidence, text_of(row.prompt_id)) for row in rows)


def _strip(row: Row, images: Iterator[Encoded], evidence: Evidence, text: str) -> Strip:
    return Strip(
        prompt=text,
        remark=row.remark,
        variant=row.label,
        series=row.series,
        thumbs=tuple(_thumb(row, shot, text, next(images), evidence) for shot in row.shots),
    )


def _thumb(row: Row, shot: Shot, text: str, image: Encoded, evidence: Evidence) -> Thumb:
    arm, steps, axis = shot.side.arm, fmt.step_count(steps_of(shot)), evidence.primary
    flag = "predicted" if shot.key in row.flagged else ""
    name = f"{shot.side.name}, " if shot.side.name else ""
    return Thumb(
        uri=image.uri,
        alt=f"{text} ({name}{arm.label or arm.variant}, {steps})",
        label=steps if row.label else shot.side.label,
        series=evidence.series(arm.variant) if not shot.side.name and (flag or not row.label) else None,
        cell_id=arm.cell_id,
        key=shot.key,
        flag=flag,
        lines=(
            *((steps,) if not row.label and _needs_steps(shot) else ()),
            shot.joules(evidence.energy_unit),
            f"{axis.label if axis else 'score'} {fmt.number(shot.score)}" if shot.score is not None else "not scored",
        ),
        marked=bool(axis and arm.on_frontier.get(axis.name)),
        pixelated=image.pixelated,
        reduced=image.reduced,
    )


def _needs_steps(shot: Shot) -> bool:
    """Return whether the label over an image does not tell its steps: it names the run, or the mean of a cell."""
    arm = shot.side.arm
    low, high = arm.steps_spread or (None, None)
    return bool(shot.side.name) or low != high or steps_of(shot) != arm.steps


def steps_of(shot: Shot) -> float | None:
    """Return the steps of an image: its own if they were chosen for it, else those of its cell."""
    return shot.side.arm.steps if shot.steps is None else shot.steps
