"""Other prompts that an image's prompt is compared with, chosen by hash, independent of order and batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from perjoule.errors import UsageError
from perjoule.prompts import load_prompts
from perjoule.types import Prompt, PromptSource

DISTRACTOR_COUNT = 99
FEWEST_DISTRACTORS = 20  # with fewer, chance alone ranks the prompt first in one image of twenty


def choose(prompt: Prompt, others: Iterable[str], pool: Iterable[str], count: int = DISTRACTOR_COUNT) -> list[str]:
    """Choose distinct texts other than the prompt's own.

    Args:
        prompt: Its id is the seed of the choice.
        others: Texts of the run's prompts, used first.
        pool: Additional texts if the run has too few.
        count: Requested number.

    Returns:
        `count` texts, or all of them if there are fewer.
    """

    def drawn(texts: Iterable[str]) -> list[str]:
        distinct = {text for text in texts if text} - {prompt.text}
        return sorted(distinct, key=lambda text: hashlib.sha256(f"{prompt.prompt_id}\0{text}".encode()).digest())

    own = list(others)
    first = drawn(own)[:count]
    return first + drawn(set(pool) - set(own))[: count - len(first)]


def read_texts(source: list[str] | str) -> list[str]:
    """Return the texts of the option `distractors`: a list, or the prompts of a set (`builtin:NAME` or a path).

    Raises:
        UsageError: If an entry is not a text or the set cannot be read.
    """
    if isinstance(source, list):
        wrong = [text for text in source if not isinstance(text, str)]
        if wrong:
            raise UsageError(f"metric r_precision: option distractors contains {wrong[0]!r}: must be texts")
        return source
    where = "metric r_precision: option distractors"
    return [prompt.text for prompt in load_prompts(PromptSource(source=source), where=where)]
