"""Weights of a pipeline: source, files, integrity, and remedies for damaged files.

`huggingface_hub` downloads all files into its own cache, so files that another tool has downloaded are reused, and an
interrupted download continues after the last complete file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from perjoule.errors import RunError, UsageError
from perjoule.opening import content_of
from perjoule.types import Denoiser, Lora, Variant
from perjoule.weights.catalogue import revision_of
from perjoule.weights.digests import digest_file
from perjoule.weights.models import find_path, resolve_model
from perjoule_suites.faults import explain, no_connection

INDEX = "model_index.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SINGLE_FILES = (".safetensors", ".ckpt", ".gguf", ".pt", ".pth", ".bin")
_CONVERT = (
    "perjoule loads folders in diffusers' layout. Convert it once, with the pipeline class of the model: "
    "StableDiffusionPipeline.from_single_file({file!r}).save_pretrained(FOLDER), and set model to FOLDER"
)
_LONGEST_NAME = 60  # of a component's name
_SHARD = re.compile(r"-\d{5}-of-\d{5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Weights of a pipeline.

    Attributes:
        model: Hub id, folder or builtin, as in the suite.
        revision: Commit of the hub, None for a folder.
        folder: Folder of the files.
        files: Weight files that are loaded, by their names in the repository.
    """

    model: str
    revision: str | None
    folder: Path
    files: dict[str, Path]


def fetch_pipeline(variant: Variant, where: str) -> tuple[Source, dict[str, Any]]:
    """Return source and model_index.json of a variant's pipeline; unused components are not downloaded.

    Raises:
        UsageError: It could not be downloaded, is not a pipeline, or a file is damaged (the message names the remedy).
    """
    key = f"{where}.model"
    model = _resolved(variant, key)
    folder = Path(model)
    if not folder.is_dir():
        folder = _download(model, variant, key)
    index = read_index(folder, variant.model, key)
    files = weight_files(folder, index, variant, unused(index, variant))
    if not files:
        raise UsageError(no_weights(folder, folder, f"{key} = {variant.model!r}", variant))
    source = Source(model=variant.model, revision=_commit(folder), folder=folder, files=files)
    check_whole(source, key)
    return source, index


def local_folder(variant: Variant, where: str) -> tuple[Path | None, bool]:
    """Find a variant's model on this machine, without using the network.

    Returns:
        The folder, or None; and whether it must be complete: the user's own folder must be, the hub's cache may lack
        files.

    Raises:
        UsageError: The name is that of a single file or of a folder that does not exist.
    """
    model = _resolved(variant, f"{where}.model")
    if Path(model).is_dir():
        return Path(model), True
    from huggingface_hub import try_to_load_from_cache

    revision = variant.revision or revision_of(model)
    try:
        cached = try_to_load_from_cache(model, INDEX, revision=revision)
    except ValueError:  # not an id of the hub: the download reports that
        return None, False
    return (Path(cached).parent if isinstance(cached, str) else None), False


def read_index(folder: Path, model: str, key: str) -> dict[str, Any]:
    """Read a pipeline's model_index.json. Raises UsageError if there is none, or it is damaged."""
    path, head = folder / INDEX, f"{key} = {model!r}"
    if not path.is_file():
        single = sorted(p.name for p in folder.glob("*") if p.suffix in _SINGLE_FILES)
        more = (
            f"; {single[0]} is a single-file checkpoint: {_CONVERT.format(file=str(folder / single[0]))}"
            if single
            else ""
        )
        raise UsageError(f"{head}: this folder is not a diffusers pipeline: {INDEX} is missing{more}")
    try:
        index = json.loads(content_of(path, follow=True))
    except (OSError, RunError, ValueError, RecursionError) as error:
        raise UsageError(f"{head}: {path} is not valid JSON ({error}): copy or download it again") from error
    if not isinstance(index, dict) or not isinstance(index.get("_class_name"), str):
        raise UsageError(f"{head}: {path} does not name a pipeline (_class_name is missing): copy or download it again")
    for name, entry in index.items():
        # it is also the name of a folder, which must be inside the model
        if not name.isidentifier() or len(name) > _LONGEST_NAME:
            raise UsageError(
                f"{head}: {path}: {name[:_LONGEST_NAME]!r} is not the name of a component: copy or download it again"
            )
        is_pair = isinstance(entry, list) and len(entry) == 2 and all(isinstance(x, str | None) for x in entry)
        if isinstance(entry, list) and not name.startswith("_") and not is_pair:
            raise UsageError(f"{head}: {path}: {name} = {entry!r}: must be a library and a class")
    return index


