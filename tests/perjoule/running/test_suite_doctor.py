from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from perjoule.running.suite_doctor import examine
from perjoule.suite.reading import parse_suite
from tests.support.suites import suite_text


@pytest.mark.parametrize(
    ("policy", "key", "verb"), [("budgetfusion", "predictor", "budgetfusion"), ("router", "router", "route")]
)
def test_a_folder_that_a_policy_needs(policy: str, key: str, verb: str, tmp_path: Path) -> None:
    there, missing = tmp_path / "there", tmp_path / "missing"
    there.mkdir()
    variants = [{"name": name, "policy": policy, "levels": [0.5]} for name in ("first", "second")]
    table = tomllib.loads(suite_text(*variants, protocol={"seeds": [1]}))
    for variant, folder in zip(table["variants"], (there, missing), strict=True):
        variant["policy_args"] = {key: str(folder)}
    needs = {need.name: need for need in examine(parse_suite(table, where="s.toml")).needs}
    assert needs[str(there)].state == "ok"
    assert needs[str(missing)].state == "missing"
    assert f"perjoule {verb} train" in needs[str(missing)].says
