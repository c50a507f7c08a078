"""A web server on loopback, and a cache for what is fetched from it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.perjoule.pytest_energy.repository import repository  # noqa: F401 - a fixture

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Web:
    """`pages[path]` is what a path answers; a function is asked with the number of the request, from 1 on."""

    url: str
    pages: dict[str, bytes | Callable[[int], Answer]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    for name in ("PERJOULE_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(body=True)

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def answer(self, *, body: bool) -> None:
            path = self.path.partition("?")[0]
            found.asked.append(path)
            page = found.pages.get(path)
            if page is None:
                status, headers, content = 404, dict[str, str](), b"nothing here"
            elif isinstance(page, bytes):
                status, headers, content = 200, {}, page
            else:
                status, headers, content = page(found.asked.count(path))
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(content))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Web(url=f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()
