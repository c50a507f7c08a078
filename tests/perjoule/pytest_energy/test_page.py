"""The page of `--energy-report`."""

from __future__ import annotations

import hashlib
import html
import re
from base64 import b64encode
from pathlib import Path

import pytest

from perjoule.pytest_energy.page import render_page
from perjoule.pytest_energy.records import Judgement, Measured
from perjoule.pytest_energy.session import EnergySession
from perjoule.types import Provenance

HOSTILE = "test_a.py::test_b[</td><script>alert(1)</script> | `x`]"


def session(**changes: object) -> EnergySession:
    usual: dict[str, object] = {
        "root": Path(), "args": (), "save_as": None, "baseline_name": None, "gating": False, "margin": 0.05,
        "session_sd": 0.0, "report": None, "rounds": 2, "window_s": 0.0,
    }  # fmt: skip
    return EnergySession(**(usual | changes))  # type: ignore[arg-type]


def measured(nodeid: str, joules: float, provenance: Provenance = "measured") -> Measured:
    return Measured(
        nodeid=nodeid, energy_j=(joules, joules), uncertainty_j=(0.1, 0.1), duration_s=(1.0, 1.0), iterations=1,
        boundary="gpu-board", provenance=provenance, method="counter",
    )  # fmt: skip


def test_nothing_is_loaded_and_foreign_text_stays_text() -> None:
    page = render_page(
        headline=HOSTILE, provenance="measured", badges=[("device", HOSTILE)], beware=[HOSTILE],
        table=[["test", "J/call"], [HOSTILE, "1"]],
    )  # fmt: skip
    assert page.count("&lt;script&gt;alert(1)") == 4
    assert not re.search(r"<script|<td><|style=|https?:", page)
    css = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert css is not None
    digest = b64encode(hashlib.sha256(css[1].encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in html.unescape(page)


def test_the_headline_says_what_was_measured() -> None:
    assert str(session()._render(".md")).splitlines() == ["No energy test ran.", ""]
    two = session(measured={"a": measured("a", 0.5), "b": measured("b", 8500.0, "estimated")})
    page = str(two._render(".html"))
    assert "2 tests: 500 mJ to 8.50 kJ per call." in page
    assert '<div class="band estimated"><strong>ESTIMATED</strong>' in page
    assert "<li>The joules are ESTIMATED, not measured: counter.</li>" in page
    assert "band" not in str(session(measured={"a": measured("a", 0.5)})._render(".html")).partition("</style>")[2]


@pytest.mark.parametrize("suffix", [".md", ".html"])
def test_with_a_baseline_the_verdicts_are_the_headline(suffix: str) -> None:
    compared = session(
        baseline_name="main",
        missing=["c"],
        measured={name: measured(name, 1.0) for name in "ab"},
        judged={"a": Judgement(outcome="pass", reason="fine"), "b": Judgement(outcome="fail", reason="energy +9%")},
    )
    text = str(compared._render(suffix)).replace("&#39;", "'")
    assert "Compared with baseline 'main': 1 within the margin, 1 above the margin." in text
    assert "b: energy +9%" in text
    assert "missing: c is in baseline 'main' but did not run" in text
    assert suffix == ".md" or '<td class="fail">FAIL</td>' in text
