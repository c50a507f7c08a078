"""Everything that `perjoule init` writes does what it says, from an empty git repository on."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from perjoule.commands.scaffold import FILES
from perjoule_suites.tiny import sd_tiny

pytestmark = pytest.mark.slow

COMMAND = f"exec {sys.executable} -c 'from perjoule.cli import main; raise SystemExit(main())' \"$@\"\n"
# the suite of the scaffold, made small: the workflow is the subject here, not the figures
SMALL = {
    "steps = [2, 4, 8, 12, 25, 50]": "steps = [2]",
    "seeds = [1, 2]": "seeds = [1]",
    '"clip_text", "cvvdp", "lsnr"': '"clip_text"',
    'model = "builtin:sd-tiny"': 'model = "model"',
    "[protocol]": "limit = 8\n\n[protocol]",
}


def environment(**more: str) -> dict[str, str]:
    """Of the commands: our sources by absolute paths, no options of the outer pytest, CPU only."""
    ours = ("perjoule", "perjoule_suites", "perjoule_reports")
    paths = dict.fromkeys(str(Path(importlib.import_module(name).__path__[0]).parent) for name in ours)
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTEST_ADDOPTS", "GITHUB_ACTIONS")}
    return kept | {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"} | more


def do(*command: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done


def perjoule(*arguments: str, cwd: Path) -> str:
    return do("/bin/sh", "-c", COMMAND, "perjoule", *arguments, cwd=cwd).stdout


def git(*arguments: str, cwd: Path) -> None:
    do("git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", *arguments, cwd=cwd)


def commit(repository: Path, message: str) -> None:
    git("add", "-A", cwd=repository)
    git("commit", "-qm", message, cwd=repository)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """An empty repository, `perjoule init` done on a branch of its own."""
    root = tmp_path / "origin"
    root.mkdir()
    git("init", "-q", "-b", "main", cwd=root)
    git("commit", "-q", "--allow-empty", "-m", "Nothing yet", cwd=root)
    git("switch", "-qc", "bring-perjoule", cwd=root)
    assert set(json.loads(perjoule("init", "--json", cwd=root))["written"]) == set(FILES)
    return root


def test_the_suite_plans_and_rehearses(repository: Path) -> None:
    plan = json.loads(perjoule("plan", "perjoule.toml", "--json", cwd=repository))
    assert plan["images"] == 240
    perjoule("run", "perjoule.toml", "--limit", "1", "--smoke", "--meter", "estimate", "--out", "run", cwd=repository)
    trials = [json.loads(line) for line in (repository / "run" / "trials.jsonl").read_text().splitlines()]
    assert [(t["failure"], t["image_count"]) for t in trials] == [(None, 1)]


def test_the_pytest_example_passes_next_to_the_suite(repository: Path) -> None:
    quick = ("--energy-meter=estimate", "--energy-rounds=2", "--energy-window=0", "--benchmark-disable")
    done = do(sys.executable, "-m", "pytest", "--benchmark", *quick, "-k", "image or mine-002", cwd=repository)
    assert re.search(r"tests/test_energy\.py::test_energy_of_an_image .* estimated", done.stdout)
    assert re.search(r"perjoule\.toml::mine-002 .* estimated", done.stdout)
    plain = do(sys.executable, "-m", "pytest", "-q", cwd=repository, check=False)
    assert plain.returncode == pytest.ExitCode.NO_TESTS_COLLECTED  # the example is deselected
    assert "1 deselected" in plain.stdout


def test_init_keeps_what_is_there(repository: Path) -> None:
    (repository / "perjoule.toml").write_text("mine\n")
    assert json.loads(perjoule("init", "--json", cwd=repository))["written"] == []
    assert (repository / "perjoule.toml").read_text() == "mine\n"


class Workflow:
    """Runs the job of a workflow file as a runner does: step by step, each script by bash, stopping at the first error.

    Attributes:
        said: What the steps printed.
    """

    def __init__(self, origin: Path, workspace: Path, edits: dict[str, str]) -> None:
        text = (origin / ".github" / "workflows" / "perjoule.yml").read_text()
        for old, new in edits.items():
            assert old in text
            text = text.replace(old, new)
        self._steps: list[dict[str, Any]] = yaml.safe_load(text)["jobs"]["gate"]["steps"]
        self._origin, self._workspace, self.said = origin, workspace, ""
        workspace.mkdir()

    def run(self, branch: str, base: str = "main") -> int:
        """The exit code of the first step that failed, or 0."""
        for step in self._steps:
            if "run" in step:
                code = self._script(step, base)
                if code:
                    return code
            elif step["uses"].startswith("actions/checkout@"):
                ref = step["with"].get("ref", branch).replace("${{ github.base_ref }}", base)
                target = self._workspace / step["with"]["path"]
                git("clone", "-q", "--branch", ref, str(self._origin), str(target), cwd=self._workspace)
        return 0

    def _script(self, step: dict[str, Any], base: str) -> int:
        script = step["run"]
        assert "${{" not in script
        if "pip install" in script:  # no index here: what it makes is put there instead
            for side in ("base", "head"):
                command = self._workspace / f"env-{side}" / "bin" / "perjoule"
                command.parent.mkdir(parents=True)
                command.write_text(f"#!/bin/sh\n{COMMAND}")
                command.chmod(0o755)
            return 0
        bash = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script)
        done = subprocess.run(
            bash,
            cwd=self._workspace,
            env=environment(GITHUB_ACTIONS="true"),
            capture_output=True,
            text=True,
            check=False,
        )
        self.said += done.stdout + done.stderr
        return done.returncode


def test_the_workflow_passes_on_its_own_pull_request_and_later_tells_a_ruined_model(
    repository: Path, tmp_path: Path
) -> None:
    suite = (repository / "perjoule.toml").read_text()
    for old, new in SMALL.items():
        assert old in suite
        suite = suite.replace(old, new)
    (repository / "perjoule.toml").write_text(suite)
    shutil.copytree(sd_tiny(), repository / "model")
    commit(repository, "Bring perjoule")
    # estimated joules follow the machine's load, which is not the subject either: on a busy one they are inconclusive
    edits = {"--margin-energy 5%": "--margin-energy 300%"}

    first = Workflow(repository, tmp_path / "first", edits)
    assert first.run("bring-perjoule") == 0, first.said
    assert "::notice title=perjoule::The base branch has no perjoule.toml" in first.said
    assert (tmp_path / "first" / "runs" / "head" / "report.html").is_file()
    assert not (tmp_path / "first" / "gate.xml").exists()
    git("switch", "-q", "main", cwd=repository)
    git("merge", "-q", "bring-perjoule", cwd=repository)

    git("switch", "-qc", "words", cwd=repository)
    (repository / "README.md").write_text("Words.\n")
    commit(repository, "Add words")
    same = Workflow(repository, tmp_path / "same", edits)
    assert same.run("words") == 0, same.said
    assert "the images are the same, bit for bit" in (tmp_path / "same" / "gate.md").read_text()

    git("switch", "-qc", "ruin", cwd=repository)
    ruin(repository / "model" / "unet" / "diffusion_pytorch_model.safetensors")
    commit(repository, "Ruin the model")
    worse = Workflow(repository, tmp_path / "worse", edits)
    assert worse.run("ruin") == 1, worse.said
    assert "FAIL" in (tmp_path / "worse" / "gate.md").read_text()
    assert (tmp_path / "worse" / "gate.xml").is_file()


def ruin(weights: Path) -> None:
    """Halve every weight of the UNet."""
    from safetensors.torch import load_file, save_file

    save_file({name: tensor * 0.5 for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})


def test_the_workflow_is_one_a_runner_accepts(repository: Path) -> None:
    file = repository / ".github" / "workflows" / "perjoule.yml"
    workflow = yaml.safe_load(file.read_text())
    triggers = workflow.pop(True)  # YAML 1.1 reads the key `on` as a truth value
    assert set(triggers) == {"pull_request"}
    assert set(workflow) == {"name", "permissions", "jobs"}
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert set(job) <= {"runs-on", "timeout-minutes", "steps"}
        assert isinstance(job["timeout-minutes"], int)
        for step in job["steps"]:
            assert set(step) <= {"name", "uses", "with", "run", "if"}
            assert ("uses" in step) != ("run" in step)
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/checkout@v4"))
            if "run" in step:
                syntax = do("bash", "-n", "-c", step["run"], cwd=repository, check=False)
                assert syntax.returncode == 0, syntax.stderr
    assert set(re.findall(r"\$\{\{\s*(.*?)\s*\}\}", file.read_text())) == {"github.base_ref"}
    assert tomllib.loads((repository / "perjoule.toml").read_text())["name"] == "mine"
