"""Prompt sets of the Hugging Face hub: `huggingface_hub` downloads the files of one split into its own cache."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from perjoule.errors import SuiteError, first_line
from perjoule.prompts.catalogue import NOT_STATED
from perjoule.prompts.reading import SUFFIXES
from perjoule.types import PromptSource
from perjoule.weights.downloads import is_offline
from perjoule.weights.licences import allows_commerce

_CARD = "README.md"
# names of splits that the hub recognises in file names
_USUAL_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """Downloaded files: name -> file, their addresses, and the licence of the card."""

    files: dict[str, Path]
    addresses: tuple[str, ...]
    licence: str
    commercial: bool | None


def fetch_data_set(source: PromptSource, where: str) -> DataSet:
    """Download the card and the files of one split; without a network, use the hub's cache.

    Raises:
        SuiteError: If the data set does not exist or is gated, or the choice of files is ambiguous.
    """
    from huggingface_hub import HfApi, snapshot_download

    repository = source.source.partition(":")[2]
    head = f"{where} = {source.source!r}"

    def snapshot(patterns: list[str], local: bool) -> Path:
        return Path(
            snapshot_download(
                repository,
                repo_type="dataset",
                revision=source.revision,
                allow_patterns=patterns,
                local_files_only=local,
            )
        )

    def from_hub() -> tuple[Path, dict[str, Any], list[str]]:
        names = HfApi().list_repo_files(repository, repo_type="dataset", revision=source.revision)
        card = _card(snapshot([_CARD], local=False) / _CARD)
        chosen = choose_files(names, card.get("configs"), source.hub_split, head)
        return snapshot([_CARD, *chosen], local=False), card, chosen

    def from_cache() -> tuple[Path, dict[str, Any], list[str]]:
        folder = snapshot([], local=True)
        names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
        card = _card(folder / _CARD)
        return folder, card, choose_files(names, card.get("configs"), source.hub_split, head)

    try:
        folder, card, chosen = from_cache() if is_offline() else from_hub()
    except SuiteError:
        raise
    except Exception as error:  # e.g. offline, no such data set, gated: the hub's client raises many types
        try:
            folder, card, chosen = from_cache()
        except Exception:
            raise SuiteError(f"{head}: the hub's data set could not be downloaded: {first_line(error)}") from error
    licence = card.get("license", NOT_STATED)
    return DataSet(
        files={name: folder / name for name in chosen},
        addresses=tuple(f"hub:{repository}@{folder.name}/{name}" for name in chosen),
        licence=licence if isinstance(licence, str) else ", ".join(licence),
        commercial=allows_commerce(licence) if isinstance(licence, str) else None,
    )


def choose_files(names: Iterable[str], configs: Any, split: str | None, head: str) -> list[str]:
    """Return the files of a split.

    Args:
        names: All files of the repository.
        configs: `configs` of the card, which may name the files of each split; the default or first one is used.
        split: Requested split; None selects the only one.
        head: Beginning of messages.

    Raises:
        SuiteError: There is no such split; the message names the available splits.
    """
    readable = sorted(name for name in names if PurePosixPath(name).suffix in SUFFIXES)
    # text files in a folder with tables are licences and notes
    tables = [name for name in readable if not name.endswith(".txt")] or readable
    by_split = _declared(configs, tables) or _guessed(tables)
    if not by_split:
        raise SuiteError(f"{head}: the data set contains no readable file ({', '.join(SUFFIXES)})")
    if split is None and len(by_split) == 1:
        return next(iter(by_split.values()))
    if split not in by_split:
        wanted = "hub_split is not set" if split is None else f"hub_split = {split!r}: no such split"
        raise SuiteError(f"{head}: {wanted}; available: {', '.join(map(repr, sorted(by_split)))}")
    return by_split[split]


def _declared(configs: Any, tables: list[str]) -> dict[str, list[str]]:
    """Return the files of each split according to the card."""
    with_files = [config for config in configs or () if isinstance(config, dict) and config.get("data_files")]
    if not with_files:
        return {}
    chosen = next((config for config in with_files if config.get("default")), with_files[0])
    entries = chosen["data_files"]
    if isinstance(entries, str):
        entries = [{"split": "train", "path": entries}]
    splits: dict[str, list[str]] = {}
    for entry in entries:
        if isinstance(entry, dict):
            paths = entry["path"] if isinstance(entry["path"], list) else [entry["path"]]
            splits[str(entry.get("split", "train"))] = [n for n in tables if any(fnmatch(n, path) for path in paths)]
    return {split: names for split, names in splits.items() if names}


def _guessed(tables: list[str]) -> dict[str, list[str]]:
    """Return the files of each split by words in their names; as on the hub, files without such a word are `train`."""
    splits: dict[str, list[str]] = {}
    for name in tables:
        words = set(re.split(r"[^a-z0-9]+", name.lower()))
        split = next((split for split, usual in _USUAL_SPLITS.items() if words & set(usual)), "train")
        splits.setdefault(split, []).append(name)
    return splits


def _card(file: Path) -> dict[str, Any]:
    from huggingface_hub import DatasetCard

    if not file.is_file():
        return {}
    data: dict[str, Any] = DatasetCard.load(file).data.to_dict()
    return data
