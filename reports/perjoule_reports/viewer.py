"""What the script needs to show any two cells next to each other: names, numbers, and where the images are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import polars as pl

from perjoule_reports import format as fmt
from perjoule_reports.evidence import Evidence
from perjoule_reports.naming import capitalised
from perjoule_reports.records import RunData
from perjoule_reports.shots import Pair, Shot, Side

MOST_CELLS = 48


class Choice(Protocol):
    """What can be compared: cells, the first two selected at first, and prompts."""

    @property
    def every(self) -> Sequence[Side]:
        """Return the cells."""
        ...

    def tiles(self) -> Sequence[Pair]:
        """Return the prompts and seeds in the order of the viewer."""
        ...

    def shots(self, side: Side) -> Mapping[tuple[str, int], Shot]:
        """Return the images of a cell by prompt and seed."""
        ...

    def text(self, prompt_id: str) -> str:
        """Return the text of a prompt."""
        ...


def viewer(choice: Choice, evidence: Evidence, page: Path | None) -> dict[str, Any] | None:
    """Return what can be chosen in the viewer, as JSON; None if there are no two cells to compare."""
    shown = choice.tiles()
    if len(choice.every) < 2 or not shown:
        return None
    unit = fmt.scale((side.arm.energy.value for side in choice.every), "J")
    cells = []
    named = Counter(_words(side) for side in choice.every)
    for side in choice.every[:MOST_CELLS]:
        images = choice.shots(side)
        cells.append(
            {
                "run": side.name,
                "cell": side.arm.cell_id,
                # adaptive cells may have the same mean steps
                "label": _words(side) + (f" ({fmt.clean(side.arm.cell_id)})" if named[_words(side)] > 1 else ""),
                "folder": folder_from(page, side.run.path) if _has_usual_names(side.run) else None,
                "images": [_image(images.get((pair.prompt_id, pair.seed)), unit) for pair in shown],
            }
        )
    return {
        "cells": cells,
        "prompts": [[pair.prompt_id, pair.seed, choice.text(pair.prompt_id)] for pair in shown],
        "metric": evidence.primary.label if evidence.primary else "score",
    }


def _words(side: Side) -> str:
    """Return a cell in words, e.g. `The full model at 25 steps`, after the name of its run if there are two."""
    words = fmt.clean(capitalised(side.arm.words, side.arm.variant))
    return f"{side.name}: {words}" if side.name else words


def folder_from(page: Path | None, run: Path) -> str | None:
    """Return the run directory relative to the page, ending with a slash; None if it is not in or next to its folder.

    A path that leads further up would show names of folders that have nothing to do with the run.
    """
    if page is None:
        return None
    way = Path(os.path.relpath(run.resolve(), page.resolve().parent)).as_posix()
    if way.startswith("../.."):
        return None
    return "" if way == "." else quote(way) + "/"


def _image(shot: Shot | None, unit: fmt.Scale) -> list[str] | None:
    if shot is None:
        return None
    steps = shot.side.arm.steps if shot.steps is None else shot.steps
    return [fmt.step_count(steps), shot.joules(unit), fmt.number(shot.score)]


def _has_usual_names(run: RunData) -> bool:
    """Return whether all images have the names that perjoule gives them."""
    usual = pl.format("images/{}.{}.s{}.png", "cell_id", "prompt_id", "seed")
    return bool(run.images.select((pl.col("file") == usual).all()).item())