def components(index: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Yield the parts of a pipeline: (name, library, class)."""
    return [
        (name, entry[0], entry[1])
        for name, entry in sorted(index.items())
        if not name.startswith("_") and isinstance(entry, list) and None not in entry
    ]


def no_weights(folder: Path, part: Path, head: str, variant: Variant) -> str:
    """Return an error about missing weights in a folder, and other available kinds."""
    name = "" if part == folder else f"{part.name}: "
    pickles = sorted(part.rglob("*.bin"))
    if pickles and not variant.pickled_weights and not any(part.rglob("*.safetensors")):
        return (
            f"{head}: {name}the weights are a pickle ({pickles[0].relative_to(folder).as_posix()}), a format that can "
            "contain programs: use a model with safetensors, or, if you know its authors, set pickled_weights = true "
            "in the variant; only tensors are read then"
        )
    kinds = sorted({_variant_of(p) for suffix in (".safetensors", ".bin") for p in part.rglob(f"*{suffix}")} - {""})
    if kinds:
        return (
            f"{head}: {name}there are only weights of the kind {' and '.join(kinds)} (*.{kinds[0]}.safetensors): set "
            f'file_variant = "{kinds[0]}" in the variant'
        )
    return f"{head}: {name}no weights: {part} contains no .safetensors or .bin file to load: download the model again"


def _resolved(variant: Variant, key: str) -> str:
    """Return the folder or hub id of a variant's model. Raises UsageError for the name of a single file."""
    name = variant.model
    path = find_path(name)
    if Path(name).suffix in _SINGLE_FILES and (path is None or path.is_file()):
        what = f"is a single-file checkpoint ({path})" if path else "is the name of a file that does not exist"
        raise UsageError(f"{key} = {name!r} {what}: {_CONVERT.format(file=str(path or name))}")
    return resolve_model(name, key)


def fetch_file(part: Denoiser | Lora, where: str) -> Source:
    """Return one weight file. Raises UsageError like `fetch_pipeline`."""
    model = resolve_model(part.model, f"{where}.model")
    folder = Path(model)
    if not folder.is_dir():
        revision = part.revision or revision_of(model)
        path = _file(model, part.file, revision, f"{where}.file")
        folder = path.parents[part.file.count("/")]
        if isinstance(part, Denoiser) and part.config:
            _file(model, part.config, revision, f"{where}.config")
    elif PurePosixPath(part.file).is_absolute() or ".." in PurePosixPath(part.file).parts:
        raise UsageError(f"{where}.file = {part.file!r}: must be a file inside {folder}")
    elif not (folder / part.file).is_file():
        raise UsageError(f"{where}.file = {part.file!r}: no such file in {folder}")
    source = Source(model=part.model, revision=_commit(folder), folder=folder, files={part.file: folder / part.file})
    check_whole(source, where)
    return source


def denoiser_name(index: dict[str, Any]) -> str:
    """Return `unet` or `transformer`."""
    return "transformer" if "transformer" in index else "unet"


def unused(index: dict[str, Any], variant: Variant) -> set[str]:
    """Return components of the repository that the variant does not use."""
    names = set() if variant.safety_checker else {"safety_checker"} & set(index)
    return names | ({denoiser_name(index)} if variant.denoiser else set())


def weight_files(folder: Path, index: dict[str, Any], variant: Variant, without: Collection[str]) -> dict[str, Path]:
    """Return the files that diffusers loads: per component those of the variant or plain ones, safetensors first."""
    suffixes = (".safetensors", ".bin") if variant.pickled_weights else (".safetensors",)
    file_variant = variant.file_variant
    files: dict[str, Path] = {}
    for name, kind in sorted(index.items()):
        if name.startswith("_") or name in without or not isinstance(kind, list) or kind[0] is None:
            continue
        for suffix in suffixes:
            paths = sorted((folder / name).glob(f"*{suffix}"))
            chosen = [p for p in paths if file_variant and _variant_of(p) == file_variant] or [
                p for p in paths if not _variant_of(p)
            ]
            if chosen:
                files |= {path.relative_to(folder).as_posix(): path for path in chosen}
                break
    return files


def check_whole(source: Source, where: str) -> None:
    """Compare files of the hub's cache with the SHA-256 from the hub.

    Raises:
        UsageError: A file is damaged; the message names the file and the remedy.
    """
    for name, path in source.files.items():
        promised = path.resolve().name  # the cache names large files by their digest
        if _SHA256.fullmatch(promised) and digest_file(path) != promised:
            raise UsageError(
                f"{where}: {source.model}/{name} is damaged: {path.stat().st_size:,} bytes with SHA-256 "
                f"{digest_file(path)[:12]}…, not the hub's {promised[:12]}…. Delete {to_delete(path)} and run again; "
                "only this file is downloaded again"
            )


def to_delete(path: Path) -> Path:
    """Return the file to delete so that the hub's client downloads it again.

    The files of the hub's cache are links to its folder `blobs`. Any other link is deleted itself: it may lead to a
    file that has nothing to do with the model.
    """
    target = path.resolve()
    is_blob = target.parent.name == "blobs" and target.parent.parent in path.absolute().parents
    return target if is_blob else path


@dataclass(slots=True)
class _Session:
    """Commits found by this process: a run uses one commit of a repository, even if its branch moves."""

    commits: dict[tuple[str, str | None], str] = field(default_factory=dict)
    unreachable: bool = False


_SESSION = _Session()


def _download(model: str, variant: Variant, key: str) -> Path:
    import diffusers

    revision = variant.revision or revision_of(model)
    index_file = _file(model, INDEX, revision, key)
    index = json.loads(index_file.read_text(encoding="utf-8"))
    leave_out: dict[str, Any] = dict.fromkeys(unused(index, variant))

    def fetch(commit: str | None, local_only: bool) -> Path:
        folder = Path(
            diffusers.DiffusionPipeline.download(
                model,
                revision=commit,
                variant=variant.file_variant or None,
                use_safetensors=None if variant.pickled_weights else True,
                local_files_only=local_only or None,
                **leave_out,
            )
        )
        if local_only:
            _require_complete(folder, model, commit, index, leave_out)
        return folder

    folder = _cached_or_fetched(fetch, model, revision, key)
    if variant.denoiser and not variant.denoiser.config:
        _file(model, f"{denoiser_name(index)}/config.json", revision, key)
    return folder


def _file(model: str, name: str, revision: str | None, key: str) -> Path:
    from huggingface_hub import hf_hub_download

    def fetch(commit: str | None, local_only: bool) -> Path:
        return Path(hf_hub_download(model, name, revision=commit, local_files_only=local_only))

    file = _cached_or_fetched(fetch, model, revision, key)
    commit = _commit(file.parents[name.count("/")])
    if commit:
        _SESSION.commits[model, revision] = commit
    return file


def _cached_or_fetched(fetch: Callable[[str | None, bool], Path], model: str, revision: str | None, key: str) -> Path:
    """Return files of a commit from the cache, else from the network, else (for a branch) from the cache.

    A commit never changes, so cached files need no network. A branch is requested once per process.
    """
    commit = _SESSION.commits.get((model, revision), revision)
    if _SESSION.unreachable or (commit and _COMMIT.fullmatch(commit)):
        with suppress(Exception):  # not in the cache, or incomplete
            return fetch(commit, True)
    try:
        return fetch(commit, False)
    except Exception as error:  # the hub's libraries raise many types
        _SESSION.unreachable = _SESSION.unreachable or no_connection(error)
        try:
            return fetch(commit, True)
        except Exception:
            raise explain(error, model, key) from error


def _require_complete(
    folder: Path, model: str, commit: str | None, index: dict[str, Any], without: Collection[str]
) -> None:
    """Raise FileNotFoundError if a part of a cached pipeline is missing.

    If the cache lacks the repository's listing, diffusers assumes that the cached files are complete.
    """
    import huggingface_hub

    listing = getattr(huggingface_hub, "get_cached_repo_tree", None)
    if listing is not None:
        listing(model, revision=commit)  # raises if it is missing; if it exists, diffusers has checked every file
    for name, kind in index.items():
        if name.startswith("_") or name in without or not isinstance(kind, list) or kind[0] is None:
            continue
        part = folder / name
        # a network has a config.json and weights; a tokenizer or a scheduler has neither
        if not part.is_dir() or ((part / "config.json").is_file() and not _weights_in(part)):
            raise FileNotFoundError(f"{part}: missing or incomplete in the cache")


def _weights_in(folder: Path) -> bool:
    return any(folder.glob("*.safetensors")) or any(folder.glob("*.bin"))


def _commit(folder: Path) -> str | None:
    return folder.name if folder.parent.name == "snapshots" else None


def _variant_of(path: Path) -> str:
    """Return the kind of a weight file, e.g. `fp16` for `model.fp16-00001-of-00002.safetensors`, or an empty text."""
    return _SHARD.sub("", path.name.removesuffix(path.suffix)).partition(".")[2]
