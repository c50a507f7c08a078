"""The check runs on a simulated board; the experiments with the meter and the sizes of networks, about 40 s."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from perjoule.testing import nvml_simulator
from tests.gpu.records import Record, of_kind, read_records
from tests.gpu.stages import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.skipif(nvml_simulator.compiler() is None, reason="no C compiler")]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rehearsal") / "out"
    command = [sys.executable, "-m", "tests.gpu", "rehearse", "--out", str(folder), "meter", "sizes"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    logs = "".join(path.read_text()[-2000:] for path in sorted(folder.glob("*.txt")))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    return folder


@pytest.fixture(scope="module")
def meter(out: Path) -> list[Record]:
    return read_records(out / "meter.jsonl")


def test_every_experiment_but_the_phase_test_has_records(meter: list[Record]) -> None:
    kinds = {record["kind"] for record in meter}
    assert {"facts", "costs", "updates", "rest", "steps", "meter", "window", "other tools"} <= kinds
    assert {"train", "burst", "sum", "sources", "end"} <= kinds
    assert [record["experiment"] for record in of_kind(meter, "skipped")] == ["phase"]
    assert not of_kind(meter, "failed")


def test_windows_contain_the_simulated_truth(meter: list[Record]) -> None:
    windows = [record for record in of_kind(meter, "window") if record["energy_j"] is not None]
    assert windows
    assert all(math.isclose(w["energy_j"], w["true_j"], abs_tol=w["bound_j"]) for w in windows)


def test_energy_per_image_is_recorded_by_network_and_batch(out: Path) -> None:
    sizes = of_kind(read_records(out / "sizes.jsonl"), "size")
    assert {(r["name"], r["batch"], r["steps"]) for r in sizes} >= {("sd21", 1, 2), ("sd21", 4, 4), ("sdxl", 1, 4)}
    assert all(record["nfe_per_image"] == 2 * record["steps"] for record in sizes)  # with guidance


def test_the_summary_has_a_table_for_each_experiment(out: Path) -> None:
    titles = re.findall(r"^## (.+)$", (out / "summary.md").read_text(), re.MULTILINE)
    assert titles == [
        "Duration of an NVML call, ms",
        "Energy counter",
        "Power at rest, W",
        "Windows compared with the line of equal work",
        "Windows compared with the simulated board's true energy",
        "Bursts in one window and in windows of their own",
        "Additivity, J",
        "Power by source, W",
        *(["Warnings"] if "## Warnings" in (out / "summary.md").read_text() else []),
        "Real sizes, random weights",
        "Experiments without a result",
        "Stages",
    ]


def test_no_file_contains_a_uuid(out: Path) -> None:
    for path in out.rglob("*"):
        if path.is_file():
            assert not re.search(rb"GPU-[0-9a-f]{8}-[0-9a-f]{4}-", path.read_bytes()), path
