"""`perjoule gate --sequential`: the baseline and the suite that are compared until there is a verdict."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from perjoule.commands.options import reporter
from perjoule.errors import SuiteError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from perjoule.gating.records import GateConfig, Verdict
    from perjoule.running.prepared import Prepared
    from perjoule.runs.directory import Run
    from perjoule.statistics.designs import Design


def sequential_verdict(
    baseline: str,
    suite: str,
    config_for: Callable[[bool], GateConfig],
    *,
    metric: str | None,
    design: Design,
    out: Path | None,
    meter: str,
    limit: int | None,
    resume: bool,
    quiet: bool,
    optional: bool,
) -> tuple[Verdict, str | None]:
    """Measure a suite against a baseline until the verdict.

    Returns:
        The verdict, and the message if the planned prompts cannot resolve a margin.

    Args:
        baseline: Run directory, name of a stored baseline, or suite to measure in the same session.
        suite: Suite of the candidate.
        config_for: Returns the configuration; its argument says whether the baseline is from another session.
        metric: Quality axis.
        design: How the error is divided over the looks.
        out: Run directory.
        meter: Name as for `open_meter`.
        limit: Number of prompts.
        resume: Continue in `out`.
        quiet: Print no progress.
        optional: Measure nothing if there is no baseline yet; the verdict is neutral.
    """
    from perjoule.gating.first import unmeasured_verdict
    from perjoule.meters import require_meter
    from perjoule.running import pipeline
    from perjoule.running.planning_looks import GateRequest
    from perjoule.running.prepared import prepare
    from perjoule.running.sequential import gate_until_verdict

    if resume and out is None:
        raise UsageError("--resume continues a gate in its run directory: give it with --out")
    require_meter(meter)
    candidate = prepare(suite, limit, resume=out if resume else None)
    folder = out or pipeline.default_out(candidate.suite)
    with ExitStack() as stack:
        theirs = _baseline(baseline, candidate, limit, folder if resume else None, stack, optional=optional)
        if theirs is None:
            return unmeasured_verdict(candidate.suite, baseline, metric, config_for(True)), None
        request = GateRequest(
            baseline=baseline,
            config=config_for(not _is_prepared(theirs)),
            metric=metric,
            design=design,
            meter_name=meter,
            command=("perjoule", *sys.argv[1:]),
        )
        shown = reporter(quiet)
        verdict, last = gate_until_verdict(candidate, theirs, request, folder, shown, resume=resume)
        shown.message(f"report: {folder / 'report.html'}")
    return verdict, last.reason if last.outcome == "unresolvable" else None


def _is_prepared(side: Run | Prepared) -> bool:
    from perjoule.running.prepared import Prepared

    return isinstance(side, Prepared)


def _baseline(
    name: str, candidate: Prepared, limit: int | None, resumed: Path | None, stack: ExitStack, *, optional: bool
) -> Run | Prepared | None:
    """Return the run or stored baseline of a name, or else the suite to measure; None if it may not exist yet."""
    from perjoule.gating import baselines
    from perjoule.gating.looks import BASELINE
    from perjoule.running.prepared import prepare
    from perjoule.runs.directory import is_run, load_run
    from perjoule.runs.remote import fetched_run, is_remote
    from perjoule.suite.reading import find_suite

    if is_remote(name) or is_run(Path(name)):
        return load_run(stack.enter_context(fetched_run(name)))
    try:
        return baselines.unpacked(name, stack, suite=candidate.suite.name)
    except UnknownNameError as unknown:
        try:
            find_suite(name)
        except (SuiteError, UnknownNameError) as error:
            if optional and baselines.none_yet(name):
                return None
            if isinstance(error, SuiteError):
                raise
            raise UsageError(
                f"--baseline {name}: not a run directory, a stored baseline or a suite ({unknown}): give one of them"
            ) from None
        return prepare(name, limit, resume=None if resumed is None else resumed / BASELINE)
