"""Runs and tables on object storage (`s3://BUCKET/PATH`): fetched into a temporary folder, then read as on disk.

Of a run only the files that evaluations read are fetched, and its pictures only if they are asked for. Nothing is
written back. Credentials, region and endpoint are those of the AWS tools, e.g. AWS_PROFILE and AWS_ENDPOINT_URL.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from perjoule.errors import PerjouleError, RunError, UsageError, first_line, install_command
from perjoule.opening import MOST_DOCUMENT_BYTES, MOST_TEXT_BYTES, require_size

_FILES = frozenset({
    "suite.toml", "environment.json", "prompts.jsonl", "trials.jsonl", "trials.parquet", "devices.jsonl", "work.jsonl",
    "images.parquet", "scores.parquet", "points.parquet", "power.parquet", "metrics.json", "set_scores.json",
    "race.json", "superseded.jsonl",
})  # fmt: skip
_PICTURE = re.compile(r"[^./\0][^/\0]*\.png")
# seconds, and attempts after the first
_CLIENT = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 2}}


def is_remote(name: str) -> bool:
    """Return whether a name is an address and not a path."""
    return "://" in name


@contextmanager
def fetched_run(name: str | Path, *, pictures: bool = False) -> Iterator[Path]:
    """Yield the folder of a run; for an address, a copy that is deleted at the end.

    Args:
        name: Run directory, or its address.
        pictures: Whether the pictures of the run are needed.

    Raises:
        UsageError: If the address is not of object storage, or the package that reads it is missing.
        RunError: If it cannot be fetched, or is not a run directory.
    """
    address = str(name).rstrip("/")
    if not is_remote(address):
        yield Path(name)
        return
    with _folder_for(address) as folder:
        storage, root = _connect(address)
        with _explained(address, RunError):
            entries = storage.ls(root, detail=True)
            sizes = _sizes(entries)
            if not {"suite.toml", "environment.json"} <= sizes.keys():
                raise RunError(
                    f"{address} is not a run directory (suite.toml or environment.json is missing): give the address "
                    "of a directory that `perjoule run` wrote"
                )
            chosen = {name: size for name, size in sizes.items() if name in _FILES}
            _fetch(storage, root, folder, chosen, address, MOST_TEXT_BYTES)
            if pictures and f"{root}/images" in (str(entry["name"]).rstrip("/") for entry in entries):
                sizes = _sizes(storage.ls(f"{root}/images", detail=True))
                chosen = {name: size for name, size in sizes.items() if _PICTURE.fullmatch(name)}
                _fetch(storage, f"{root}/images", folder / "images", chosen, f"{address}/images", MOST_DOCUMENT_BYTES)
        yield folder


@contextmanager
def fetched_table(name: str | Path) -> Iterator[Path]:
    """Yield the path of a table; for an address, of a copy that is deleted at the end.

    Raises:
        UsageError: If the address is not of object storage, the table cannot be fetched, or a package is missing.
    """
    address = str(name)
    if not is_remote(address):
        yield Path(name)
        return
    with _folder_for(address) as copy:
        storage, root = _connect(address)
        with _explained(address, UsageError):
            folder, _, file = root.rpartition("/")
            sizes = {file: int(storage.info(root)["size"])}
            _fetch(storage, folder, copy.parent, sizes, address.rpartition("/")[0], MOST_TEXT_BYTES)
        yield copy


def _connect(address: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path in it."""
    if not re.fullmatch(r"s3://[^/]+/.*[^/]", address, re.DOTALL) or address.endswith(("/.", "/..")):
        raise UsageError(f"{address}: only s3://BUCKET/PATH is read from object storage: copy it to a folder first")
    try:
        from fsspec.core import url_to_fs

        storage, root = url_to_fs(address, skip_instance_cache=True, config_kwargs=_CLIENT)
    except ImportError:
        raise UsageError(f"{address}: s3fs is not installed: {install_command('s3fs')}") from None
    return storage, str(root)


def _sizes(entries: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return the sizes of the files in a listing by their names."""
    return {str(entry["name"]).rpartition("/")[2]: int(entry["size"]) for entry in entries if entry["type"] == "file"}


def _fetch(storage: Any, root: str, folder: Path, sizes: Mapping[str, int], address: str, most_bytes: int) -> None:
    for name, size in sizes.items():
        require_size(size, most_bytes, f"{address}/{name}")
    folder.mkdir(parents=True, exist_ok=True)
    if sizes:
        storage.get([f"{root}/{name}" for name in sizes], [str(folder / name) for name in sizes])


@contextmanager
def _folder_for(address: str) -> Iterator[Path]:
    """Yield a path of the address's own name in a temporary folder, because reports and messages show that name."""
    with TemporaryDirectory(prefix="perjoule-") as temporary:
        yield Path(temporary) / address.rpartition("/")[2]


@contextmanager
def _explained(address: str, error: type[PerjouleError]) -> Iterator[None]:
    """Turn the many errors of clients and networks into one that names the address."""
    try:
        yield
    except PerjouleError:
        raise
    except FileNotFoundError:
        raise error(f"{address} does not exist: check the address, and AWS_ENDPOINT_URL if it is not on AWS") from None
    except Exception as fault:
        raise error(
            f"{address} cannot be fetched: {type(fault).__name__}: {first_line(fault)}: check the credentials (e.g. "
            "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), AWS_ENDPOINT_URL and the network"
        ) from fault
