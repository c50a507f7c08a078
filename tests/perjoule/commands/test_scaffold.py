"""Everything that `perjoule init` writes does what it says, from an empty git repository on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.actions import COMMAND, Job, git, sources
from tests.support.forge_server import FakeForge, github_environment, gitlab_environment, serving

from perjoule.commands.scaffold import Ci, Runner, likely_ci, scaffold_files, write_scaffold

ROOT = Path(__file__).parents[3]
KINDS = [(ci, runner) for ci in Ci for runner in Runner]
REUSABLE = ROOT / ".github" / "workflows" / "perjoule-gate.yml"
# the suite of the scaffold, made small: the workflow is the subject here, not the figures
SMALL = {"steps = [12]": "steps = [1]", "[protocol]": "limit = 2\n\n[protocol]"}


def environment(**more: str) -> dict[str, str]:
    """Of the commands: our sources by absolute paths, no options of the outer pytest, CPU only."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTEST_ADDOPTS", "GITHUB_ACTIONS")}
    return kept | {"PYTHONPATH": sources(), "HF_HUB_OFFLINE": "1"} | more


def do(*command: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done


def perjoule(*arguments: str, cwd: Path) -> str:
    return do("/bin/sh", "-c", COMMAND, "perjoule", *arguments, cwd=cwd).stdout


def commit(repository: Path, message: str) -> None:
    git("add", "-A", cwd=repository)
    git("commit", "-qm", message, cwd=repository)


def edit(file: Path, *pairs: tuple[str, str]) -> None:
    text = file.read_text()
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    file.write_text(text)


def empty_repository(root: Path) -> Path:
    root.mkdir()
    git("init", "-q", "-b", "main", cwd=root)
    git("commit", "-q", "--allow-empty", "-m", "Nothing yet", cwd=root)
    git("switch", "-qc", "bring-perjoule", cwd=root)
    return root


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """An empty repository, `perjoule init` done on a branch of its own."""
    root = empty_repository(tmp_path / "origin")
    files = set(json.loads(perjoule("init", "--json", cwd=root))["written"])
    assert files == set(scaffold_files(Ci.github, Runner.cpu))
    return root


@pytest.fixture
def forge() -> Iterator[FakeForge]:
    with serving(FakeForge()) as served:
        yield served


@pytest.mark.slow
def test_the_suites_plan_and_rehearse(repository: Path) -> None:
    plan = json.loads(perjoule("plan", "perjoule.toml", "--json", cwd=repository))
    assert plan["images"] == 240
    perjoule("run", "perjoule.toml", "--limit", "1", "--smoke", "--meter", "estimate", "--out", "run", cwd=repository)
    trials = [json.loads(line) for line in (repository / "run" / "trials.jsonl").read_text().splitlines()]
    assert [(t["failure"], t["image_count"]) for t in trials] == [(None, 1)]
    assert json.loads(perjoule("plan", "perjoule-ci.toml", "--json", cwd=repository))["images"] == 40


@pytest.mark.slow
def test_the_pytest_example_passes_next_to_the_suite(repository: Path) -> None:
    quick = ("--energy-meter=estimate", "--energy-rounds=2", "--energy-window=0", "-pno:benchmark")
    done = do(sys.executable, "-m", "pytest", "--benchmark", *quick, "-k", "image or mine-002", cwd=repository)
    assert re.search(r"tests/test_energy\.py::test_energy_of_an_image .* estimated", done.stdout)
    assert re.search(r"perjoule\.toml::mine-002 .* estimated", done.stdout)
    plain = do(sys.executable, "-m", "pytest", "-q", cwd=repository, check=False)
    assert plain.returncode == pytest.ExitCode.NO_TESTS_COLLECTED  # the example is deselected
    assert "1 deselected" in plain.stdout


@pytest.mark.parametrize(("ci", "runner"), KINDS)
def test_init_keeps_what_is_there(tmp_path: Path, ci: Ci, runner: Runner) -> None:
    first = write_scaffold(tmp_path, ci, runner)
    assert {str(file.relative_to(tmp_path)) for file in first.written} == set(scaffold_files(ci, runner))
    for file in first.written:
        file.write_text("mine\n")
    second = write_scaffold(tmp_path, ci, runner)
    assert (second.written, set(second.kept)) == ((), set(first.written))
    assert {file.read_text() for file in first.written} == {"mine\n"}


def test_the_ci_system_is_recognised(tmp_path: Path) -> None:
    assert likely_ci(tmp_path) is Ci.github
    (tmp_path / ".gitlab-ci.yml").write_text("stages: [test]\n")
    assert likely_ci(tmp_path) is Ci.gitlab
    scaffold = write_scaffold(tmp_path)
    assert (tmp_path / ".gitlab-ci.yml").read_text() == "stages: [test]\n"
    assert any("include: [{local: .gitlab/perjoule.yml}]" in step for step in scaffold.next)


def steps_of(file: Path, job: str) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The steps of a job, and the variables of the workflow."""
    workflow = yaml.safe_load(file.read_text())
    return workflow["jobs"][job]["steps"], workflow.get("env", {})


class Pulls:
    """Pull requests of a repository on GitHub.

    Attributes:
        job: The last job.
    """

    job: Job

    def __init__(self, repository: Path, folder: Path, forge: FakeForge) -> None:
        self.repository, self.folder, self.forge = repository, folder, forge
        self.cache = folder / "cache"
        self.cache.mkdir()

    def run(self, branch: str, event: str = "pull_request") -> int:
        """The exit code of the workflow."""
        steps, env = steps_of(self.repository / ".github" / "workflows" / "perjoule.yml", "gate")
        number = len(list(self.folder.glob("*-event.json")))
        variables = github_environment(self.forge, "")
        place = self.folder / f"job{number}"
        self.job = Job(self.repository, place, branch, event, self.cache, variables)
        return self.job.run(steps, env | {"GITHUB_TOKEN": ""})


@pytest.mark.slow
def test_counted_work_on_github_from_the_first_pull_request_on(
    repository: Path, tmp_path: Path, forge: FakeForge
) -> None:
    edit(repository / "perjoule-ci.toml", *SMALL.items())
    commit(repository, "Bring perjoule")
    pulls = Pulls(repository, tmp_path, forge)

    assert pulls.run("bring-perjoule") == 0, pulls.job.said
    (comment,) = forge.bodies()
    assert "NO BASELINE YET" in comment
    assert "shipped-001: " in comment
    assert "NO BASELINE YET" in pulls.job.summary.read_text()
    assert "::notice title=perjoule gate" in pulls.job.said
    assert {"gate.xml", "gate.md", "runs/candidate/report.html"} <= set(pulls.job.artifacts)

    git("switch", "-q", "main", cwd=repository)
    git("merge", "-q", "bring-perjoule", cwd=repository)
    assert pulls.run("main", event="push") == 0, pulls.job.said
    assert len(list(pulls.cache.glob("perjoule-main-*"))) == 1
    assert len(forge.comments) == 1

    forge.comments.clear()
    git("switch", "-qc", "one-more-step", cwd=repository)
    edit(repository / "perjoule-ci.toml", ("steps = [1]", "steps = [2]"))
    commit(repository, "Take one more step")
    forge.writable = False  # as for a pull request from a fork
    assert pulls.run("one-more-step") == 1, pulls.job.said
    assert forge.comments == []
    summary = pulls.job.summary.read_text()
    assert "perjoule gate: FAIL" in summary
    assert "There is no comment on the pull request: HTTP 403" in summary
    assert "denoiser UNet2DConditionModel: evaluations per image 2 → 4, calls per image 1 → 2" in summary
    assert "::error title=perjoule gate FAIL::energy is worse than the margin" in pulls.job.said


@pytest.mark.slow
def test_both_sides_on_github_are_run_in_one_job(tmp_path: Path, forge: FakeForge) -> None:
    repository = empty_repository(tmp_path / "origin")
    write_scaffold(repository, Ci.github, Runner.gpu)
    edit(repository / "perjoule-ci.toml", *SMALL.items())
    # counted joules do not follow the load of this machine; a GPU is not needed for the steps of the job
    edit(repository / ".github" / "workflows" / "perjoule.yml", ("METER: auto", "METER: work"))
    commit(repository, "Bring perjoule")
    pulls = Pulls(repository, tmp_path, forge)

    assert pulls.run("bring-perjoule") == 0, pulls.job.said
    assert "there is no run runs/base to compare with" in forge.bodies()[0]
    git("switch", "-q", "main", cwd=repository)
    git("merge", "-q", "bring-perjoule", cwd=repository)

    git("switch", "-qc", "one-more-step", cwd=repository)
    edit(repository / "perjoule-ci.toml", ("steps = [1]", "steps = [2]"))
    commit(repository, "Take one more step")
    assert pulls.run("one-more-step") == 1, pulls.job.said
    (comment,) = forge.bodies()
    assert "perjoule gate: FAIL" in comment
    assert "NO BASELINE" not in comment
    assert {"gate.xml", "runs/base/report.html", "runs/candidate/report.html"} <= set(pulls.job.artifacts)


def gitlab_job(workspace: Path, name: str, forge: FakeForge, perjoule: Path) -> list[tuple[int, str]]:
    """Run the script of a job of GitLab, and the one after it; return exit codes and outputs. Installs nothing."""
    pipeline = yaml.safe_load((workspace / ".gitlab" / "perjoule.yml").read_text())
    job = {**pipeline.get(".perjoule", {}), **pipeline[name]}
    more = {"CI_JOB_TOKEN": forge_token(), "CI_PROJECT_ID": "11", "INSTALL": "", "PERJOULE_LOG": str(perjoule)}
    variables = job["variables"] | gitlab_environment(forge, **more)
    path = f"{perjoule.parent}{os.pathsep}/usr/bin{os.pathsep}/bin"
    found = []
    for part in ("script", "after_script"):
        lines = [line for line in job.get(part, ()) if "pip install" not in line]
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", "\n".join(lines)], cwd=workspace, env=variables | {"PATH": path},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        found.append((done.returncode, done.stdout + done.stderr))
    return found


def forge_token() -> str:
    from tests.support.forge_server import TOKEN

    return TOKEN


def test_gitlab_keeps_the_baseline_in_the_package_registry(tmp_path: Path, forge: FakeForge) -> None:
    """The scripts, with a `perjoule` that only writes what it was asked for: its own work is tested with GitHub."""
    write_scaffold(tmp_path / "a", Ci.gitlab, Runner.cpu)
    write_scaffold(tmp_path / "b", Ci.gitlab, Runner.cpu)
    command = tmp_path / "bin" / "perjoule"
    command.parent.mkdir()
    store = 'if [ "$1" = baseline ]; then mkdir -p .perjoule/baselines && echo stored > .perjoule/baselines/main; fi'
    code = 'if [ "$1" = gate ] && [ -e fail ]; then exit 1; fi'
    command.write_text(f'#!/bin/sh\necho "$@" >> commands.txt\n{store}\n{code}\n')
    command.chmod(0o755)

    first, after = gitlab_job(tmp_path / "b", "perjoule:gate", forge, command)
    assert (first[0], after[0]) == (0, 0), first[1]
    assert not (tmp_path / "b" / ".perjoule").exists()
    assert [done[0] for done in gitlab_job(tmp_path / "a", "perjoule:baseline", forge, command)] == [0, 0]
    (tmp_path / "b" / "fail").touch()
    second, _ = gitlab_job(tmp_path / "b", "perjoule:gate", forge, command)
    assert second[0] == 1
    assert (tmp_path / "b" / ".perjoule" / "baselines" / "main").read_text() == "stored\n"
    assert (tmp_path / "b" / "commands.txt").read_text().splitlines() == [
        "run perjoule-ci.toml --meter work --out runs/candidate",
        "gate --baseline main --baseline-optional --candidate runs/candidate --change variants --inconclusive warn "
        "--junit gate.xml --markdown gate.md",
        "comment gate.md",
    ] * 2


def checked(schema: str, *files: Path) -> None:
    """Check files with the schemas of SchemaStore, which check-jsonschema ships."""
    do(sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, files), cwd=ROOT)


@pytest.mark.parametrize(("ci", "runner"), KINDS)
def test_the_workflows_are_as_their_schemas_say(tmp_path: Path, ci: Ci, runner: Runner) -> None:
    write_scaffold(tmp_path, ci, runner)
    if ci is Ci.github:
        checked("github-workflows", tmp_path / ".github" / "workflows" / "perjoule.yml")
    else:
        checked("gitlab-ci", tmp_path / ".gitlab" / "perjoule.yml", tmp_path / ".gitlab-ci.yml")


def test_the_action_and_the_reusable_workflow_are_as_their_schemas_say() -> None:
    checked("github-actions", ROOT / "action.yml")
    checked("github-workflows", *sorted((ROOT / ".github" / "workflows").glob("*.yml")))


def test_the_schemas_refuse_a_damaged_workflow(tmp_path: Path) -> None:
    """Otherwise the two tests above could not fail."""
    write_scaffold(tmp_path, Ci.github, Runner.cpu)
    file = tmp_path / ".github" / "workflows" / "perjoule.yml"
    edit(file, ("runs-on: ubuntu-latest", "run-on: ubuntu-latest"))
    with pytest.raises(AssertionError, match="run-on"):
        checked("github-workflows", file)


def plain(steps: list[dict[str, Any]], arguments: str) -> list[dict[str, Any]]:
    """The steps without what a composite action must add, and with the arguments of the gate written out."""
    kept = []
    for step in steps:
        if step.get("uses", "").startswith(("actions/checkout", "actions/setup-python")):
            continue
        step = {k: v for k, v in step.items() if k not in ("shell", "env")}
        if step.get("if") == "inputs.install != ''":
            del step["if"]
        if "run" in step:
            step["run"] = " ".join(step["run"].replace("$GATE", arguments).split())
        kept.append(step)
    return kept


def test_the_action_and_the_reusable_workflow_do_what_the_written_workflows_do() -> None:
    folder = ROOT / "bench" / "perjoule" / "commands" / "scaffold"
    counted, measured = (steps_of(folder / f"github-{runner}.yml", "gate")[0] for runner in Runner)
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    assert plain(action["runs"]["steps"], action["inputs"]["gate"]["default"]) == plain(counted, "")
    reusable = yaml.safe_load(REUSABLE.read_text())
    gate = reusable[True]["workflow_call"]["inputs"]["gate"]["default"]  # YAML 1.1 reads `on` as a truth value
    assert plain(reusable["jobs"]["counted"]["steps"], gate) == plain(counted, "")
    assert plain(reusable["jobs"]["measured"]["steps"], gate) == plain(measured, "")


def test_scripts_contain_no_expressions_and_are_bash(tmp_path: Path) -> None:
    """An expression in a script would run what the title of a pull request says."""
    folder = ROOT / "bench" / "perjoule" / "commands" / "scaffold"
    workflows = [yaml.safe_load(file.read_text()) for file in (*folder.glob("github-*.yml"), REUSABLE)]
    steps = [step for workflow in workflows for job in workflow["jobs"].values() for step in job["steps"]]
    steps += yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"]
    scripts = [step["run"] for step in steps if "run" in step]
    assert len(scripts) > 15
    for script in scripts:
        assert "${{" not in script
        syntax = do("bash", "-n", "-c", script, cwd=tmp_path, check=False)
        assert syntax.returncode == 0, syntax.stderr
    for workflow in workflows:
        assert workflow["permissions"] == {"contents": "read", "pull-requests": "write"}
        assert all(isinstance(job["timeout-minutes"], int) for job in workflow["jobs"].values())
    for step in steps:
        assert re.fullmatch(r"actions/[a-z/-]+@v\d+", step.get("uses", "actions/checkout@v4"))


def test_the_suites_have_names_of_their_own(tmp_path: Path) -> None:
    write_scaffold(tmp_path)
    names = [tomllib.loads((tmp_path / f"{name}.toml").read_text())["name"] for name in ("perjoule", "perjoule-ci")]
    assert names == ["mine", "shipped"]
