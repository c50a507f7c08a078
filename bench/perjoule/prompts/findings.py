"""Prompts that a text encoder cuts, and negative prompts without effect: as warnings, as a record, as sentences.

The record is stored in `environment.json`, so that a report does not need the model:

    prompt_findings = [{variant, prompts, negative_prompt_ignored,
                        cuts: [{encoder, limit, prompt_id, tokens, lost, negative}]}]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from perjoule.text import one_line
from perjoule.types import Prompt, PromptFindings
from perjoule.warnings import warning

_MOST_NAMED = 3
_MOST_CHARACTERS = 60


def remarks(findings: PromptFindings, count: int) -> tuple[str, ...]:
    """Return coded warnings for a trial of `count` prompts."""
    warnings = []
    for encoder, limit, negative in dict.fromkeys((cut.encoder, cut.limit, cut.negative) for cut in findings.cuts):
        cut = {c.prompt for c in findings.cuts if (c.encoder, c.negative) == (encoder, negative)}
        what = "the negative prompt" if negative else f"{len(cut)} of {count} prompts"
        verb = "is" if negative or len(cut) == 1 else "are"
        warnings.append(warning("W271", f"{what} {verb} cut after {limit} tokens ({encoder})"))
    if findings.negative_prompt_ignored:
        warnings.append(warning("W272", "the negative prompt has no effect, because guidance is off"))
    return tuple(warnings)


def record_of(findings_of: Mapping[str, PromptFindings], prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """Return the findings by variant as plain values; variants with none are left out."""
    ids = {prompt.text: prompt.prompt_id for prompt in prompts}
    return [
        {
            "variant": variant,
            "prompts": len(prompts),
            "cuts": [
                {
                    "encoder": cut.encoder,
                    "limit": cut.limit,
                    "prompt_id": ids.get(cut.prompt, ""),
                    "tokens": cut.tokens,
                    "lost": cut.lost,
                    "negative": cut.negative,
                }
                for cut in findings.cuts
            ],
            "negative_prompt_ignored": findings.negative_prompt_ignored,
        }
        for variant, findings in findings_of.items()
        if findings.cuts or findings.negative_prompt_ignored
    ]


def sentences(record: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Return the findings of a record as sentences, with equal findings of variants combined.

    Example: `W271: 3 of 40 prompts are cut after 77 tokens (tokenizer of sd15): 5e1c… (93 tokens) loses '…, and a fox'`
    """
    groups: dict[tuple[Any, ...], list[str]] = {}
    for row in record:
        for encoder, limit, negative in dict.fromkeys((c["encoder"], c["limit"], c["negative"]) for c in row["cuts"]):
            cut_entries = [c for c in row["cuts"] if (c["encoder"], c["negative"]) == (encoder, negative)]
            cuts = tuple((c["prompt_id"], c["tokens"], c["lost"]) for c in cut_entries)
            groups.setdefault((encoder, limit, negative, row["prompts"], cuts), []).append(row["variant"])
    for (encoder, limit, negative, count, cuts), variants in groups.items():
        named = "; ".join(
            f"{i or 'it'} ({tokens} tokens) loses {_short(lost)!r}" for i, tokens, lost in cuts[:_MOST_NAMED]
        )
        more = f"; and {len(cuts) - _MOST_NAMED} more" if len(cuts) > _MOST_NAMED else ""
        what = "the negative prompt" if negative else f"{len(cuts)} of {count} prompts"
        verb = "is" if negative or len(cuts) == 1 else "are"
        yield warning(
            "W271", f"{what} {verb} cut after {limit} tokens ({encoder} of {', '.join(variants)}): {named}{more}"
        )
    ignored = [row["variant"] for row in record if row["negative_prompt_ignored"]]
    if ignored:
        yield warning("W272", f"the negative prompt of {', '.join(ignored)} has no effect, because guidance is off")


def _short(text: str) -> str:
    text = one_line(text)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…"
