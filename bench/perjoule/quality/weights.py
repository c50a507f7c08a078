"""Weights of metrics: fetched when they are needed, never in silence when their licence restricts their use.

What is on the Hugging Face hub is fetched by `huggingface_hub` into its own cache; files of other addresses are fetched
by `perjoule.weights.downloads`, unless torch's own cache (`TORCH_HOME`) holds them already.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from perjoule.errors import UsageError, first_line
from perjoule.weights.downloads import cached_file, checked, fetch_file, is_offline
from perjoule.weights.licences import UNKNOWN, allows_commerce

_CARD = "README.md"
# cards that state no licence, whose projects do: github.com/openai/CLIP, github.com/tgxs002/HPSv2
_KNOWN = {r"openai/clip-vit-.*": "MIT", r"xswu/HPSv2": "Apache-2.0"}


def fetch_snapshot(model: str, revision: str | None, wanted: Sequence[Sequence[str]], metric: str) -> Path:
    """The folder of a model: itself if it is one, else a snapshot of the hub's repository, from the cache or the hub.

    Args:
        model: A folder, or a hub id.
        revision: Of the hub.
        wanted: Choices of patterns of weights; the first that matches anything is fetched, with all settings.
        metric: Who asks.

    Raises:
        UsageError: If it can neither be found nor be had.
    """
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download

    if not in_hub_cache(model, revision) and not is_offline():
        announce(metric, model, hub_licence(model, revision))
    try:
        for patterns in wanted:
            # offline, the hub's client looks into its cache only if it is told so
            folder = Path(
                snapshot_download(
                    model,
                    revision=revision,
                    allow_patterns=["*.json", "*.txt", _CARD, *patterns],
                    local_files_only=is_offline(),
                )
            )
            if any(match for pattern in patterns for match in folder.glob(pattern)):
                return folder
    except Exception as error:  # offline, no such repository, gated: the hub's client has a dozen of them
        raise UsageError(
            f"metric {metric}: model {model!r}: no folder, and no download: {first_line(error)}"
        ) from error
    named = " or ".join(pattern for patterns in wanted for pattern in patterns)
    raise UsageError(f"metric {metric}: model {model!r}: the repository holds no {named}")


def fetch_hub_file(model: str, file: str, revision: str | None, metric: str) -> Path:
    """One file of a hub repository, or of a folder.

    Raises:
        UsageError: If it can neither be found nor be had.
    """
    if Path(model).is_dir():
        if (Path(model) / file).is_file():
            return Path(model) / file
        raise UsageError(f"metric {metric}: folder {model} holds no {file}")
    from huggingface_hub import hf_hub_download

    if not in_hub_cache(model, revision, file) and not is_offline():
        announce(metric, f"{model}/{file}", hub_licence(model, revision))
    try:
        return Path(hf_hub_download(model, file, revision=revision, local_files_only=is_offline()))
    except Exception as error:
        raise UsageError(f"metric {metric}: {model}/{file} cannot be had: {first_line(error)}") from error


def fetch_weights(url: str, *, sha256: str | None, licence: str, metric: str) -> Path:
    """A file of weights by its address; torch's cache is looked into first.

    Raises:
        UsageError: If it cannot be had, or hashes to something else.
    """
    if not weights_cached(url):
        announce(metric, url, licence)
    kept, where = _in_torch_cache(url), f"metric {metric}"
    if kept.is_file():
        return checked(kept, url, sha256=sha256, where=where)
    return fetch_file(url, sha256=sha256, where=where)


def weights_cached(url: str) -> bool:
    """Whether the file of an address can be had without a network."""
    return _in_torch_cache(url).is_file() or cached_file(url).is_file()


def in_hub_cache(model: str, revision: str | None, file: str = "config.json") -> bool:
    """Whether the hub's cache holds a file of a repository."""
    from huggingface_hub import try_to_load_from_cache

    try:
        return isinstance(try_to_load_from_cache(model, file, revision=revision), str)
    except ValueError:  # not the form of an id
        return False


def hub_licence(model: str, revision: str | None = None, *, ask: bool = True) -> str:
    """Licence of a hub repository as its card says, from the cache or, if `ask`, the hub; `UNKNOWN` if nobody says."""
    for pattern, licence in _KNOWN.items():
        if re.fullmatch(pattern, model):
            return licence
    from huggingface_hub import ModelCard, model_info, try_to_load_from_cache

    try:
        cached = try_to_load_from_cache(model, _CARD, revision=revision)
        if isinstance(cached, str):
            data: Any = ModelCard.load(cached).data
        elif is_offline() or not ask:
            return UNKNOWN
        else:
            data = model_info(model, revision=revision).card_data
        stated, name = (getattr(data, key, None) for key in ("license", "license_name"))
        return f"LicenseRef-{name}" if stated == "other" and name else str(stated or UNKNOWN)
    except Exception:  # a licence that cannot be asked for is not known; the download itself will say what is wrong
        return UNKNOWN


@cache
def announce(metric: str, weights: str, licence: str) -> None:
    """Before a download: say what restricts the use of weights. Once for each."""
    allowed = allows_commerce(licence)
    if allowed:
        return
    what = "not for commercial use" if allowed is False else "what it allows is not known here, see its page"
    logging.getLogger(__name__).warning("metric %s: weights %s: licence %s: %s", metric, weights, licence, what)


def load_tensors(file: Path, metric: str) -> dict[str, Any]:
    """A file of tensors, safetensors or a pickle that holds nothing but data, on the CPU.

    Raises:
        UsageError: If it is damaged, or would execute code.
    """
    import torch

    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(file))
        found: Mapping[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # pickles, zips and headers break in many ways
        raise UsageError(f"metric {metric}: {file} holds no weights that can be read: {first_line(error)}") from error
    return dict(found)


def digest_state(state: Mapping[str, Any]) -> str:
    """SHA-256 over names, shapes and values of the tensors that hold any; `none` if none does."""
    import torch

    held = {name: tensor for name, tensor in sorted(state.items()) if tensor.numel()}
    digest = hashlib.sha256()
    for name, tensor in held.items():
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}\n".encode())
        # every dtype has bytes, while numpy has no bfloat16
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest() if held else "none"


def _in_torch_cache(url: str) -> Path:
    # as torch.hub.get_dir(), without importing torch
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
    return Path(home).expanduser() / "hub" / "checkpoints" / cached_file(url).name
