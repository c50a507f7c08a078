from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from tests.perjoule.pytest_energy.repository import Repository, edit, run

pytestmark = pytest.mark.slow


def test_energy_tests_are_deselected_unless_asked_for(repository: Repository) -> None:
    result = run(repository)
    result.assert_outcomes(passed=2, deselected=1)
    assert "J/call" not in result.stdout.str()


def test_joules_stand_in_the_table_and_in_pytest_benchmarks_json(repository: Repository) -> None:
    result = run(repository, "--benchmark", "--benchmark-json=out.json")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["*J/call*", "*test_theirs.py::test_joules*100*measured*"])
    both = {b["name"]: b for b in json.loads((repository.path / "out.json").read_text())["benchmarks"]}
    assert set(both) == {"test_joules", "test_seconds"}
    energy = both["test_joules"]["extra_info"]["energy"]
    assert energy["energy_j"] == pytest.approx([100.0] * 5, abs=0.06)
    assert energy["uncertainty_j"] == pytest.approx([0.05] * 5)
    assert energy["duration_s"] == pytest.approx([2.0] * 5)
    assert energy["provenance"] == "measured"
    assert both["test_joules"]["extra_info"]["energy_j"] == pytest.approx(100, abs=0.06)
    assert both["test_joules"]["stats"]["rounds"] == 5


def test_benchmark_only_of_pytest_benchmark_does_not_skip_it(repository: Repository) -> None:
    run(repository, "--benchmark", "--benchmark-only").assert_outcomes(passed=2, skipped=1)


def test_joules_are_printed_next_to_seconds(repository: Repository) -> None:
    result = run(repository, "--benchmark", "--benchmark-max-time=0.01")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["*test_joules*100*5×1*"])


def test_marker_sets_rounds_and_window(repository: Repository) -> None:
    edit(
        repository,
        "def test_joules",
        "import pytest\n@pytest.mark.energy(rounds=3)\ndef test_joules",
    )
    run(repository, "--benchmark").stdout.fnmatch_lines(["*test_joules*3×1*"])


