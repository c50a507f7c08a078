"""Decodes text files in UTF-8, UTF-16 or UTF-32, with or without a byte order mark."""

from __future__ import annotations

import codecs
from pathlib import Path

from perjoule.errors import UsageError
from perjoule.opening import MOST_TEXT_BYTES, content_of

# UTF-32 first: its mark begins with that of UTF-16
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decoded_text(path: Path) -> str:
    """Return the text of a file; raises UsageError with line and byte if it has another encoding, or is too long."""
    raw = content_of(path, MOST_TEXT_BYTES, follow=True, error=UsageError)
    codec = next((codec for mark, codec in _MARKS if raw.startswith(mark)), "utf-8-sig")
    if codec == "utf-8-sig" and b"\0" in raw[:4096]:
        # UTF-16 without a byte order mark: most characters have a zero upper byte
        codec = "utf-16-be" if raw[:4096:2].count(0) > raw[1:4096:2].count(0) else "utf-16-le"
    try:
        return raw.decode(codec).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UsageError(
            f"{path}: line {line}, byte {error.start}: not {codec.removesuffix('-sig').upper()}: save it as UTF-8"
        ) from error
