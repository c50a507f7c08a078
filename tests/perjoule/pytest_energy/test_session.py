"""What a session keeps, wherever it cannot write, and what it reads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from perjoule.pytest_energy.session import EnergySession
from tests.perjoule.pytest_energy.repository import Repository, run

pytestmark = pytest.mark.slow

SAVE = ("--benchmark", "--benchmark-max-time=0.01", "--energy-save=main")


def test_a_folder_that_cannot_be_written_loses_nothing(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (repository.path / ".perjoule").write_text("in the way\n")  # permissions do not stop root
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    result = run(repository, *SAVE, "--energy-report=.perjoule/report.md")
    result.assert_outcomes(passed=3)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    found = {file.name: file for file in tmp_path.glob("perjoule-energy-*/*")}
    assert set(found) == {"main.json", "report.md"}
    assert json.loads(found["main.json"].read_text())["tests"][0]["mean_j"] == pytest.approx(100, abs=0.06)
    assert "test_theirs.py::test_joules" in found["report.md"].read_text()
    text = result.stdout.str()
    for file in found.values():
        assert f"cannot be written: Not a directory; it was saved in {file}" in text or (
            f"cannot be written: File exists; it is kept in {file}" in text
        )
    assert "Traceback" not in text + result.stderr.str()


@pytest.mark.parametrize("linked", [".perjoule", ".perjoule/energy"])
def test_a_linked_folder_is_refused_before_a_test_runs(repository: Repository, tmp_path: Path, linked: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    link = repository.path / linked
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(victim)
    for option in ("--energy-save=main", "--energy-baseline=main"):
        result = run(repository, "--benchmark", option)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert f"{linked} is a symbolic link: replace it by a folder" in result.stderr.str()
    assert not list(victim.iterdir())


def test_where_nothing_can_be_written_the_joules_are_printed(repository: Repository) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))"  # every write to a file fails
    script = f"import sys, pytest; {limit}; sys.exit(pytest.main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-B", "-c", script, "-s", "-p", "no:cacheprovider", "--energy-window=0", *SAVE],
        capture_output=True, text=True, check=False, cwd=repository.path,
    )  # fmt: skip
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert "cannot be written: File too large, not even in a temporary folder; its content follows" in done.stdout
    line = next(line for line in done.stdout.splitlines() if line.startswith("{"))
    assert json.loads(line)["tests"][0]["nodeid"] == "test_theirs.py::test_joules"


def test_the_joules_are_kept_before_another_plugin_fails_to_write(repository: Repository) -> None:
    (repository.path / ".benchmarks").write_text("in the way\n")
    timed = ("--benchmark", "--benchmark-timer=virtual.seconds", "-k", "joules")
    result = run(repository, *timed, "--benchmark-save=x", "--energy-save=main")
    assert result.ret != 0  # pytest-benchmark cannot write its own file
    assert json.loads((repository.path / ".perjoule" / "energy" / "main.json").read_text())["tests"]


def test_a_session_that_fails_says_that_it_saves_nothing(repository: Repository) -> None:
    repository.makepyfile(test_broken="def test_broken():\n    assert False\n")
    result = run(repository, *SAVE)
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["ERROR baseline 'main' was not saved, because the session did not pass"])
    assert not (repository.path / ".perjoule").exists()
    repository.makepyfile(test_broken="def test_broken():\n    raise KeyboardInterrupt\n")
    assert run(repository, *SAVE, "test_theirs.py", "test_broken.py").ret == pytest.ExitCode.INTERRUPTED


TEST = {
    "nodeid": "a", "energy_j": [1.0, 1.0], "uncertainty_j": [0.1, 0.1], "duration_s": [1.0, 1.0], "iterations": 1,
    "boundary": "gpu-board", "provenance": "measured", "method": "m",
}  # fmt: skip


def session(root: Path, *args: str, name: str | None = "main") -> EnergySession:
    return EnergySession(
        root=root, args=args, save_as=None, baseline_name=name, gating=True, margin=0.05, session_sd=0.0, report=None,
        rounds=5, window_s=0.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ([], "schema = None: this version of perjoule reads 1"),
        ({"schema": 2}, "schema = 2: this version of perjoule reads 1"),
        ({"schema": 1}, "not an energy baseline: no 'system'"),
        ({"schema": 1, "system": {}}, "not an energy baseline: no 'tests'"),
        ({"schema": 1, "system": 3, "tests": []}, "not an energy baseline: 'int' object is not iterable"),
        ({"schema": 1, "system": {}, "tests": 3}, "not an energy baseline: tests: "),
        ({"schema": 1, "system": {}, "tests": [{}]}, r"not an energy baseline: tests\[0\].nodeid: "),
        (
            {"schema": 1, "system": {}, "tests": [TEST | {"energy_j": "1"}]},
            r"not an energy baseline: tests\[0\].energy_j",
        ),
    ],
)
def test_a_damaged_baseline_is_named(tmp_path: Path, record: object, words: str) -> None:
    file = tmp_path / ".perjoule" / "energy" / "main.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(record))
    from perjoule.errors import PerjouleError

    with pytest.raises(PerjouleError, match=words) as caught:
        session(tmp_path)._load_baseline()
    assert str(file) in str(caught.value)


def test_a_baseline_that_is_no_json_is_named_with_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / ".perjoule" / "energy" / "main.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"schema": 1, ')
    from perjoule.errors import RunError

    with pytest.raises(
        RunError, match="restore the file from git, or create it again with --energy-save main"
    ) as caught:
        session(tmp_path)._load_baseline()
    assert str(caught.value).startswith(f"{file}: cannot be read: ")


def test_a_baseline_of_a_later_version_is_read(tmp_path: Path) -> None:
    file = tmp_path / ".perjoule" / "energy" / "main.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"schema": 1, "system": {"meter": "m"}, "tests": [TEST | {"mean_j": 1.0, "new": 2}]}))
    read = session(tmp_path)
    read._load_baseline()
    assert read.baseline["a"].mean_j == 1.0
    assert read.baseline["a"].call == ""


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("test_a.py", True),
        ("test_b.py", False),
        ("test_a.py::test_x", True),
        ("test_a.py::test", False),  # the beginning of a name names nothing
        ("test_a.py::test_x[1]", True),
        ("test_a.py::test_x[", False),
        ("test_a.py::TestC", False),
        (".", True),
    ],
)
def test_a_test_is_missing_only_if_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str, expected: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    found = session(tmp_path, argument, name=None)._expected("test_a.py::test_x[1]")
    assert found == expected