class TestGate:
    saved: ClassVar[list[bytes]] = []  # by the first test; every session would save the same

    @pytest.fixture(autouse=True)
    def kept(self, repository: Repository) -> None:
        file = repository.path / ".perjoule" / "energy" / "main.json"
        if not self.saved:
            run(repository, "--benchmark", "--energy-save=main", "--benchmark-max-time=0.01").assert_outcomes(passed=3)
            self.saved.append(file.read_bytes())
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(self.saved[0])

    def gate(self, repository: Repository, *more: str) -> pytest.RunResult:
        return run(
            repository, "--benchmark", "--benchmark-max-time=0.01", "--energy-baseline=main", "--energy-gate",
            "--energy-session-sd=0.5%", *more,
        )  # fmt: skip

    def test_the_same_again_passes(self, repository: Repository) -> None:
        result = self.gate(repository)
        result.assert_outcomes(passed=3)
        assert result.ret == 0
        result.stdout.fnmatch_lines(["*test_joules*PASS*"])

    def test_more_energy_is_a_failed_test(self, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WATTS", "60")
        result = self.gate(repository)
        result.assert_outcomes(passed=2, failed=1)
        assert result.ret == 1
        result.stdout.fnmatch_lines(["*test_joules: FAIL: energy +20.0%*margin of 5.0%*"])

    def test_in_between_is_a_warning(self, repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WATTS", "52.5")
        result = self.gate(repository)
        result.assert_outcomes(passed=3, warnings=1)
        assert result.ret == 0
        result.stdout.fnmatch_lines(["*INCONCLUSIVE*minimal detectable effect*"])

    @pytest.mark.parametrize("new", ["def test_renamed", "def no_test"])
    def test_a_renamed_or_deleted_test_never_passes(self, repository: Repository, new: str) -> None:
        edit(repository, "def test_joules", new)
        result = self.gate(repository)
        assert result.ret == 1
        result.stdout.fnmatch_lines(["ERROR test_theirs.py::test_joules: in baseline 'main', but did not run*"])

    def test_a_skipped_test_never_passes(self, repository: Repository) -> None:
        edit(
            repository, "    energy_benchmark(sleep", "    import pytest; pytest.skip('x')\n    energy_benchmark(sleep"
        )
        assert self.gate(repository).ret == 1

    def test_a_test_that_was_deselected_by_hand_is_not_missing(self, repository: Repository) -> None:
        repository.makepyfile(test_more="def test_other(energy_benchmark, sleep):\n    energy_benchmark(sleep, 1.0)\n")
        run(repository, "--benchmark", "--benchmark-max-time=0.01", "--energy-save=main").assert_outcomes(passed=4)
        assert self.gate(repository, "-k", "other").ret == 0
        assert self.gate(repository, "test_more.py").ret == 0

    def test_other_hardware_is_refused_with_both_values(self, repository: Repository) -> None:
        file = repository.path / ".perjoule" / "energy" / "main.json"
        record = json.loads(file.read_text())
        record["system"]["device"] = "another board"
        file.write_text(json.dumps(record))
        result = self.gate(repository)
        assert result.ret == 1
        result.stdout.fnmatch_lines(["*INVALID: incomparable: device: baseline 'another board', now*"])

    def test_simulated_joules_do_not_pass_for_measured(
        self, repository: Repository, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KIND", "simulated")
        result = self.gate(repository)
        assert result.ret == 1
        result.stdout.fnmatch_lines(["*provenance differs: baseline 'measured', now 'simulated'*"])

    @pytest.mark.parametrize("suffix", ["json", "md", "html"])
    def test_reports(self, repository: Repository, suffix: str) -> None:
        assert self.gate(repository, f"--energy-report=out/energy.{suffix}").ret == 0
        text = (repository.path / "out" / f"energy.{suffix}").read_text()
        assert "test_theirs.py::test_joules" in text
        assert "pass" in text.lower()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--benchmark", "--energy-gate"], "--energy-gate needs --energy-baseline"),
        (["--energy-gate"], "--energy-gate needs --benchmark"),
        (["--benchmark", "--energy-baseline=none"], "none.json does not exist"),
        (["--benchmark", "--energy-margin=much"], "--energy-margin = much"),
        (["--benchmark", "--energy-margin=5"], "write 5% (or 0.05), or 500% if that is meant"),
        (["--benchmark", "--energy-session-sd=3"], "write 3% (or 0.03), or 300% if that is meant"),
        (["--benchmark", "--energy-rounds=1"], "2 or more"),
        (["--benchmark", "--energy-max-joules=0"], "--energy-max-joules 0: must be a positive number"),
        (["--energy-max-joules=5"], "--energy-max-joules needs --benchmark"),
        (["--benchmark", "--energy-window=nan"], "--energy-window nan: must be 0 or more seconds"),
        (["--benchmark", "--energy-window=inf"], "--energy-window inf: must be 0 or more seconds"),
        (["--benchmark", "--energy-report=x.pdf"], ".json, .md or .html"),
    ],
)
def test_bad_options(repository: Repository, arguments: list[str], words: str) -> None:
    result = run(repository, *arguments)
    assert result.ret != 0
    assert words in result.stdout.str() + result.stderr.str()


def test_a_session_that_spends_too_much_stops_with_what_it_has(repository: Repository) -> None:
    # 50 W for 2 s in five rounds: 500 J a test
    repository.makepyfile(
        test_theirs="""
import pytest

@pytest.mark.parametrize("number", range(3))
def test_joules(energy_benchmark, sleep, number):
    energy_benchmark(sleep, 2.0)
"""
    )
    options = ("--benchmark", "--benchmark-max-time=0.01", "--energy-report=out.json")
    result = run(repository, *options, "--energy-max-joules=800")
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*--energy-max-joules 800: the windows so far used * J; the tests after*"])
    assert len(json.loads((repository.path / "out.json").read_text())["tests"]) == 2
    enough = run(repository, *options, "--energy-max-joules=1600")
    enough.assert_outcomes(passed=3)
    assert enough.ret == 0


def test_xdist_is_refused(repository: Repository) -> None:
    # what pytest-xdist declares, so that the test does not need it
    repository.makepyfile(
        fake_xdist="""
        def pytest_addoption(parser):
            parser.addoption("--workers", dest="numprocesses", type=int)
        """
    )
    result = run(repository, "-p", "fake_xdist", "--workers=2", "--benchmark")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "cannot run under xdist" in result.stderr.str()
    assert run(repository, "-p", "fake_xdist", "--workers=2").ret == 0


def test_heavy_libraries_wait_for_a_test_that_asks_for_joules(repository: Repository) -> None:
    repository.makepyfile(
        test_theirs="""
        import sys

        def test_nothing_heavy(request):
            assert request.config.pluginmanager.hasplugin("perjoule")
            heavy = {"torch", "diffusers", "pynvml", "transformers", "polars", "scipy", "perjoule.meters"}
            assert not heavy & set(sys.modules)
        """
    )
    repository.makeconftest("")
    run(repository, "--benchmark").assert_outcomes(passed=1)


def test_the_plugin_imports_only_pytest() -> None:
    script = (
        "import sys, perjoule.pytest_energy.plugin; print([m for m in sys.modules if m.startswith(('numpy', 'torch'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert Path(done.args[0]).exists()
