from __future__ import annotations

import pytest

from perjoule.weights.licences import UNKNOWN, allows_commerce


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("apache-2.0", True),
        ("CC-BY-4.0", True),
        ("openrail++", True),
        ("BSD-2-Clause AND BSD-3-Clause", True),
        ("cc-by-nc-4.0", False),
        ("CC BY-NC-SA 4.0", False),
        ("cc-by-sa-4.0", True),
        ("creativeml-openrail-m", True),
        ("BSD-3-Clause-Clear", True),
        ("MIT AND CC-BY-NC-4.0", False),
        ("MIT AND LicenseRef-own", None),
        ("LicenseRef-stabilityai-ai-community", None),
        ("LicenseRef-stabilityai-nc-research-community", False),
        ("llama3", None),
        ("PolyForm-Noncommercial-1.0.0", False),
        ("research-only", False),
        ("non-commercial", False),
        ("unknown", None),
        ("other", None),
        ("", None),
        (UNKNOWN, None),
        ("not stated", None),
        ("sync-licence", None),
    ],
)
def test_what_the_name_of_a_licence_tells(licence: str, allowed: bool | None) -> None:
    assert allows_commerce(licence) is allowed
