"""Margins: each metric has its own, a ruined model fails under it, and no share can be misread."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.errors import UsageError
from perjoule.gating import GateConfig, gate
from perjoule.quality import load_metric, metric_names
from perjoule.runs.directory import Run
from perjoule.shares import Share, share
from perjoule.suite.reading import parse_suite
from perjoule.testing import SyntheticMeter, VirtualClock
from perjoule.types import MetricSpec
from perjoule_suites.budgetfusion.rules import make_rule
from tests.perjoule.test_cli import call
from tests.support.tables_of_runs import imported, rewrite, rewrite_table, table

pytestmark = pytest.mark.slow

# (metric, level of a sound model, scatter over prompts, loss of a ruined one)
RUINED = [
    ("clip_text", 0.305, 0.02, -0.1),
    ("r_precision", 0.8, 0.1, -0.3),
    ("scene", 0.9, 0.1, -0.3),
    ("cvvdp", 9.0, 0.3, -1.0),
    ("lpips", 0.1, 0.03, +0.2),
    ("iclip", 0.95, 0.03, -0.2),
    ("dsim", 0.9, 0.03, -0.2),
    ("pickscore", 21.0, 0.3, -2.0),
    ("hpsv2", 0.27, 0.003, -0.02),
]


def card(name: str) -> MetricSpec:
    found = load_metric(name, {}, "test").card  # type: ignore[union-attr]
    assert isinstance(found, MetricSpec)
    return found


def scored(folder: Path, name: str, run_name: str, level: float, scatter: float, *, seed: int = 0) -> Run:
    """A run scored by a built-in metric, with the spec that scoring writes."""
    frame = table(ladder=(4, 16), variants=(("ladder", 1.0),), seed=seed)
    spread = pl.col("quality:q") - pl.col("quality:q").mean().over("steps")
    frame = frame.with_columns((level + scatter / 0.1 * spread).alias(f"quality:{name}")).drop("quality:q")
    run = imported(frame, folder, run_name)
    spec = asdict(card(name)) | {"weights_digest": "abc"}
    return rewrite(run, "metrics.json", lambda m: m.update(metrics=[spec]))


def gated(base: Run, candidate: Run, *more: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    return call("gate", "--baseline", str(base.path), "--candidate", str(candidate.path), *more, capsys=capsys)


@pytest.mark.parametrize(("name", "level", "scatter", "loss"), RUINED, ids=[row[0] for row in RUINED])
def test_a_ruined_model_fails_at_default_margins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, level: float, scatter: float, loss: float
) -> None:
    base = scored(tmp_path, name, "base", level, scatter)
    again = scored(tmp_path, name, "again", level, scatter, seed=1)
    ruined = scored(tmp_path, name, "ruined", level + loss, scatter, seed=2)
    code, out, err = gated(base, again, capsys=capsys)
    assert code == 0, out + err
    assert f"(default of {name})" in out
    code, out, err = gated(base, ruined, "--json", capsys=capsys)
    assert code == 1, out + err
    record = json.loads(out)
    assert record["quality"]["outcome"] == "fail"
    assert record["quality"]["margin"] == card(name).margin
    assert record["quality"]["margin_origin"] == f"default of {name}"


def test_every_metric_declares_a_margin_or_cannot_have_one() -> None:
    without = {name for name in metric_names() if card(name).margin is None}
    assert without <= {"fid", "lsnr"}
    for name in metric_names():
        spec = card(name)
        if spec.margin is None:
            assert spec.advisory
        else:
            assert spec.scale
            low, high = spec.bounds
            assert spec.margin < ((high or 1.0) - (low or 0.0)) / 10 or spec.unit in ("JOD", "logit")


def test_margins_of_trained_preference_are_the_same_preference_as_the_jod() -> None:
    """0.15 JOD, 0.15 logits and 0.0015 HPS are the same coin: 54 of 100."""
    from math import exp

    from scipy.stats import norm

    jod = float(norm.cdf(norm.ppf(0.75) * (card("cvvdp").margin or 0)))
    for name in ("pickscore", "hpsv2"):
        spec = card(name)
        odds = 1 / (1 + exp(-(spec.margin or 0) / (spec.temperature or 1)))
        assert odds == pytest.approx(jod, abs=0.005)
    assert jod == pytest.approx(0.54, abs=0.005)


class TestNoMarginDeclared:
    @pytest.fixture
    def pair(self, tmp_path: Path) -> tuple[Run, Run]:
        small: dict[str, Any] = {"ladder": (4, 16), "variants": (("ladder", 1.0),)}
        return imported(table(**small), tmp_path, "a"), imported(table(seed=1, **small), tmp_path, "b")

    @pytest.mark.parametrize("verb", ["gate", "report"])
    def test_the_option_is_required(self, pair: tuple[Run, Run], verb: str, capsys: pytest.CaptureFixture[str]) -> None:
        base, candidate = map(str, (pair[0].path, pair[1].path))
        arguments = {
            "gate": ["gate", "--baseline", base, "--candidate", candidate],
            "report": ["report", candidate, "--baseline", base],
        }[verb]
        code, out, err = call(*arguments, capsys=capsys)
        assert (code, out) == (2, "")
        for word in ("--margin-quality", "'q'", "from 0.4", "to 0.8", "docs/metrics.md"):
            assert word in err
        assert call(*arguments, "--margin-quality", "0.1", capsys=capsys)[0] == 0

    def test_python_asks_as_well(self, pair: tuple[Run, Run]) -> None:
        with pytest.raises(UsageError, match=r"'q' declares no margin.*GateConfig\.margin_quality"):
            gate(*pair)
        assert gate(*pair, config=GateConfig(margin_quality=0.1)).quality.margin_origin == "given"

    def test_an_imported_metric_is_not_looked_up_by_its_name(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Its CLIP scores may be on a scale to 100."""
        frame = table(ladder=(4, 16)).rename({"quality:q": "quality:clip_text"})
        run = imported(frame, tmp_path, "theirs")
        for unit in ("", "cosine"):
            edit = {"unit": unit}
            run = rewrite(run, "metrics.json", lambda m: m["metrics"][0].update(edit))  # noqa: B023 - called at once
            code, _, err = gated(run, run, capsys=capsys)
            assert code == 2
            assert "'clip_text' declares no margin" in err

    def test_a_price_needs_no_margin(self, pair: tuple[Run, Run], capsys: pytest.CaptureFixture[str]) -> None:
        code, out, _ = gated(*pair, "--joules-per-quality", "1000", "--json", capsys=capsys)
        assert code in (0, 3)
        assert json.loads(out)["quality"]["margin"] is None

    @pytest.mark.parametrize("margin", ["0", "-0.1", "nan", "inf"])
    def test_margins_are_positive(self, pair: tuple[Run, Run], margin: str, capsys: pytest.CaptureFixture[str]) -> None:
        code, _, err = gated(*pair, "--margin-quality", margin, capsys=capsys)
        assert code == 2
        assert "margin_quality" in err

    @pytest.mark.parametrize("margin", [-1.0, -0.5, 0.0])
    def test_a_metric_that_declares_nonsense_is_named(self, pair: tuple[Run, Run], margin: float) -> None:
        base = rewrite(pair[0], "metrics.json", lambda m: m["metrics"][0].update(margin=margin))
        with pytest.raises(UsageError, match=f"metric q: margin = {margin}"):
            gate(base, pair[1])


