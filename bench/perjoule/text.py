"""Makes foreign text (prompts, names, failures) safe for terminals, XML, Markdown and scripts in HTML.

Foreign text must not move the cursor, reorder neighbouring text, or be parsed as markup.
"""

from __future__ import annotations

import base64
import codecs
import hashlib
import json
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

_UNSAFE = {"Cc", "Cs", "Co", "Cn", "Zl", "Zp"}
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
# GitHub executes lines that begin with `::`, and what follows `##[`, on stdout and stderr alike
_WORKFLOW_COMMAND = re.compile(r"^([^\S\n]*):(?=:)|##(?=\[)", re.MULTILINE)
# a spreadsheet executes texts that begin with these
_FORMULA = ("=", "+", "-", "@")
_SPECIAL = re.compile(r"([\\`*_{}\[\]|~$])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;", "#": "&#35;"}
_WHOLE_UUID = re.compile(r"\b(?:GPU|MIG)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE)
_PART_OF_UUID = re.compile(r"\b(GPU|MIG)-[0-9a-f][0-9a-f-]{3,}", re.IGNORECASE)
_DIGEST_LENGTH = 12
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LINK = re.compile(r"(?i)\b(https?|ftp|mailto|www)([:.])")


def is_name(text: str) -> bool:
    """Return whether a text can name a suite, variant or baseline: at most 64 letters, digits, `.`, `_` and `-`."""
    return _NAME.fullmatch(text) is not None


def one_line(text: object) -> str:
    """Return a text on one line without control, formatting and bidirectional characters."""
    whole = str(text)
    if whole.isascii() and whole.isprintable():
        return " ".join(whole.split())
    characters = []
    for character in whole:
        category = unicodedata.category(character)
        if character.isspace():
            characters.append(" ")
        elif category in _UNSAFE:
            characters.append("\ufffd")
        elif category != "Cf":
            characters.append(character)
    return " ".join("".join(characters).split())


def without_controls(text: str) -> str:
    """Return the same lines without characters that move the cursor, change colours or reorder printed text."""
    return _CONTROLS.sub("\ufffd", text)


def printable(text: str) -> str:
    """Return a text for terminals and logs: without control characters, and without commands to a CI runner."""
    return _WORKFLOW_COMMAND.sub(
        lambda match: f"{match[1]}: " if match[1] is not None else "# #", without_controls(text)
    )


def spreadsheet_cell(value: Any) -> Any:
    """Return a value for CSV: a text on one line that no spreadsheet takes for a formula, or the number itself."""
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def provenance_words(provenance: str | None) -> str:
    """Return the provenance of joules, in capitals unless they were measured, e.g. `ESTIMATED, not measured`."""
    if provenance == "measured":
        return "measured"
    title = provenance_title(provenance or "unknown")
    return title if provenance == "not stated" else f"{title}, not measured"


def provenance_title(provenance: str) -> str:
    """Return the provenance of joules in capitals, e.g. `ESTIMATED`."""
    return "PROVENANCE NOT STATED" if provenance == "not stated" else provenance.upper()


def provenance_note(provenances: Iterable[str | None]) -> str:
    """Return a clause about joules of these provenances; empty if all of them were measured."""
    kinds = {kind for kind in provenances if kind} - {"measured"}
    named = sorted(kinds - {"not stated"})
    clauses = [f"the joules are {' and '.join(kind.upper() for kind in named)}, not measured"] if named else []
    if "not stated" in kinds:
        clauses.append(f"the provenance of {'other' if named else 'the'} joules is NOT STATED")
    return "; ".join(clauses)


def escape_markdown(text: object) -> str:
    """Return one line that GitHub-flavoured Markdown prints unchanged, also inside a table.

    It does not start a table column, link, mention, issue reference, image or HTML element. At the start of a line a
    plain `-`, `+` or `1.` would still begin a list: put other text before it.
    """
    plain = re.sub("[&<>@#]", lambda m: _ENTITIES[m[0]], one_line(text))
    # GitHub searches for mentions in the rendered text, in which entities are already decoded
    plain = re.sub(r"(&#(?:64|35);)(?=\w)", r"\1&#8203;", plain)
    plain = _LINK.sub(lambda m: m[1] + ("&#58;" if m[2] == ":" else "&#46;"), plain)
    parts = re.split(r"(&#?\w+;)", plain)
    return "".join(part if i % 2 else _SPECIAL.sub(r"\\\1", part) for i, part in enumerate(parts))


# ASCII replacements of the signs that we print, for terminals and logs in other encodings
_ASCII = {
    "±": "+/-", "×": "x", "−": "-", "–": "-", "—": "-", "…": "...", "→": "->", "≥": ">=", "≤": "<=", "≈": "~", "·": "*",
    "“": '"', "”": '"', "‘": "'", "’": "'", "Δ": "d", "√": "sqrt", "²": "^2", "₂": "2", "µ": "u",
}  # fmt: skip
PLAIN = "perjoule.plain"


def plain_error(error: UnicodeError) -> tuple[str, int]:
    """Codec error handler: write missing characters in ASCII, known signs by similar ones, others as in JSON."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_ASCII.get(c) or json.dumps(c)[1:-1] for c in lacking), error.end


codecs.register_error(PLAIN, plain_error)


def as_json(value: Any) -> str:
    """Return JSON for stdout, with sorted keys; in ASCII if stdout is not UTF-8, so that no character is lost."""
    utf8 = codecs.lookup(getattr(sys.stdout, "encoding", None) or "ascii").name == "utf-8"
    text = json.dumps(value, indent=2, ensure_ascii=not utf8, sort_keys=True, allow_nan=False, default=str)
    # as escapes, terminals and CI runners do not execute them
    text = _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text).replace("##[", "#\\u0023[")
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def script_json(value: Any) -> str:
    """Return JSON that is safe inside a script element: nothing in it can end the element or open a comment."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def content_digest(text: str) -> str:
    """Return the source expression of a content security policy that allows this script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def page_templates(read: Callable[[str], str], *, keep_trailing_newline: bool = False) -> Environment:
    """Return the templates of HTML pages: all values are escaped, and an unknown name is an error.

    Args:
        read: Returns the text of a template by its name.
        keep_trailing_newline: Whether a page ends as its template does.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    return Environment(
        loader=FunctionLoader(read),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=keep_trailing_newline,
    )


@cache  # asked for at every reading of a board
def board_digest(uuid: str) -> str:
    """Return `board-` and 12 hex digits of the SHA-256 of a board's UUID: distinguishes boards without naming them."""
    return f"board-{hashlib.sha256(uuid.encode()).hexdigest()[:_DIGEST_LENGTH]}"


def without_uuids(text: str) -> str:
    """Replace UUIDs of boards and slices in a text by their digests, and beginnings of UUIDs by `GPU-…`."""
    text = _WHOLE_UUID.sub(lambda match: board_digest(match.group()), text)
    return _PART_OF_UUID.sub(lambda match: f"{match.group(1)}-…", text)


def listed(names: Sequence[str], most: int = 20) -> str:
    """Return names with commas between them, e.g. `a, b and 7 more`: a table of others can have thousands."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"
