"""Which loss a run's prompts can show, and margins that suites declare."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from perjoule.errors import SuiteError, UsageError
from perjoule.gating import GateConfig, gate
from perjoule.gating.margins import IN_SUITE, RESOLVED, margins_for, resolvable_words
from perjoule.gating.records import Look
from perjoule.gating.resolution import resolution, rounded_up
from perjoule.runs.directory import Run, load_run
from perjoule.suite.reading import parse_suite, write_suite
from tests.perjoule.test_cli import call
from tests.support.tables_of_runs import imported, rewrite_table, table, with_margin

CONFIG = GateConfig()


def run_of(
    folder: Path, name: str, *, prompts: int = 40, own: float | None = 0.01, seed: int = 0, seeds: int = 2
) -> Run:
    frame = table(prompts=prompts, seeds=seeds, seed=seed, noise=0.1, ladder=(8,), variants=(("ladder", 1.0),))
    run = imported(frame, folder, name)
    return run if own is None else with_margin(run, own)


def stating(run: Run, margin: float | str | None) -> Run:
    """The run with a margin in its suite; None removes it."""
    margins = {} if margin is None else {"q": margin}
    write_suite(replace(run.suite, metrics=replace(run.suite.metrics, margins=margins)), run.path / "suite.toml")  # type: ignore[arg-type]
    return load_run(run.path)


def test_the_loss_is_detected_in_four_of_five_cases(tmp_path: Path) -> None:
    run = run_of(tmp_path, "run")
    found = resolution(run, "q", 0.05)
    assert found is not None
    scores = run.scores.sort("prompt_id", "seed")["value"].to_numpy().reshape(40, 2)
    # two seeds: their difference has twice the variance of one, and so has that of two means of two seeds half of it
    assert found.sd == pytest.approx(np.sqrt(((scores[:, 0] - scores[:, 1]) ** 2).mean() / 2))
    known = found.sd / np.sqrt(40)
    power = [stats.norm.sf(stats.norm.isf(0.05) - loss / known) for loss in (found.loss, 0.9 * found.loss)]
    assert power[1] < 0.8 <= power[0]
    assert found.needed(found.loss) <= 40 < found.needed(0.9 * found.loss)


def test_other_images_of_the_same_quality_differ_as_expected(tmp_path: Path) -> None:
    """Paired differences of runs that only draw other images, on prompts that are much more different."""
    base = run_of(tmp_path, "base", prompts=400)
    again = run_of(tmp_path, "again", prompts=400, seed=1)
    means = [
        run.scores.group_by("prompt_id").agg(pl.col("value").mean()).sort("prompt_id")["value"] for run in (base, again)
    ]
    found = resolution(base, "q", 0.05)
    assert found is not None
    assert found.sd == pytest.approx((means[1] - means[0]).std(), rel=0.15)
    assert found.sd < means[0].std()  # type: ignore[operator]


def test_nothing_is_known_without_prompts_that_differ(tmp_path: Path) -> None:
    run = run_of(tmp_path, "run", prompts=4)
    assert resolution(run, "other", 0.05) is None
    assert resolvable_words(run, "other", CONFIG) is None
    assert resolution(rewrite_table(run, "scores", pl.lit(0.5).alias("value")), "q", 0.05) is None
    assert resolution(run_of(tmp_path, "one", prompts=1), "q", 0.05) is None
    assert resolution(run_of(tmp_path, "seed", seeds=1), "q", 0.05) is None


@given(st.floats(1e-6, 1e6))
def test_rounding_is_up_and_by_less_than_a_tenth(value: float) -> None:
    up = rounded_up(value)
    assert value * (1 - 1e-9) <= up <= 1.1 * value * (1 + 1e-9)
    assert len(f"{up:.10e}".split("e")[0].rstrip("0").replace(".", "")) <= 2


def test_whose_margin_counts(tmp_path: Path) -> None:
    base, candidate = run_of(tmp_path, "base"), run_of(tmp_path, "candidate", own=0.02)

    def margin(before: float | str | None, now: float | str | None, config: GateConfig = CONFIG) -> tuple[object, str]:
        quality = margins_for("q", config, (stating(base, before), stating(candidate, now))).quality
        changed = isinstance(now, float) and before not in (None, now) and config.margin_quality is None
        assert ("was" in quality.note) == changed
        return quality.value, quality.origin

    assert margin(None, None) == (0.01, "default of q")
    assert margin(0.3, None) == margin(0.3, 0.3) == margin(None, 0.3) == margin(0.1, 0.3) == (0.3, IN_SUITE)
    assert margin(0.1, 0.3, GateConfig(margin_quality=0.4)) == (0.4, "given")
    loss = resolution(base, "q", 0.05).loss
    assert loss > 0.02
    assert margin("resolvable", None) == margin(None, "resolvable") == margin(0.3, "resolvable") == (loss, RESOLVED)


def test_resolvable_is_the_metrics_own_margin_where_the_prompts_show_it(tmp_path: Path) -> None:
    base = stating(run_of(tmp_path, "base", own=0.2), "resolvable")
    quality = margins_for("q", CONFIG, (base, base)).quality
    assert (quality.value, quality.origin, quality.note) == (0.2, 'default of q, by "resolvable"', "")


def test_the_verdict_by_a_resolvable_margin_says_what_it_is(tmp_path: Path) -> None:
    base = stating(run_of(tmp_path, "base"), "resolvable")
    candidate = stating(run_of(tmp_path, "candidate", seed=4), "resolvable")
    verdict = gate(base, candidate, config=GateConfig(margin_energy=0.5))
    assert (verdict.verdict, verdict.quality.margin_origin) == ("pass", RESOLVED)
    assert verdict.notes[0].startswith(f"the margin on q, {verdict.quality.margin:g}, is the smallest loss that 40")
    assert "0.01 would need about" in verdict.notes[0]


def test_differences_that_vary_more_than_expected_are_inconclusive_and_no_usage_error(tmp_path: Path) -> None:
    """A change that suits some prompts better than others; with a stated margin it is an error."""
    base = stating(run_of(tmp_path, "base"), "resolvable")
    mirrored = pl.read_parquet(base.path / "scores.parquet")["value"]
    candidate = stating(run_of(tmp_path, "candidate"), "resolvable")
    loss = margins_for("q", CONFIG, (base, candidate)).quality.value
    assert loss is not None
    value = 2 * mirrored.to_numpy().mean() - mirrored.to_numpy() - 0.9 * loss
    candidate = rewrite_table(candidate, "scores", pl.lit(pl.Series("value", value)))
    verdict = gate(base, candidate, config=GateConfig(margin_energy=0.5))
    assert (verdict.verdict, verdict.exit_code) == ("inconclusive", 3)
    assert verdict.quality.mde is not None
    assert verdict.quality.mde > loss
    with pytest.raises(UsageError, match=r"margins\.q = 0\.\d+ under \[metrics\] in the suite, or --margin-quality"):
        gate(base, candidate, config=GateConfig(margin_energy=0.5, margin_quality=loss))

    # the same for the metric's own margin, where the prompts can show it: no number was stated either
    base, candidate = (with_margin(run, 1.01 * loss) for run in (base, candidate))
    verdict = gate(base, candidate, config=GateConfig(margin_energy=0.5))
    assert (verdict.verdict, verdict.quality.margin_origin) == ("inconclusive", 'default of q, by "resolvable"')
    assert verdict.quality.mde is not None
    assert verdict.quality.mde > 1.01 * loss
    with pytest.raises(UsageError, match=r"the margin on q"):
        gate(stating(base, None), stating(candidate, None), config=GateConfig(margin_energy=0.5))


def test_a_margin_that_cannot_be_judged_is_printed_and_annotated_with_its_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    runs = [run_of(tmp_path, name, prompts=4, seed=seed) for seed, name in enumerate(("base", "candidate"))]
    arguments = ("--baseline", str(runs[0].path), "--candidate", str(runs[1].path), "--margin-energy", "50%")
    files = ("--junit", str(tmp_path / "gate.xml"), "--markdown", str(tmp_path / "gate.md"))
    code, out, err = call("gate", *arguments, *files, capsys=capsys)
    assert code == 2
    assert out.startswith("INCONCLUSIVE")
    (annotation,) = [line for line in out.splitlines() if line.startswith("::")]
    assert annotation.startswith("::error title=perjoule gate INCONCLUSIVE::gate: the margin on q (0.01) is below")
    assert "Use about" in annotation
    assert annotation.partition("::gate: ")[2].split(" ")[:6] == err.partition("gate: ")[2].split(" ")[:6]
    assert all(Path(file).read_text() for file in (*files[1::2], tmp_path / "summary.md"))
    code, out, _ = call("gate", *arguments, "--json", capsys=capsys)
    assert (code, set(json.loads(out))) == (2, {"error", "schema"})


def test_a_sequential_gate_needs_a_fixed_margin(tmp_path: Path) -> None:
    base = stating(run_of(tmp_path, "base"), "resolvable")
    config = GateConfig(look=Look(number=1, shares=(0.5, 1.0)))
    with pytest.raises(UsageError, match="needs a margin that is fixed before it measures"):
        margins_for("q", config, (base, base))
    assert margins_for("q", replace(config, margin_quality=0.1), (base, base)).quality.value == 0.1


@pytest.mark.parametrize("margin", [0.0, -1.0, "about", float("inf")])
def test_a_margin_in_a_suite_is_positive_or_resolvable(margin: float | str) -> None:
    table_of_suite = {
        "name": "s", "title": "", "description": "", "prompts": {"source": "builtin:demo"}, "protocol": {},
        "metrics": {"primary": "lsnr", "names": ["lsnr"], "margins": {"lsnr": margin}},
        "variants": [{"name": "v", "model": "builtin:sd-tiny", "steps": [1]}],
    }  # fmt: skip
    with pytest.raises(SuiteError, match=r"metrics\.margins\.lsnr"):
        parse_suite(table_of_suite, where="s.toml")
    table_of_suite["metrics"] = {"primary": "lsnr", "names": ["lsnr"], "margins": {"lsnr": "resolvable"}}
    with pytest.raises(
        SuiteError, match=r"one seed does not show .* set protocol\.seeds = \[1, 2\], or write a number"
    ):
        parse_suite(table_of_suite, where="s.toml")
    table_of_suite["metrics"] = {"primary": "lsnr", "names": ["lsnr"], "margins": {"clip_text": 0.1}}
    with pytest.raises(SuiteError, match=r"metrics\.margins\.clip_text: no such metric"):
        parse_suite(table_of_suite, where="s.toml")


@pytest.mark.parametrize(
    ("own", "stated", "words"),
    [
        (
            0.01,
            None,
            r"the margin \(default of q\) of 0\.01 would need about [\d,]+ prompts.*margins\.q = 0\.\d+ under",
        ),
        (None, None, r"40 prompts can show a loss of 0\.\d+, and no margin is declared: write margins\.q"),
        (0.2, None, r"40 prompts can show a loss of 0\.\d+; the margin is 0\.2 \(default of q\)$"),
        (0.01, 0.3, r"; the margin is 0\.3 \(suite\)$"),
        (0.01, "resolvable", r"is the smallest loss that 40 prompts can show, and not known to be negligible"),
    ],
)
def test_saving_a_baseline_says_what_its_prompts_can_show(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    own: float | None,
    stated: float | str | None,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    run = stating(run_of(tmp_path, "run", own=own), stated)
    code, out, err = call("baseline", "save", "main", str(run.path), capsys=capsys)
    assert (code, "can show" in out) == (0, False)
    (line,) = [line for line in err.splitlines() if "can show" in line]
    assert re.search(words, line), line
