from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest

from perjoule.gating import gate, render
from tests.perjoule.test_cli import call
from tests.support.gating import runs
from tests.support.tables_of_runs import rewrite


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


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    base, candidate = runs(tmp_path)
    hostile = rewrite(
        candidate, "environment.json", lambda e: e["comparability"].update(device="</td>|\n::error::<script>@all")
    )
    found = gate(base, hostile)
    assert "<script>" not in render.markdown(found)
    assert "\n::error::<script>" not in render.annotations(found)
    Xml.fromstring(render.junit(found))
