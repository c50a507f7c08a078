"""`perjoule recommend`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from perjoule.commands.options import Json, Metric, StoredRun, StudyOption, judged, print_json, print_text
from perjoule.shares import share
from perjoule.text import provenance_words


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(recommend)


def recommend(
    run: StoredRun,
    min_quality: Annotated[
        float | None, typer.Option(help="Choose the cheapest point of at least this quality.")
    ] = None,
    max_joules: Annotated[
        float | None, typer.Option(help="Choose the best point of at most this many J/image.")
    ] = None,
    metric: Metric = None,
    study: StudyOption = None,
    family: Annotated[str | None, typer.Option(help="Only variants of this family.")] = None,
    by_point: Annotated[
        bool, typer.Option("--by-point", help="Use point estimates alone, without their uncertainty.")
    ] = False,
    confidence: Annotated[
        str, typer.Option(help="Share of the resamples in which the point must meet the requirement: 90% or 0.9.")
    ] = "90%",
    as_json: Json = False,
) -> None:
    """Recommend an operating point to deploy.

    Prints how certain the choice is, and the diffusers code for it.

    Without --min-quality and --max-joules the floor is that of the report: the quality of the longest run less the
    metric's margin, or what that run keeps if the metric has none.

    A point qualifies only if it meets the requirement in 90 % of the bootstrap resamples. Among equals the cheapest
    wins.

    Example: perjoule recommend runs/demo

    Example: perjoule recommend runs/demo --min-quality 0.9
    """
    from perjoule.errors import EvidenceError
    from perjoule.gating import recommend as recommending
    from perjoule.runs.directory import load_run
    from perjoule.runs.remote import fetched_run

    with fetched_run(run) as folder:
        advice = recommending.recommend(
            judged(load_run(folder), study, metric),
            metric,
            min_quality=min_quality,
            max_joules=max_joules,
            family=family,
            by_point=by_point,
            confidence=share(confidence, "--confidence"),
        )
    if as_json:
        print_json(advice)
    elif advice["chosen"] is not None:
        print_text(_text(advice))
    if advice["chosen"] is None:
        raise EvidenceError("\n  note: ".join([f"recommend: {advice['reason']}", *_left_out(advice)]))


def _text(advice: dict[str, Any]) -> str:
    from perjoule.statistics.safe import LEAST_PROMPTS

    chosen, safe, point = advice["chosen"], advice["safe"], advice["point"]
    sure = f"{100 * advice['confidence']:g} %"
    lines = [_line(chosen, advice["metric"])]
    if advice["floor_from"] is not None:
        bound = "at least" if advice["direction"] == "higher" else "at most"
        lines.append(f"  for {advice['metric']} of {bound} {advice['min_quality']:.4g}: {advice['floor_from']}")
        lines.append("  for another floor: --min-quality, or a budget: --max-joules")
    if chosen["p_meets"] is not None:
        again = "" if chosen["p_chosen"] is None else f", and is the best cell that does in {chosen['p_chosen']:.1%}"
        lines.append(
            f"  keeps what was asked in {chosen['p_meets']:.1%} of the resamples{again} ({advice['n_prompts']} prompts)"
        )
        if advice["n_prompts"] < LEAST_PROMPTS:
            lines.append(f"  note: that is too sure: resamples of fewer than {LEAST_PROMPTS} prompts vary too little")
    if advice["by"] == "limit":
        if point["cell_id"] != chosen["cell_id"]:
            lines.append(f"  by its point estimate alone, which --by-point takes: {_line(point, advice['metric'])}")
    elif chosen["p_meets"] is None and advice["n_prompts"] > 0 and safe is None:
        lines.append("  how sure that is is not known: there is one number for the whole cell")
    elif safe is None:
        lines.append(f"  no point keeps it in {sure} of the resamples: measure more prompts, or ask for less")
    elif safe["cell_id"] != chosen["cell_id"]:
        lines.append(f"  in {sure} of the resamples: {_line(safe, advice['metric'])}")
    lines += [f"  note: {words}" for words in _left_out(advice)]
    if chosen["provenance"] != "measured":
        lines.append(f"  energy: {provenance_words(chosen['provenance'])}: do not quote it as measured")
    if chosen["call"]:
        lines += ["", chosen["call"]]
    return "\n".join(lines)


def _left_out(advice: dict[str, Any]) -> list[str]:
    from perjoule.gating.oddities import Oddity

    return [Oddity(**odd).words for odd in advice["left_out"]]


def _line(choice: dict[str, Any], metric: str) -> str:
    energy = _interval(choice["energy_j_per_image"], choice["energy_low"], choice["energy_high"])
    quality = _interval(choice["quality"], choice["quality_low"], choice["quality_high"])
    return f"{choice['cell_id']}: {energy} J/image, {metric} {quality}"


def _interval(value: float, low: float | None, high: float | None) -> str:
    return f"{value:.4g}" if low is None or high is None else f"{value:.4g} [{low:.4g}, {high:.4g}]"
