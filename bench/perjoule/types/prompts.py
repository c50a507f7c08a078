"""Prompts, and what is known of a variant before its weights are read: cut prompts, the sampler."""

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
class PromptSelection:
    """How prompts were selected from a larger set.

    Attributes:
        method: `clip-farthest`.
        model: CLIP model, as in the suite.
        weights: SHA-256 of its weights.
        seed: Seed that chooses the first prompt.
        candidates: Number of prompts to choose from.
        largest_cosine: Cosine of the two most similar selected prompts; None for one prompt.
    """

    method: str
    model: str
    weights: str
    seed: int
    candidates: int
    largest_cosine: float | None


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
        side_px: Width and height of the images that it draws unless it is told otherwise; None if that is not known.
    """

    problems: tuple[str, ...] = ()
    findings: PromptFindings | None = None
    unknown: str = ""
    side_px: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Properties of a scheduler at a step count that decide which images can be compared with each other.

    Attributes:
        scheduler: diffusers class.
        steps: `num_inference_steps`.
        first_timestep: Timestep of the first evaluation, which states how much noise the image begins with.
        stochastic: Whether the solver adds noise during sampling.
        stride_error: Largest difference in timesteps between the end of a step and the beginning of the next one; 0 if
            the steps join.
    """

    scheduler: str
    steps: int
    first_timestep: float
    stochastic: bool = False
    stride_error: int = 0
