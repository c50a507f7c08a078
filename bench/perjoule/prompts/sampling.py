"""Converts rows to prompts: cleaning, ids, the order in which every prefix is stratified, and the splits."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from perjoule.errors import SuiteError
from perjoule.files import whole_characters
from perjoule.types import Prompt

Part = Literal["dev", "test"]

_MAX_CHARACTERS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRow:
    """A prompt as written in a file. place: its location for messages, e.g. `row 3 of p.tsv`."""

    text: str
    category: str = ""
    challenge: str = ""
    place: str = ""


def prompt_id(text: str) -> str:
    """Return the first ten hex digits of the SHA-256 of a prompt: a prompt has the same id in every set."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:10]


def part_of(text: str) -> Part:
    """Return the half that a prompt belongs to, the same in every set, and independent of the order of `stratified`."""
    # a different hash, because the first bits of the id decide which prompts small limits select
    return "dev" if hashlib.sha256(f"perjoule split\0{text}".encode()).digest()[0] % 2 else "test"


def clean(rows: Iterable[PromptRow], where: str) -> list[Prompt]:
    """Return distinct prompts in order; empty ones are left out, and the first of equal ones is used.

    Raises:
        SuiteError: If a prompt is invalid (the message names its place), or none is left.
    """
    prompts: dict[str, Prompt] = {}
    for row in rows:
        text = row.text.strip()
        if not text or text in prompts:
            continue
        problem = _problem(text)
        if problem:
            raise SuiteError(f"{where}: {row.place}: {problem}")
        prompts[text] = Prompt(
            prompt_id=prompt_id(text), text=text, category=row.category.strip(), challenge=row.challenge.strip()
        )
    if not prompts:
        raise SuiteError(f"{where} contains no prompt: write one per line")
    return list(prompts.values())


def within(prompts: Iterable[Prompt], part: Part) -> list[Prompt]:
    """Return the prompts of one half."""
    return [prompt for prompt in prompts if part_of(prompt.text) == part]


def stratified(prompts: Iterable[Prompt]) -> list[Prompt]:
    """Sort prompts: categories take turns, challenges take turns inside a category, then by id."""
    ordered = sorted(prompts, key=lambda prompt: prompt.prompt_id)
    categories = []
    for number, category in enumerate(_grouped(ordered, lambda prompt: prompt.category)):
        challenges = _grouped(category, lambda prompt: prompt.challenge)
        # each category starts at a different challenge, or the first turn would contain only the first challenge
        first = number % len(challenges)
        categories.append(_in_turns(challenges[first:] + challenges[:first]))
    return _in_turns(categories)


def _grouped(prompts: Iterable[Prompt], key: Callable[[Prompt], str]) -> list[list[Prompt]]:
    groups: dict[str, list[Prompt]] = defaultdict(list)
    for prompt in prompts:
        groups[key(prompt)].append(prompt)
    return [groups[name] for name in sorted(groups)]


def _in_turns(groups: Sequence[Sequence[Prompt]]) -> list[Prompt]:
    """Return the first of each group, then the second of each, and so on."""
    longest = max(map(len, groups), default=0)
    return [group[turn] for turn in range(longest) for group in groups if turn < len(group)]


def _problem(text: str) -> str | None:
    """Return why a text cannot be a prompt, or None."""
    if len(text) > _MAX_CHARACTERS:
        return f"the prompt has {len(text):,} characters: at most {_MAX_CHARACTERS:,} are allowed"
    if "\0" in text:
        return f"a NUL character in {text[:60]!r}: remove it"
    try:
        whole_characters(text)
    except ValueError as error:
        return f"{error} in {text[:60]!r}: it cannot be written as UTF-8"
    return None
