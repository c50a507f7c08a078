"""Explains errors of the hub, the disk and files, with remedies."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from perjoule.errors import UsageError, first_line


def explain(error: BaseException, model: str, where: str) -> UsageError:
    """Return an explanation and remedy for errors of the hub, the file system, safetensors and diffusers."""
    from huggingface_hub import constants, errors

    cache = Path(constants.HF_HUB_CACHE)
    head = f"{where} = {model!r} cannot be loaded: "
    chain = list(_causes(error))

    def first_of(*kinds: type[BaseException]) -> BaseException | None:
        return next((e for e in chain if isinstance(e, kinds)), None)

    if any(isinstance(e, OSError) and e.errno == errno.ENOSPC for e in chain):
        return UsageError(
            f"{head}the disk is full: {_free_mib(cache):,} MiB free at {cache}. Free some space, or set HF_HOME to a "
            "larger disk, and run again: complete files are kept, and the download continues after them"
        )
    if first_of(errors.GatedRepoError):
        return UsageError(
            f"{head}it is gated: accept its licence at https://huggingface.co/{model}, then `hf auth login` or set "
            "HF_TOKEN, and run again"
        )
    if first_of(errors.RevisionNotFoundError):
        return UsageError(f"{head}no such revision: check the suite's `revision`, or remove it")
    if first_of(errors.RepositoryNotFoundError):
        return UsageError(
            f"{head}{constants.ENDPOINT} has no such repository, or it is private. If it has moved, "
            f"add --model {model}=NEW/ID"
        )
    missing = first_of(errors.EntryNotFoundError)
    if missing is not None and not isinstance(missing, errors.LocalEntryNotFoundError):
        return UsageError(f"{head}a file is missing on the hub: {_address(missing)}. Pin another `revision`")
    if constants.HF_HUB_OFFLINE:
        return UsageError(
            f"{head}HF_HUB_OFFLINE is set, and the cache {cache} lacks it or a part of it. Run once online, "
            "or copy a filled cache here and set HF_HOME"
        )
    if no_connection(error):
        return UsageError(
            f"{head}{constants.ENDPOINT} cannot be reached, and the cache {cache} lacks it or a part of it. Check the "
            "network or HF_ENDPOINT and run again; a filled cache works without it"
        )
    if any("Protocol" in type(e).__name__ or "Consistency check" in str(e) for e in chain):
        return UsageError(
            f"{head}the download broke off ({first_line(error)}). Run again: complete files are kept, and it continues "
            "after them"
        )
    return UsageError(f"{head}{first_line(error)}")


def broken_file(files: Iterable[Path]) -> Path | None:
    """Return the first safetensors file whose header does not match its length, or None."""
    from safetensors import SafetensorError, safe_open

    for path in files:
        if path.suffix != ".safetensors":
            continue
        if not path.is_file():  # e.g. a pipe, which would be waited for
            return path
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError):
            return path
    return None


def size_words(path: Path) -> str:
    """Return the size of a file for messages."""
    return f"{path.stat().st_size:,} bytes" if path.is_file() else "not a file"


def kind_and_line(error: BaseException) -> str:
    """Return the type of an error and its first line."""
    return f"{type(error).__name__}: {first_line(error)}"


def quiet() -> None:
    """Stop diffusers and transformers from printing progress bars and messages."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()


def no_connection(error: BaseException) -> bool:
    """Return whether the hub could not be reached."""
    return any("onnect" in type(e).__name__ or isinstance(e, ConnectionError) for e in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _address(error: BaseException) -> str:
    match = re.search(r"https?://\S+", str(error))
    return match[0].rstrip(".") if match else first_line(error)


def _free_mib(path: Path) -> int:
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free >> 20
