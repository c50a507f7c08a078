"""Runs the jobs of workflow files of GitHub Actions and GitLab CI on this machine, step by step, with bash.

Real: the scripts, their environment variables, `if`, the order, the exit codes, shallow clones. Imitated: checkout (a
clone of depth 1), the cache and artifacts (folders). Not done: the set-up of Python, and the installation of packages,
unless `install` is given; otherwise `perjoule` and `python` on the path are those of this process.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

COMMAND = f"exec {sys.executable} -c 'from perjoule.cli import main; raise SystemExit(main())' \"$@\"\n"
_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
_TOKEN = re.compile(r"'[^']*'|&&|\|\||==|!=|!|[()]|,|[A-Za-z_][\w.-]*|\s+")


def sources() -> str:
    """The Python path of this process's perjoule."""
    ours = ("perjoule", "perjoule_suites", "perjoule_reports")
    paths = dict.fromkeys(str(Path(importlib.import_module(name).__path__[0]).parent) for name in ours)
    return os.pathsep.join(paths)


def bare_environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of a fresh machine: a path with `perjoule` and `python`, a home, one thread.

    They are those of this process, unless the home has others.
    """
    shims = home / "bin"
    path = os.pathsep.join([str(shims), "/usr/local/bin", "/usr/bin", "/bin"])
    bare = {
        "PATH": path, "HOME": str(home), "LANG": "C.UTF-8", "CI": "true", "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1", **more,
    }  # fmt: skip
    if (home / "venv").exists():
        return bare
    shims.mkdir(parents=True, exist_ok=True)
    for name, text in (("perjoule", COMMAND), ("python", f'exec {sys.executable} "$@"\n')):
        (shims / name).write_text(f"#!/bin/sh\n{text}")
        (shims / name).chmod(0o755)
    return bare | {"PYTHONPATH": sources()}


def git(*arguments: str, cwd: Path) -> str:
    """Run git as somebody, with no settings of this machine."""
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    command = ["git", *who, *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout.strip()


@dataclass
class Job:
    """One job of a workflow.

    Attributes:
        origin: The repository.
        workspace: Folder of the job: empty, or as an earlier job on the same runner left it.
        branch: What is checked out.
        event: `pull_request` or `push`.
        cache: Folder of the caches of the repository.
        variables: Environment variables of the runner, e.g. the address of the forge.
        install: Whether steps that install packages are run.
        inputs: Inputs of an action or a reusable workflow.
        said: What the steps printed.
        steps: (name, seconds, CPU seconds, exit code) of each script.
        artifacts: Files that were uploaded.
    """

    origin: Path
    workspace: Path
    branch: str
    event: str
    cache: Path
    variables: dict[str, str]
    base: str = "main"
    install: bool = False
    inputs: dict[str, str] = field(default_factory=dict)
    said: str = ""
    steps: list[tuple[str, float, float, int]] = field(default_factory=list)
    artifacts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.workspace.mkdir(parents=True, exist_ok=True)
        self.file = self.workspace.parent / f"{self.workspace.name}-event.json"
        self.summary = self.workspace.parent / f"{self.workspace.name}-summary.md"
        self.summary.unlink(missing_ok=True)
        sha = git("rev-parse", self.branch, cwd=self.origin)
        base_sha = git("rev-parse", self.base, cwd=self.origin)
        pull = {"number": 5, "head": {"sha": sha}, "base": {"sha": base_sha}}
        event = {"pull_request": pull} if self.event == "pull_request" else {"ref": f"refs/heads/{self.branch}"}
        self.file.write_text(json.dumps(event))
        self._context = {
            "github.event_name": self.event, "github.sha": sha, "github.base_ref": self.base,
            "github.event.pull_request.base.sha": base_sha, "github.ref": f"refs/heads/{self.branch}",
            "github.token": self.variables.get("GITHUB_TOKEN", ""),
            **{f"inputs.{name}": value for name, value in self.inputs.items()},
        }  # fmt: skip

    def run(self, steps: list[dict[str, Any]], env: dict[str, str] | None = None) -> int:
        """Run the steps of a job; return the exit code of the first that failed, or 0."""
        failed = 0
        for step in steps:
            if not self._wanted(step, failed):
                continue
            if "run" in step:
                if "pip install" in step["run"] and not self.install:
                    self._provide(step["run"])
                    continue
                code = self._script(step, env or {})
                failed = failed or code
            else:
                self._use(step["uses"].partition("@")[0], step.get("with", {}))
        return failed

    def _wanted(self, step: dict[str, Any], failed: int) -> bool:
        condition = step.get("if", "")
        return bool(self.value(condition or "success()")) and (not failed or "always()" in condition)

    def value(self, expression: str) -> Any:
        """The value of an expression of the few kinds that our workflows have."""
        words = {"&&": " and ", "||": " or ", "!": " not ", "always": "always", "success": "always"}
        parts = []
        for token in _TOKEN.findall(expression):
            if token in words or token in ("==", "!=", "(", ")", ",", "hashFiles") or token[0] in "' ":
                parts.append(words.get(token, token))
            else:
                parts.append(repr(self._context[token]))
        assert "".join(_TOKEN.findall(expression)) == expression, expression
        known = {"always": lambda: True, "hashFiles": self._hash, "__builtins__": {}}
        return eval("".join(parts), known)

    def _hash(self, pattern: str) -> str:
        return "x" if any(path.is_file() for path in self.workspace.glob(pattern + "/*")) else ""

    def text(self, text: str) -> str:
        """The text with its expressions replaced."""
        return _EXPRESSION.sub(lambda found: str(self.value(found[1])), text)

    def _script(self, step: dict[str, Any], env: dict[str, str]) -> int:
        assert "${{" not in step["run"], "an expression in a script is an injection"
        own = {name: self.text(value) for name, value in {**env, **step.get("env", {})}.items()}
        plain = {name: value for name, value in self.variables.items() if name != "GITHUB_TOKEN"}
        environment = bare_environment(self.workspace.parent / "home", GITHUB_STEP_SUMMARY=str(self.summary))
        started = time.monotonic()
        with TemporaryFile() as output:
            process = subprocess.Popen(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
                cwd=self.workspace, env=environment | plain | {"GITHUB_EVENT_PATH": str(self.file)} | own,
                stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            output.seek(0)
            self.said += output.read().decode()
        cpu_s = usage.ru_utime + usage.ru_stime
        self.steps.append((step.get("name", ""), time.monotonic() - started, cpu_s, process.returncode))
        return process.returncode

    def _provide(self, script: str) -> None:
        """Put the command where an installation into environments of their own would."""
        if "env-$side" in script:
            for side in ("base", "head"):
                command = self.workspace / f"env-{side}" / "bin" / "perjoule"
                command.parent.mkdir(parents=True, exist_ok=True)
                command.write_text(f"#!/bin/sh\n{COMMAND}")
                command.chmod(0o755)

    def _use(self, action: str, options: dict[str, Any]) -> None:
        if action == "actions/checkout":
            target = self.workspace / options.get("path", ".")
            ref = self.text(options.get("ref", self.branch))
            if target.exists():  # as on a runner that is kept: only this folder is cleaned
                shutil.rmtree(target)
            git("clone", "-q", "--depth", "1", "--branch", ref, f"file://{self.origin}", str(target), cwd=self.origin)
        elif action == "actions/cache/restore":
            prefixes = [self.text(options["key"]), self.text(options["restore-keys"])]
            for prefix in prefixes:
                newest = sorted(self.cache.glob(f"{prefix}*"), key=lambda path: path.stat().st_mtime_ns)
                if newest:
                    shutil.copytree(newest[-1], self.workspace / options["path"])
                    return
        elif action == "actions/cache/save":
            shutil.copytree(self.workspace / options["path"], self.cache / self.text(options["key"]))
        elif action == "actions/upload-artifact":
            for pattern in options["path"].split():
                self.artifacts += [str(p.relative_to(self.workspace)) for p in sorted(self.workspace.glob(pattern))]
        else:
            assert action == "actions/setup-python", action
