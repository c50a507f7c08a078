"""What licences of weights and data allow, as far as their names tell. Not legal advice."""

from __future__ import annotations

import re

UNKNOWN = "LicenseRef-see-model-card"

# by-nc, NonCommercial, non-commercial, research-only
_FORBIDS = re.compile(r"(^|[-_ ])nc([-_ ]|$)|non-?commercial|research-only", re.IGNORECASE)
_SAYS_NOTHING = re.compile(r"^(other|unknown|not stated|licenseref-.*|)$", re.IGNORECASE)


def allows_commerce(licence: str) -> bool | None:
    """True or False by the licence's name; None if the name does not tell."""
    if _FORBIDS.search(licence):
        return False
    return None if _SAYS_NOTHING.match(licence) else True
