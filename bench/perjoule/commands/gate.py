"""`perjoule gate`."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from perjoule.commands import completing
from perjoule.commands.options import (
    Json,
    Limit,
    MarginEnergy,
    MarginQuality,
    MeterName,
    Metric,
    Quiet,
    StudyOption,
    judged_pair,
    print_record,
    print_text,
    terminal_width,
)
from perjoule.commands.summary import append_summary
from perjoule.errors import UsageError
from perjoule.files import write_text
from perjoule.shares import share

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perjoule.gating.records import GateConfig, Verdict


class Inconclusive(StrEnum):
    """Effect of an inconclusive verdict on the exit code."""

    report = "report"
    warn = "warn"
    fail = "fail"


class Inference(StrEnum):
    """How a sequential gate divides its error over the looks."""

    pocock = "pocock"
    obrien_fleming = "obrien-fleming"
    confidence_sequence = "confidence-sequence"


class Mode(StrEnum):
    """Where the baseline was measured."""

    paired = "paired"
    stored = "stored"


_CLUSTER = "its looks are taken in one process that measures both sides in turn"
_BUDGET = "it never measures more than the plan of its suites: --limit makes it smaller"
# options of `perjoule run` that a gate has not, with the reason
_OF_RUN = {
    "--executor": _CLUSTER,
    "--address": _CLUSTER,
    "--shard": "a look needs the prompts of all shards",
    "--race": "a race drops cells, and a gate needs all of them",
    "--max-joules": _BUDGET,
    "--max-minutes": _BUDGET,
}


class _Gate(TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse options of `perjoule run` with the reason, instead of as unknown."""
        for option in [word.partition("=")[0] for word in args]:
            if option in _OF_RUN:
                instead = f", or measure each suite with `perjoule run SUITE {option} …` and judge the runs without it"
                raise UsageError(
                    f"gate: {option} belongs to `perjoule run`. A gate has none, not even with --sequential, because "
                    f"{_OF_RUN[option]}: leave {option} out"
                    f"{'' if option == '--race' else instead}"
                )
        return super().parse_args(ctx, args)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(cls=_Gate)(gate)


