"""The commit is read as git reads it, and nothing that the folder configures is executed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from perjoule.runs.commit import checked_out_commit, main_branch
from perjoule.runs.environment import describe
from perjoule.testing import SyntheticMeter, VirtualClock
from tests.perjoule.running.test_execute import make_suite

IDENTITY = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
CLEAN = (
    {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | IDENTITY | {"GIT_CONFIG_GLOBAL": "/dev/null"}
)


def git(*arguments: str, at: Path) -> str:
    done = subprocess.run(["git", *arguments], cwd=at, env=CLEAN, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def no_git_dir(monkeypatch):
    monkeypatch.delenv("GIT_DIR", raising=False)


def repository(folder: Path, *options: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    git("init", "-q", "-b", "main", *options, at=folder)
    (folder / "a").write_text("a")
    git("add", "a", at=folder)
    git("commit", "-q", "-m", "a", at=folder)
    return folder


@pytest.fixture
def repo(tmp_path):
    return repository(tmp_path / "repo")


def expected(folder: Path) -> str:
    return git("rev-parse", "HEAD", at=folder)[:12]


class TestAsGitReadsIt:
    def test_a_branch_and_a_folder_below(self, repo):
        (repo / "below").mkdir()
        assert checked_out_commit(repo) == checked_out_commit(repo / "below") == expected(repo)

    def test_packed_refs(self, repo):
        git("branch", "other", at=repo)
        git("pack-refs", "--all", at=repo)
        assert not (repo / ".git/refs/heads/main").exists()
        assert checked_out_commit(repo) == expected(repo)

    def test_a_loose_ref_is_newer_than_the_packed_one(self, repo):
        git("pack-refs", "--all", at=repo)
        git("commit", "-q", "--allow-empty", "-m", "b", at=repo)
        assert checked_out_commit(repo) == expected(repo)

    def test_detached(self, repo):
        git("checkout", "-q", "--detach", at=repo)
        assert checked_out_commit(repo) == expected(repo)

    def test_worktree(self, repo, tmp_path):
        git("worktree", "add", "-q", str(tmp_path / "tree"), "-b", "feature/x", at=repo)
        git("commit", "-q", "--allow-empty", "-m", "b", at=tmp_path / "tree")
        assert checked_out_commit(tmp_path / "tree") == expected(tmp_path / "tree") != expected(repo)
        git("pack-refs", "--all", at=repo)
        assert checked_out_commit(tmp_path / "tree") == expected(tmp_path / "tree")

    def test_submodule(self, repo, tmp_path):
        inner = repository(tmp_path / "inner")
        git("commit", "-q", "--allow-empty", "-m", "b", at=inner)
        git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "sub", at=repo)
        assert checked_out_commit(repo / "sub") == expected(inner)

    def test_symbolic_branch(self, repo):
        git("symbolic-ref", "refs/heads/alias", "refs/heads/main", at=repo)
        git("symbolic-ref", "HEAD", "refs/heads/alias", at=repo)
        assert checked_out_commit(repo) == expected(repo)

    def test_sha256_repository(self, tmp_path):
        folder = repository(tmp_path / "long", "--object-format=sha256")
        assert checked_out_commit(folder) == expected(folder)

    def test_git_dir_of_a_hook(self, repo, tmp_path, monkeypatch):
        monkeypatch.setenv("GIT_DIR", str(repo / ".git"))
        assert checked_out_commit(tmp_path) == expected(repo)

    def test_none_before_the_first_commit_and_outside(self, tmp_path):
        git("init", "-q", at=tmp_path)
        assert checked_out_commit(tmp_path) is None
        assert checked_out_commit(Path("/proc/self")) is None


def test_nothing_that_the_folder_configures_is_executed(repo, tmp_path, monkeypatch):
    """Each of these ran, or can run, under `git describe --dirty` or `git status`."""
    trap, sprung = tmp_path / "trap", tmp_path / "sprung"
    trap.write_text(f"#!/bin/sh\ntouch {sprung}\n")
    trap.chmod(0o755)
    (repo / ".gitattributes").write_text("* filter=evil diff=evil\n")
    git("add", ".", at=repo)
    git("commit", "-q", "-m", "b", at=repo)
    commit = expected(repo)
    for key in (
        "core.fsmonitor", "core.pager", "core.editor", "core.sshCommand", "core.hooksPath", "filter.evil.clean",
        "filter.evil.smudge", "filter.evil.process", "diff.evil.textconv", "diff.external", "alias.describe",
        "pager.describe", "credential.helper",
    ):  # fmt: skip
        git("config", key, str(trap), at=repo)
    (tmp_path / "more").write_text(f"[core]\n\tfsmonitor = {trap}\n")
    git("config", "include.path", str(tmp_path / "more"), at=repo)
    for hook in ("post-index-change", "fsmonitor-watchman", "post-checkout", "reference-transaction"):
        (repo / ".git/hooks").mkdir(exist_ok=True)
        (repo / ".git/hooks" / hook).symlink_to(trap)
    sprung.unlink(missing_ok=True)
    (repo / "a").write_text("changed")
    os.utime(repo / "a", (1, 1))
    monkeypatch.chdir(repo)
    # the trap works
    subprocess.run(["git", "status"], check=False, capture_output=True, env=CLEAN)
    assert sprung.exists()
    sprung.unlink()
    environment = describe(make_suite(), SyntheticMeter(40.0, VirtualClock()), {}, [])
    assert environment["commit"] == commit
    assert not sprung.exists()


@pytest.mark.parametrize(
    "head", ["ref: ../../secret", "ref: refs/../../../secret", "ref: refs/heads/link", "ref: /tmp/secret", "junk", ""]
)
def test_a_ref_that_leads_out_of_the_repository_tells_nothing(repo, tmp_path, head):
    """A file with forty hex digits may be a token."""
    (tmp_path / "secret").write_text("0123456789abcdef" * 2 + "01234567")
    (repo / ".git/refs/heads/link").symlink_to(tmp_path / "secret")
    (repo / ".git/HEAD").write_text(head)
    assert checked_out_commit(repo) is None


def test_a_circle_of_refs_ends(repo):
    (repo / ".git/refs/heads/main").write_text("ref: refs/heads/main\n")
    assert checked_out_commit(repo) is None


class TestMainBranch:
    def test_of_a_new_repository_it_is_the_branch_that_is_checked_out(self, tmp_path):
        git("init", "-q", "-b", "trunk", at=tmp_path)
        assert main_branch(tmp_path) == "trunk"

    @pytest.mark.parametrize("name", ["main", "master"])
    def test_it_is_main_or_master_on_any_branch(self, tmp_path, name):
        folder = repository(tmp_path)
        git("branch", "-m", name, at=folder)
        git("pack-refs", "--all", at=folder)
        git("switch", "-qc", "bring-perjoule", at=folder)
        assert main_branch(folder) == name

    def test_of_a_clone_it_is_the_default_of_the_remote(self, repo, tmp_path):
        git("switch", "-qc", "release/next", at=repo)
        git("clone", "-q", str(repo), str(tmp_path / "clone"), at=tmp_path)
        clone = tmp_path / "clone"
        git("switch", "-qc", "main", at=clone)
        assert git("rev-parse", "--abbrev-ref", "origin/HEAD", at=clone) == "origin/release/next"
        git("worktree", "add", "-q", str(tmp_path / "tree"), "-b", "feature", at=clone)
        assert main_branch(clone) == main_branch(tmp_path / "tree") == "release/next"

    def test_there_is_none_outside_a_repository_and_if_no_branch_is_checked_out(self, tmp_path):
        assert main_branch(tmp_path) is None
        folder = repository(tmp_path / "repo")
        git("branch", "-m", "trunk", at=folder)
        git("switch", "-q", "--detach", at=folder)
        git("branch", "-qD", "trunk", at=folder)
        assert main_branch(folder) is None
