"""Prompts, and what a text encoder does to them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt with a stable id (the first 10 hex digits of its SHA-256) and its strata, if the set has any."""

    prompt_id: str
    text: str
    category: str = ""
    challenge: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptCut:
    """A prompt that is longer than a text encoder of a pipeline reads.

    Attributes:
        encoder: Name of the tokenizer in the pipeline: `tokenizer`, `tokenizer_2`.
        limit: Tokens that the encoder reads, those for start and end included.
        prompt: The text.
        tokens: How many it has.
        lost: The end of the text that is not read.
        negative: Whether it is the negative prompt.
    """

    encoder: str
    limit: int
    prompt: str
    tokens: int
    lost: str
    negative: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptFindings:
    """What of a variant's prompts has no effect: ends that are cut, a negative prompt without guidance."""

    cuts: tuple[PromptCut, ...] = ()
    negative_prompt_ignored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What is known of a variant before its weights are read.

    Attributes:
        problems: Why it cannot run: file, key, value and remedy each.
        findings: About its prompts; None if they are not known yet.
        unknown: Why `findings` is None.
    """

    problems: tuple[str, ...] = ()
    findings: PromptFindings | None = None
    unknown: str = ""
