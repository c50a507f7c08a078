"""The workflow that `perjoule init` writes, from an empty repository on: six pull requests, with seconds and joules.

    python -m tests.benchmarks.ci --out DIR [--install] [--limit 20] [--steps 4]

The steps of the workflow file are run as a runner does, in clean folders with a bare environment (see
tests/support/actions.py) and against an imitation of GitHub's interface of comments. With --install the step that
installs is real: this checkout is installed by pip into an environment of its own, which borrows all other packages.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import yaml

from perjoule.commands.scaffold import Ci, Runner, write_scaffold
from perjoule.runs.directory import load_run
from tests.support.actions import Job, git
from tests.support.forge_server import FakeForge, github_environment, serving

ROOT = Path(__file__).parents[2]
SUITE = "perjoule-ci.toml"
SECOND = """
[[variants]]
name = "draft"
model = "builtin:sd-tiny"
steps = [1]
guidance = 2.0
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A pull request: what it replaces in the suite, and the exit code and verdict that it must get."""

    name: str
    old: str = ""
    new: str = ""
    code: int
    verdict: str


def cases(steps: int) -> list[Case]:
    """The pull requests, after the baseline has been stored."""
    shipped = f"steps = [{steps}]\nguidance = 2.0"
    return [
        Case(name="unchanged", code=0, verdict="PASS"),
        Case(name="one more step", old=shipped, new=f"steps = [{steps + 1}]\nguidance = 2.0", code=1, verdict="FAIL"),
        Case(name="worse pictures", old=shipped, new=f"steps = [{steps}]\nguidance = 20.0", code=1, verdict="FAIL"),
        Case(name="guidance left out", old=shipped, new=f"steps = [{steps}]\nguidance = 1.0", code=1, verdict="FAIL"),
        Case(name="cell deleted", old=SECOND, new="", code=4, verdict="INVALID"),
    ]


class Repository:
    """A repository with `perjoule init` on a branch, and its pull requests."""

    def __init__(self, out: Path, forge: FakeForge, *, install: bool, limit: int, steps: int) -> None:
        self.out, self.forge, self.install = out, forge, install
        self.origin, self.cache, self.jobs = out / "origin", out / "cache", 0
        self.origin.mkdir(parents=True)
        self.cache.mkdir()
        git("init", "-q", "-b", "main", cwd=self.origin)
        git("commit", "-q", "--allow-empty", "-m", "Nothing yet", cwd=self.origin)
        git("switch", "-qc", "bring-perjoule", cwd=self.origin)
        write_scaffold(self.origin, Ci.github, Runner.cpu)
        self.edit("[protocol]", f"limit = {limit}\n\n[protocol]")
        self.edit("steps = [12]\nguidance = 2.0\n", f"steps = [{steps}]\nguidance = 2.0\n{SECOND}")
        workflow = yaml.safe_load((self.origin / ".github" / "workflows" / "perjoule.yml").read_text())
        self.steps, self.env = workflow["jobs"]["gate"]["steps"], workflow["env"]
        if install:
            self.env |= {"INSTALL": f"-q --no-deps --force-reinstall {ROOT}"}
        self.commit("Bring perjoule")

    def edit(self, old: str, new: str) -> None:
        """Replace a part of the suite."""
        file = self.origin / SUITE
        text = file.read_text()
        assert old in text, old
        file.write_text(text.replace(old, new))

    def commit(self, message: str) -> None:
        """Commit everything."""
        git("add", "-A", cwd=self.origin)
        git("commit", "-qm", message, "--allow-empty", cwd=self.origin)

    def run(self, name: str, branch: str, event: str = "pull_request") -> tuple[int, Job]:
        """Run the workflow and print a line."""
        self.jobs += 1
        variables = github_environment(self.forge, "")
        place = self.out / f"{self.jobs}-{name.replace(' ', '-')}"
        first = self.install and self.jobs == 1  # later jobs use its environment
        if first:
            own_python(self.out / "home")
        job = Job(self.origin, place, branch, event, self.cache, variables, install=first)
        code = job.run(self.steps, self.env | {"GITHUB_TOKEN": ""})
        windows = load_run(place / "runs" / "candidate").windows
        energy_j = float(windows["energy_j"].sum())
        seconds = ", ".join(f"{step.split()[0].rstrip(',').lower()} {spent:.0f} s" for step, spent, _ in job.steps)
        print(f"{name:18s} exit {code}  {energy_j:6.2f} J of {len(windows)} images  {seconds}", flush=True)
        return code, job


def own_python(home: Path) -> None:
    """Make an environment that borrows the packages of this one, so that only the checkout is to be installed."""
    subprocess.run([sys.executable, "-m", "venv", home / "venv"], check=True)
    (library,) = (home / "venv" / "lib").glob("python*/site-packages")
    (library / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    shims = home / "bin"
    shims.mkdir()
    for name in ("python", "perjoule"):  # not links: Python would look for its environment next to them
        (shims / name).write_text(f'#!/bin/sh\nexec "{home}/venv/bin/{name}" "$@"\n')
        (shims / name).chmod(0o755)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--steps", type=int, default=4)
    chosen = parser.parse_args()
    os.environ["no_proxy"] = "127.0.0.1"
    failures = []
    with serving(FakeForge()) as forge:
        repository = Repository(chosen.out, forge, install=chosen.install, limit=chosen.limit, steps=chosen.steps)
        code, job = repository.run("first", "bring-perjoule")
        if code or "NO BASELINE YET" not in forge.bodies()[0]:
            failures.append(f"first: exit {code}\n{job.said}")
        git("switch", "-q", "main", cwd=repository.origin)
        git("merge", "-q", "bring-perjoule", cwd=repository.origin)
        if repository.run("push to main", "main", event="push")[0]:
            failures.append("push to main")
        for case in cases(chosen.steps):
            forge.comments.clear()
            git("switch", "-q", "main", cwd=repository.origin)
            branch = case.name.replace(" ", "-")
            git("switch", "-qc", branch, cwd=repository.origin)
            if case.old:
                repository.edit(case.old, case.new)
            repository.commit(case.name)
            code, job = repository.run(case.name, branch)
            comment = forge.bodies()[0] if forge.comments else job.said
            print(*("    " + line for line in comment.splitlines() if line.startswith(("###", "- "))), sep="\n")
            if code != case.code or f"perjoule gate: {case.verdict}" not in comment:
                failures.append(f"{case.name}: exit {code}, not {case.code}\n{comment}")
    print("\n".join(failures) or "all as they must be")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
