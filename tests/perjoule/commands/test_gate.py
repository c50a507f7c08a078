"""The three tasks of `perjoule gate` do not mix: judge two runs, measure until a verdict, replay looks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.perjoule.test_cli import call

from perjoule.commands import gate_sequential
from perjoule.gating import GateConfig, Verdict

RUNS = ("--baseline", "a", "--candidate", "b")
SUITES = ("--baseline", "a.toml", "--suite", "b.toml")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--baseline is missing"),
        (("--baseline", "a"), "--candidate is missing"),
        ((*RUNS, "--suite", "c.toml"), "give one of them"),
        ((*RUNS, "--suite", "c.toml", "--sequential"), "give one of them"),
        (SUITES, "add --sequential"),
        (("--baseline", "a", "--sequential"), "give --suite"),
        ((*RUNS, "--sequential"), "give --suite"),
        ((*RUNS, "--out", "c"), "--out belongs to a sequential gate"),
        ((*RUNS, "--resume"), "--resume belongs to a sequential gate"),
        (("c",), "add --replay-looks"),
        (("--replay-looks",), "give only RUN"),
        (("c", "--replay-looks", *RUNS), "give only RUN"),
        ((*SUITES, "--sequential", "--looks", "2"), "leave out --looks"),
        ((*SUITES, "--sequential", "--study", "s"), "leave out --study"),
        ((*SUITES, "--sequential", "--resume"), "give it with --out"),
        (
            (*SUITES, "--sequential", "--executor", "ray"),
            "--executor belongs to `perjoule run`. A gate has none, not even with --sequential, because its looks",
        ),
        ((*SUITES, "--sequential", "--executor=ray"), "`perjoule run SUITE --executor …` and judge the runs without"),
        ((*SUITES, "--sequential", "--address", "auto"), "--address belongs to `perjoule run`"),
        ((*SUITES, "--sequential", "--shard", "1/2"), "a look needs the prompts of all shards: leave --shard out, or"),
        ((*SUITES, "--sequential", "--race"), "a race drops cells, and a gate needs all of them: leave --race out"),
        (
            (*SUITES, "--sequential", "--max-joules", "5"),
            "not even with --sequential, because it never",
        ),
        ((*SUITES, "--sequential", "--max-minutes", "5"), "--limit makes it smaller: leave --max-minutes out, or"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    arguments: tuple[str, ...],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = call("gate", *arguments, capsys=capsys)
    assert code == 2
    assert words in err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("baseline", "refused", "words"),
    [
        ("main", "--baseline main: not a run directory", "no baseline is stored yet"),
        ("base/s.toml", "base/s.toml: no such file", "there is no run or suite base/s.toml"),
    ],
)
def test_a_sequential_gate_without_a_baseline_measures_nothing(
    baseline: str,
    refused: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--baseline", baseline, "--suite", "demo", "--sequential", "--out", "out", "--markdown", "gate.md")
    code, _, err = call("gate", *options, capsys=capsys)
    assert (code, refused in err) == (2, True)
    code, out, _ = call("gate", *options, "--baseline-optional", capsys=capsys)
    assert code == 0
    assert words in out
    assert "nothing was measured" in out
    assert [path.name for path in tmp_path.iterdir()] == ["gate.md"]


def test_files_are_written_before_a_margin_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The verdict of a sequential gate whose prompts cannot resolve a margin."""
    verdict = Verdict.neutral("q", GateConfig(), "the margin is too small: about 90 prompts would be enough")
    verdict = replace(verdict, verdict="inconclusive", energy=replace(verdict.energy, outcome="inconclusive"))
    monkeypatch.setattr(gate_sequential, "sequential_verdict", lambda *_, **__: (verdict, verdict.reasons[0]))
    files = (str(tmp_path / "gate.md"), str(tmp_path / "gate.xml"))
    code, out, err = call("gate", *SUITES, "--sequential", "--markdown", files[0], "--junit", files[1], capsys=capsys)
    assert (code, out) == (2, "")
    assert "about 90 prompts would be enough" in err
    assert "about 90 prompts would be enough" in Path(files[0]).read_text()
    assert "<skipped" in Path(files[1]).read_text()
