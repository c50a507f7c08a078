"""`perjoule gate`."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perjoule.commands import completing
from perjoule.commands.options import (
    Json,
    MarginEnergy,
    MarginQuality,
    Metric,
    StudyOption,
    judged_pair,
    print_record,
    print_text,
)
from perjoule.commands.summary import append_summary
from perjoule.files import write_text
from perjoule.shares import share

if TYPE_CHECKING:
    from perjoule.gating.records import Verdict


class Inconclusive(StrEnum):
    """Effect of an inconclusive verdict on the exit code."""

    report = "report"
    warn = "warn"
    fail = "fail"


class Mode(StrEnum):
    """Where the baseline was measured."""

    paired = "paired"
    stored = "stored"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(gate)


def gate(
    baseline: Annotated[
        str,
        typer.Option(
            metavar="RUN",
            help="Run directory, its address s3://BUCKET/PATH, or the name of a stored baseline.",
            autocompletion=completing.baselines_and_runs,
        ),
    ],
    candidate: Annotated[
        str,
        typer.Option(metavar="RUN", help="Run directory, or its address.", autocompletion=completing.runs),
    ],
    metric: Metric = None,
    study: StudyOption = None,
    margin_energy: MarginEnergy = None,
    margin_quality: MarginQuality = None,
    alpha: Annotated[str, typer.Option(help="One-sided error of each axis: 5% or 0.05.")] = "5%",
    mode: Annotated[
        Mode | None, typer.Option(help="paired: same session; stored: another one. A stored name means stored.")
    ] = None,
    session_sd: Annotated[str | None, typer.Option(help="Scatter between sessions, from A/A runs: 3% or 0.03.")] = None,
    looks: Annotated[int, typer.Option(help="How often this commit is tested while prompts are added.")] = 1,
    change: Annotated[
        list[str] | None,
        typer.Option(
            help="Key that may differ because it is the change under test: models, steps, ..., or variants for all "
            "settings of variants; repeatable."
        ),
    ] = None,
    joules_per_quality: Annotated[
        float | None, typer.Option(help="Judge a trade-off by its net benefit at this price.")
    ] = None,
    inconclusive: Annotated[
        Inconclusive, typer.Option(help="Exit code of an inconclusive verdict: 3, 0 with a warning, or 1.")
    ] = Inconclusive.report,
    baseline_optional: Annotated[
        bool, typer.Option("--baseline-optional", help="Exit with 0 if no baseline is stored yet, and say so.")
    ] = False,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write Markdown for a pull request to this file.")] = None,
    github: Annotated[bool, typer.Option("--github", help="Print annotations; the default on GitHub Actions.")] = False,
    as_json: Json = False,
) -> None:
    """Decide if a candidate may replace a baseline.

    It passes if neither its energy nor its quality is worse than the margin.

    Exit codes: 0 pass, 1 fail, 2 usage, 3 inconclusive, 4 invalid or incomparable evidence; with --baseline-optional
    also 0 if no baseline is stored at all.

    Example: perjoule gate --baseline runs/main --candidate runs/pr --margin-energy 3%
    """
    from perjoule.gating import GateConfig, baselines, examine
    from perjoule.gating.decide import require_resolvable, unresolvable
    from perjoule.gating.first import first_verdict
    from perjoule.runs.directory import load_run
    from perjoule.runs.remote import fetched_run

    config = GateConfig(
        margin_energy=None if margin_energy is None else share(margin_energy, "--margin-energy"),
        margin_quality=margin_quality,
        alpha=share(alpha, "--alpha"),
        session_sd=None if session_sd is None else share(session_sd, "--session-sd"),
        looks=looks,
        change=tuple(change or ()),
        joules_per_quality=joules_per_quality,
    )
    with ExitStack() as stack:
        ours = load_run(stack.enter_context(fetched_run(candidate)))
        if baseline_optional and baselines.none_yet(baseline):
            verdict = first_verdict(ours, baseline, metric, config)
        else:
            theirs, stored = baselines.opened(baseline, ours, stack)
            config = replace(config, mode=(mode or (Mode.stored if stored else Mode.paired)).value)
            ours, theirs = judged_pair(ours, theirs, study, metric)
            verdict, _ = examine(theirs, ours, metric, config)
    open_margins = bool(unresolvable(verdict))
    if not open_margins:
        _print(verdict, as_json=as_json, github=github)
    # after stdout, so that the verdict is printed even if a file cannot be written
    _write(verdict, junit, markdown)
    if open_margins:  # such a gate could only guess
        require_resolvable(verdict)
    raise typer.Exit(_exit_code(verdict, inconclusive))


def _print(verdict: Verdict, *, as_json: bool, github: bool) -> None:
    from perjoule.gating import render

    if as_json:
        print_record(verdict)
        return
    print_text(render.terminal(verdict))
    if github or _on_github():
        typer.echo(render.annotations(verdict))


def _write(verdict: Verdict, junit: Path | None, markdown: Path | None) -> None:
    from perjoule.gating import render

    if junit is not None:
        write_text(junit, render.junit(verdict))
    if markdown is not None:
        write_text(markdown, render.markdown(verdict))
    if _on_github():
        append_summary(render.markdown(verdict))


def _on_github() -> bool:
    return os.environ.get("GITHUB_ACTIONS") == "true"


def _exit_code(verdict: Verdict, inconclusive: Inconclusive) -> int:
    if verdict.verdict != "inconclusive" or inconclusive is Inconclusive.report:
        return verdict.exit_code
    if inconclusive is Inconclusive.fail:
        return 1
    sys.stderr.write("perjoule: the gate is inconclusive; let through by --inconclusive warn\n")
    return 0
