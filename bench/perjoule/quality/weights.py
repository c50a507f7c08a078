"""Weights of metrics: downloaded when needed, with a message if their licence restricts their use.

`huggingface_hub` downloads files of the Hugging Face hub into its own cache; `perjoule.weights.downloads` downloads
other files, unless torch's own cache (`TORCH_HOME`) contains them.
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
# licences of projects whose cards do not state one: github.com/openai/CLIP, github.com/tgxs002/HPSv2
_KNOWN = {r"openai/clip-vit-.*": "MIT", r"xswu/HPSv2": "Apache-2.0"}


def fetch_snapshot(model: str, revision: str | None, wanted: Sequence[Sequence[str]], metric: str) -> Path:
    """Return the folder of a model: the folder itself, or a snapshot of the hub's repository.

    Args:
        model: A folder, or a hub id.
        revision: Revision on the hub.
        wanted: Alternative patterns of weights; files of the first one that matches are downloaded, with all settings.
        metric: Name of the metric, for messages.

    Raises:
        UsageError: If it can neither be found nor downloaded.
    """
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download

    if not in_hub_cache(model, revision) and not is_offline():
        announce(metric, model, hub_licence(model, revision))
    try:
        for patterns in wanted:
            # offline, the hub's client uses its cache only if this is set
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
    except Exception as error:  # e.g. offline, no such repository, gated: the hub's client raises many types
        raise UsageError(
            f"metric {metric}: model {model!r} is not a folder and could not be downloaded: {first_line(error)}"
        ) from error
    named = " or ".join(pattern for patterns in wanted for pattern in patterns)
    raise UsageError(f"metric {metric}: model {model!r}: the repository contains no {named}")


def fetch_hub_file(model: str, file: str, revision: str | None, metric: str) -> Path:
    """Return a file of a hub repository or of a folder.

    Raises:
        UsageError: If it can neither be found nor downloaded.
    """
    if Path(model).is_dir():
        if (Path(model) / file).is_file():
            return Path(model) / file
        raise UsageError(f"metric {metric}: folder {model} does not contain {file}")
    from huggingface_hub import hf_hub_download

    if not in_hub_cache(model, revision, file) and not is_offline():
        announce(metric, f"{model}/{file}", hub_licence(model, revision))
    try:
        return Path(hf_hub_download(model, file, revision=revision, local_files_only=is_offline()))
    except Exception as error:
        raise UsageError(f"metric {metric}: {model}/{file} could not be downloaded: {first_line(error)}") from error


def fetch_weights(url: str, *, sha256: str | None, licence: str, metric: str) -> Path:
    """Return a file of weights by its address; torch's cache is searched first.

    Raises:
        UsageError: If it cannot be downloaded, or its digest is wrong.
    """
    if not weights_cached(url):
        announce(metric, url, licence)
    torch_file, where = _in_torch_cache(url), f"metric {metric}"
    if torch_file.is_file():
        return checked(torch_file, url, sha256=sha256, where=where)
    return fetch_file(url, sha256=sha256, where=where)


def weights_cached(url: str) -> bool:
    """Return whether the file of an address is available without a network."""
    return _in_torch_cache(url).is_file() or cached_file(url).is_file()


def in_hub_cache(model: str, revision: str | None, file: str = "config.json") -> bool:
    """Return whether the hub's cache contains a file of a repository."""
    from huggingface_hub import try_to_load_from_cache

    try:
        return isinstance(try_to_load_from_cache(model, file, revision=revision), str)
    except ValueError:  # not a valid id
        return False


def hub_licence(model: str, revision: str | None = None, *, ask: bool = True) -> str:
    """Return the licence in the card of a hub repository, from the cache or, if `ask`, the hub; else `UNKNOWN`."""
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
    except Exception:  # the licence is unknown; the download itself will report the error
        return UNKNOWN


@cache
def announce(metric: str, weights: str, licence: str) -> None:
    """Report restrictions on the use of weights before a download, once for each."""
    allowed = allows_commerce(licence)
    if allowed:
        return
    what = "not for commercial use" if allowed is False else "its conditions are unknown, see its page"
    logging.getLogger(__name__).warning("metric %s: weights %s: licence %s: %s", metric, weights, licence, what)


def load_tensors(file: Path, metric: str) -> dict[str, Any]:
    """Load a file of tensors to the CPU: safetensors, or a pickle that contains only data.

    Raises:
        UsageError: If it is damaged, or would execute code.
    """
    import torch

    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(file))
        tensors: Mapping[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles, zips and headers raise many types
        raise UsageError(f"metric {metric}: {file} contains no readable weights: {first_line(error)}") from error
    return dict(tensors)


def digest_state(state: Mapping[str, Any]) -> str:
    """Return the SHA-256 of names, shapes and values of all non-empty tensors; `none` without any."""
    import torch

    non_empty = {name: tensor for name, tensor in sorted(state.items()) if tensor.numel()}
    digest = hashlib.sha256()
    for name, tensor in non_empty.items():
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}\n".encode())
        # as bytes, because numpy has no bfloat16
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest() if non_empty else "none"


def _in_torch_cache(url: str) -> Path:
    # like torch.hub.get_dir(), without importing torch
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
    return Path(home).expanduser() / "hub" / "checkpoints" / cached_file(url).name
