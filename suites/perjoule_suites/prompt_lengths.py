"""Limits of the text encoders of a pipeline, according to their tokenizers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from perjoule.types import PromptCut

# `model_max_length` of a tokenizer that has no limit is about 1e30
_NO_LIMIT = 1_000_000
_PART = 512


def token_limits(
    tokenizers: Mapping[str, Any], pipeline_class: type, call_args: Mapping[str, Any]
) -> dict[str, tuple[Any, int]]:
    """Return the tokenizers that have a limit: name -> (tokenizer, tokens).

    A CLIP encoder reads its `model_max_length` (77); for others the limit is `max_sequence_length`, an argument of
    the pipeline's call, if there is one.
    """
    default = inspect.signature(pipeline_class.__call__).parameters.get("max_sequence_length")
    limits = {}
    for name, tokenizer in sorted(tokenizers.items()):
        limit: Any = getattr(tokenizer, "model_max_length", None)
        if default is not None and not type(tokenizer).__name__.startswith("CLIP"):
            limit = call_args.get("max_sequence_length", default.default)
        if isinstance(limit, int) and 0 < limit < _NO_LIMIT:
            limits[name] = (tokenizer, limit)
    return limits


def prompt_cuts(limits: Mapping[str, tuple[Any, int]], prompts: Sequence[str]) -> tuple[PromptCut, ...]:
    """Return the prompts that exceed an encoder's limit, with the part that is lost."""
    texts = list(dict.fromkeys(prompts))
    cuts = []
    for name, (tokenizer, limit) in limits.items():
        for start in range(0, len(texts), _PART):
            part = texts[start : start + _PART]
            for text, ids in zip(part, tokenizer(part, truncation=False, verbose=False).input_ids, strict=True):
                if len(ids) > limit:
                    # the last position is that of the end token, as in the pipelines' own messages
                    lost = tokenizer.decode(ids[limit - 1 : -1], skip_special_tokens=True).strip()
                    cuts.append(PromptCut(encoder=name, limit=limit, prompt=text, tokens=len(ids), lost=lost))
    return tuple(cuts)
