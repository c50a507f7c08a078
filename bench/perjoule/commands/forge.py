"""Comments on pull requests: one per key, created once and then updated. GitHub's and GitLab's REST interfaces.

    body    <!-- perjoule:KEY -->      the hidden marker by which the comment is found again
            text of the verdict
            commit and link to the log

The addresses and the token come from the environment of the CI job. The token is only sent to this address: redirects
are not followed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any, Literal, Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from perjoule.errors import RunError, UsageError, first_line
from perjoule.files import read_json
from perjoule.text import one_line

TOKENS = {"github": "GITHUB_TOKEN", "gitlab": "PERJOULE_GITLAB_TOKEN"}
_TIMEOUT_S = 30
_PAGES, _PER_PAGE = 20, 100
_MOST_BYTES = 32 * 2**20
# comments of others are not edited, whatever they begin with
_TRUSTED = frozenset({"OWNER", "MEMBER", "COLLABORATOR"})


class Refused(Exception):  # noqa: N818 - it ends in a sentence, not in a failure
    """The comment could not be written; the message is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """What `comment` prints: what was done, the address of the comment, and why there is none."""

    outcome: Literal["created", "updated", "none"]
    url: str | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Existing:
    """A comment of ours: the address to update it at, and its text."""

    address: str
    body: str


class Forge(Protocol):
    """Where the pull request is."""

    @property
    def footer(self) -> str:
        """Commit and link to the log, as Markdown."""

    def comments(self) -> Iterator[Existing]:
        """Yield the comments of the pull request that we may have written."""

    def create(self, body: str) -> str:
        """Write a comment; return its address on the web."""

    def update(self, comment: Existing, body: str) -> str:
        """Replace the text of a comment; return its address on the web."""


def post(forge: Forge, text: str, key: str) -> Posted:
    """Create or update the one comment of a key. A refusal is a result, not an exception."""
    marker = f"<!-- perjoule:{key} -->"
    body = f"{marker}\n{text.rstrip()}\n\n{forge.footer}\n"
    try:
        mine = next((comment for comment in forge.comments() if comment.body.startswith(marker)), None)
        if mine is None:
            return Posted(outcome="created", url=forge.create(body), reason=None)
        return Posted(outcome="updated", url=forge.update(mine, body), reason=None)
    except Refused as refusal:
        return Posted(outcome="none", url=None, reason=str(refusal))


