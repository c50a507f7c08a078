"""`perjoule study serve`: hands out the page and its trials, and stores the answers.

No cookies, no addresses, no log of requests. On other addresses than loopback, everything is below a secret path, the
token, and anything else is not found.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import logging
import re
import secrets
import signal
import socket
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perjoule.errors import RunError, UsageError
from perjoule.files import strict_json, whole_characters
from perjoule.opening import open_inside
from perjoule.people.choosing import Chooser
from perjoule.people.folder import forget_observer, read_answers
from perjoule.people.page import content_policy, page_trial, render_page
from perjoule.people.records import Answer, AnswerProvenance, Study, StudyIndex, Trial, parsed_answers
from perjoule.people.store import AnswerStore

_LOG = logging.getLogger("uvicorn.error")
_MOST_BYTES = 1_000_000
_MOST_OBSERVERS = 20_000
_MOST_SOON = 20
_OBSERVER = re.compile("[0-9a-f]{32}")
_TOKEN = re.compile("[A-Za-z0-9_-]{16,200}")
_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1", "[::1]")


def bind(host: str, port: int, token: str | None) -> socket.socket:
    """Return a listening socket.

    Raises:
        UsageError: If the address cannot be used, if it needs a token, or if the token is weak.
    """
    if token is not None and not _TOKEN.fullmatch(token):
        raise UsageError("--token: give 16 to 200 letters, digits, - or _ that nobody can guess")
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        if token is None and not ipaddress.ip_address(str(place[0])).is_loopback:
            raise UsageError(
                f"--host {host}: others can reach this address, so a token is needed: "
                f"--token {secrets.token_urlsafe(16)}"
            )
        return socket.create_server(place[:2], family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UsageError(f"--host {host} --port {port}: {reason}: choose another address, or --port 0") from error


def address(listening: socket.socket, token: str | None) -> str:
    """Return the address of the page."""
    host, port = listening.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = socket.gethostname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/{f'{token}/' if token else ''}"


def serve(app: Starlette, listening: socket.socket) -> None:
    """Serve until Ctrl-C or SIGTERM; requests that were accepted are answered first."""
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, proxy_headers=False, server_header=False, ws="none",
        timeout_graceful_shutdown=5,
    )  # fmt: skip
    with _signals_end_quietly():
        uvicorn.Server(config).run(sockets=[listening])


def make_app(
    study: Study,
    folder: Path,
    store: AnswerStore,
    *,
    host: str = "127.0.0.1",
    token: str | None = None,
    active: bool = True,
    provenance: AnswerProvenance = "people",
    times_ms: dict[str, int] | None = None,
) -> Starlette:
    """Return the application that serves a study.

    Args:
        study: The study.
        folder: Its folder.
        store: Its database, which is read here if other answers are to guide the choice of trials.
        host: The address it listens on, which browsers may name.
        token: The first part of every path, if there is one.
        active: Replace trials of the design by those whose answers are expected to say most.
        provenance: Who answers; other answers are refused, so that nothing simulated is ever among those of people.
        times_ms: Overrides times of the page.
    """
    served = _Served(
        study, folder, store, active, provenance, render_page(study, served=True, active=active, times_ms=times_ms)
    )
    routes = [
        Route("/", served.page),
        Route("/pictures/{name}", served.picture),
        Route("/api/session", served.session, methods=["POST"]),
        Route("/api/answers", served.answers, methods=["POST"]),
        Route("/api/next", served.next, methods=["POST"]),
        Route("/api/delete", served.delete, methods=["POST"]),
    ]
    # the name of the host is compared where there is no token: a page elsewhere must not reach a loopback address
    hosts = [] if token else [Middleware(TrustedHostMiddleware, allowed_hosts=[*_LOOPBACK_NAMES, host])]
    guard = Middleware(_Guard, token=token, headers=_headers())
    handlers: Mapping[Any, Any] = {HTTPException: _refusal, UsageError: _unusable, sqlite3.Error: _not_stored}
    return Starlette(routes=routes, middleware=[guard, *hosts], exception_handlers=handlers)


class _Served:
    """The endpoints."""

    def __init__(
        self,
        study: Study,
        folder: Path,
        store: AnswerStore,
        active: bool,
        provenance: AnswerProvenance,
        page: str,
    ) -> None:
        self._study, self._folder, self._store, self._page = study, folder, store, page
        self._active, self._provenance = active, provenance
        self._index = StudyIndex(study)
        self._pictures = {Path(picture.file).name: picture.file for picture in study.pictures}
        self._known = {(a.observer, a.trial_id): a for a in read_answers(folder, study)} if active else {}
        self._choosing = asyncio.Lock()
        if active:  # imports what takes long before anybody waits
            Chooser(study, self._known.values()).next_main("")

    async def page(self, request: Request) -> Response:
        return HTMLResponse(self._page, headers={"Cache-Control": "no-store"})

    async def picture(self, request: Request) -> Response:
        file = self._pictures.get(request.path_params["name"])
        try:
            # the file may have been replaced since the study was read, e.g. by a link to a private one
            with open_inside(self._folder, file or "") as opened:
                content = opened.read()
        except (OSError, RunError):
            raise HTTPException(404, "no such picture") from None
        # the name is a digest of the content
        return Response(content, media_type="image/png", headers={"Cache-Control": "private, max-age=86400, immutable"})

    async def session(self, request: Request) -> Response:
        session = await self._session(_observer(await _body(request)))
        trials = [self._index.trial_of(trial_id) for trial_id in session]
        return JSONResponse({"trials": [page_trial(trial) for trial in trials]})

    async def answers(self, request: Request) -> Response:
        answers = parsed_answers(await _content(request), "answers")
        refused: dict[str, str] = {}
        fitting = []
        for answer in answers:
            try:
                if not _OBSERVER.fullmatch(answer.observer):
                    raise UsageError("observer: must be 32 hexadecimal digits")
                if answer.provenance != self._provenance:
                    raise UsageError(f"provenance = {answer.provenance!r}: this study takes {self._provenance!r} only")
                self._index.check(answer)
                fitting.append(answer)
            except UsageError as error:
                refused[answer.trial_id] = str(error)
        gone = await asyncio.wrap_future(self._store.add(fitting))
        refused |= {answer.trial_id: "these answers were deleted" for answer in fitting if answer.observer in gone}
        reply: dict[str, Any] = {"refused": refused, "stored": [a.trial_id for a in fitting if a.observer not in gone]}
        if self._active:
            for one in fitting:
                if one.observer not in gone:
                    self._known.setdefault((one.observer, one.trial_id), one)
        return JSONResponse(reply)

    async def next(self, request: Request) -> Response:
        """The trials that an observer is asked after those of `soon`, which the page has loaded already."""
        body = await _body(request)
        observer, soon = _observer(body), body.get("soon")
        if not isinstance(soon, list) or len(soon) > _MOST_SOON or not all(isinstance(one, str) for one in soon):
            raise HTTPException(422, f"soon: must be at most {_MOST_SOON} trial ids")
        shown = [self._index.trial_of(trial_id) for trial_id in soon]
        # choosing takes longer than storing: where somebody's trials are being chosen, the design's are good enough
        if not self._active or self._choosing.locked():
            return JSONResponse({"trials": None})
        async with self._choosing:
            session = await self._session(observer)
            trials = await asyncio.to_thread(self._chosen, observer, session, shown, tuple(self._known.values()))
        return JSONResponse({"trials": [page_trial(trial) for trial in trials]})

    def _chosen(
        self, observer: str, session: Sequence[str], soon: Sequence[Trial], answers: Sequence[Answer]
    ) -> list[Trial]:
        chooser = Chooser(self._study, answers, seed=int(observer, 16) + len(answers))
        for trial in soon:  # not answered yet: counts as a tie
            chooser.record(
                Answer(
                    study_id=self._study.study_id, observer=observer, trial_id=trial.trial_id, left=trial.left_arm,
                    right=trial.right_arm, choice="equal", shown_at_ms=0.0, response_ms=0.0, provenance="simulated",
                )
            )  # fmt: skip
        return chooser.remaining(observer, session)

    async def _session(self, observer: str) -> Sequence[str]:
        number = await asyncio.wrap_future(
            self._store.session(observer, len(self._study.sessions), most_observers=_MOST_OBSERVERS)
        )
        if number is None:
            raise HTTPException(503, "this study has enough people")
        return self._study.sessions[number]

    async def delete(self, request: Request) -> Response:
        observer = _observer(await _body(request))
        await asyncio.wrap_future(self._store.delete(observer))
        await asyncio.to_thread(forget_observer, self._folder, observer)
        for key in [key for key in self._known if key[0] == observer]:
            del self._known[key]
        return JSONResponse({"deleted": True})


class _Guard:
    """Takes the token off the path, refuses requests without it, and adds the headers that every answer has."""

    def __init__(self, app: ASGIApp, token: str | None, headers: dict[str, str]) -> None:
        self._app, self._token, self._headers = app, token, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        app = self._app
        if self._token is not None:
            first, slash, rest = scope["path"].removeprefix("/").partition("/")
            if slash and hmac.compare_digest(first.encode(), self._token.encode()):
                scope = dict(scope, path=f"/{rest}")
            else:
                app = PlainTextResponse("Not found. Use the whole link that you were given.", 404)
        await app(scope, receive, with_headers)


def _headers() -> dict[str, str]:
    return {
        "Content-Security-Policy": f"{content_policy(served=True)}; frame-ancestors 'none'",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Robots-Tag": "noindex",
    }


async def _content(request: Request) -> bytes:
    # a page elsewhere cannot send this type without asking first, which is never allowed
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "send application/json")
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > _MOST_BYTES:
            raise HTTPException(413, "too long")
    return bytes(content)


async def _body(request: Request) -> Any:
    try:
        return whole_characters(strict_json(await _content(request)))
    except (ValueError, RecursionError):
        raise HTTPException(422, "not JSON") from None


def _observer(body: Any) -> str:
    observer = body.get("observer") if isinstance(body, dict) else None
    if not isinstance(observer, str) or not _OBSERVER.fullmatch(observer):
        raise HTTPException(422, "observer: must be 32 hexadecimal digits")
    return observer


async def _refusal(request: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code)


async def _not_stored(request: Request, error: sqlite3.Error) -> Response:
    _LOG.error("answers could not be stored, the pages will send them again: %s", error)
    return JSONResponse({"error": "the answers could not be stored now"}, 503)


async def _unusable(request: Request, error: UsageError) -> Response:
    return JSONResponse({"error": str(error)}, 422)


@contextlib.contextmanager
def _signals_end_quietly() -> Iterator[None]:
    """Uvicorn raises the signals that ended it once more: by then there is nothing left to do."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
