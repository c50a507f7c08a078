"""The commit and the main branch of a folder, read from git's files.

Git itself is not run: in a folder that somebody else wrote, `git status` and `git describe --dirty` execute programs
that its configuration names (core.fsmonitor, filters, hooks). Reading HEAD executes nothing, but does not show changed
files.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from perjoule.errors import RunError
from perjoule.opening import open_inside

_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # SHA-1 and SHA-256 repositories
_REF = re.compile(r"ref: (refs/[^\0\n]+)")
_BRANCH = re.compile(r"ref: refs/(?:heads|remotes/origin)/(?!\.)([^\0\n]+)")  # reftables have ".invalid"
_USUAL = ("main", "master")
_DIGITS = 12
_MOST_BYTES = 2**24  # limit for packed-refs
_MOST_LINKS = 5  # symbolic refs that name each other, as git allows


def checked_out_commit(folder: Path) -> str | None:
    """Return the first twelve digits of the commit that is checked out in a folder.

    Returns:
        None outside a repository, before the first commit, and for refs in a format other than files (reftable).
    """
    try:
        git = _git_folder(folder.resolve())
        return None if git is None else _commit_of_head(git)
    except (OSError, RunError, ValueError):
        return None


def main_branch(folder: Path) -> str | None:
    """Return the branch that a folder's repository merges into.

    It is the default branch of the remote `origin`, else `main` or `master` if there is such a branch, else the branch
    that is checked out.

    Returns:
        None outside a repository, and if no branch is checked out.
    """
    try:
        git = _git_folder(folder.resolve())
        if git is None:
            return None
        shared = _shared(git)
        if default := _branch(shared, "refs/remotes/origin/HEAD"):
            return default
        usual = (
            name for name in _USUAL for kind in ("remotes/origin", "heads") if _exists(shared, f"refs/{kind}/{name}")
        )
        return next(usual, None) or _branch(git, "HEAD")
    except (OSError, RunError, ValueError):
        return None


def _branch(git: Path, ref: str) -> str | None:
    try:
        match = _BRANCH.fullmatch(_read(git, ref).strip())
    except OSError:
        return None
    return match[1] if match else None


def _exists(git: Path, ref: str) -> bool:
    try:
        return bool(_hash_of_ref(git, ref))
    except OSError:
        return False


def _shared(git: Path) -> Path:
    """Return the folder with the branches, which a worktree shares with its repository."""
    return git / _read(git, "commondir").strip() if (git / "commondir").is_file() else git


def _git_folder(folder: Path) -> Path | None:
    """Return the folder with HEAD: `.git`, or the one that a `.git` file of a worktree or submodule names."""
    if git_dir := os.environ.get("GIT_DIR"):  # set for hooks
        return Path(git_dir)
    for place in (folder, *folder.parents):
        git = place / ".git"
        if git.is_dir():
            return git
        if git.is_file():
            return place / _read(place, ".git").removeprefix("gitdir:").strip()
    return None


def _commit_of_head(git: Path) -> str | None:
    shared = _shared(git)
    text = _read(git, "HEAD").strip()  # a worktree has its own
    for _ in range(_MOST_LINKS):
        if _HASH.fullmatch(text):
            return text[:_DIGITS]
        match = _REF.fullmatch(text)
        if match is None:
            return None
        text = _hash_of_ref(shared, match[1])
    return None


def _hash_of_ref(git: Path, ref: str) -> str:
    try:
        return _read(git, ref).strip()
    except OSError:
        lines = (line.split(" ", 1) for line in _read(git, "packed-refs").splitlines())
        return next((line[0] for line in lines if line[1:] == [ref]), "")


def _read(folder: Path, name: str) -> str:
    with open_inside(folder, name) as file:
        return file.read(_MOST_BYTES).decode("utf-8", "surrogateescape")
