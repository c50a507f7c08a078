from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from tests.support.routes import route_run
from typer.testing import CliRunner

from perjoule.errors import EvidenceError, PerjouleError
from perjoule.runs.directory import Run
from perjoule_suites.router.commands import app
from perjoule_suites.router.records import evaluate_schema, predict_schema
from perjoule_suites.router.training import RouterFit

pytestmark = pytest.mark.slow

EASY, HARD = "a plain red circle on the left", "a striped red circle on the left"


def call(*arguments: str | Path) -> str:
    found = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False, standalone_mode=False)
    return found.stdout


def test_predict_prints_the_arm(trained: tuple[Path, RouterFit]) -> None:
    lines = [line.split("\t") for line in call("predict", trained[0], EASY, HARD).splitlines()]
    assert [line[0] for line in lines] == ["student-002", "teacher-008", "J/image on Board A, measured"]
    assert lines[0][2] == EASY
    assert float(lines[0][1].removesuffix(" J")) == pytest.approx(1, rel=0.01)
    found = json.loads(call("predict", trained[0], HARD, "--floor", "0.3", "--miss", "20%", "--json"))
    assert (found["level"], found["miss_rate"], found["device"]) == (0.3, 0.2, "Board A")
    (row,) = found["predictions"]
    assert row["arm"] == "student-002"
    assert set(row["qualities"]) == {"student-002", "teacher-002", "teacher-008"}
    assert "num_inference_steps=2" in row["call"]


def test_evaluate_prints_all_policies(trained: tuple[Path, RouterFit], test_run: Run) -> None:
    lines = call("evaluate", test_run.path, "--router", trained[0], "--at-quality", "0.775").splitlines()
    assert lines[0] == "q, 120 prompts × 8 seeds; joules of Board A, measured"
    assert lines[1].startswith("the router's own energy is not included: the run has no cells of the policy")
    assert any(line.startswith("at q 0.775: 5") and "teacher-008 + " in line for line in lines)
    rows = {line.strip().partition(":")[0]: line for line in lines}
    assert " % [" in rows["router"]
    assert {"shuffled", "length only", "table of kinds", "prompt-level bound", "per-image bound"} <= set(rows)
    assert "in 200 splits" in rows["at most 10%"]


def test_json_is_as_its_schema_says(trained: tuple[Path, RouterFit], test_run: Run) -> None:
    arguments = (test_run.path, "--router", trained[0], "--at-quality", "0.8", "--json")
    jsonschema.validate(json.loads(call("evaluate", *arguments)), evaluate_schema())
    jsonschema.validate(json.loads(call("predict", trained[0], EASY, "--json")), predict_schema())


def test_prompts_that_were_seen_are_refused(trained: tuple[Path, RouterFit], tmp_path: Path) -> None:
    run = route_run(tmp_path, "seen", 40, 390)
    with pytest.raises(EvidenceError, match="40 prompts were used to train or calibrate"):
        call("evaluate", run.path, "--router", trained[0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "/nowhere", "--calibration", "/nowhere", "--floor", "1", "--out", "/tmp/x"), "does not exist"),
        (
            ("train", "/nowhere", "--calibration", "/n", "--floor", "1", "--miss", "10", "--out", "/tmp/x"),
            "--miss = 10",
        ),
        (("evaluate", "/nowhere", "--router", "/nowhere"), "does not exist"),
        (("predict", "/nowhere", EASY), "no such folder"),
    ],
)
def test_what_cannot_be_is_said(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(PerjouleError, match=words):
        call(*arguments)
