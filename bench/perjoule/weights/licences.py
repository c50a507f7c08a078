"""Commercial use under licences of weights and data, according to their names. This is not legal advice."""

from __future__ import annotations

import re

UNKNOWN = "LicenseRef-see-model-card"

# by-nc, NonCommercial, non-commercial, research-only
_FORBIDS = re.compile(r"(^|[-_ ])nc([-_ ]|$)|non-?commercial|research-only", re.IGNORECASE)
# the OpenRAIL family restricts purposes, not commercial use
_ALLOWS = re.compile(
    r"mit|apache-2\.0|0?bsd(-\d-clause.*)?|isc|zlib|unlicense|wtfpl|mpl-2\.0|afl-3\.0|cc0-1\.0|cc-by(-sa)?-[234]\.\d|"
    r"(creativeml-|bigscience-)?openrail(-m|\+\+)?",
    re.IGNORECASE,
)


def allows_commerce(licence: str) -> bool | None:
    """Return whether a licence allows commercial use, for all parts of `A AND B`; None if unknown."""
    if _FORBIDS.search(licence):
        return False
    return all(map(_ALLOWS.fullmatch, licence.split(" AND "))) or None
