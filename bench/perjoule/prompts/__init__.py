"""Prompt sets: built-in, public, from the hub, or from the user, in an order in which every prefix is stratified.

| source | is |
|---|---|
| `builtin:NAME` | part of a package (entry points of the group `perjoule.prompts`) |
| `public:NAME` | downloaded once from its authors (entry points of the group `perjoule.public_prompts`) |
| `hub:ORG/NAME` | a data set of the Hugging Face hub |
| `https://…` | a file at any address |
| a path | .txt (one prompt per line), .tsv, .csv, .json, .jsonl, .parquet |
"""

from __future__ import annotations

from dataclasses import replace

from perjoule.errors import SuiteError
from perjoule.prompts.catalogue import PromptSetRow, prompt_sets
from perjoule.prompts.farthest import TextEncoder, farthest
from perjoule.prompts.origins import Origin, locate
from perjoule.prompts.reading import read_rows
from perjoule.prompts.sampling import Part, clean, prompt_id, stratified, within
from perjoule.types import Prompt, PromptSelection, PromptSource

__all__ = [
    "Origin",
    "Part",
    "PromptSetRow",
    "TextEncoder",
    "load_prompts",
    "locate",
    "prompt_id",
    "prompt_sets",
    "read_prompt_set",
]


def load_prompts(source: PromptSource, *, where: str) -> tuple[Prompt, ...]:
    """Read a prompt set and take its first `limit` prompts in stratified hash order; see `read_prompt_set`."""
    return read_prompt_set(source, where=where)[0]


def read_prompt_set(
    source: PromptSource, *, where: str, encoder: TextEncoder | None = None
) -> tuple[tuple[Prompt, ...], Origin]:
    """Return the prompts of a set, and their origin.

    Categories take turns, challenges take turns inside a category, and prompts inside them are ordered by SHA-256.
    Limits therefore nest: the first 16 are among the first 64, and each prefix has all categories in turn. `split`
    selects one half of all prompts, by another hash of the prompt. `select` replaces the order by that of
    `farthest.farthest`.

    Args:
        source: Source of the prompts; see `PromptSource`.
        where: Suite and key, for messages.
        encoder: Text encoder of `select`.

    Raises:
        SuiteError: If the source is unknown, unreadable, empty, different from the pinned file, or lacks a column.
    """
    located = locate(source, where)
    rows = [row for path, layout in located.files for row in read_rows(path, layout, where)]
    prompts = clean(rows, f"{where}: {located.name}")
    if source.split is not None:
        prompts = within(prompts, source.split)
        if not prompts:
            raise SuiteError(f"{where}: {located.name} has no prompt in split = {source.split!r}")
    if source.limit is not None and source.limit > len(prompts):
        part = f" in its {source.split} half" if source.split else ""
        raise SuiteError(f"{where}: limit = {source.limit}: {located.name} has {len(prompts)} distinct prompts{part}")
    if not source.select:
        return tuple(stratified(prompts)[: source.limit]), located.origin
    if encoder is None or source.limit is None:
        raise SuiteError(f"{where}: select = {source.select!r} needs a text encoder and a limit")
    chosen, largest = farthest(prompts, encoder.embed, source.limit, source.select_seed)
    selection = PromptSelection(
        method=source.select,
        model=source.select_model,
        weights=encoder.weights,
        seed=source.select_seed,
        candidates=len(prompts),
        largest_cosine=largest,
    )
    return tuple(chosen), replace(located.origin, selection=selection)