def gate(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="RUN", help="Sequential run, with --replay-looks.", autocompletion=completing.runs),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Run directory, its address s3://BUCKET/PATH, or the name of a stored baseline; with --sequential "
            "also a suite, which is measured in the same session.",
            autocompletion=completing.baselines_and_runs,
        ),
    ] = None,
    candidate: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Run directory, or its address.", autocompletion=completing.runs),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(metavar="SUITE", help="Suite to measure with --sequential.", autocompletion=completing.suites),
    ] = None,
    sequential: Annotated[
        bool, typer.Option("--sequential", help="Measure --suite block by block, and stop at the verdict.")
    ] = False,
    inference: Annotated[
        Inference, typer.Option(help="How a sequential gate divides its error over the looks.")
    ] = Inference.pocock,
    out: Annotated[Path | None, typer.Option(help="Run directory of a sequential gate.")] = None,
    meter: MeterName = "auto",
    limit: Limit = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted sequential gate.")] = False,
    replay_looks: Annotated[
        bool, typer.Option("--replay-looks", help="Compute every look of the sequential run RUN again from its files.")
    ] = False,
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
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Decide if a candidate may replace a baseline.

    It passes if neither its energy nor its quality is worse than the margin.

    With --sequential the suite is measured block by block, and measuring stops as soon as the verdict is PASS or FAIL.

    Exit codes: 0 pass, 1 fail, 2 usage, 3 inconclusive, 4 invalid or incomparable evidence; with --baseline-optional
    also 0 if no baseline is stored at all.

    Example: perjoule gate --baseline runs/main --candidate runs/pr --margin-energy 3%

    Example: perjoule gate --baseline main.toml --suite pr.toml --sequential --out runs/pr
    """
    from perjoule.gating import GateConfig
    from perjoule.gating.resolving import require_resolvable, unresolvable

    def config_for(stored: bool) -> GateConfig:
        return GateConfig(
            margin_energy=None if margin_energy is None else share(margin_energy, "--margin-energy"),
            margin_quality=margin_quality,
            alpha=share(alpha, "--alpha"),
            mode=(mode or (Mode.stored if stored else Mode.paired)).value,
            session_sd=None if session_sd is None else share(session_sd, "--session-sd"),
            looks=looks,
            change=tuple(change or ()),
            joules_per_quality=joules_per_quality,
        )

    _require_one_task(run, baseline, candidate, suite, sequential=sequential, replay_looks=replay_looks)
    given = {"--out": out, "--limit": limit, "--resume": resume or None, "--meter": None if meter == "auto" else meter}
    if not sequential and (useless := [name for name, value in given.items() if value is not None]):
        raise UsageError(f"{useless[0]} belongs to a sequential gate: add --sequential and --suite, or leave it out")
    if replay_looks:
        assert run is not None
        _print_replay(run, as_json)
        return
    assert baseline is not None
    if sequential:
        from perjoule.commands.gate_sequential import sequential_verdict

        if study is not None or looks != 1:
            raise UsageError(
                "--sequential plans its looks itself and scores by metrics: leave out "
                f"{'--study' if study is not None else '--looks'}"
            )
        assert suite is not None
        verdict, problem = sequential_verdict(
            baseline,
            suite,
            config_for,
            metric=metric,
            design=inference.value,
            out=out,
            meter=meter,
            limit=limit,
            resume=resume,
            quiet=quiet,
            optional=baseline_optional,
        )
    else:
        assert candidate is not None
        problem = None
        verdict = _stored_verdict(baseline, candidate, config_for, study, metric, optional=baseline_optional)
    open_margins = [*([problem] if problem is not None else []), *unresolvable(verdict)]
    github = github or _on_github()
    if not open_margins or (github and not as_json):  # the error says the same, but is not an annotation
        _print(verdict, open_margins, as_json=as_json, github=github)
    # after stdout, so that the verdict is printed even if a file cannot be written
    _write(verdict, junit, markdown)
    if problem is not None:
        raise UsageError(problem)
    if open_margins:  # such a gate could only guess
        require_resolvable(verdict)
    raise typer.Exit(_exit_code(verdict, inconclusive))


def _print(verdict: Verdict, problems: Sequence[str], *, as_json: bool, github: bool) -> None:
    from perjoule.gating import render

    if as_json:
        print_record(verdict)
        return
    print_text(render.terminal(verdict))
    if github:
        typer.echo(render.annotations(verdict, problems))


def _write(verdict: Verdict, junit: Path | None, markdown: Path | None) -> None:
    from perjoule.gating import render

    if junit is not None:
        write_text(junit, render.junit(verdict))
    if markdown is not None:
        write_text(markdown, render.markdown(verdict))
    if _on_github():
        append_summary(render.markdown(verdict))


def _stored_verdict(
    baseline: str,
    candidate: str,
    config_for: Callable[[bool], GateConfig],
    study: Path | None,
    metric: str | None,
    *,
    optional: bool,
) -> Verdict:
    from perjoule.gating import baselines, examine
    from perjoule.gating.first import first_verdict
    from perjoule.runs.directory import load_run
    from perjoule.runs.remote import fetched_run

    with ExitStack() as stack:
        ours = load_run(stack.enter_context(fetched_run(candidate)))
        if optional and baselines.none_yet(baseline):
            return first_verdict(ours, baseline, metric, config_for(True))
        theirs, stored = baselines.opened(baseline, ours, stack)
        ours, theirs = judged_pair(ours, theirs, study, metric)
        return examine(theirs, ours, metric, config_for(stored))[0]


def _require_one_task(
    run: Path | None,
    baseline: str | None,
    candidate: str | None,
    suite: str | None,
    *,
    sequential: bool,
    replay_looks: bool,
) -> None:
    """Raise UsageError if the arguments do not name one of the three tasks of the verb."""
    if replay_looks or run is not None:
        if not replay_looks:
            raise UsageError(f"gate {run}: add --replay-looks, or give --baseline and --candidate")
        if run is None or baseline or candidate or suite or sequential:
            raise UsageError("--replay-looks reads one sequential run: give only RUN")
        return
    if candidate is not None and suite is not None:
        raise UsageError("--candidate is a finished run and --suite is measured now: give one of them")
    if suite is not None and not sequential:
        raise UsageError(f"--suite {suite} is measured until the verdict: add --sequential")
    if sequential and suite is None:
        raise UsageError("--sequential measures a suite: give --suite")
    if baseline is None or (candidate is None and suite is None):
        missing = "--baseline" if baseline is None else "--candidate"
        raise UsageError(f"gate: {missing} is missing: give --baseline and --candidate, or --suite with --sequential")


def _print_replay(run: Path, as_json: bool) -> None:
    """Print every look of a sequential run; exits with 4 if the files and the computation differ."""
    from perjoule.errors import EvidenceError
    from perjoule.gating import render
    from perjoule.gating.looks import replay

    replayed = replay(run)
    if as_json:
        print_record(replayed)
    else:
        print_text(render.replayed(replayed, terminal_width()))
    raise typer.Exit(EvidenceError.exit_code if replayed.differences else replayed.verdict.exit_code)


def _on_github() -> bool:
    return os.environ.get("GITHUB_ACTIONS") == "true"


def _exit_code(verdict: Verdict, inconclusive: Inconclusive) -> int:
    if verdict.verdict != "inconclusive" or inconclusive is Inconclusive.report:
        return verdict.exit_code
    if inconclusive is Inconclusive.fail:
        return 1
    sys.stderr.write("perjoule: the gate is inconclusive; let through by --inconclusive warn\n")
    return 0
