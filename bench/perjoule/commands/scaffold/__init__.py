"""What `perjoule init` writes: two suites with their prompts, a CI workflow, a pytest example."""

from __future__ import annotations

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
GITLAB = ".gitlab-ci.yml"


def scaffold_files(ci: Ci, runner: Runner) -> dict[str, str]:
    """Return the files to be written -> the files of this package."""
    if ci is Ci.github:
        return {**_ALWAYS, ".github/workflows/perjoule.yml": f"github-{runner}.yml"}
    return {**_ALWAYS, ".gitlab/perjoule.yml": f"gitlab-{runner}.yml", GITLAB: "gitlab-include.yml"}


def likely_ci(folder: Path) -> Ci:
    """Return the CI system that a repository uses; GitHub Actions if there is no sign of another."""
    return Ci.gitlab if (folder / GITLAB).exists() or (folder / ".gitlab").is_dir() else Ci.github


def write_scaffold(folder: Path, ci: Ci | None = None, runner: Runner = Runner.cpu) -> Scaffold:
    """Write the files that do not exist yet; without `ci` those of the likely CI system.

    Raises:
        RunError: If a folder in it is a link; nothing is written.
    """
    from perjoule.commands.records import Scaffold
    from perjoule.files import write_text
    from perjoule.opening import require_no_links

    chosen = ci or likely_ci(folder)
    written, existing = [], []
    for target in scaffold_files(chosen, runner):
        require_no_links((folder / target).parent, folder)
    for target, source in scaffold_files(chosen, runner).items():
        file = folder / target
        if file.exists() or file.is_symlink():
            existing.append(file)
            continue
        write_text(file, (files("perjoule.commands.scaffold") / source).read_text(encoding="utf-8"))
        written.append(file)
    return Scaffold(
        written=tuple(written), kept=tuple(existing), next=tuple(_next_steps(folder, chosen, runner, existing))
    )


def _next_steps(folder: Path, ci: Ci, runner: Runner, existing: list[Path]) -> list[str]:
    """Return what is to be done before the first pull request, in order."""
    steps = ["perjoule plan perjoule.toml; perjoule run perjoule.toml --out runs/first"]
    steps.append("perjoule-ci.toml: put in what you ship, e.g. your model and its step count")
    if ci is Ci.gitlab and folder / GITLAB in existing:
        steps.append(f"{GITLAB}: add `include: [{{local: .gitlab/perjoule.yml}}]`, if it is not there")
    if ci is Ci.gitlab:
        steps.append("GitLab: add the masked variable PERJOULE_GITLAB_TOKEN (scope api), for comments")
    if runner is Runner.gpu:
        steps.append("set the labels of your runner with a GPU in the workflow")
    place = "merge" if ci is Ci.gitlab else "pull"
    steps.append(f"git add the files, and open a {place} request: its gate is neutral; later ones are judged")
    return steps
