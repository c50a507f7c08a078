"""One comment per pull request, against a server that imitates GitHub and GitLab."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.perjoule.test_cli import call
from tests.support.forge_server import BOT, ME, FakeForge, github_environment, gitlab_environment, serving

from perjoule.commands.forge import GitHub, post
from perjoule.gating.render import COMMENT_BYTES

MARKER = "<!-- perjoule:gate -->"


@pytest.fixture
def forge() -> Iterator[FakeForge]:
    with serving(FakeForge()) as served:
        yield served


class Job:
    """A job in whose environment `perjoule comment` runs."""

    def __init__(self, folder: Path, forge: FakeForge, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
        self.folder, self.forge, self._patch, self._capsys = folder, forge, monkeypatch, capsys
        self.file, self.event, self.summary = folder / "gate.md", folder / "event.json", folder / "summary.md"
        self.file.write_text("### PASS\n")
        self.event.write_text(json.dumps({"pull_request": {"number": 5, "head": {"sha": "fedcba9876543210"}}}))

    def of(self, kind: str, **more: str) -> Job:
        for name in ("GITHUB_ACTIONS", "GITLAB_CI"):
            self._patch.delenv(name, raising=False)
        make = {"github": lambda: github_environment(self.forge, str(self.event), **more),
                "gitlab": lambda: gitlab_environment(self.forge, **more)}[kind]  # fmt: skip
        for name, value in (make() | {"GITHUB_STEP_SUMMARY": str(self.summary)}).items():
            self._patch.setenv(name, value)
        return self

    def comment(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        found, out, err = call("comment", str(self.file), "--json", *arguments, capsys=self._capsys)
        assert found == code, (out, err)
        return json.loads(out)


@pytest.fixture
def job(tmp_path: Path, forge: FakeForge, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Job:
    return Job(tmp_path, forge, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("kind", "commit", "log", "url"),
    [
        ("github", "fedcba987654", "https://forge/me/mine/actions/runs/33", "https://forge/c/100"),
        ("gitlab", "0123456789ab", "https://forge/jobs/3", "https://forge/me/mine/-/merge_requests/5#note_100"),
    ],
)
def test_a_comment_is_created_once_and_then_updated(job: Job, kind: str, commit: str, log: str, url: str) -> None:
    assert job.of(kind).comment() == {"schema": 1, "outcome": "created", "url": url, "reason": None}
    assert job.forge.bodies() == [f"{MARKER}\n### PASS\n\n<sub>commit {commit}, [log]({log})</sub>\n"]
    job.file.write_text("### FAIL\n")
    assert job.comment() == {"schema": 1, "outcome": "updated", "url": url, "reason": None}
    (body,) = job.forge.bodies()
    assert "### FAIL" in body
    assert "PASS" not in body


@pytest.mark.parametrize("kind", ["github", "gitlab"])
def test_suites_have_comments_of_their_own(job: Job, kind: str) -> None:
    job.of(kind).comment("--key", "fast")
    job.comment("--key", "slow")
    assert job.comment("--key", "fast")["outcome"] == "updated"
    assert [body.split("\n")[0] for body in job.forge.bodies()] == [
        "<!-- perjoule:fast -->", "<!-- perjoule:slow -->",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["github", "gitlab"])
def test_the_comment_is_found_behind_many_others(job: Job, kind: str) -> None:
    others = [{"id": n, "body": "words", "user": BOT, "author": {"id": ME}} for n in range(250)]
    job.forge.comments += [{**o, "html_url": ""} for o in others]
    job.of(kind).comment()
    assert job.comment()["outcome"] == "updated"
    assert len(job.forge.comments) == 251


def test_comments_of_strangers_are_left_alone(job: Job) -> None:
    """Whoever plants the marker would own the comment, and could edit the verdict."""
    stranger = {"login": "eve", "type": "User"}
    planted = {"id": 1, "body": f"{MARKER}\nPASS", "user": stranger, "author_association": "CONTRIBUTOR"}
    quoted = {"id": 2, "body": f"> {MARKER}\n> PASS", "user": BOT, "author_association": "NONE"}
    job.forge.comments += [planted, quoted]
    assert job.of("github").comment()["outcome"] == "created"
    assert job.forge.bodies()[:2] == [planted["body"], quoted["body"]]
    member = {"id": 3, "body": f"{MARKER}\nold", "user": stranger, "author_association": "MEMBER"}
    job.forge.comments[:] = [member]  # written with a personal token
    assert job.comment()["outcome"] == "updated"


def test_notes_of_others_are_left_alone(job: Job) -> None:
    job.forge.comments.append({"id": 1, "body": f"{MARKER}\nPASS", "author": {"id": ME + 1}})
    assert job.of("gitlab").comment()["outcome"] == "created"
    assert job.forge.bodies()[0] == f"{MARKER}\nPASS"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("github", "HTTP 403: Resource not accessible by integration"), ("gitlab", "HTTP 403: 403 Forbidden")],
)
def test_without_permission_the_summary_says_so_and_nothing_fails(job: Job, kind: str, reason: str) -> None:
    job.forge.writable = False
    assert job.of(kind).comment() == {"schema": 1, "outcome": "none", "url": None, "reason": reason}
    assert job.forge.comments == []
    assert job.summary.read_text() == f"\n_There is no comment on the pull request: {reason}._\n"


@pytest.mark.parametrize(("kind", "name"), [("github", "GITHUB_TOKEN"), ("gitlab", "PERJOULE_GITLAB_TOKEN")])
def test_without_a_token_nothing_is_asked(job: Job, kind: str, name: str) -> None:
    assert job.of(kind, **{name: ""}).comment()["reason"] == f"{name} is not set"
    assert job.forge.requests == []


def test_a_wrong_token_is_a_reason(job: Job) -> None:
    found = job.of("github", GITHUB_TOKEN="another").comment()
    assert found["reason"] == "HTTP 401: Bad credentials"
    assert "another" not in json.dumps(found)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ((502, b"<html>"), "HTTP 502: Bad Gateway"), ((200, b"not json"), "GET 127.0.0.1:"),
        ((200, b'{"a": 1}'), "an unexpected answer"), ((302, b"{}"), "HTTP 302"), ((403, b"[]"), "HTTP 403: Forbidden"),
    ],
)  # fmt: skip
def test_a_broken_server_does_not_fail_the_job(job: Job, broken: tuple[int, bytes], reason: str) -> None:
    job.forge.broken = broken
    found = job.of("github").comment()
    assert found["outcome"] == "none"
    assert reason in found["reason"]
    assert len(job.forge.requests) == 1  # a redirect would get the token


@pytest.mark.parametrize("kind", ["github", "gitlab"])
def test_comments_of_other_forms_are_skipped(job: Job, kind: str) -> None:
    forms: list[Any] = [
        1, None, {}, {"user": "x", "author": [ME], "body": None}, {"user": {"type": "Bot"}, "author": {"id": ME}},
    ]  # fmt: skip
    job.forge.comments += forms
    assert job.of(kind).comment()["outcome"] == "created"


def test_no_server_does_not_fail_the_job(job: Job) -> None:
    assert job.of("github", GITHUB_API_URL="http://127.0.0.1:9").comment()["outcome"] == "none"


def test_a_push_has_no_pull_request(job: Job) -> None:
    job.event.write_text(json.dumps({"ref": "refs/heads/main"}))
    assert job.of("github").comment()["reason"] == "this job is not about a pull request"
    assert job.of("gitlab", CI_MERGE_REQUEST_IID="").comment()["reason"] == "this job is not about a pull request"
    assert job.forge.requests == []


def test_an_old_verdict_does_not_stay_if_there_is_no_new_one(job: Job) -> None:
    job.of("github").comment()
    job.file.unlink()
    job.comment()
    (body,) = job.forge.bodies()
    assert "NO VERDICT" in body
    assert "PASS" not in body


def test_a_note_carries_out_no_quick_actions(job: Job) -> None:
    job.file.write_text("### PASS\n/merge\n  /close and a/b\n")
    job.of("gitlab").comment()
    assert "\n&#47;merge\n  &#47;close and a/b\n" in job.forge.bodies()[0]


def test_a_long_text_is_cut(job: Job) -> None:
    job.file.write_text("ä" * COMMENT_BYTES)
    job.of("github").comment()
    (body,) = job.forge.bodies()
    assert COMMENT_BYTES < len(body.encode()) < 65_000
    assert body.endswith("</sub>\n")


@pytest.mark.parametrize(
    ("event", "variables", "words"),
    [
        ("", {}, "cannot be read"), ("[]", {}, "is not a JSON object"),
        ('{"pull_request": {"number": "x", "head": 1}}', {}, "pull_request.number = 'x': must be a number"),
        (None, {"GITHUB_API_URL": "file:///etc"}, "must be an http address"),
        (None, {"GITHUB_REPOSITORY": ""}, "GITHUB_REPOSITORY is not set"),
    ],
)  # fmt: skip
def test_damaged_variables_are_named(job: Job, event: str | None, variables: dict[str, str], words: str) -> None:
    if event is not None:
        job.event.write_text(event)
    assert words in job.of("github", **variables).comment(code=2)["error"]["message"]


def test_outside_of_ci_it_is_a_usage_error(job: Job) -> None:
    found = job.of("github", GITHUB_ACTIONS="").comment(code=2)
    assert "neither GITHUB_ACTIONS nor GITLAB_CI" in found["error"]["message"]
    assert "at most 64 letters" in job.of("github").comment("--key", "a -->", code=2)["error"]["message"]


def test_a_log_address_cannot_leave_its_link() -> None:
    hostile = GitHub(api="", repository="a/b", number=1, token="", commit="a<b>", log="https://x/)<script>")
    assert hostile.footer == "<sub>[log](https://x/%29%3Cscript%3E)</sub>"
    assert post(hostile, "text", "gate").reason == "GITHUB_TOKEN is not set"
