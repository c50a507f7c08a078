"""Tables for terminals: every table that a command prints is laid out here.

A table that is too wide for the terminal first loses the columns that its caller can spare, then wraps its texts at
blanks, and only then inside words.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from perjoule.text import one_line

Row = dict[str, Any]
Least = Sequence[str | tuple[str, ...]]
_GAP = 2
_LEAST_WIDTH = 20  # of a terminal for which tables are laid out; a narrower one breaks the lines
_LONGEST_WORD = 30  # longer words may be broken before a column is left out
_USUAL_TEXT = 22  # characters in a line of a wrapped text
_BROKEN_TEXT = 12  # with broken words, before the last columns are left out
_LEAST_TEXT = 6


def text_table(rows: Sequence[Row], width: int | None = None, least: Least = ()) -> str:
    """Left-aligned words, right-aligned numbers, two blanks between columns; an absent value is a dash.

    Args:
        rows: The values by column.
        width: Of the terminal, at least 20: no line is longer, unless the numbers alone are. None for any width.
        least: Columns that are left out if the table is too wide, the first ones first, those of a tuple together; a
            note names them.
    """
    if not rows:
        return "nothing"
    texts = {key: [cell_text(row[key]) for row in rows] for key in rows[0]}
    sizes = {key: max(map(len, (one_line(key), *column))) for key, column in texts.items()}
    is_number = {key: all(isinstance(row[key], int | float | None) for row in rows) for key in texts}
    hidden: list[str] = []
    if width is not None and _total(sizes) > width:
        width = max(width, _LEAST_WIDTH)
        hidden = _left_out(texts, sizes, is_number, width, least)
        sizes = _fitted({key: sizes[key] for key in texts if key not in hidden}, texts, is_number, width)
    keys = list(sizes)
    lines = [_lines([one_line(key) for key in keys], keys, sizes, is_number)]
    lines += [_lines([texts[key][i] for key in keys], keys, sizes, is_number) for i in range(len(rows))]
    known = [key for key in hidden if any(row[key] not in (None, "") for row in rows)]
    note = _note(known, width) if known and least else []
    return "\n".join([*(line for part in lines for line in part), *note])


def cell_text(value: Any) -> str:
    """Return a value as the text of a cell: on one line, four significant digits, a dash if it is absent."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else one_line(value)


def _total(sizes: dict[str, int]) -> int:
    return sum(sizes.values()) + _GAP * (len(sizes) - 1)


def _left_out(
    texts: dict[str, list[str]], sizes: dict[str, int], is_number: dict[str, bool], width: int, least: Least
) -> list[str]:
    """Return the columns to leave out: those without a value, then the `least`, then the last ones.

    The last ones only go if the rest does not even fit with broken words. Without `least` all columns stay.
    """
    if not least:
        return []
    whole = _whole_words(texts, sizes, is_number)
    broken = _broken_words(whole, is_number, _BROKEN_TEXT)
    others = list(texts)[1:]
    empty = [(key,) for key in others if set(texts[key]) <= {"-", ""}]
    spare = [*empty, *((group,) if isinstance(group, str) else group for group in least)]
    hidden: list[str] = []
    for floors, candidates in ((whole, spare), (broken, [(key,) for key in reversed(others)])):
        for group in candidates:
            if _total({key: size for key, size in floors.items() if key not in hidden}) <= width:
                break
            hidden += [key for key in group if key in others and key not in hidden]
    return hidden


def _whole_words(texts: dict[str, list[str]], sizes: dict[str, int], is_number: dict[str, bool]) -> dict[str, int]:
    """Return the widths at which columns wrap at blanks only, unless they have very long words."""

    def width(key: str) -> int:
        word = max((len(word) for text in (one_line(key), *texts[key]) for word in text.split()), default=0)
        return min(sizes[key], max(min(word, _LONGEST_WORD), _USUAL_TEXT))

    return {key: size if is_number[key] else width(key) for key, size in sizes.items()}


def _broken_words(whole: dict[str, int], is_number: dict[str, bool], text: int) -> dict[str, int]:
    """Return widths at which texts are `text` wide, except for the first column, which names the rows."""
    first = next(iter(whole))
    return {key: size if is_number[key] or key == first else min(size, text) for key, size in whole.items()}


def _fitted(
    sizes: dict[str, int], texts: dict[str, list[str]], is_number: dict[str, bool], width: int
) -> dict[str, int]:
    """Return widths that fit: the widest text is narrowed to its words, then below; names of rows and numbers last."""
    whole = _whole_words(texts, sizes, is_number)
    # a number is never broken: its first line alone would be another number
    narrow = {
        key: min(size, max(map(len, texts[key]))) if is_number[key] else min(size, _LEAST_TEXT)
        for key, size in whole.items()
    }
    for floors in (whole, _broken_words(whole, is_number, _LEAST_TEXT), narrow):
        while (excess := _total(sizes) - width) > 0:
            wide = [key for key in sizes if sizes[key] > floors[key]]
            if not wide:
                break
            widest = max(wide, key=lambda key: sizes[key])
            # to the next widest at once, since a text can have thousands of characters
            next_widest = max((sizes[key] for key in wide if sizes[key] < sizes[widest]), default=0)
            to = max(floors[widest], sizes[widest] - excess, min(next_widest, sizes[widest] - 1))
            sizes = {**sizes, widest: to}
    return sizes


def _lines(values: Sequence[str], keys: Sequence[str], sizes: dict[str, int], is_number: dict[str, bool]) -> list[str]:
    """Return a row as one or more lines."""
    parts = [_wrapped(value, sizes[key]) for key, value in zip(keys, values, strict=True)]
    lines = []
    for i in range(max(map(len, parts))):
        cells = [part[i] if i < len(part) else "" for part in parts]
        padded = [
            cell.rjust(sizes[key]) if is_number[key] else cell.ljust(sizes[key])
            for key, cell in zip(keys, cells, strict=True)
        ]
        lines.append((" " * _GAP).join(padded).rstrip())
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    return [text] if len(text) <= width else textwrap.wrap(text, width)


def _note(hidden: Sequence[str], width: int | None) -> list[str]:
    text = f"not shown: {', '.join(map(one_line, hidden))} (--wide)"
    return [text] if width is None else textwrap.wrap(text, width)
