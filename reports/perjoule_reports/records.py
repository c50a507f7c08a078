"""The parts of a report: frozen records that contain every word and figure, but not the layout.

    Report
    ├── Stamp, Headline, Badge*, Tile*   ten seconds
    └── Section*                         in reading order
        ├── paragraphs, notes
        ├── Figure*   SVG + its data Table
        ├── Table*    Column*, rows of Cell
        └── Album*    Strip*, Thumb*     images side by side and along the step ladder

HTML and Markdown are rendered from the same object, so they cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from perjoule.runs.directory import Run as RunData

__all__ = [
    "Album", "Badge", "Cell", "Column", "Figure", "Glance", "Headline", "Report", "RunData", "Section", "Stamp",
    "Strip", "Table", "Thumb", "Tile", "Tone",
]  # fmt: skip

Tone = Literal["calm", "plain", "loud", "alarm"]
Word = Literal["PASS", "FAIL", "INCONCLUSIVE", "INVALID", "NO GATE"]


MOST_TILES = 36


@dataclass(frozen=True, slots=True, kw_only=True)
class Badge:
    """A label that says how far to trust the numbers: `provenance: ESTIMATED`."""

    label: str
    value: str
    tone: Tone = "plain"
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """The verdict: a word, a sign that does not depend on colour, and a sentence with the reason."""

    word: Word
    sign: str
    tone: Tone
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One key number with its interval and what it means."""

    value: str
    detail: str
    label: str
    brand: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """The run in one sentence; `support` gives the evidence, `tiles` the numbers.

    `deploy` names the cell to use, or says why there is none; `call` is the code; `beware` lists caveats. `test` and
    `anchor` are the cells that the sentence compares, empty if it does not compare cells.
    """

    sentence: str
    support: tuple[str, ...] = ()
    tiles: tuple[Tile, ...] = ()
    deploy: tuple[str, ...] = ()
    call: str = ""
    beware: tuple[str, ...] = ()
    test: str = ""
    anchor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column head; numeric columns align right and sort by `Cell.sort`. `more` columns are hidden until asked for."""

    title: str
    unit: str = ""
    numeric: bool = False
    hint: str = ""
    more: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A table cell: text, its interval or remark, the provenance mark, and the number to sort by.

    `strong` marks numbers whose interval excludes no difference.
    """

    text: str
    detail: str = ""
    brand: str = ""
    sort: float | None = None
    series: int | None = None
    strong: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under columns; the first entry of a row is its head. `marked` rows are highlighted."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    marked: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure with its texts and its data.

    `narrow` is the same figure drawn for a phone, or empty; `rules` are the CSS rules that both need. `legend` has the
    number and the name of each series.
    """

    name: str
    title: str
    svg: str
    caption: str = ""
    narrow: str = ""
    data: Table | None = None
    small: bool = False
    legend: tuple[tuple[int, str], ...] = ()
    rules: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumb:
    """One thumbnail as a data URI (empty if the image is missing) with the lines under it.

    `label` is shown above it, with the mark of its `series`; `flag` says why it is highlighted; `marked` thumbnails
    are on the frontier; `reduced` ones have fewer pixels than the image; `key` is its name for the viewer.
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
    reduced: bool = False
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """Images of one prompt and seed: one `variant` in the order of its steps, or several variants side by side."""

    prompt: str
    remark: str
    thumbs: tuple[Thumb, ...]
    variant: str = ""
    series: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """What is shown next to the headline: two images of one prompt and a small frontier, if the run has them."""

    images: tuple[Thumb, ...] = ()
    prompt: str = ""
    remark: str = ""
    figure: Figure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Album:
    """Strips under their own heading; in a `sheet` each is a small tile."""

    title: str
    note: str
    strips: tuple[Strip, ...]
    sheet: bool = False

    @property
    def shown(self) -> tuple[Strip, ...]:
        """The tiles of a sheet that a page shows at once; it folds the others, so that it stays short."""
        return self.strips[:MOST_TILES]

    @property
    def folded(self) -> tuple[Strip, ...]:
        """The other tiles."""
        return self.strips[MOST_TILES:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the report. `folded` tables go behind a summary line; `code` is printed as it is.

    `empty` names what the run does not have, with the reason or remedy in brackets: such a section is one entry of a
    list. A `deep` section is closed until a reader opens it.

    `how_to_read` says what is shown; `sample` how many units there are; `interval` how the intervals were computed and
    what they do not include; `change` what would change the conclusion; `viewer` what the script needs for the images.
    """

    anchor: str
    title: str
    how_to_read: str
    sample: str = ""
    interval: str = ""
    change: str = ""
    alert: str = ""
    paragraphs: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    small_title: str = "The other metrics"
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()
    albums: tuple[Album, ...] = ()
    viewer: dict[str, Any] | None = None
    code: str = ""
    empty: str = ""
    deep: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A whole report. `css_rules` are the styles that the figures need; `payload` is the report as JSON."""

    title: str
    subtitle: str
    provenance: str | None
    stamp: Stamp
    headline: Headline
    badges: tuple[Badge, ...]
    glance: Glance
    sections: tuple[Section, ...]
    css_rules: tuple[str, ...] = ()
    payload: dict[str, Any] = field(default_factory=dict)
    imported: bool = False

    @property
    def shown(self) -> tuple[Section, ...]:
        """The sections that have content."""
        return tuple(section for section in self.sections if not section.empty)

    @property
    def absent(self) -> str:
        """What the run does not have, in a sentence; empty if it has everything."""
        named = [section.empty for section in self.sections if section.empty]
        return f"Not in this run: {'; '.join(named)}." if named else ""
