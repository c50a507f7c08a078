"""Verbs of the command line, one module each; `register` adds them to the app.

Their heavy imports are inside the functions, so that `--help` and completion answer at once.
"""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add every verb of this package."""
    from perjoule.commands import (
        baseline,
        calibrate,
        comment,
        compare,
        completion,
        doctor,
        explain,
        frontier,
        gate,
        importing,
        init,
        integrate,
        listing,
        measure,
        merge,
        plan,
        recommend,
        report,
        run,
        schema,
        score,
        study,
    )

    for module in (
        init, doctor, plan, run, score, frontier, report, recommend, compare, gate, comment, baseline, study, importing,
        merge, measure, integrate, calibrate, listing, explain, schema, completion,
    ):  # fmt: skip
        module.register(app)
