"""What each section says, and what it says when there is nothing to say."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from jsonschema import Draft202012Validator
from tests.support.tables_of_runs import imported, table

from perjoule import cli
from perjoule.commands.schemas import schemas
from perjoule.gating.records import GateConfig
from perjoule.running.reporting import ReportRequest
from perjoule.runs.directory import Run
from perjoule_reports import build_report, render_html, render_markdown, write_report
from perjoule_reports.drawing.labels import Board
from perjoule_reports.pages.payload import to_json
from perjoule_reports.records import Report, Section

pytestmark = pytest.mark.slow

ORDER = (
    "frontier", "arms", "gate", "warnings", "phases", "adaptation", "curves", "prompts", "pictures", "power", "noise",
    "system", "method", "data",
)  # fmt: skip
SMALL = {"ladder": (2, 4, 8, 16, 32, 64), "prompts": 24, "seeds": 1}


def section(report: Report, anchor: str) -> Section:
    return next(s for s in report.sections if s.anchor == anchor)


def rendered(report: Report) -> str:
    """Both renderings, checked: nothing that is no number, a result that keeps to its schema."""
    html, markdown = render_html(report), render_markdown(report)
    visible = re.sub(r"<(script|style).*?</\1>|<svg.*?</svg>|data:image[^\"]*", "", html, flags=re.S)
    for text in (visible, markdown):
        text = text.replace("safety_checker=None", "")  # Python to paste
        found = re.search(r"\b(nan|NaN|None|inf|Infinity|null)\b", text)
        assert not found, text[found.start() - 60 : found.end() + 20]
    Draft202012Validator(schemas()["result"]).validate(json.loads(to_json(report.payload)))
    return html + markdown


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return imported(table(**SMALL), tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def report(run: Run) -> Report:
    return build_report(run)


def test_sections_stand_in_the_order_of_the_reader(report: Report) -> None:
    assert tuple(s.anchor for s in report.sections) == ORDER
    rendered(report)


def test_every_section_says_how_many_which_interval_and_what_would_change_it(report: Report) -> None:
    for found in report.sections:
        assert found.how_to_read, found.anchor
        assert found.sample, found.anchor
        assert found.interval, found.anchor
        assert found.change, found.anchor


def test_every_figure_has_a_table_and_says_what_its_joules_are(usual_report: Report) -> None:
    figures = [f for s in usual_report.sections for f in s.figures]
    assert len(figures) > 5
    for figure in figures:
        assert figure.data is not None, figure.name
        assert figure.data.rows, figure.name
        for svg in filter(None, (figure.svg, figure.narrow)):
            assert "<title" in svg
            assert "<desc" in svg
            if "energy" in re.sub(r"<(title|desc)[^>]*>.*?</\1>", "", svg):
                assert "ESTIMATED" in svg, figure.name


def test_arms_are_held_against_the_ladder_that_they_save_on(report: Report) -> None:
    cells, arms = section(report, "arms").tables
    head = [c.title for c in arms.columns]
    row = dict(zip(head, arms.rows[0], strict=True))
    assert (row["arm"].text, row["resolved"].text) == ("quick", "yes")
    assert row["BD-energy"].strong
    assert row["BD-energy"].text.startswith("−2")
    anchor = next(r for r in cells.rows if r[0].text == "ladder-064")
    assert [c.text for c in anchor].count("anchor") == 2
    change = [c.title for c in cells.columns].index("Δ energy")
    equal = next(r for r in cells.rows if r[0].text == "quick-064")
    assert equal[change].strong
    quality = [c.title for c in cells.columns].index("Δ q")
    assert equal[quality].text.startswith("~")
    assert not equal[quality].strong


def test_the_curve_table_repeats_bd_energy_by_metric(tmp_path: Path) -> None:
    frame = table(**SMALL).with_columns((1 - pl.col("quality:q")).alias("quality:loss"))
    found = section(build_report(imported(frame, tmp_path, lower=["loss"])), "curves").tables[0]
    assert [row[1].text for row in found.rows] == ["q", "loss"]
    assert len({row[2].text for row in found.rows}) == 1  # a metric and its mirror image
    assert found.columns[2].title == "BD-energy"


def test_single_prompts_and_slices(report: Report, run: Run) -> None:
    found = section(report, "prompts")
    assert [f.name for f in found.figures] == ["prompts-quality", "prompts-energy"]
    assert len(found.tables[0].rows) == 10
    losses = [row[2].sort for row in found.tables[0].rows]
    assert losses == sorted(losses)
    assert losses[-1] < 0
    kinds = tuple(replace(p, category="odd" if i % 2 else "even") for i, p in enumerate(run.prompt_set))
    sliced = Run(path=run.path)
    sliced.__dict__["prompt_set"] = kinds
    table_ = section(build_report(sliced), "prompts").tables[1]
    assert [row[0].text for row in table_.rows] == ["even", "odd"]
    assert "exploratory" in table_.caption
    assert all(float(row[4].text) > 0.05 for row in table_.rows)


@pytest.mark.parametrize(
    ("gain", "shuffled_gain", "words"),
    [
        (0.08, -0.02, ("it saves", "It beats its shuffled control, so it uses")),
        (-0.06, -0.06, ("more energy than teacher", "No difference from its shuffled control")),
    ],
)
def test_adaptation_is_real_only_against_its_controls(
    gain: float, shuffled_gain: float, words: tuple[str, ...], synthetic, tmp_path: Path
) -> None:
    run = synthetic_policies(synthetic, tmp_path, gain, shuffled_gain)
    report = build_report(run)
    found = section(report, "adaptation")
    said = " ".join(found.paragraphs)
    for part in words:
        assert part in said, said
    assert found.figures[0].name == "adaptation"
    assert any(row[1].text == "oracle" for row in found.figures[0].data.rows)
    assert found.figures[1].name == "steps"
    rendered(report)


def synthetic_policies(synthetic, folder: Path, gain: float, shuffled_gain: float):
    """A ladder, a policy with three levels, and its control; `gain` is their quality above the ladder."""
    run = synthetic.make_run(folder, prompts=24, ladder=(2, 4, 8, 16, 32), variants=("teacher",), metrics=("scene",))
    chance = np.random.default_rng(2)
    trials, scores = [run.trials], [run.scores]
    for name, role, more in (("clever", "predicted", gain), ("clever-shuffled", "control", shuffled_gain)):
        for level in (4, 8, 16):
            cell = f"{name}-{level}"
            rename = pl.lit(cell)
            own = run.trials.filter(pl.col("cell_id") == f"teacher-{level:03d}")
            steps = [[int(s) + int(chance.integers(-1, 2)) for s in row] for row in own["steps"]]
            trials.append(
                own.with_columns(
                    cell_id=rename, variant=pl.lit(name), role=pl.lit(role), policy=pl.lit("clever"),
                    trial_id=pl.format("b0.{}.{}", rename, pl.int_range(pl.len())), steps=pl.Series(steps),
                )
            )  # fmt: skip
            mine = run.scores.filter(pl.col("cell_id") == f"teacher-{level:03d}")
            noise = pl.Series(0.005 * chance.normal(size=len(mine)))
            scores.append(
                mine.with_columns(
                    cell_id=rename,
                    image_id=pl.format("{}.{}", rename, "image_id"),
                    value=pl.col("value") + more + noise,
                )
            )
    teacher = run.suite.variants[0]
    policy = replace(teacher, name="clever", role="predicted", policy="clever", steps=(), levels=(4.0, 8.0, 16.0))
    control = replace(policy, name="clever-shuffled", role="control", policy_args={"control": "shuffled"})
    suite = replace(run.suite, variants=(teacher, policy, control))
    return synthetic.summarised(replace(run, suite=suite, trials=pl.concat(trials), scores=pl.concat(scores)))


def test_a_suite_without_policies_says_so(report: Report) -> None:
    assert "no arm that predicts its steps" in section(report, "adaptation").paragraphs[0]


class TestGate:
    def test_without_a_baseline_there_is_no_verdict(self, report: Report) -> None:
        assert report.stamp.word == "NO GATE"
        assert "--baseline" in section(report, "gate").change
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
        self, changes: dict[str, float], word: str, exit_word: str, run: Run, tmp_path: Path
    ) -> None:
        candidate = imported(table(**SMALL, **changes), tmp_path, "candidate")
        request = ReportRequest(baseline=run, gate=GateConfig(margin_quality=0.1))
        report = build_report(candidate, request)
        assert report.stamp.word == word
        assert report.payload["gate"]["verdict"] == exit_word
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


class TestDegenerate:
    def test_zero_trials(self, run: Run, synthetic, small) -> None:
        empty = {n: getattr(small, n).clear() for n in ("trials", "images", "scores", "points", "power")}
        report = build_report(replace(small, **empty, metrics={}))
        assert "no finished trials" in report.headline.sentence
        assert not any(s.figures for s in report.sections)
        rendered(report)

    def test_all_trials_failed(self, synthetic, small) -> None:
        trials = small.trials.with_columns(failure=pl.lit("out of memory"), energy_j=pl.lit(None, pl.Float64))
        broken = replace(small, trials=trials, scores=small.scores.clear(), points=small.points.clear(), metrics={})
        report = build_report(broken)
        assert "not measured" in report.headline.sentence
        assert any("48 trials failed" in said for said in report.headline.beware)
        text = rendered(report)
        assert "out of memory" in text
        assert not section(report, "frontier").figures

    def test_a_single_arm(self, tmp_path: Path) -> None:
        run = imported(table(prompts=12, seeds=1, ladder=(2, 8, 32), variants=(("ladder", 1.0),)), tmp_path)
        report = build_report(run)
        assert len(section(report, "arms").tables) == 1
        assert "nothing to compare" in section(report, "curves").paragraphs[0]
        rendered(report)

    def test_a_single_prompt(self, tmp_path: Path) -> None:
        report = build_report(imported(table(prompts=1, seeds=2, ladder=(2, 8, 32, 64)), tmp_path))
        assert "too few" in report.headline.sentence
        assert not section(report, "prompts").figures
        rendered(report)

    def test_a_single_cell_and_prompt(self, tmp_path: Path) -> None:
        frame = table(prompts=1, seeds=1, ladder=(8,), variants=(("ladder", 1.0),))
        report = build_report(imported(frame, tmp_path))
        assert "there is no frontier" in report.headline.sentence
        rendered(report)

    def test_a_run_that_is_still_going(self, small) -> None:
        part = small.trials.head(20)
        going = replace(
            small, trials=part, images=small.images.clear(), scores=small.scores.clear(), points=small.points.clear(),
            metrics={},
        )  # fmt: skip
        report = build_report(going)
        assert any("INCOMPLETE" in badge.value for badge in report.badges)
        assert report.headline.beware[0].startswith("INCOMPLETE: 20 of 48")
        assert "--resume" in section(report, "warnings").paragraphs[0]
        energies = [row[2] for row in section(report, "arms").tables[0].rows]
        assert all(cell.sort and cell.brand == "est." for cell in energies)
        rendered(report)

    def test_an_imported_run_has_no_phases_pictures_or_power(self, report: Report) -> None:
        for anchor in ("phases", "pictures", "power"):
            assert not section(report, anchor).figures
            assert section(report, anchor).paragraphs
        assert "imported" in section(report, "noise").paragraphs[0]

    def test_joules_of_zero_are_refused_with_words(self, small) -> None:
        broken = small.trials.with_columns(energy_j=pl.lit(0.0))
        report = build_report(replace(small, trials=broken, points=small.points.clear()))
        assert any("energy_j = 0.0" in said for said in section(report, "warnings").paragraphs)

    def test_unscored_metric(self, synthetic, small) -> None:
        scores = small.scores.with_columns(value=pl.lit(None, pl.Float64), reason_unscored=pl.lit("no weights"))
        report = build_report(synthetic.summarised(replace(small, scores=scores)))
        assert "have not been scored" in report.headline.sentence
        assert "no weights" in rendered(report)
        assert not section(report, "frontier").figures


def test_a_metric_at_its_bound_is_called_blind(synthetic, small) -> None:
    scores = small.scores.with_columns(value=pl.when(pl.col("cell_id").str.ends_with("001")).then(0.4).otherwise(1.0))
    report = build_report(synthetic.summarised(replace(small, scores=scores)))
    assert any("is at its bound (1.00) in 4 of 6 cells" in said for said in report.headline.beware)
    assert "No difference: all " in report.headline.support[0]
    assert "up to 0" not in report.headline.support[0]


def test_carbon_only_on_request(run: Run, report: Report) -> None:
    assert all(s.anchor != "carbon" for s in report.sections)
    asked = build_report(run, ReportRequest(co2_country="FRA"))
    assert "not an SCI score" in section(asked, "carbon").paragraphs[0]
    assert "1000 images of ladder-064" in section(asked, "carbon").paragraphs[0]
    rendered(asked)


def test_equal_input_gives_equal_bytes_with_a_gate(run: Run, tmp_path: Path) -> None:
    candidate = imported(table(**SMALL, seed=1), tmp_path, "candidate")
    bytes_ = []
    for name in ("one", "two"):
        request = ReportRequest(baseline=Run(path=run.path), gate=GateConfig(margin_quality=0.1))
        files = write_report(Run(path=candidate.path), tmp_path / name, request)
        bytes_.append([file.read_bytes() for file in files])
    assert bytes_[0] == bytes_[1]


def test_the_twin_fits_a_pull_request(run: Run, report: Report) -> None:
    long = replace(report, sections=report.sections * 10)
    text = render_markdown(long)
    assert len(text.encode()) <= 60_000
    assert "the HTML report contains the rest" in text


def test_labels_keep_clear_of_each_other() -> None:
    board = Board(width=2.0, height=2.0)
    board.block([(1.0, 1.0)])
    places = [board.place((1.0, 1.0), 0.3, 0.12) for _ in range(12)]
    boxes = board.taken[1:]
    assert None in places
    assert len(boxes) == sum(p is not None for p in places) > 3
    for i, one in enumerate(boxes):
        assert all(v >= 0 for v in one[:2])
        for other in boxes[:i]:
            assert one[0] >= other[2] or other[0] >= one[2] or one[1] >= other[3] or other[1] >= one[3]
