"""What is known of models on the hub: revision, licence, whether it allows commercial use, whether it is gated, size.

The facts are data: tables that packages offer by the entry point group `perjoule.catalogues`, each a callable that
returns `{hub id: ModelFacts}`.
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
        licence: SPDX name where there is one, else the hub's name of it.
        licence_url: Its text.
        commercial: Whether commercial use is allowed; `conditional` means read it.
        gated: Whether the hub wants a token of an account that accepted the licence.
        source: Where these facts were found.
        revision: Commit to take, None for the branch `main`.
        size_mib: What a run downloads of it, about; None if not known.
        vram_mib: What the pipeline needs on the GPU at batch 1 in half precision, about; None if not known.
        note: What else one should know.
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
    """All known models, by hub id."""
    found: dict[str, ModelFacts] = merged_files("catalogues")
    return found


def facts_of(model: str) -> ModelFacts | None:
    """What is known of a model; None for folders, builtins and ids that no catalogue has."""
    return catalogue().get(model)


def revision_of(model: str) -> str | None:
    """The commit that the catalogue pins."""
    facts = facts_of(model)
    return facts.revision if facts else None


def repositories(variant: Variant) -> list[str]:
    """The models that a variant takes weights from: its own first, then denoiser and adapter."""
    parts = [part.model for part in (variant.denoiser, variant.lora) if part is not None]
    return list(dict.fromkeys([variant.model, *parts]))


def weights_name(variant: Variant) -> str:
    """What tells the weights of a variant from those of another: model, and the files put in its place or on top."""
    parts = [f"{part.model}/{part.file}" for part in (variant.denoiser, variant.lora) if part is not None]
    kind = f"[{variant.file_variant}]" if variant.file_variant else ""
    return " + ".join([variant.model + kind, *parts])


def notices(suite: Suite) -> Iterator[str]:
    """What has to be said of a suite's models before they are downloaded: one line for each that is not free to use."""
    for model in dict.fromkeys(name for variant in suite.variants for name in repositories(variant)):
        facts = facts_of(model)
        if facts is None:
            continue
        said = {
            "no": f"licence {facts.licence} allows no commercial use ({facts.licence_url})",
            "conditional": f"licence {facts.licence} allows commercial use under conditions ({facts.licence_url})",
        }.get(facts.commercial)
        gate = f"gated: accept the licence at https://huggingface.co/{model} and log in (`hf auth login` or HF_TOKEN)"
        told = "; ".join(text for text in (said, gate if facts.gated else None) if text)
        if told:
            yield f"{model}: {told}"


def with_models(suite: Suite, replacements: Iterable[str]) -> Suite:
    """The suite with other repositories: `OLD=NEW` or `OLD=NEW@REVISION`, for ids that moved, mirrors and folders.

    Raises:
        UsageError: It is not written so, or the suite does not use OLD.
    """
    for text in replacements:
        old, equals, new = text.partition("=")
        if not (old and equals and new):
            raise UsageError(f"--model {text}: write OLD=NEW, or OLD=NEW@REVISION")
        used = {name for variant in suite.variants for name in repositories(variant)}
        if old not in used:
            raise UsageError(f"--model {text}: suite {suite.name!r} uses no {old!r}: {', '.join(sorted(used))}")
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
