"""What `perjoule init` writes: two suites with their prompts, a CI workflow, a pytest example, lines of .gitignore."""

from __future__ import annotations

import json
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perjoule.commands.records import Scaffold


class Ci(StrEnum):
    """The CI system."""

    github = "github"
    gitlab = "gitlab"


class Runner(StrEnum):
    """The machine of the CI jobs: `cpu` counts work and stores baselines, `gpu` measures both sides in one job."""

    cpu = "cpu"
    gpu = "gpu"


_ALWAYS = {
    "perjoule.toml": "perjoule.toml",
    "perjoule-ci.toml": "ci-suite.toml",
    "perjoule-prompts.txt": "prompts.txt",
    "tests/test_energy.py": "example.py.txt",
}
GITHUB = ".github/workflows/perjoule.yml"
GITLAB = ".gitlab-ci.yml"
GITIGNORE = ".gitignore"
# what runs and gates write
_IGNORED = ("/runs/", "/gate.md", "/gate.xml")
_PUSHED = "branches: [main]"  # in the template: what stores the baseline
_MAIN = "main"


def scaffold_files(ci: Ci, runner: Runner) -> dict[str, str]:
    """Return the files to be written -> the files of this package."""
    if ci is Ci.github:
        return {**_ALWAYS, GITHUB: f"github-{runner}.yml"}
    return {**_ALWAYS, ".gitlab/perjoule.yml": f"gitlab-{runner}.yml", GITLAB: "gitlab-include.yml"}


def likely_ci(folder: Path) -> Ci:
    """Return the CI system that a repository uses; GitHub Actions if there is no sign of another."""
    return Ci.gitlab if (folder / GITLAB).exists() or (folder / ".gitlab").is_dir() else Ci.github


def write_scaffold(folder: Path, ci: Ci | None = None, runner: Runner = Runner.cpu) -> Scaffold:
    """Write the files that do not exist yet; without `ci` those of the likely CI system. Extend .gitignore.

    Raises:
        RunError: If a folder in it is a link; nothing is written.
    """
    from perjoule.commands.records import Scaffold
    from perjoule.files import write_text
    from perjoule.opening import require_no_links
    from perjoule.runs.commit import main_branch

    chosen = ci or likely_ci(folder)
    branch = main_branch(folder) or _MAIN
    written, existing = [], []
    for target in scaffold_files(chosen, runner):
        require_no_links((folder / target).parent, folder)
    for target, source in scaffold_files(chosen, runner).items():
        file = folder / target
        if file.exists() or file.is_symlink():
            existing.append(file)
            continue
        text = (files("perjoule.commands.scaffold") / source).read_text(encoding="utf-8")
        if branch != _MAIN:
            text = text.replace(_PUSHED, f"branches: [{json.dumps(branch)}]")
        write_text(file, text)
        written.append(file)
    ignored = folder / GITIGNORE
    lines = _missing_lines(ignored)
    can_write = bool(lines) and not ignored.is_symlink()
    if can_write:
        _append(ignored, lines)
    (written if can_write else existing).append(ignored)
    return Scaffold(
        written=tuple(written),
        kept=tuple(existing),
        next=tuple(_next_steps(folder, chosen, runner, existing, branch, lines)),
    )


def _missing_lines(file: Path) -> list[str]:
    """Return what .gitignore does not list yet, in any of the usual spellings, e.g. `runs` or `/runs/*`."""
    listed = {line.strip().strip("/*") for line in _content(file).decode(errors="replace").splitlines()}
    return [line for line in _IGNORED if line.strip("/") not in listed]


def _append(file: Path, lines: list[str]) -> None:
    """Add lines to a file, whose content stays as it is, byte by byte."""
    from perjoule.files import write_bytes

    content = _content(file)
    end = b"\n" if content and not content.endswith(b"\n") else b""
    write_bytes(file, content + end + "".join(f"{line}\n" for line in lines).encode())


def _content(file: Path) -> bytes:
    from perjoule.opening import content_of

    return content_of(file, follow=True) if file.exists() else b""


def _next_steps(
    folder: Path, ci: Ci, runner: Runner, existing: list[Path], branch: str, ignored: list[str]
) -> list[str]:
    """Return what is to be done before the first pull request, in order."""
    steps = ["perjoule plan perjoule.toml; perjoule run perjoule.toml --out runs/first"]
    steps.append("perjoule-ci.toml: put in what you ship, e.g. your model and its step count")
    if ignored:
        done = folder / GITIGNORE not in existing
        steps.append(
            f"{GITIGNORE}: {'added' if done else 'it is a link: add'} {', '.join(ignored)}, the output of runs"
        )
    if ci is Ci.gitlab and folder / GITLAB in existing:
        steps.append(f"{GITLAB}: add `include: [{{local: .gitlab/perjoule.yml}}]`, if it is not there")
    if ci is Ci.gitlab:
        steps.append("GitLab: add the masked variable PERJOULE_GITLAB_TOKEN (scope api), for comments")
    if ci is Ci.github and runner is Runner.cpu and folder / GITHUB not in existing:
        steps.append(
            f"pushes to the branch {branch} store the baseline: if that is not your main branch, change `branches` in "
            f"{GITHUB}"
        )
    if runner is Runner.gpu:
        steps.append("set the labels of your runner with a GPU in the workflow")
    place = "merge" if ci is Ci.gitlab else "pull"
    steps.append(f"git add the files, and open a {place} request: its gate is neutral; later ones are judged")
    return steps
