"""Prompt sets: shipped, public, of the hub, or the user's own, in an order in which every prefix is stratified.

| source | is |
|---|---|
| `builtin:NAME` | part of a package (entry points of the group `perjoule.prompts`) |
| `public:NAME` | fetched once from its authors (entry points of the group `perjoule.public_prompts`) |
| `hub:ORG/NAME` | a data set of the Hugging Face hub |
| `https://…` | a file at any address |
| a path | .txt (a prompt a line), .tsv, .csv, .json, .jsonl, .parquet |
"""

from __future__ import annotations

from perjoule.errors import SuiteError
from perjoule.prompts.catalogue import PromptSetRow, prompt_sets
from perjoule.prompts.origins import Origin, locate
from perjoule.prompts.reading import read_rows
from perjoule.prompts.sampling import Part, clean, prompt_id, stratified, within
from perjoule.types import Prompt, PromptSource

__all__ = ["Origin", "Part", "PromptSetRow", "load_prompts", "locate", "prompt_id", "prompt_sets", "read_prompt_set"]


def load_prompts(source: PromptSource, *, where: str) -> tuple[Prompt, ...]:
    """Read a prompt set and take its first `limit` prompts in stratified hash order; see `read_prompt_set`."""
    return read_prompt_set(source, where=where)[0]


def read_prompt_set(source: PromptSource, *, where: str) -> tuple[tuple[Prompt, ...], Origin]:
    """The prompts of a set, and where they came from.

    Categories take turns, inside a category its challenges do, and inside those the SHA-256 of the prompt decides.
    Limits therefore nest: the first 16 are among the first 64, and each prefix has every category in its turn. `split`
    keeps one half of all prompts, by another hash of the prompt alone.

    Args:
        source: What to read; see `PromptSource`.
        where: Names suite and key in messages.

    Raises:
        SuiteError: If the source is unknown, unreadable, empty, not the file that was pinned, or lacks a column.
    """
    located = locate(source, where)
    found = [row for path, layout in located.files for row in read_rows(path, layout, where)]
    prompts = clean(found, f"{where}: {located.name}")
    if source.split is not None:
        prompts = within(prompts, source.split)
        if not prompts:
            raise SuiteError(f"{where}: {located.name} has no prompt in split = {source.split!r}")
    if source.limit is not None and source.limit > len(prompts):
        part = f" in its {source.split} half" if source.split else ""
        raise SuiteError(f"{where}: limit = {source.limit}: {located.name} holds {len(prompts)} distinct prompts{part}")
    return tuple(stratified(prompts)[: source.limit]), located.origin
