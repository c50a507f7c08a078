"""The workflow that `perjoule init` writes, from an empty repository on: seconds and joules of seven jobs.

    python -m tests.benchmarks.ci --out DIR [--install] [--limit 20] [--steps 4] [--parallel 1]

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
from concurrent.futures import ThreadPoolExecutor
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

    @property
    def branch(self) -> str:
        """Its branch."""
        return self.name.replace(" ", "-")


def cases(steps: int) -> list[Case]:
    """The pull requests, after the baseline has been stored."""
    shipped = f"steps = [{steps}]\nguidance = 2.0"
    return [
        Case(name="unchanged", code=0, verdict="PASS"),
        Case(name="one more step", old=shipped, new=f"steps = [{steps + 1}]\nguidance = 2.0", code=1, verdict="FAIL"),
        Case(name="worse pictures", old=shipped, new=f"steps = [{steps}]\nguidance = 20.0", code=1, verdict="FAIL"),
        # cheaper, and slightly worse: within the margin that the suite leaves to its prompts
        Case(name="guidance left out", old=shipped, new=f"steps = [{steps}]\nguidance = 1.0", code=0, verdict="PASS"),
        Case(name="cell deleted", old=SECOND, new="", code=4, verdict="INVALID"),
    ]


class Repository:
    """A repository with `perjoule init` on a branch, and its pull requests."""

    def __init__(self, out: Path, *, limit: int, steps: int) -> None:
        self.out, self.origin, self.cache = out, out / "origin", out / "cache"
        self.origin.mkdir(parents=True)
        self.cache.mkdir()
        git("init", "-q", "-b", "main", cwd=self.origin)
        git("commit", "-q", "--allow-empty", "-m", "Nothing yet", cwd=self.origin)
        git("switch", "-qc", "first", cwd=self.origin)
        write_scaffold(self.origin, Ci.github, Runner.cpu)
        self.edit("[protocol]", f"limit = {limit}\n\n[protocol]")
        self.edit("steps = [12]\nguidance = 2.0\n", f"steps = [{steps}]\nguidance = 2.0\n{SECOND}")
        workflow = yaml.safe_load((self.origin / ".github" / "workflows" / "perjoule.yml").read_text())
        self.steps, self.env = workflow["jobs"]["gate"]["steps"], workflow["env"]
        self.commit("Bring perjoule")
        git("switch", "-q", "main", cwd=self.origin)
        git("merge", "-q", "first", cwd=self.origin)

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

    def branch(self, case: Case) -> None:
        """Make the branch of a pull request."""
        git("switch", "-qc", case.branch, "main", cwd=self.origin)
        if case.old:
            self.edit(case.old, case.new)
        self.commit(case.name)

    def install(self) -> None:
        """Run the step that installs, into an environment that all jobs use."""
        own_python(self.out / "home")
        job = Job(self.origin, self.out / "install", "main", "push", self.cache, {}, install=True)
        steps = [step for step in self.steps if "pip install" in step.get("run", "")]
        code = job.run(steps, {"INSTALL": f"-q --no-deps --force-reinstall {ROOT}"})
        print(f"{'install':18s} exit {code}  {_times(job)}", flush=True)
        assert code == 0, job.said

    def run(self, case: Case, event: str = "pull_request") -> str | None:
        """Run the workflow and print what came of it; return what is wrong with that."""
        with serving(FakeForge()) as forge:
            job = Job(
                self.origin, self.out / f"job-{case.branch}", case.branch, event, self.cache,
                github_environment(forge, ""),
            )  # fmt: skip
            code = job.run(self.steps, self.env | {"GITHUB_TOKEN": ""})
            comment = forge.bodies()[0] if forge.comments else ""
        windows = load_run(job.workspace / "runs" / "candidate").windows
        energy_j = float(windows["energy_j"].sum())
        lines = [f"{case.name:18s} exit {code}  {energy_j:6.2f} J of {len(windows)} images  {_times(job)}"]
        lines += [f"    {line}" for line in comment.splitlines() if line.startswith(("###", "- "))]
        print("\n".join(lines), flush=True)
        if code != case.code or (case.verdict and f"perjoule gate: {case.verdict}" not in comment):
            return f"{case.name}: exit {code}, not {case.code}\n{comment or job.said}"
        return None


def _times(job: Job) -> str:
    """Return seconds and CPU seconds of the job and of each step."""
    total, cpu_total = sum(s for _, s, _, _ in job.steps), sum(cpu for _, _, cpu, _ in job.steps)
    parts = ", ".join(
        f"{name.split()[0].rstrip(',').lower()} {s:.0f} s ({cpu:.1f} s CPU)" for name, s, cpu, _ in job.steps
    )
    return f"{total:.0f} s ({cpu_total:.1f} s CPU): {parts}"


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
    parser.add_argument("--parallel", type=int, default=1, help="jobs at a time")
    chosen = parser.parse_args()
    os.environ["no_proxy"] = "127.0.0.1"
    repository = Repository(chosen.out, limit=chosen.limit, steps=chosen.steps)
    pulls = cases(chosen.steps)
    for case in pulls:
        repository.branch(case)
    if chosen.install:
        repository.install()
    with ThreadPoolExecutor(chosen.parallel) as pool:
        first = pool.submit(repository.run, Case(name="first", code=0, verdict="NO BASELINE YET"))
        push = pool.submit(repository.run, Case(name="main", code=0, verdict=""), "push")
        # the first one has looked for a baseline before there is one
        results = [first.result(), push.result(), *pool.map(repository.run, pulls)]
    failures = [failure for failure in results if failure]
    print("\n".join(failures) or "all as they must be")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