def forge_of(environment: Mapping[str, str] = os.environ) -> Forge | None:
    """Return the pull request of this CI job; None if the job is not about one.

    Raises:
        UsageError: If this is neither a job of GitHub Actions nor of GitLab CI, or a variable is missing or damaged.
    """
    if environment.get("GITHUB_ACTIONS") == "true":
        event = _event(environment)
        pull = event.get("pull_request")
        if not isinstance(pull, dict):
            return None
        return GitHub(
            api=_address(environment, "GITHUB_API_URL"),
            repository=_needed(environment, "GITHUB_REPOSITORY"),
            number=_number(pull.get("number"), "GITHUB_EVENT_PATH: pull_request.number"),
            token=environment.get(TOKENS["github"], ""),
            commit=str(_part(pull, "head").get("sha") or environment.get("GITHUB_SHA", "")),
            log="{}/{}/actions/runs/{}".format(
                *(environment.get(f"GITHUB_{name}", "") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
            ),
        )
    if environment.get("GITLAB_CI") == "true":
        if not environment.get("CI_MERGE_REQUEST_IID"):
            return None
        return GitLab(
            api=_address(environment, "CI_API_V4_URL"),
            project=_needed(environment, "CI_MERGE_REQUEST_PROJECT_ID"),
            number=_number(environment["CI_MERGE_REQUEST_IID"], "CI_MERGE_REQUEST_IID"),
            token=environment.get(TOKENS["gitlab"], ""),
            commit=environment.get("CI_COMMIT_SHA", ""),
            log=environment.get("CI_JOB_URL", ""),
            page=f"{environment.get('CI_MERGE_REQUEST_PROJECT_URL', '')}/-/merge_requests/"
            f"{environment['CI_MERGE_REQUEST_IID']}",
        )
    raise UsageError("comment: neither GITHUB_ACTIONS nor GITLAB_CI is 'true': run it in a CI job of a pull request")


@dataclass(frozen=True, slots=True, kw_only=True)
class GitHub:
    """A pull request on GitHub. https://docs.github.com/en/rest/issues/comments."""

    api: str
    repository: str
    number: int
    token: str
    commit: str
    log: str

    @property
    def footer(self) -> str:
        """Commit and link to the log."""
        return _footer(self.commit, self.log)

    @property
    def _issues(self) -> str:
        return f"{self.api}/repos/{quote(self.repository)}/issues"

    def _call(self, method: str, address: str, body: str | None = None) -> Any:
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/vnd.github+json"}
        return _call(method, address, headers, self.token, TOKENS["github"], body)

    def comments(self) -> Iterator[Existing]:
        """Yield comments of bots and of people with access to the repository, oldest first."""
        for page in range(1, _PAGES + 1):
            address = f"{self._issues}/{self.number}/comments?per_page={_PER_PAGE}&page={page}"
            found = self._call("GET", address)
            for comment in found:
                bot = _part(comment, "user").get("type") == "Bot"
                if bot or str(comment.get("author_association")) in _TRUSTED:
                    yield Existing(
                        address=f"{self._issues}/comments/{quote(str(comment.get('id')), safe='')}",
                        body=str(comment.get("body") or ""),
                    )
            if len(found) < _PER_PAGE:
                return

    def create(self, body: str) -> str:
        """Write a comment."""
        return str(self._call("POST", f"{self._issues}/{self.number}/comments", body).get("html_url", ""))

    def update(self, comment: Existing, body: str) -> str:
        """Replace the text of a comment."""
        return str(self._call("PATCH", comment.address, body).get("html_url", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class GitLab:
    """A merge request on GitLab. https://docs.gitlab.com/api/notes/; the job token may not write notes."""

    api: str
    project: str
    number: int
    token: str
    commit: str
    log: str
    page: str

    @property
    def footer(self) -> str:
        """Commit and link to the log."""
        return _footer(self.commit, self.log)

    @property
    def _notes(self) -> str:
        return f"{self.api}/projects/{quote(self.project, safe='')}/merge_requests/{self.number}/notes"

    def _call(self, method: str, address: str, body: str | None = None) -> Any:
        return _call(method, address, {"PRIVATE-TOKEN": self.token}, self.token, TOKENS["gitlab"], body)

    def comments(self) -> Iterator[Existing]:
        """Yield the notes of the token's own user, oldest first."""
        me = self._call("GET", f"{self.api}/user").get("id")
        for page in range(1, _PAGES + 1):
            address = f"{self._notes}?sort=asc&order_by=created_at&per_page={_PER_PAGE}&page={page}"
            found = self._call("GET", address)
            for note in found:
                if _part(note, "author").get("id") == me and not note.get("system"):
                    yield Existing(
                        address=f"{self._notes}/{quote(str(note.get('id')), safe='')}", body=str(note.get("body") or "")
                    )
            if len(found) < _PER_PAGE:
                return

    def create(self, body: str) -> str:
        """Write a note."""
        return f"{self.page}#note_{self._call('POST', self._notes, _without_actions(body)).get('id')}"

    def update(self, comment: Existing, body: str) -> str:
        """Replace the text of a note."""
        return f"{self.page}#note_{self._call('PUT', comment.address, _without_actions(body)).get('id')}"


def _without_actions(body: str) -> str:
    """Return a text without quick actions, e.g. `/merge`, which GitLab would carry out for the owner of the token."""
    return re.sub(r"^(\s*)/", r"\1&#47;", body, flags=re.MULTILINE)


class _NoRedirects(HTTPRedirectHandler):
    """A redirect would send the token to another address."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """Return None, so that the answer itself is an HTTPError."""


def _call(method: str, address: str, headers: dict[str, str], token: str, variable: str, body: str | None) -> Any:
    """Return the JSON answer of a request.

    Raises:
        Refused: If there is no token, no connection, or the answer is not a success.
    """
    if not token:
        raise Refused(f"{variable} is not set")
    data = None if body is None else json.dumps({"body": body}).encode()
    request = Request(address, data=data, method=method, headers={**headers, "Content-Type": "application/json"})
    request.add_header("User-Agent", "perjoule")
    try:
        with build_opener(_NoRedirects).open(request, timeout=_TIMEOUT_S) as answer:
            parsed = json.loads(answer.read(_MOST_BYTES))
    except HTTPError as error:
        with error:
            raise Refused(f"HTTP {error.code}: {_message(error)}") from None
    except (URLError, HTTPException, OSError, ValueError) as error:
        raise Refused(f"{method} {urlsplit(address).netloc}: {one_line(first_line(error))}") from None
    listing = method == "GET" and "?" in address
    if not isinstance(parsed, list if listing else dict):
        raise Refused(f"{method} {urlsplit(address).netloc}: an unexpected answer")
    return [part if isinstance(part, dict) else {} for part in parsed] if listing else parsed


def _part(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return an object in a record; an empty one if there is none."""
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def _message(error: HTTPError) -> str:
    try:
        parsed = json.loads(error.read(_MOST_BYTES))
        return one_line(str(parsed["message"]))[:200]
    except (OSError, ValueError, KeyError, TypeError, HTTPException):
        return one_line(str(error.reason))[:200]


def _event(environment: Mapping[str, str]) -> dict[str, Any]:
    file = Path(_needed(environment, "GITHUB_EVENT_PATH"))
    try:
        event = read_json(file)
    except (OSError, ValueError, RunError) as error:
        raise UsageError(f"GITHUB_EVENT_PATH: {file} cannot be read: {first_line(error)}") from error
    if not isinstance(event, dict):
        raise UsageError(f"GITHUB_EVENT_PATH: {file} is not a JSON object")
    return event


def _needed(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name)
    if not value:
        raise UsageError(f"comment: {name} is not set: run it in a CI job, or set it")
    return value


def _address(environment: Mapping[str, str], name: str) -> str:
    value = _needed(environment, name).rstrip("/")
    if urlsplit(value).scheme not in ("https", "http"):
        raise UsageError(f"comment: {name} = {value!r}: must be an http address")
    return value


def _number(value: Any, what: str) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise UsageError(f"comment: {what} = {value!r}: must be a number") from None
    return number


def _footer(commit: str, log: str) -> str:
    words = [f"commit {commit[:12]}"] if commit.isalnum() else []
    if log.startswith(("https://", "http://")):
        words.append(f"[log]({quote(log, safe=':/%')})")
    return f"<sub>{', '.join(words)}</sub>" if words else ""
