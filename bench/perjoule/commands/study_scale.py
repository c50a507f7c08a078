"""`perjoule study add` and `perjoule study scale`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perjoule.commands import completing
from perjoule.commands.options import Json, print_record, print_text, terminal_width
from perjoule.commands.study_serve import StudyArgument

if TYPE_CHECKING:
    from perjoule.people.metric import ScaleOfRun


def add(
    study: StudyArgument,
    answers: Annotated[list[Path], typer.Argument(metavar="ANSWERS…", help="Files that people saved, or a database.")],
    as_json: Json = False,
) -> None:
    """Merge answers into a study.

    All files are checked first; a file that was merged before changes nothing.

    Example: perjoule study add study answers-*.json
    """
    from perjoule.people.folder import add_answers

    merged = add_answers(study, answers)
    if as_json:
        print_record(merged)
        return
    print_text(
        f"{merged.added} answers added, {merged.known} known already; {study} has {merged.answers} answers of "
        f"{merged.observers} observers (provenance: {merged.provenance})"
    )


def scale(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY_OR_TABLE", help="Folder of a study, or table of choices or ratings.")
    ],
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            metavar="RUN",
            help="Also print JOD per kilojoule of this run, and compare its metrics with people.",
            autocompletion=completing.runs,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Scale answers to JOD, with intervals.

    1 JOD: 75 of 100 choices are for the better picture. 0 is the mean of the arms.

    Example: perjoule study scale study --run runs/demo
    """  # fmt: skip
    from perjoule.people.metric import scaled, scaled_with_run
    from perjoule.runs.directory import load_run

    result = scaled(study) if run is None else scaled_with_run(study, load_run(run))
    if as_json:
        print_record(result)
    else:
        print_text(_text(result, terminal_width()))


def _text(result: ScaleOfRun, width: int | None) -> str:
    from perjoule.people.wording import excluded_line, summary_line
    from perjoule.text import one_line
    from perjoule.text_table import text_table

    rows = [
        {
            "arm": one_line(arm.arm), "JOD": arm.jod, "low": arm.low, "high": arm.high, "answers": arm.n_answers,
            "Bradley-Terry": arm.bradley_terry,
        }
        for arm in result.arms
    ]  # fmt: skip
    lines = [summary_line(result), "", text_table(rows, width)]
    if result.gains:
        table = [
            {
                "cell": gain.cell_id, "over": gain.over, "JOD per kJ": gain.jod_per_kj.value,
                "low": gain.jod_per_kj.low, "high": gain.jod_per_kj.high, "because": gain.reason or "",
            }
            for gain in result.gains
        ]  # fmt: skip
        lines += ["", text_table(table, width)]
    lines += ["", *(excluded_line(one) for one in result.excluded)] if result.excluded else []
    if result.agreement:
        table = [
            {
                "metric": row.metric, "choices predicted": row.pairwise_accuracy.value,
                "low": row.pairwise_accuracy.low, "high": row.pairwise_accuracy.high,
                "rank correlation": row.rank_correlation.value, "choices": row.n_choices,
            }
            for row in result.agreement
        ]  # fmt: skip
        lines += ["", text_table(table, width)]
    lines += [f"note: {note}" for note in result.notes]
    return "\n".join(lines)
