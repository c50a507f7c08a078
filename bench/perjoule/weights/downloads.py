"""Downloads files from the web once: atomically, checked by SHA-256, and reused without a network.

They are stored under `~/.cache/perjoule` (change it with `PERJOULE_CACHE` or `XDG_CACHE_HOME`), one folder per address.
`huggingface_hub` downloads files of the Hugging Face hub into its own cache instead.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from perjoule.errors import UsageError
from perjoule.files import replacing
from perjoule.weights.digests import digest_file

if TYPE_CHECKING:
    import requests

OFFLINE_VARIABLES = ("PERJOULE_OFFLINE", "HF_HUB_OFFLINE")
_NO = {"", "0", "false", "no", "off"}
_TRIES = 4
_TIMEOUT_S = (10.0, 60.0)  # for connecting; between two bytes
_CHUNK_BYTES = 1 << 20
_SAY_FROM_BYTES = 10 << 20
_MOST_BYTES = 64 << 30  # an address that never ends would fill the disk


def is_offline() -> bool:
    """Return whether the network must not be used: `PERJOULE_OFFLINE` or `HF_HUB_OFFLINE` is set."""
    return any(os.environ.get(name, "").lower() not in _NO for name in OFFLINE_VARIABLES)


def go_offline() -> None:
    """Switch off the network; must be called before huggingface_hub is imported, which reads its variable then."""
    for name in OFFLINE_VARIABLES:
        os.environ[name] = "1"


def cache_folder() -> Path:
    """Return the folder of downloads."""
    own = os.environ.get("PERJOULE_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "perjoule"


def cached_file(url: str) -> Path:
    """Return the path of an address in the cache, even before its download."""
    name = Path(unquote(urlsplit(url).path)).name
    name = name if name.strip(".") else "index"  # `..` would leave the cache
    return cache_folder() / "files" / hashlib.sha256(url.encode()).hexdigest()[:16] / name


def fetch_file(url: str, *, sha256: str | None, where: str) -> Path:
    """Return the file of an address: from the cache, else from the web.

    Args:
        url: An http or https address.
        sha256: Required digest, or its first digits; None accepts any content.
        where: Beginning of messages.

    Raises:
        UsageError: If it could not be downloaded, or its digest is wrong (the message names both digests).
    """
    file = cached_file(url)
    if not file.is_file():
        if is_offline():
            raise UsageError(
                f"{where}: {url} is not in the cache and the network is off: run once without --offline, or "
                f"put the file at {file}"
            )
        _download(url, file, where)
    return checked(file, url, sha256=sha256, where=where)


def checked(file: Path, url: str, *, sha256: str | None, where: str) -> Path:
    """Return the file if its digest is right. Raises a UsageError with both digests if not."""
    digest = digest_file(file)
    if sha256 is not None and not digest.startswith(sha256):
        raise UsageError(
            f"{where}: {url} has SHA-256 {digest} instead of {sha256}: the file has changed, or the cached copy is "
            f"damaged. Delete {file} to download it again, or pin another digest"
        )
    return file


def _download(url: str, file: Path, where: str) -> None:
    import requests

    head = f"{where}: {url} could not be downloaded"
    for number in range(1, _TRIES + 1):
        try:
            with _session() as session, replacing(file) as out:
                _stream(session, url, out)
            return
        except requests.HTTPError as error:
            raise UsageError(f"{head}: {error}") from error
        except requests.exceptions.ChunkedEncodingError as error:  # adapters do not retry it
            if number == _TRIES:
                raise UsageError(f"{head}: the connection broke off {number} times: {error}") from error
        except (requests.RequestException, ValueError) as error:
            raise UsageError(f"{head}: {error}: check the network; a filled cache works without it") from error
        except OSError as error:
            full = ": the disk is full; free some space or set PERJOULE_CACHE" if error.errno == errno.ENOSPC else ""
            raise UsageError(f"{head}: {file}: {error.strerror or error}{full}") from error


def _session() -> requests.Session:
    """Return retries for transient errors: no connection, status 429, and server errors."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    retries = Retry(total=_TRIES - 1, backoff_factor=0.3, status_forcelist=(429, 500, 502, 503, 504))
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retries))
    return session


def _stream(session: requests.Session, url: str, out: IO[bytes]) -> None:
    with session.get(url, stream=True, timeout=_TIMEOUT_S) as answer:
        answer.raise_for_status()
        size = int(answer.headers.get("Content-Length", 0))
        if size >= _SAY_FROM_BYTES:
            sys.stderr.write(f"perjoule: downloading {url}, {size / 2**20:,.0f} MiB\n")
        received = 0
        for chunk in answer.iter_content(_CHUNK_BYTES):
            received += len(chunk)
            if received > _MOST_BYTES:
                raise UsageError(f"{url} has more than {_MOST_BYTES / 2**30:,.0f} GiB: not a file that perjoule uses")
            out.write(chunk)