def test_a_run_from_before_margins_takes_the_installed_metrics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def old(run: Run) -> Run:
        return rewrite(run, "metrics.json", lambda m: [m["metrics"][0].pop(key) for key in ("margin", "scale")])

    base = old(scored(tmp_path, "clip_text", "base", 0.3, 0.02))
    candidate = old(scored(tmp_path, "clip_text", "candidate", 0.3, 0.02, seed=1))
    code, out, _ = gated(base, candidate, "--json", capsys=capsys)
    assert code == 0
    assert json.loads(out)["quality"]["margin"] == 0.01
    other_scale = rewrite(base, "metrics.json", lambda m: m["metrics"][0].update(unit="percent"))
    code, _, err = gated(other_scale, other_scale, capsys=capsys)
    assert code == 2
    assert "'clip_text' declares no margin: give --margin-quality" in err
    foreign = rewrite(base, "metrics.json", lambda m: m["metrics"][0].update(name="theirs", unit="cosine"))
    foreign = rewrite_table(foreign, "scores", pl.lit("theirs").alias("metric"))
    code, _, err = gated(foreign, foreign, "--metric", "theirs", capsys=capsys)
    assert code == 2
    assert "'theirs' declares no margin" in err


def test_of_two_declared_margins_the_smaller_counts(tmp_path: Path) -> None:
    """A pull request that widens the margin of a metric does not pass by it."""
    base = scored(tmp_path, "clip_text", "base", 0.3, 0.02)
    wider = scored(tmp_path, "clip_text", "wider", 0.3, 0.02, seed=1)
    wider = rewrite(wider, "metrics.json", lambda m: m["metrics"][0].update(margin=0.5))
    assert gate(base, wider).quality.margin == gate(wider, base).quality.margin == 0.01


