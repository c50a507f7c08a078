"""Without a baseline the verdict is neutral, but only where none can be meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import polars as pl
import pytest

from perjoule.gating import GateConfig, baselines, render
from perjoule.gating.first import first_verdict
from perjoule.runs.directory import Run
from tests.perjoule.test_cli import call
from tests.support.tables_of_runs import imported, rewrite_table, table, with_margin


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run; the working directory has no baselines."""
    monkeypatch.chdir(tmp_path)
    return with_margin(imported(table(prompts=4, seeds=1, ladder=(2, 4), variants=(("ladder", 1.0),)), tmp_path))


def judged(run: Run, baseline: str, capsys: Any, *more: str) -> tuple[int, dict[str, Any]]:
    arguments = ["gate", "--baseline", baseline, "--candidate", str(run.path), "--baseline-optional", *more, "--json"]
    code, out, _ = call(*arguments, capsys=capsys)
    return code, json.loads(out)


@pytest.mark.parametrize(
    ("baseline", "words"), [("main", "no baseline is stored yet"), ("runs/base", "there is no run runs/base")]
)
def test_no_baseline_is_neutral(run: Run, baseline: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, verdict = judged(run, baseline, capsys)
    assert (code, verdict["verdict"], verdict["exit_code"]) == (0, "neutral", 0)
    assert words in verdict["reasons"][0]
    assert verdict["energy"]["change"]["value"] is None


def test_a_misspelt_name_is_an_error(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise every change would be let through for ever."""
    baselines.save(run, "main")
    code, failure = judged(run, "mian", capsys)
    assert (code, "did you mean 'main'" in failure["error"]["message"]) == (2, True)


def test_a_baseline_is_used_if_there_is_one(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    baselines.save(run, "main")
    code, verdict = judged(run, "main", capsys)
    assert (code, verdict["verdict"]) == (0, "pass")


def test_a_damaged_baseline_is_an_error(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    baselines.save(run, "main").path.write_bytes(b"no gzip")
    assert judged(run, "main", capsys)[0] == 4
    (run.path.parent / "runs").mkdir()
    assert judged(run, "runs", capsys)[0] == 4  # a folder that is no run


def test_without_the_option_no_baseline_is_an_error(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call("gate", "--baseline", "main", "--candidate", str(run.path), capsys=capsys)
    assert (code, "unknown baseline 'main'" in err) == (2, True)


def test_every_output_says_what_was_measured_and_how_a_baseline_comes_to_be(run: Run) -> None:
    verdict = first_verdict(run, "main", None, GateConfig())
    terminal, markdown = render.terminal(verdict), render.markdown(verdict)
    for text in (terminal, markdown):
        assert "NO BASELINE YET" in text
        assert "perjoule baseline save main RUN" in text
        assert "ladder-002: " in text
    assert "per image (measured), q " in terminal
    assert "| axis |" not in markdown
    assert render.annotations(verdict).startswith("::notice title=perjoule gate NO BASELINE YET::no baseline")
    suite = Xml.fromstring(render.junit(verdict))
    assert (suite.get("failures"), suite.get("errors"), suite.get("skipped")) == ("0", "0", "2")


def test_a_margin_that_cannot_be_judged_is_an_error_that_still_writes_the_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = table(prompts=4, seeds=1, ladder=(2,), variants=(("ladder", 1.0),), noise=0.0)
    base, candidate = (imported(one, tmp_path, name) for name in ("base", "candidate"))
    up_and_down = pl.col("value") + 0.2 * (1 - 2 * (pl.int_range(pl.len()) % 2))
    rewrite_table(candidate, "scores", up_and_down)
    arguments = ["--baseline", str(base.path), "--candidate", str(candidate.path), "--margin-quality", "0.01"]
    files = ["--markdown", str(tmp_path / "gate.md"), "--junit", str(tmp_path / "gate.xml")]
    code, out, err = call("gate", *arguments, *files, capsys=capsys)
    assert (code, out) == (2, "")
    assert "below the minimal detectable effect" in err
    markdown = (tmp_path / "gate.md").read_text()
    assert "INCONCLUSIVE" in markdown
    assert "below the minimal detectable effect" in markdown
    assert (tmp_path / "gate.xml").is_file()
