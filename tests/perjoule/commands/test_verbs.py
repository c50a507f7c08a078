from __future__ import annotations

import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from perjoule.cli import app
from perjoule.commands.outcome import status_of
from perjoule.commands.verbs import ORDER

LINE = re.compile(r"^  ([a-z-]+)  +(\S.*)$", re.MULTILINE)


def summaries(*verbs: str) -> dict[str, str]:
    """The table of commands that `--help` shows on a terminal of 80 columns."""
    found = CliRunner(env={"COLUMNS": "80", "TERM": "dumb"}).invoke(app, [*verbs, "--help"])
    assert found.exit_code == 0
    return dict(LINE.findall(found.output.partition("Commands:\n")[2]))


def test_help_is_in_the_order_of_the_work() -> None:
    verbs = list(summaries())
    work = ("init", "doctor", "plan", "run", "score", "frontier", "report", "recommend")
    assert tuple(verbs[:8]) == work
    assert [verb for verb in verbs if verb in ORDER] == [verb for verb in ORDER if verb in verbs]
    assert "budgetfusion" in verbs  # of another package


@pytest.mark.parametrize("group", [(), ("baseline",), ("study",), ("budgetfusion",), ("route",)])
def test_summaries_are_short_and_whole(group: tuple[str, ...]) -> None:
    found = summaries(*group)
    assert found
    for verb, summary in found.items():
        assert len(summary) <= 45, verb
        assert summary.endswith("."), verb
        assert "..." not in summary, verb


def test_a_verb_of_another_package_is_run_and_suggested() -> None:
    runner = CliRunner()
    assert "predict" in runner.invoke(app, ["budgetfusion", "--help"]).output
    assert "budgetfusion" in runner.invoke(app, ["budgetfusoin"]).output


def test_a_wrong_list_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(lambda: app(["list", "suite"], standalone_mode=False)) == 2
    assert "did you mean 'suites'" in capsys.readouterr().err


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "perjoule", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("perjoule ")
    refused = subprocess.run([sys.executable, "-m", "perjoule", "rnu"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
