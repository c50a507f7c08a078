"""What a report is made of: frozen records that hold every word and picture, and nothing of how they are laid out.

    Report
    ├── Headline, Badge*, Tile*          ten seconds
    └── Section*                         in reading order
        ├── paragraphs, notes
        ├── Figure*   SVG + its data Table
        ├── Table*    Column*, rows of Cell
        └── Album*    Strip*, Thumb*     pictures side by side and along the step ladder

HTML and Markdown are rendered from the same object, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import polars as pl

from perjoule.types import DeviceEnergy, MetricSpec, Suite

Tone = Literal["calm", "plain", "loud", "alarm"]


class RunData(Protocol):
    """The part of a loaded run that a report reads; `perjoule.load_run` returns one."""

    @property
    def path(self) -> Path:
        """The run directory; image files are relative to it."""
        ...

    @property
    def suite(self) -> Suite:
        """The suite as run."""
        ...

    @property
    def environment(self) -> dict[str, Any]:
        """System under test."""
        ...

    @property
    def trials(self) -> pl.DataFrame:
        """One row per trial."""
        ...

    @property
    def images(self) -> pl.DataFrame:
        """One row per generated image."""
        ...

    @property
    def scores(self) -> pl.DataFrame:
        """One row per image and metric."""
        ...

    @property
    def power(self) -> pl.DataFrame:
        """Power samples; empty for sources without any."""
        ...

    @property
    def devices(self) -> list[tuple[str, DeviceEnergy]]:
        """Trial id and board; empty for sources without boards."""
        ...

    @property
    def points(self) -> pl.DataFrame:
        """One row per cell and metric."""
        ...

    @property
    def metrics(self) -> Mapping[str, MetricSpec]:
        """Specs of the metrics that were scored."""
        ...

    @property
    def prompts(self) -> Mapping[str, str]:
        """Prompt texts by id."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Badge:
    """A label that says how far to trust the numbers: `provenance: ESTIMATED`."""

    label: str
    value: str
    tone: Tone = "plain"
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One key number with its interval and what it means."""

    value: str
    detail: str
    label: str
    brand: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """The run in one sentence; `support` says what carries it, `tiles` show its numbers."""

    sentence: str
    support: tuple[str, ...] = ()
    tiles: tuple[Tile, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column head; numeric columns align right and sort by `Cell.sort`."""

    title: str
    unit: str = ""
    numeric: bool = False
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A table cell: text, its interval or remark, the provenance mark, and the number to sort by."""

    text: str
    detail: str = ""
    brand: str = ""
    sort: float | None = None
    series: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under columns; the first cell of a row is its head. `marked` rows are stressed."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    marked: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A picture with its words and its data. `narrow` is the same picture drawn for a phone, or empty."""

    name: str
    title: str
    svg: str
    caption: str = ""
    narrow: str = ""
    data: Table | None = None
    small: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumb:
    """One small picture as a data URI (empty if it is missing) with the lines under it.

    `label` stands above it, with the mark of its `series`; `flag` says why it is set apart; `marked` ones are on the
    frontier.
    """

    uri: str
    alt: str
    lines: tuple[str, ...]
    label: str = ""
    series: int | None = None
    cell_id: str = ""
    flag: str = ""
    marked: bool = False
    pixelated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """Pictures of one prompt and seed; of one `variant` in the order of their steps, or of several side by side."""

    prompt: str
    remark: str
    thumbs: tuple[Thumb, ...]
    variant: str = ""
    series: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Album:
    """Strips under a heading of their own."""

    title: str
    note: str
    strips: tuple[Strip, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the report. `folded` tables go behind a summary line; `code` is printed as it is."""

    anchor: str
    title: str
    how_to_read: str
    paragraphs: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()
    albums: tuple[Album, ...] = ()
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything a reader gets. `css_rules` are the styles that the figures need; `payload` is the JSON twin."""

    title: str
    subtitle: str
    provenance: str | None
    headline: Headline
    badges: tuple[Badge, ...]
    sections: tuple[Section, ...]
    css_rules: tuple[str, ...] = ()
    payload: dict[str, Any] = field(default_factory=dict)
