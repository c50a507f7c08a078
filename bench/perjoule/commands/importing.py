"""`perjoule import`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from perjoule.commands.options import Json, print_record, print_text
from perjoule.errors import UsageError
from perjoule.text import listed

_MOST_NOTES = 40


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("import")(import_)


def import_(
    table: Annotated[
        str,
        typer.Argument(
            metavar="TABLE",
            help="CSV, TSV, JSON, JSON lines or Parquet: a row per image, or per cell. A path, or s3://BUCKET/PATH.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Run directory to make.")],
    lower: Annotated[list[str] | None, typer.Option(help="Metric for which lower is better; repeatable.")] = None,
    fidelity: Annotated[
        list[str] | None, typer.Option(help="Full-reference metric, compared within one family only; repeatable.")
    ] = None,
    bounds: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=LOW:HIGH", help="Possible values of a metric, such as share=0:1; repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Turn measurements made elsewhere into a run.

    The table has a column variant, and energy_j or columns quality:<metric> or both; prompt_id and seed name the image
    of a row. What was converted, skipped or not stated is printed on stderr. docs/importing.md lists all columns.

    Example: perjoule import measured.csv --out runs/theirs
    """
    from perjoule.commands.records import Imported
    from perjoule.importing.conversion import import_table
    from perjoule.runs.remote import fetched_table

    with fetched_table(table) as file:
        run = import_table(file, out, lower=lower or (), fidelity=fidelity or (), bounds=_bounds(bounds or ()))
    result = Imported(
        run=str(run.path),
        trials=len(run.trials),
        metrics=tuple(sorted(run.metrics)),
        notes=tuple(run.environment["import_notes"]),
    )
    for note in result.notes[:_MOST_NOTES]:
        print_text(f"note: {note}", err=True)
    if (more := len(result.notes) - _MOST_NOTES) > 0:
        print_text(f"note: and {more:,} more notes, see import_notes in {run.path / 'environment.json'}", err=True)
    if as_json:
        print_record(result)
    else:
        print_text(f"{result.run}: {result.trials} rows, {listed(result.metrics) or 'no quality'}")


def _bounds(texts: Sequence[str]) -> dict[str, tuple[float | None, float | None]]:
    limits = {}
    for text in texts:
        name, equals, span = text.rpartition("=")
        low, colon, high = span.partition(":")
        try:
            if not (name and equals and colon):
                raise ValueError
            limits[name] = (float(low) if low.strip() else None, float(high) if high.strip() else None)
        except ValueError:
            raise UsageError(
                f"--bounds {text}: NAME=LOW:HIGH, such as share=0:1, or psnr=0: without an upper bound"
            ) from None
    return limits
