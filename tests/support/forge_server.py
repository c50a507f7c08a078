"""A loopback server that imitates the comment interfaces of GitHub and GitLab, as their documentation states them.

GitHub: https://docs.github.com/en/rest/issues/comments
GitLab: https://docs.gitlab.com/api/notes/
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

Query = dict[str, list[str]]
TOKEN = "token-of-the-job"
ME, BOT = 7, {"login": "github-actions[bot]", "type": "Bot"}


@dataclass
class FakeForge:
    """What is stored, and what was asked for.

    Attributes:
        comments: Of one pull request.
        readable: Whether the token may read comments.
        writable: Whether the token may write them; that of a pull request from a fork may not.
        requests: Method and path of each request.
        broken: If given, the answer to everything: status and body.
    """

    comments: list[dict[str, Any]] = field(default_factory=list)
    readable: bool = True
    writable: bool = True
    requests: list[str] = field(default_factory=list)
    broken: tuple[int, bytes] | None = None
    address: str = ""
    packages: dict[str, bytes] = field(default_factory=dict)

    def bodies(self) -> list[str]:
        return [comment["body"] for comment in self.comments]

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> tuple[int, Any]:
        """Status and JSON."""
        self.requests.append(f"{method} {target}")
        if self.broken is not None:
            return self.broken
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        if path.startswith("/api/v4/"):
            return self._gitlab(method, path.removeprefix("/api/v4"), query, headers, body)
        return self._github(method, path, query, headers, body)

    def _github(
        self, method: str, path: str, query: dict[str, list[str]], headers: Any, body: bytes
    ) -> tuple[int, Any]:
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, {"message": "Bad credentials"}
        if not (self.readable if method == "GET" else self.writable):
            return 403, {"message": "Resource not accessible by integration"}
        one = re.fullmatch(r"/repos/me/mine/issues/comments/(\d+)", path)
        if path == "/repos/me/mine/issues/5/comments" and method == "GET":
            return 200, self._page(query)
        if path == "/repos/me/mine/issues/5/comments" and method == "POST":
            return 201, self._add(body, user=BOT, author_association="NONE")
        if one and method == "PATCH":
            return self._change(int(one[1]), body)
        return 404, {"message": "Not Found"}

    def _gitlab(
        self, method: str, path: str, query: dict[str, list[str]], headers: Any, body: bytes
    ) -> tuple[int, Any]:
        if "/packages/generic/" in path and headers.get("JOB-TOKEN") == TOKEN:
            if method == "PUT":
                self.packages[path] = body
                return 201, {"message": "201 Created"}
            return (200, self.packages[path]) if path in self.packages else (404, {"message": "404 Not Found"})
        if headers.get("PRIVATE-TOKEN") != TOKEN:
            return 401, {"message": "401 Unauthorized"}
        if method != "GET" and not self.writable:
            return 403, {"message": "403 Forbidden"}
        notes = "/projects/11/merge_requests/5/notes"
        one = re.fullmatch(notes + r"/(\d+)", path)
        if path == "/user":
            return 200, {"id": ME}
        if path == notes and method == "GET":
            return 200, self._page(query)
        if path == notes and method == "POST":
            return 201, self._add(body, author={"id": ME}, system=False)
        if one and method == "PUT":
            return self._change(int(one[1]), body)
        return 404, {"message": "404 Not found"}

    def _page(self, query: Query) -> list[dict[str, Any]]:
        size, page = (int(query[key][0]) for key in ("per_page", "page"))
        return self.comments[(page - 1) * size : page * size]

    def _add(self, body: bytes, **more: Any) -> dict[str, Any]:
        number = len(self.comments) + 100
        comment = {"id": number, "body": json.loads(body)["body"], "html_url": f"https://forge/c/{number}", **more}
        self.comments.append(comment)
        return comment

    def _change(self, number: int, body: bytes) -> tuple[int, Any]:
        for comment in self.comments:
            if comment["id"] == number:
                comment["body"] = json.loads(body)["body"]
                return 200, comment
        return 404, {"message": "Not Found"}


@contextmanager
def serving(forge: FakeForge) -> Iterator[FakeForge]:
    """Serve it on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, answer = forge.answer(self.command, self.path, self.headers, body)
            raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            if status in (301, 302, 307, 308):
                self.send_header("Location", f"{forge.address}/elsewhere")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_PATCH = do_PUT = _any  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    forge.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield forge
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def github_environment(forge: FakeForge, event: str, **more: str) -> dict[str, str]:
    """The variables of a job on GitHub Actions; `event` is the file of the event."""
    return {
        "GITHUB_ACTIONS": "true", "GITHUB_API_URL": forge.address, "GITHUB_REPOSITORY": "me/mine",
        "GITHUB_EVENT_PATH": event, "GITHUB_SERVER_URL": "https://forge", "GITHUB_RUN_ID": "33",
        "GITHUB_TOKEN": TOKEN, "no_proxy": "127.0.0.1", **more,
    }  # fmt: skip


def gitlab_environment(forge: FakeForge, **more: str) -> dict[str, str]:
    """The variables of a merge request's job on GitLab CI."""
    return {
        "GITLAB_CI": "true", "CI_API_V4_URL": f"{forge.address}/api/v4", "CI_MERGE_REQUEST_IID": "5",
        "CI_MERGE_REQUEST_PROJECT_ID": "11", "CI_MERGE_REQUEST_PROJECT_URL": "https://forge/me/mine",
        "CI_COMMIT_SHA": "0123456789abcdef", "CI_JOB_URL": "https://forge/jobs/3",
        "PERJOULE_GITLAB_TOKEN": TOKEN, "no_proxy": "127.0.0.1", **more,
    }  # fmt: skip
