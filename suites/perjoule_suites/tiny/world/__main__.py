"""Train and judge the open world of the tiny family: `python -m perjoule_suites.tiny.world train --out DIR`.

Every part is seeded and writes a checkpoint every minute: the same command continues an interrupted training, and a
finished part is not repeated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from perjoule_suites.tiny.world import training

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def _setup() -> None:
    torch.set_num_threads(1)


Out = Annotated[Path, typer.Option(help="Folder of checkpoints, logs and trained parts.")]


@app.command()
def train(
    out: Out,
    only: Annotated[list[str] | None, typer.Option(help=f"Parts to train: {', '.join(training.PARTS)}.")] = None,
    processes: Annotated[int, typer.Option(help="Processes of one thread each; 2 on two idle cores.")] = 1,
) -> None:
    """Train all parts in order, each unless it is finished."""
    unknown = sorted(set(only or ()) - set(training.PARTS))
    if unknown:
        raise typer.BadParameter(f"unknown part {unknown[0]!r}: one of {', '.join(training.PARTS)}")
    training.train_parts(out, tuple(only or training.PARTS), processes=processes)


if __name__ == "__main__":
    app()
