"""`perjoule study new` and `perjoule study plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perjoule.commands import completing
from perjoule.commands.options import Json, RunArgument, print_record, print_text

Careless = Annotated[float, typer.Option("--careless", help="Share of observers expected to answer carelessly.")]


def new(
    run: RunArgument,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the study; must not exist.")],
    arms: Annotated[
        list[str] | None,
        typer.Option("--arms", metavar="NAME,…", help="Cells, or variants for all their cells; all by default."),
    ] = None,
    pairs: Annotated[
        int | None, typer.Option("--pairs", help="Pairs that each observer compares; at most 60 by default.")
    ] = None,
    observers: Annotated[int, typer.Option("--observers", help="Planned number of observers.")] = 15,
    reference: Annotated[
        bool,
        typer.Option("--reference/--preference", help="Ask which is closer to the reference, or which is better."),
    ] = False,
    ties: Annotated[bool, typer.Option("--ties", help='Allow the answer "no difference".')] = False,
    limit: Annotated[int | None, typer.Option("--limit", help="Use only the first N prompts.")] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            "--baseline", metavar="RUN", help="Compare with this run too, for a gate.", autocompletion=completing.runs
        ),
    ] = None,
    title: Annotated[str, typer.Option("--title", help="Title for people who take part.")] = "",
    contact: Annotated[
        str, typer.Option("--contact", help="Who asks and how to reach them; shown with the consent.")
    ] = "",
    width_mm: Annotated[
        float, typer.Option("--width-mm", min=5, max=1000, help="Width of a picture on the screen.")
    ] = 80,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the design.")] = 0,
    as_json: Json = False,
) -> None:
    """Make a study from the pictures of a run.

    Writes a folder with the page, the pictures and study.json. The design and the rule by which careless observers are
    excluded are fixed before the first answer.

    Example: perjoule study new runs/demo --arms base,turbo --observers 20 --out study
    """
    from perjoule.people.creating import StudyRequest, described, new_study
    from perjoule.people.records import Display
    from perjoule.runs.directory import load_run

    request = StudyRequest(
        question="reference" if reference else "preference",
        arms=[name.strip() for text in arms or () for name in text.split(",") if name.strip()],
        pairs=pairs,
        observers=observers,
        prompts=limit,
        ties=ties,
        seed=seed,
        title=title,
        contact=contact,
        display=Display(width_mm=width_mm),
    )
    study = new_study(load_run(run), request, out, None if baseline is None else load_run(baseline))
    record = described(study, out)
    if as_json:
        print_record(record)
        return
    print_text(
        f"{out}: {len(record.arms)} arms, {record.prompts} prompts; {record.observers} observers with "
        f"{record.trials_per_observer} questions each, about {record.minutes_per_observer:.0f} minutes; "
        f"{record.answers} answers to scale\n"
        f"next: perjoule study serve {out}, or put the folder on a web server and merge what people send with "
        f"perjoule study add {out} FILES"
    )


def plan(
    study: Annotated[
        Path | None, typer.Argument(metavar="[STUDY]", help="Take the number of arms and of pairs from this study.")
    ] = None,
    half_width: Annotated[
        float, typer.Option("--half-width", help="Wanted half-width in JOD of the 95 % interval of a difference.")
    ] = 0.3,
    arms: Annotated[int | None, typer.Option("--arms", help="Number of arms.")] = None,
    pairs: Annotated[int | None, typer.Option("--pairs", help="Pairs that each observer compares.")] = None,
    spread: Annotated[float, typer.Option("--spread", help="Expected JOD between the best arm and the worst.")] = 2.0,
    careless: Careless = 0.1,
    as_json: Json = False,
) -> None:
    """Work out how many answers a study needs.

    Example: perjoule study plan --arms 8 --half-width 0.2
    """
    from perjoule.errors import UsageError
    from perjoule.people.folder import read_study
    from perjoule.people.planning import answers_needed

    opened = None if study is None else read_study(study)
    count = arms if arms is not None else len(opened.arms) if opened else None
    if count is None:
        raise UsageError("study plan: give --arms N, or a study")
    main = pairs if pairs is not None else opened.planned.main_trials if opened else 60
    needed = answers_needed(count, half_width, spread=spread, careless=careless, main_trials=main)
    if as_json:
        print_record(needed)
        return
    print_text(
        f"{needed.answers} answers for ±{half_width:g} JOD between two of {needed.arms} arms that span {spread:g} JOD; "
        f"collect {needed.collected}, as {careless:.0%} of the observers may be excluded: {needed.observers} observers "
        f"with {needed.main_trials} pairs each, about {needed.minutes_per_observer:.0f} minutes"
    )
    for note in needed.notes:
        print_text(f"note: {note}")
