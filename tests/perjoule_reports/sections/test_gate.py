from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.reports import SMALL, rendered, section
from tests.support.synthetic import SyntheticRun
from tests.support.tables_of_runs import imported, table

from perjoule import cli
from perjoule.gating import comparing
from perjoule.gating.records import EXACT_MARGIN, GateConfig
from perjoule.running.reporting import ReportRequest
from perjoule.runs.directory import Run
from perjoule.statistics.point_rows import point_rows
from perjoule_reports import build_report
from perjoule_reports import format as fmt
from perjoule_reports.records import Report
from perjoule_reports.sections.gate import _more

pytestmark = pytest.mark.slow


class TestGate:
    def test_without_a_baseline_there_is_no_verdict(self, report: Report) -> None:
        assert report.stamp.word == "NO GATE"
        assert "--baseline" in section(report, "gate").empty
        assert "NO GATE" not in rendered(report)
        assert report.payload["gate"] is None

    @pytest.mark.parametrize(
        ("changes", "word", "exit_word"),
        [
            ({"seed": 1}, "PASS", "pass"),
            ({"seed": 1, "factor": 1.12}, "FAIL", "fail"),
            ({"seed": 1, "factor": 1.05}, "INCONCLUSIVE", "inconclusive"),
        ],
    )
    def test_the_verdict_and_its_plane(
        self, changes: dict[str, Any], word: str, exit_word: str, run: Run, tmp_path: Path
    ) -> None:
        candidate = imported(table(**SMALL, **changes), tmp_path, "candidate")
        request = ReportRequest(baseline=run, gate=GateConfig(margin_quality=0.1))
        report = build_report(candidate, request)
        assert report.stamp.word == word
        assert report.payload["gate"]["verdict"] == exit_word
        self.check_headline(report, run, candidate)
        assert report.headline.deploy[0].startswith("Keep the baseline") == (word != "PASS")
        self.check_advice(report, recommends=word == "PASS")
        found = section(report, "gate")
        assert found.figures[0].name == "gate-plane"
        assert {"region", "change", "margins"} <= set(re.findall(r'id="gate-plane-(\w+)"', found.figures[0].svg))
        text = rendered(report)
        assert word in text
        row = found.tables[0].rows[0]
        losses = [r[1].sort for r in found.tables[1].rows]
        assert losses == sorted(losses)
        assert losses[-1] < 0
        assert row[3].text.endswith(word)

    def check_advice(self, report: Report, *, recommends: bool) -> None:
        """Choose lists the cells of any run, but names one only where Deploy does."""
        choose = section(report, "choose")
        assert len(choose.tables[0].marked) == recommends
        assert ("Its row is marked." in choose.paragraphs[0]) == recommends
        assert ("in 90 % of the draws: " in choose.paragraphs[0]) == recommends
        assert (report.payload["choices"]["chosen"] is not None) == recommends
        assert report.payload["choices"]["options"]
        assert (report.headline.call == "") or recommends

    def check_headline(self, report: Report, baseline: Run, candidate: Run) -> None:
        """The verdict in absolute numbers is the headline; the joules are means over the cells of both runs."""
        sentence = report.headline.sentence
        assert report.payload["headline"] == sentence
        assert re.match(r"This change (costs|saves) [\d.]+ % ", sentence), sentence
        assert "; 5 % more energy and a loss of 0.1 were allowed." in sentence
        numbers = r", ([\d.]+) → ([\d.]+) J(?: n\.s\.)? per image \(geometric mean of (\d+) cells\)"
        before, after, cells = re.findall(numbers, sentence)[0]
        for shown, one in ((before, baseline), (after, candidate)):
            energies = np.array([row.energy_j_per_image for row in point_rows(one.points)], float)
            assert len(energies) == int(cells)
            assert float(shown) == pytest.approx(np.exp(np.log(energies).mean()), rel=0.006)
        compared = comparing.compare(baseline, candidate).energy_j_per_image or ()
        assert [fmt.number(mean) for mean in compared] == [before, after]
        assert any(line.startswith("This run alone: ") for line in report.headline.support)

    def test_the_same_images_on_both_sides_are_an_a_a_comparison(self, small: SyntheticRun) -> None:
        report = build_report(small, ReportRequest(baseline=small, gate=GateConfig(margin_quality=0.1)))
        assert "gives the same images, bit for bit (in " in report.headline.sentence
        assert re.match(r"This change needs the same energy, [\d.]+ J est\. per image", report.headline.sentence)
        assert "an A/A comparison" in report.headline.sentence
        assert "in quality this is an A/A comparison" in report.headline.beware[0]

    def test_a_margin_below_what_can_be_seen_is_no_verdict(self, run: Run, tmp_path: Path) -> None:
        candidate = imported(table(**SMALL, seed=1), tmp_path, "candidate")
        report = build_report(candidate, ReportRequest(baseline=run, gate=GateConfig(margin_quality=1e-4)))
        assert report.stamp.word == "INCONCLUSIVE"
        assert "minimal detectable effect" in section(report, "gate").paragraphs[1]

    def test_what_cannot_be_compared_is_withheld_in_a_red_box(self, run: Run, tmp_path: Path) -> None:
        candidate = imported(table(**SMALL, seed=1), tmp_path, "candidate")
        facts = json.loads((candidate.path / "environment.json").read_text())
        facts["comparability"]["device"] = "another <b>device</b>"
        (candidate.path / "environment.json").write_text(json.dumps(facts))
        report = build_report(
            Run(path=candidate.path), ReportRequest(baseline=run, gate=GateConfig(margin_quality=0.1))
        )
        found = section(report, "gate")
        assert report.stamp.word == "INVALID"
        assert "must not be compared" in found.alert
        assert not found.figures
        assert {row[1].text for row in found.tables[0].rows} == {"withheld"}
        assert [row[0].text for row in found.tables[1].rows] == ["device"]
        text = rendered(report)
        assert 'class="alert"' in text
        assert "<b>device" not in text

    def test_the_command_gates(self, run: Run, tmp_path: Path, capsys, monkeypatch) -> None:
        candidate = imported(table(**SMALL, seed=1), tmp_path, "candidate")
        page = tmp_path / "out" / "report.html"
        argv = ["perjoule", "report", str(candidate.path), "--baseline", str(run.path), "--out", str(page), "--json"]
        monkeypatch.setattr("sys.argv", [*argv, "--margin-energy", "6%", "--margin-quality", "0.1"])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 0
        files = json.loads(capsys.readouterr().out)["files"]
        assert [Path(f).name for f in files] == ["report.html", "report.md", "result.json"]
        result = json.loads((page.parent / "result.json").read_text())
        assert (result["verdict"], result["gate"]["energy"]["margin"]) == ("pass", 0.06)


def test_counted_work_may_not_grow() -> None:
    assert _more(EXACT_MARGIN) == "no more"
    assert _more(0.05) == "5 % more"
