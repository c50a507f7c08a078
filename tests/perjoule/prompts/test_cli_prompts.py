"""Prompts from the command line: what a run records of them, and that `--offline` means it."""

from __future__ import annotations

import hashlib
import sys

import pytest
from tests.support.suites import suite_text

from perjoule import cli
from perjoule.runs.directory import load_run

pytestmark = pytest.mark.slow

PROMPT = b"a large red circle on a white ground\n"


def perjoule(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["perjoule", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_a_run_records_its_prompts_and_an_offline_one_uses_the_cache(web, tmp_path, monkeypatch, capsys, caplog):
    suite = tmp_path / "suite.toml"
    protocol = {"idle_s": 0.0, "threads": 1}
    suite.write_text(suite_text({"steps": [1]}, protocol=protocol, source=f"{web.url}/p.txt"))
    web.pages["/p.txt"] = PROMPT
    command = ["run", str(suite), "--out", str(tmp_path / "run"), "--meter", "estimate", "-q"]

    assert perjoule(monkeypatch, *command, "--offline") == 2
    assert "the network is off" in capsys.readouterr().err
    assert web.asked == []

    monkeypatch.setenv("PERJOULE_OFFLINE", "0")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert perjoule(monkeypatch, *command) == 0
    digest = hashlib.sha256(PROMPT).hexdigest()
    assert f'is not pinned: set prompts.sha256 = "{digest}"' in caplog.text
    assert load_run(tmp_path / "run").environment["prompts"] == {
        "source": f"{web.url}/p.txt",
        "files": [f"{web.url}/p.txt"],
        "sha256": digest,
        "pinned": False,
        "licence": "not stated",
        "commercial": None,
        "selection": None,
    }
    assert perjoule(monkeypatch, *command, "--offline", "--resume") == 0
    assert web.asked == ["/p.txt"]
