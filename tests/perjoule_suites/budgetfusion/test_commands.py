from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from perjoule.errors import PerjouleError
from perjoule.prompts import load_prompts
from perjoule.suite.reading import cells_of, find_suite, load_suite, suite_names
from perjoule.suite.schedule import make_plan
from perjoule.types import PromptSource
from perjoule_suites.budgetfusion.commands import app

pytestmark = pytest.mark.slow

EASY = "a large red circle on a white ground"
HARD = "a striped blue star above a striped pink ring on a checkered grey ground"


def call(*arguments: str) -> str:
    found = CliRunner().invoke(app, list(arguments), catch_exceptions=False, standalone_mode=False)
    return found.stdout


def test_predict_prints_steps() -> None:
    lines = call("predict", "builtin:steps-tiny", EASY, HARD).splitlines()
    steps = [int(line.split("\t")[0]) for line in lines]
    assert [line.split("\t")[1] for line in lines] == [EASY, HARD]
    assert all(n in (2, 3, 4, 5, 6, 8, 12, 16, 25) for n in steps)


def test_predict_prints_curves_as_json() -> None:
    found = json.loads(call("predict", "builtin:steps-tiny", EASY, "--rule", "plateau", "--level", "0.1", "--json"))
    (row,) = found["predictions"]
    assert row["steps"] in found["grid"]
    assert set(row["curves"]) == {"iclip", "cvvdp", "scene"}
    assert len(row["curves"]["iclip"]) == len(found["grid"])
    assert found["energy"]["provenance"] == "estimated"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("predict", "builtin:steps-tiny", " "), "prompt 0 is empty"),
        (("predict", "builtin:steps-tiny-peek2", EASY), "uses the first evaluations"),
        (("predict", "builtin:steps-tiny", EASY, "--rule", "plato"), "plateau"),
        (("predict", "builtin:steps-tiny", EASY, "--metric", "iklip"), "iclip"),
        (("train", "/nowhere", "--calibration", "/nowhere", "--out", "/tmp/x"), "does not exist"),
        (("evaluate", "/nowhere"), "does not exist"),
    ],
)
def test_what_cannot_be_is_said(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(PerjouleError, match=words):
        call(*arguments)


@pytest.mark.parametrize("name", suite_names())
def test_shipped_suites_can_be_planned(name: str) -> None:
    suite = load_suite(find_suite(name))
    # sets that others published are fetched when a suite runs; here the project's own stand in for them
    here = suite.prompts.source.startswith("builtin:")
    prompts = load_prompts(suite.prompts if here else PromptSource(source="builtin:everyday"), where=name)
    assert len(make_plan(suite, prompts)) >= len(cells_of(suite))
