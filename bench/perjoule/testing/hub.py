"""Model hub on loopback that serves folders like repositories of the Hugging Face hub.

with HubMirror(folder, gated={"org/model"}) as mirror:      # folder/org/model/... are the repositories
    subprocess.run([...], env=os.environ | mirror.environment(cache))

It implements the part of the protocol that `huggingface_hub` needs for downloads: repository information, file
listings, and files with `ETag`, `X-Repo-Commit`, `X-Linked-Size`, ranges, and the hub's error codes. It can fail on
demand: files can be gated, lost, cut short or damaged. `huggingface_hub` reads `HF_ENDPOINT` when it is imported, so a
mirror is for other processes, or for a process that has not imported it yet. It uses only the standard library.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

BRANCH = "main"
# the hub stores these outside git, and their ETag is then a SHA-256
_LARGE = (".safetensors", ".bin", ".pt", ".ckpt")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A received request. `range`: first requested byte, None for a whole file."""

    method: str
    path: str
    range: int | None


@dataclass(slots=True, kw_only=True)
class Faults:
    """Simulated faults, by `org/model/file`; may be changed while the mirror runs.

    Attributes:
        lost: Files that are listed, but answered with 404.
        cut: Number of bytes of a body after which the connection ends, once.
        false: Files with every byte inverted, so that the length is right but the content is wrong.
    """

    lost: set[str] = field(default_factory=set)
    cut: dict[str, int] = field(default_factory=dict)
    false: set[str] = field(default_factory=set)


class HubMirror:
    """The server. Repositories are the folders `folder/org/model`, which are read for every request.

    Args:
        folder: Root of the repositories.
        gated: Ids that require a token.
        commits: Commits by id, e.g. for suites that pin them; by default the commit is a digest of the files.
        token: The token that opens the gated ones.
    """

    def __init__(
        self,
        folder: Path,
        *,
        gated: Collection[str] = (),
        commits: Mapping[str, str] | None = None,
        token: str = "hf_mirror",
    ) -> None:
        self.folder, self.gated, self.token = Path(folder), frozenset(gated), token
        self._commits = dict(commits or {})
        self.requests: list[Request] = []
        self.faults = Faults()
        self._connections: set[socket.socket] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"mirror": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        """Address `http://127.0.0.1:PORT`, for `HF_ENDPOINT`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def environment(self, home: Path, *, token: str | None = None) -> dict[str, str]:
        """Return environment variables that make the hub's libraries use this server, with their cache in `home`."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_TOKEN": token or "",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def commit(self, repo: str) -> str:
        """Return the commit of a repository, 40 hex digits."""
        if repo in self._commits:
            return self._commits[repo]
        listing = "".join(f"{name} {_blob(path)[0]}\n" for name, path in self.files(repo).items())
        return hashlib.sha1(listing.encode()).hexdigest()

    def files(self, repo: str) -> dict[str, Path]:
        """Return the files of a repository by name; empty if the repository does not exist."""
        root = self.folder / repo
        return {p.relative_to(root).as_posix(): p for p in sorted(root.rglob("*")) if p.is_file()}

    def __enter__(self) -> Self:
        """Serve."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop serving, and close open connections."""
        self._server.shutdown()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    mirror: HubMirror
    protocol_version = "HTTP/1.1"
    # headers and body in one packet: a second packet would wait for an acknowledgement that the client delays by 40 ms
    wbufsize = -1

    def setup(self) -> None:
        super().setup()
        self.mirror._connections.add(self.connection)

    def finish(self) -> None:
        self.mirror._connections.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing to stderr; `HubMirror.requests` is the log."""

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(found[1]) if found else None
        self.mirror.requests.append(Request(method=self.command, path=path, range=first))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?(?:/.*)?", path):
            self._information(match[1], match[2] or "revision", match[3] or BRANCH)
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(match[1], match[2], match[3], first, body)
        else:
            self._error(HTTPStatus.NOT_FOUND, "EntryNotFound", f"nothing at {path}")

    def _refused(self, repo: str, revision: str) -> bool:
        """Return True after sending an error if the repository or revision does not exist."""
        if not self.mirror.files(repo):
            self._error(HTTPStatus.UNAUTHORIZED, "RepoNotFound", "Repository not found")
        elif revision not in (BRANCH, self.mirror.commit(repo)):
            self._error(HTTPStatus.NOT_FOUND, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return False
        return True

    def _information(self, repo: str, kind: str, revision: str) -> None:
        if self._refused(repo, revision):
            return
        files = [_entry(name, path) for name, path in self.mirror.files(repo).items()]
        if kind == "tree":
            self._json(files)
            return
        self._json(
            {
                "_id": repo,
                "id": repo,
                "modelId": repo,
                "sha": self.mirror.commit(repo),
                "private": False,
                "gated": "auto" if repo in self.mirror.gated else False,
                "tags": [],
                "siblings": [{"rfilename": entry["path"]} for entry in files],
            }
        )

    def _file(self, repo: str, revision: str, name: str, first: int | None, body: bool) -> None:
        if self._refused(repo, revision):
            return
        if repo in self.mirror.gated:
            asked = self.headers.get("Authorization", "")
            if asked != f"Bearer {self.mirror.token}":
                status = HTTPStatus.FORBIDDEN if asked else HTTPStatus.UNAUTHORIZED
                self._error(status, "GatedRepo", f"Access to model {repo} is restricted")
                return
        path = self.mirror.files(repo).get(name)
        if path is None or f"{repo}/{name}" in self.mirror.faults.lost:
            self._error(HTTPStatus.NOT_FOUND, "EntryNotFound", "Entry not found")
            return
        self._send(f"{repo}/{name}", path, first or 0, self.mirror.commit(repo), body)

    def _send(self, key: str, path: Path, first: int, commit: str, body: bool) -> None:
        digest, size = _blob(path)
        self.send_response(HTTPStatus.PARTIAL_CONTENT if first else HTTPStatus.OK)
        self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Repo-Commit", commit)
        if path.suffix in _LARGE:
            self.send_header("X-Linked-Size", str(size))
            self.send_header("X-Linked-Etag", f'"{digest}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(size - first))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        self.end_headers()
        if not body:
            return
        content = path.read_bytes()[first:]
        if key in self.mirror.faults.false:
            content = bytes(255 - byte for byte in content)
        cut = self.mirror.faults.cut.pop(key, None)
        content = content[:cut]
        for start in range(0, len(content), _CHUNK_BYTES):
            self.wfile.write(content[start : start + _CHUNK_BYTES])
        if cut is not None:
            self.close_connection = True

    def _json(self, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def _error(self, status: HTTPStatus, code: str, message: str) -> None:
        content = json.dumps({"error": message}).encode()
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


def _entry(name: str, path: Path) -> dict[str, Any]:
    digest, size = _blob(path)
    entry: dict[str, Any] = {"type": "file", "path": name, "size": size, "oid": digest}
    if path.suffix in _LARGE:
        entry |= {"oid": digest[:40], "lfs": {"oid": digest, "size": size, "pointerSize": 134}}
    return entry


def _blob(path: Path) -> tuple[str, int]:
    """Return the hub's ETag of a file, and its size in bytes."""
    state = path.stat()
    return _digest(path, state.st_size, state.st_mtime_ns), state.st_size


@cache
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    if path.suffix in _LARGE:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha1(f"blob {size}\0".encode() + path.read_bytes()).hexdigest()
