"""The page of `--energy-report`."""

from __future__ import annotations

import hashlib
import html
import re
from base64 import b64encode
from pathlib import Path

import pytest

from perjoule.pytest_energy.page import Results, render_page
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
    failed = Judgement(outcome="fail", reason=HOSTILE)
    results = Results(
        measured={HOSTILE: measured(HOSTILE, 1.0)}, judged={HOSTILE: failed}, baseline={}, baseline_name="main",
        missing=[], margin=0.05,
    )  # fmt: skip
    page = render_page(results, provenance="measured", facts=[("device", HOSTILE)], beware=[HOSTILE])
    assert page.count("&lt;script&gt;alert(1)") == 6
    assert not re.search(r"<script|<td><|style=|https?:", page)
    css = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert css is not None
    digest = b64encode(hashlib.sha256(css[1].encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in html.unescape(page)


def test_the_headline_says_what_was_measured() -> None:
    assert str(session()._render(".md")).splitlines() == ["No energy test ran.", ""]
    nothing = session(gating=True)  # a gate that nothing was measured for cannot pass
    assert str(nothing._render(".md")).splitlines() == ["INVALID", "", "No energy test ran.", ""]
    assert "INVALID" in str(nothing._render(".html"))
    two = session(measured={"a": measured("a", 0.5), "b": measured("b", 8500.0, "estimated")})
    page = str(two._render(".html"))
    assert "2 tests: 500 mJ to 8.50 kJ per call." in page
    assert '<div class="band estimated" role="note"><strong>ESTIMATED</strong>' in page
    assert "<li>The joules are ESTIMATED, not measured: counter.</li>" in page
    assert "band" not in str(session(measured={"a": measured("a", 0.5)})._render(".html")).partition("</style>")[2]


def change(share: float, outcome: str = "fail") -> Judgement:
    return Judgement(outcome=outcome, reason="why", change=share, low=share - 0.01, high=share + 0.01, mde=0.02)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".md", ".html"])
def test_the_largest_excess_is_the_headline_in_joules(suffix: str) -> None:
    compared = session(
        baseline_name="main",
        missing=["d"],
        baseline={name: measured(name, joules) for name, joules in (("a", 1.25), ("b", 1.0), ("c", 1.0))},
        measured={name: measured(name, joules) for name, joules in (("a", 1.005), ("b", 1.2), ("c", 1.09))},
        judged={"a": change(-0.196, "pass"), "b": change(0.2), "c": change(0.09)},
    )
    text = html.unescape(str(compared._render(suffix)))
    assert "b costs 20.0 % more energy, 1.00 → 1.20 J per call; 5.0 % more was allowed; 1 more failed." in text
    assert "Compared with baseline 'main': 1 within the margin, 2 above the margin." in text
    assert "missing: d is in baseline 'main' but did not run" in text
    if suffix == ".html":
        assert re.search(r'class="stamp alarm"><strong><span aria-hidden="true">✗</span> FAIL<', text)
        assert '<strong class="alarm">FAIL</strong>' in text
        assert ">1.25 → 1.00 J<" in text
        assert "−19.6 %<small>[−20.6 %, −18.6 %]</small>" in text
        assert not re.search(r"[ >]-\d", text.partition("</style>")[2])


def test_without_a_failure_the_counts_are_the_headline() -> None:
    usual = {"baseline_name": "main", "measured": {"a": measured("a", 1.0)}, "judged": {"a": change(0.01, "pass")}}
    page = str(session(**usual)._render(".html"))
    assert "✓</span> PASS<" in page
    assert page.count("1 within the margin") == 1
    assert "⊘</span> INVALID<" in str(session(**usual, missing=["b"])._render(".html"))
    assert 'class="stamp' not in str(session(measured={"a": measured("a", 1.0)})._render(".html"))


@pytest.mark.parametrize("suffix", [".md", ".html"])
def test_a_verdict_without_numbers_gives_its_reason(suffix: str) -> None:
    compared = session(
        baseline_name="main",
        measured={"a": measured("a", 1.0)},
        judged={"a": Judgement(outcome="invalid", reason="another board")},
    )
    text = str(compared._render(suffix))
    assert "another board" in text
    assert "1 without a valid comparison" in text
