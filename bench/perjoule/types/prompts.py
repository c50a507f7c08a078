"""Prompts, and the effects of text encoders on them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt with a stable id (the first 10 hex digits of its SHA-256) and its strata, if the set has strata."""

    prompt_id: str
    text: str
    category: str = ""
    challenge: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptCut:
    """A prompt that is longer than the limit of a text encoder.

    Attributes:
        encoder: Name of the tokenizer in the pipeline, e.g. `tokenizer` or `tokenizer_2`.
        limit: Number of tokens that the encoder reads, including those for start and end.
        prompt: The text.
        tokens: Its number of tokens.
        lost: The end of the text, which is cut off.
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
    """Parts of a variant's prompts without effect: ends that are cut, a negative prompt without guidance."""

    cuts: tuple[PromptCut, ...] = ()
    negative_prompt_ignored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """Facts about a variant that are known before its weights are read.

    Attributes:
        problems: Reasons why it cannot run, each with file, key, value and remedy.
        findings: Findings about its prompts; None if they are unknown.
        unknown: Reason why `findings` is None.
    """

    problems: tuple[str, ...] = ()
    findings: PromptFindings | None = None
    unknown: str = ""
