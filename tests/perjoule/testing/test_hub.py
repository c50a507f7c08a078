from __future__ import annotations

import hashlib
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from perjoule.testing import HubMirror

WEIGHTS = bytes(range(256)) * 40


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[HubMirror]:
    for name in ("org/open", "org/gated"):
        (tmp_path / name / "unet").mkdir(parents=True)
        (tmp_path / name / "unet" / "model.safetensors").write_bytes(WEIGHTS)
        (tmp_path / name / "config.json").write_text("{}")
    with HubMirror(tmp_path, gated={"org/gated"}, commits={"org/gated": "a" * 40}) as server:
        yield server


def ask(mirror: HubMirror, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(mirror.url + path, headers=headers, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def test_information_lists_the_files_of_the_one_commit(mirror: HubMirror) -> None:
    status, _, body = ask(mirror, "/api/models/org/open")
    found = json.loads(body)
    assert status == 200
    assert found["sha"] == mirror.commit("org/open")
    assert len(found["sha"]) == 40
    assert {file["rfilename"] for file in found["siblings"]} == {"config.json", "unet/model.safetensors"}
    assert json.loads(ask(mirror, "/api/models/org/gated/revision/main")[2])["sha"] == "a" * 40
    tree = json.loads(ask(mirror, f"/api/models/org/open/tree/{found['sha']}")[2])
    assert {file["path"]: file["size"] for file in tree} == {"config.json": 2, "unet/model.safetensors": len(WEIGHTS)}


def test_a_large_file_has_its_sha256_for_a_tag_and_comes_in_ranges(mirror: HubMirror) -> None:
    path = "/org/open/resolve/main/unet/model.safetensors"
    status, headers, body = ask(mirror, path, "HEAD")
    assert (status, body) == (200, b"")
    assert headers["X-Linked-Etag"] == f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
    assert headers["X-Linked-Size"] == headers["Content-Length"] == str(len(WEIGHTS))
    assert headers["X-Repo-Commit"] == mirror.commit("org/open")
    assert ask(mirror, path)[2] == WEIGHTS
    status, headers, body = ask(mirror, path, Range="bytes=1000-")
    assert (status, body) == (206, WEIGHTS[1000:])
    assert headers["Content-Range"] == f"bytes 1000-{len(WEIGHTS) - 1}/{len(WEIGHTS)}"
    assert mirror.requests[-1].range == 1000


def test_a_small_file_has_the_tag_that_git_gives_it(mirror: HubMirror) -> None:
    _, headers, _ = ask(mirror, "/org/open/resolve/main/config.json", "HEAD")
    assert headers["ETag"] == f'"{hashlib.sha1(b"blob 2" + bytes(1) + b"{}").hexdigest()}"'


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/models/org/none", 401, "RepoNotFound"),
        ("/api/models/org/open/revision/other", 404, "RevisionNotFound"),
        ("/org/open/resolve/main/none.json", 404, "EntryNotFound"),
        ("/org/gated/resolve/main/config.json", 401, "GatedRepo"),
        ("/elsewhere", 404, "EntryNotFound"),
    ],
)
def test_faults_have_the_codes_of_the_hub(mirror: HubMirror, path: str, status: int, code: str) -> None:
    found, headers, _ = ask(mirror, path)
    assert (found, headers["X-Error-Code"]) == (status, code)


def test_a_token_opens_what_is_gated(mirror: HubMirror) -> None:
    path = "/org/gated/resolve/main/config.json"
    assert ask(mirror, path, Authorization="Bearer hf_other")[0] == 403
    assert ask(mirror, path, Authorization=f"Bearer {mirror.token}")[2] == b"{}"


def test_files_break_on_demand(mirror: HubMirror) -> None:
    key, path = "org/open/unet/model.safetensors", "/org/open/resolve/main/unet/model.safetensors"
    mirror.faults.false.add(key)
    falsified = ask(mirror, path)[2]
    assert len(falsified) == len(WEIGHTS)
    assert falsified != WEIGHTS
    mirror.faults.false.clear()
    mirror.faults.cut[key] = 100
    with pytest.raises(http.client.IncompleteRead):
        ask(mirror, path)
    assert ask(mirror, path)[2] == WEIGHTS  # once
    mirror.faults.lost.add(key)
    assert ask(mirror, path)[0] == 404
