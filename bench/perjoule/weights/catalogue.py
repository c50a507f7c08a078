"""Facts about models on the hub: revision, licence, commercial use, gating, size.

Packages provide the facts with the entry point group `perjoule.catalogues`; each entry point is a callable that returns
`{hub id: ModelFacts}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar, Literal

from perjoule.errors import UsageError
from perjoule.registry import merged_files
from perjoule.types import Suite, Variant

Commercial = Literal["yes", "no", "conditional"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """A repository on the hub.

    Attributes:
        licence: SPDX name if there is one, else the hub's name.
        licence_url: Address of its text.
        commercial: Whether commercial use is allowed; `conditional` means under conditions.
        gated: Whether the hub requires a token of an account that accepted the licence.
        source: Source of these facts.
        revision: Commit to use, None for the branch `main`.
        size_mib: Approximate size of the download; None if unknown.
        vram_mib: Approximate GPU memory at batch 1 in half precision; None if unknown.
        note: Further remarks.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}

    licence: str
    licence_url: str
    commercial: Commercial
    gated: bool
    source: str
    revision: str | None = None
    size_mib: int | None = None
    vram_mib: int | None = None
    note: str = ""


@cache
def catalogue() -> dict[str, ModelFacts]:
    """Return all known models, by hub id."""
    models: dict[str, ModelFacts] = merged_files("catalogues")
    return models


def facts_of(model: str) -> ModelFacts | None:
    """Return the facts about a model; None for folders, builtins and unknown ids."""
    return catalogue().get(model)


def revision_of(model: str) -> str | None:
    """Return the commit that the catalogue pins."""
    facts = facts_of(model)
    return facts.revision if facts else None


def repositories(variant: Variant) -> list[str]:
    """Return the models that a variant uses weights from: its own first, then denoiser and adapter."""
    parts = [part.model for part in (variant.denoiser, variant.lora) if part is not None]
    return list(dict.fromkeys([variant.model, *parts]))


def weights_name(variant: Variant) -> str:
    """Return a key of a variant's weights: the model, and files that replace or extend it."""
    parts = [f"{part.model}/{part.file}" for part in (variant.denoiser, variant.lora) if part is not None]
    kind = f"[{variant.file_variant}]" if variant.file_variant else ""
    return " + ".join([variant.model + kind, *parts])


def notices(suite: Suite) -> Iterator[str]:
    """Return one line for each of a suite's models with conditions, to print before the download."""
    for model in dict.fromkeys(name for variant in suite.variants for name in repositories(variant)):
        facts = facts_of(model)
        if facts is None:
            continue
        conditions = {
            "no": f"licence {facts.licence} does not allow commercial use ({facts.licence_url})",
            "conditional": f"licence {facts.licence} allows commercial use under conditions ({facts.licence_url})",
        }.get(facts.commercial)
        gate = f"gated: accept the licence at https://huggingface.co/{model} and log in (`hf auth login` or HF_TOKEN)"
        notice = "; ".join(text for text in (conditions, gate if facts.gated else None) if text)
        if notice:
            yield f"{model}: {notice}"


def with_models(suite: Suite, replacements: Iterable[str]) -> Suite:
    """Return the suite with other repositories, e.g. mirrors or folders: `OLD=NEW` or `OLD=NEW@REVISION`.

    Raises:
        UsageError: The text has another form, or the suite does not use OLD.
    """
    for text in replacements:
        old, equals, new = text.partition("=")
        if not (old and equals and new):
            raise UsageError(f"--model {text}: write OLD=NEW, or OLD=NEW@REVISION")
        used = {name for variant in suite.variants for name in repositories(variant)}
        if old not in used:
            raise UsageError(f"--model {text}: suite {suite.name!r} does not use {old!r}: {', '.join(sorted(used))}")
        name, _, revision = new.partition("@")
        suite = replace(
            suite, variants=tuple(_swapped(variant, old, name, revision or None) for variant in suite.variants)
        )
    return suite


def _swapped(variant: Variant, old: str, new: str, revision: str | None) -> Variant:
    parts = {key: getattr(variant, key) for key in ("denoiser", "lora")}
    changes: dict[str, Any] = {
        key: replace(part, model=new, revision=revision)
        for key, part in parts.items()
        if part is not None and part.model == old
    }
    if variant.model == old:
        changes |= {"model": new, "revision": revision}
    return replace(variant, **changes)
