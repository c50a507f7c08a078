from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree as Xml

import polars as pl
import pytest

from perjoule.display import before_after
from perjoule.gating import gate, render
from perjoule.gating.comparing import compare
from perjoule.runs.directory import load_run
from tests.perjoule.test_cli import call
from tests.support.gating import runs
from tests.support.tables_of_runs import rewrite, rewrite_table


def test_every_output_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, candidate = runs(tmp_path, factor=1.2)
    found = gate(base, candidate)
    terminal = render.terminal(found)
    assert terminal.startswith("FAIL")
    assert len(terminal.splitlines()) <= 12
    assert "minimal detectable effect" in terminal
    assert "FAIL" in render.markdown(found)
    assert render.annotations(found).startswith("::error title=perjoule gate FAIL::")
    suite = Xml.fromstring(render.junit(found))
    assert (suite.get("failures"), suite.get("errors")) == ("1", "0")
    arguments = ["gate", "--baseline", str(base.path), "--candidate", str(candidate.path)]
    files = ["--junit", str(tmp_path / "j.xml"), "--markdown", str(tmp_path / "m.md")]
    code, out, _ = call(*arguments, *files, "--json", capsys=capsys)
    record = json.loads(out)
    assert code == 1
    assert (record["verdict"], record["schema"]) == ("fail", 1)
    assert {"change", "margin", "mde", "outcome"} <= set(record["energy"])
    assert {"missing", "incomparable", "reasons"} <= set(record)
    assert (tmp_path / "j.xml").read_text() == render.junit(found)
    assert (tmp_path / "m.md").read_text() == render.markdown(found)


def test_joules_are_given_before_and_after(tmp_path: Path) -> None:
    """Their ratio is the change that is judged, but for the order of the means; `compare` names the same numbers."""
    base, candidate = runs(tmp_path, factor=1.2)
    found = gate(base, candidate)
    before, after = found.energy_j_per_image or (0.0, 0.0)
    assert after / before - 1 == pytest.approx(found.energy.change.value, rel=0.01)
    joules = f"{before_after((before, after))}, geometric mean of 2 cells"
    for text in (render.terminal(found), render.markdown(found), render.compared(compare(base, candidate))):
        assert joules in text


def test_a_run_against_itself_has_no_difference(tmp_path: Path) -> None:
    base, _ = runs(tmp_path)
    found = gate(base, base)
    for text in (render.terminal(found), render.markdown(found)):
        assert text.count("no difference") >= 2
        assert "+0" not in text


def test_rounding_is_not_an_effect(tmp_path: Path) -> None:
    """All joules times the same number: the logarithms of the ratios differ in their last digit alone."""
    base, _ = runs(tmp_path)
    other = tmp_path / "scaled"
    shutil.copytree(base.path, other)
    scaled = rewrite_table(load_run(other), "trials", pl.col("energy_j") * 1.12)
    found = gate(base, scaled)
    assert found.energy.change.low == found.energy.change.high == pytest.approx(0.12, rel=1e-9)
    assert found.energy.mde == 0
    assert "minimal detectable effect 0 %" in render.terminal(found)


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    base, candidate = runs(tmp_path)
    hostile = rewrite(
        candidate, "environment.json", lambda e: e["comparability"].update(device="</td>|\n::error::<script>@all")
    )
    found = gate(base, hostile)
    assert "<script>" not in render.markdown(found)
    assert "\n::error::<script>" not in render.annotations(found)
    Xml.fromstring(render.junit(found))