def test_the_margin_and_its_origin_are_in_every_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = scored(tmp_path, "cvvdp", "base", 9.0, 0.3)
    files = {"--junit": tmp_path / "j.xml", "--markdown": tmp_path / "m.md"}
    arguments = [str(part) for pair in files.items() for part in pair]
    code, out, _ = gated(base, base, "--margin-energy", "3%", *arguments, capsys=capsys)
    assert code == 0
    text = files["--markdown"].read_text()
    for shown in (out, text):
        assert "0.15 (default of cvvdp)" in shown.replace("\\", "")
        assert "3 % (given)" in shown
    cases = {case.get("name"): case for case in Xml.parse(files["--junit"]).iter("testcase")}
    numbers = {name: {p.get("name"): p.get("value") for p in case.iter("property")} for name, case in cases.items()}
    assert numbers["energy"] | {"margin": "0.03", "margin_origin": "given"} == numbers["energy"]
    assert numbers["quality"] | {"margin": "0.15", "margin_origin": "default of cvvdp"} == numbers["quality"]
    assert call("report", str(base.path), "--baseline", str(base.path), capsys=capsys)[0] == 0
    page = (base.path / "report.md").read_text()
    assert "default of cvvdp" in page


class TestShares:
    @pytest.mark.parametrize(
        ("text", "value"), [("5%", 0.05), ("0.05", 0.05), ("500%", 5.0), (" 5 % ", 0.05), ("0", 0.0), ("0.5%", 0.005)]
    )
    def test_spellings(self, text: str, value: float) -> None:
        assert share(text, "x") == pytest.approx(value)

    @pytest.mark.parametrize("text", ["", "%", "much", "nan", "inf", "-1%", "-0.1", "0,05", "1e999%"])
    def test_no_shares(self, text: str) -> None:
        with pytest.raises(UsageError, match=r"--x = .*a share"):
            share(text, "--x")

    @given(st.floats(min_value=1, max_value=1e6))
    def test_a_bare_number_of_one_or_more_is_refused(self, number: float) -> None:
        for value in (number, str(number)):
            with pytest.raises(UsageError, match=r"ambiguous: write .*% \(or .*\), or .*% if that is meant"):
                share(value, "--margin-energy")
        assert share(f"{number}%", "--margin-energy") == number / 100

    @given(st.floats(min_value=0, max_value=0.999999))
    def test_what_was_read_can_be_read_again(self, number: float) -> None:
        read = share(str(number), "x")
        assert share(read, "x") == read == number
        assert share(Share(5.0), "x") == 5.0

    @pytest.mark.parametrize(
        "arguments",
        [["--margin-energy", "5"], ["--session-sd", "3"], ["--alpha", "5"]],
    )
    def test_the_gate_refuses(self, tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        run = imported(table(ladder=(4, 16)), tmp_path)
        code, _, err = gated(run, run, "--margin-quality", "0.1", *arguments, capsys=capsys)
        value = arguments[1]
        assert code == 2
        assert f"{arguments[0]} = {value}: ambiguous: write {value}% (or 0.0{value}), or {value}00% if" in err

    def test_the_report_refuses(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run = str(imported(table(ladder=(4, 16)), tmp_path).path)
        code, _, err = call("report", run, "--baseline", run, "--margin-energy", "5", capsys=capsys)
        assert code == 2
        assert "write 5% (or 0.05), or 500% if that is meant" in err

    @pytest.mark.parametrize("key", ["margin_energy", "session_sd", "alpha"])
    def test_python_refuses(self, key: str) -> None:
        with pytest.raises(UsageError, match=rf"{key} = 5: ambiguous: write 5% \(or 0\.05\)"):
            GateConfig(**dict[str, Any]({key: 5}))
        assert getattr(GateConfig(**dict[str, Any]({key: "5%"})), key) == 0.05

    def test_500_percent_can_be_meant(self, tmp_path: Path) -> None:
        assert GateConfig(margin_energy=share("500%", "x")).margin_energy == 5.0

    @pytest.mark.parametrize("value", [2, 1, 0, -0.1, 5.0])
    def test_a_window_and_a_rule_refuse(self, value: float) -> None:
        said = f"write {value / 100:g} for {value:g} %" if value >= 1 else r"such as 0\.02 for 2 %"
        meter = SyntheticMeter(50.0, VirtualClock(), uncertainty_j=0.05)
        with pytest.raises(UsageError, match=f"max_uncertainty = {value}: a share between 0 and 1 is needed; {said}"):
            meter.window(max_uncertainty=value)
        with pytest.raises(UsageError, match=f"s.toml: miss_rate = {value}: .*{said}"):
            make_rule("quality-floor", "q", 0.5, value, where="s.toml")

    @pytest.mark.parametrize("value", [2, 1, 0, -0.1, 5.0])
    def test_a_suite_refuses(self, value: float) -> None:
        suite = {
            "name": "s", "title": "", "description": "", "prompts": {"source": "p.txt"},
            "metrics": {"primary": "lsnr", "names": ["lsnr"]}, "protocol": {"max_uncertainty": value},
            "variants": [{"name": "v", "model": "m", "steps": [4]}],
        }  # fmt: skip
        with pytest.raises(UsageError, match=r"s\.toml: protocol\.max_uncertainty = "):
            parse_suite(suite, where="s.toml")
        suite["protocol"] = {"max_uncertainty": 0.02}
        assert parse_suite(suite, where="s.toml").protocol.max_uncertainty == 0.02
