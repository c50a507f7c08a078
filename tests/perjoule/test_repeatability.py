"""What is read from the same files is the same text every time, to the last digit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.perjoule.forecast.test_from_imported import SUITE
from tests.perjoule.gating.test_gate import runs
from tests.perjoule.test_cli import call
from tests.support.tables_of_runs import imported, table

pytestmark = pytest.mark.slow

TIMES = 8


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("pair")
    baseline, candidate = runs(folder)
    return str(baseline.path), str(candidate.path)


def test_what_is_read_from_a_run_is_the_same_every_time(
    pair: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    baseline, candidate = pair
    for command in (
        ["gate", "--baseline", baseline, "--candidate", candidate, "--json"],
        ["gate", "--baseline", baseline, "--candidate", candidate],
        ["frontier", baseline, "--json"],
        ["recommend", baseline, "--min-quality", "0.3", "--json"],
    ):
        found = {call(*command, capsys=capsys)[:2] for _ in range(TIMES)}
        assert len(found) == 1, command
        assert next(iter(found))[0] == 0, command


def test_a_plan_from_a_run_is_the_same_every_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = tmp_path / "suite.toml"
    suite.write_text(SUITE)
    (tmp_path / "p.txt").write_text("".join(f"a cat number {i}\n" for i in range(10)))
    run = imported(table(prompts=40, ladder=(4, 16)).rename({"quality:q": "quality:lsnr"}), tmp_path)
    found = {call("plan", str(suite), "--from", str(run.path), "--json", capsys=capsys)[:2] for _ in range(TIMES)}
    assert {code for code, _ in found} == {0}
    assert len(found) == 1
