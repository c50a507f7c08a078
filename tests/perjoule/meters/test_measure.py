"""`perjoule measure` and `doctor`, in processes of their own, on an estimate, a replay, and simulated boards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perjoule.testing import ConstantPower, NvmlSimulator, SimulatedBoard
from perjoule.testing import nvml_simulator as module
from perjoule.text import board_digest

pytestmark = pytest.mark.slow

PERJOULE = [sys.executable, "-c", "from perjoule.cli import main; main()"]
needs_compiler = pytest.mark.skipif(module.compiler() is None, reason="no C compiler")

Call = Callable[..., subprocess.CompletedProcess[str]]


def test_counted_work_does_not_see_commands() -> None:
    done = perjoule("measure", "--meter", "work", "--", "true")
    assert done.returncode == 2
    assert "counted work sees networks of this process only" in done.stderr


@pytest.fixture
def trace(tmp_path: Path) -> str:
    """A minute at 50 W, as `--meter`."""
    file = tmp_path / "trace.csv"
    file.write_text("t_s,power_w,boundary,provenance\n0,50,gpu-board,measured\n60,50,gpu-board,measured\n")
    return f"replay:{file}"


def perjoule(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(sys.path)
    return subprocess.run(
        [*PERJOULE, *arguments],
        env=os.environ | {"PYTHONPATH": path} | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_output_stays_the_commands_and_the_joules_go_to_stderr(trace: str) -> None:
    done = perjoule("measure", "--meter", trace, "--", "sh", "-c", "echo mine; sleep 0.2")
    assert (done.returncode, done.stdout) == (0, "mine\n")
    assert "gpu-board, measured" in done.stderr
    assert "replay of trace.csv" in done.stderr


def test_json_is_alone_on_stdout_and_fits_its_schema(trace: str) -> None:
    done = perjoule("measure", "--json", "--meter", trace, "sh", "-c", "echo mine; sleep 0.2")
    assert done.returncode == 0
    assert done.stderr == "mine\n"
    found = json.loads(done.stdout)
    assert found["energy_j"] == pytest.approx(50.0 * found["duration_s"])
    assert found["duration_s"] >= 0.2
    assert found["command"] == ["sh", "-c", "echo mine; sleep 0.2"]
    assert (found["exit_code"], found["signal"], found["co2"]) == (0, None, None)
    schema = json.loads(perjoule("schema").stdout)["measure"]
    assert set(found) == set(schema["properties"]) == set(schema["required"])


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [("exit 3", 3, "exited with 3"), ("kill -KILL $$", 137, "SIGKILL"), ("kill -TERM $$", 143, "SIGTERM")],
)
def test_the_exit_code_is_passed_on_and_the_joules_are_kept(trace: str, script: str, code: int, words: str) -> None:
    done = perjoule("measure", "--meter", trace, "--", "sh", "-c", f"sleep 0.1; {script}")
    assert done.returncode == code
    assert words in done.stderr
    assert " J ± " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["no-such-command"], 127, "'no-such-command' was not found on PATH"),
        (["./no/such/file"], 127, "does not exist"),
        (["/"], 126, "is a folder"),
        (["PLAIN"], 126, "chmod +x"),
        (["NO-FORMAT"], 126, "cannot be started"),
        ([""], 2, "no command was given"),
        (["--meter", "nvlm", "true"], 2, "did you mean 'nvml'"),
        (["--meter", "replay:EMPTY", "true"], 4, "has no rows"),
        (["--meter", "replay:CORRUPT", "true"], 4, "power_w is 'x'"),
        (["--meter", "replay:absent.csv", "true"], 4, "is not a file"),
        (["--meter", "nvml:", "true"], 4, "does not name a board"),
        (["--co2-country", "FRX", "true"], 2, "'FRX' is not a country"),
    ],
)
def test_one_clear_error_each_and_nothing_is_started(
    tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    for name, content in (("PLAIN", ""), ("NO-FORMAT", "\0"), ("EMPTY", ""), ("CORRUPT", "t_s,power_w\n0,5\n1,x\n")):
        (tmp_path / name).write_text(content)
    (tmp_path / "NO-FORMAT").chmod(0o755)
    arguments = [
        f"{head}{tmp_path / tail}" if tail in {"PLAIN", "NO-FORMAT", "EMPTY", "CORRUPT"} else one
        for one in arguments
        for head, tail in [("replay:", one.removeprefix("replay:")) if one.startswith("replay:") else ("", one)]
    ]
    done = perjoule("measure", *arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert done.stderr.startswith("perjoule: ")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_a_command_that_outlasts_the_source_has_no_energy_and_exits_with_4(tmp_path: Path) -> None:
    file = tmp_path / "short.csv"
    file.write_text("t_s,power_w\n0,5\n0.05,5\n")
    done = perjoule("measure", "--meter", f"replay:{file}", "sleep", "0.2")
    assert done.returncode == 4
    assert "no energy" in done.stderr
    assert "W240" in done.stderr
    assert perjoule("measure", "--meter", f"replay:{file}", "sh", "-c", "sleep 0.2; exit 5").returncode == 5


def test_grams_only_on_request_and_with_their_source(trace: str) -> None:
    assert "CO2" not in perjoule("measure", "--meter", trace, "sleep", "0.1").stderr
    done = perjoule("measure", "--meter", trace, "--co2-country", "fra", "--json", "sleep", "0.1")
    found = json.loads(done.stdout)["co2"]
    assert found["grams"] == pytest.approx(found["energy_j"] / 3.6e6 * found["factor_g_per_kwh"])
    assert (found["country_iso3"], found["country"]) == ("FRA", "France")
    assert "Our World in Data" in found["source"]
    assert found["year"] > 2015


def started(trace: str, *command: str) -> subprocess.Popen[str]:
    path = os.pathsep.join(sys.path)
    return subprocess.Popen(
        [*PERJOULE, "measure", "--meter", trace, "--", *command],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


SAYS_ITS_PID = "echo $$; exec sleep 30"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_command_and_what_was_measured_is_told(trace: str, number: signal.Signals) -> None:
    process = started(trace, "sh", "-c", SAYS_ITS_PID)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.send_signal(number)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert f"ended by {number.name}" in stderr
    assert " J ± " in stderr
    assert gone(child)


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_killed_perjoule_leaves_no_command_behind(trace: str) -> None:
    process = started(trace, "sh", "-c", SAYS_ITS_PID)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    assert gone(child)


def gone(pid: int, within_s: float = 2.0) -> bool:
    """Whether the process ends, or is but a zombie that nobody waits for."""
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.01)
    return False


# -- simulated boards --------------------------------------------------------------------------------------------------


@pytest.fixture
def boards(tmp_path: Path) -> Iterator[Callable[..., NvmlSimulator]]:
    made: list[NvmlSimulator] = []

    def simulator(*boards: SimulatedBoard, **options: Any) -> NvmlSimulator:
        made.append(NvmlSimulator(boards, tmp_path, **options))
        return made[-1]

    yield simulator
    for one in made:
        one.close()


@needs_compiler
def test_a_command_on_a_simulated_board(boards: Callable[..., NvmlSimulator]) -> None:
    simulator = boards(SimulatedBoard(), SimulatedBoard(wave=ConstantPower(200.0), memory_bytes=3 << 30))
    environment = simulator.environment() | {"CUDA_VISIBLE_DEVICES": "1"}
    done = perjoule("measure", "--json", "sleep", "0.5", environment=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["meter"] == f"nvml:{board_digest(simulator.boards[1].uuid)}"
    assert (found["boundary"], found["provenance"]) == ("gpu-board", "measured")
    assert abs(found["energy_j"] - 200.0 * found["duration_s"]) <= found["uncertainty_j"] < 0.5 * found["energy_j"]
    assert found["peak_memory_bytes"] == 3 << 30
    assert 0 <= found["utilisation"] <= 1
    text = perjoule("measure", "sleep", "0.2", environment=environment).stderr
    assert "peak memory 3.00 GiB" in text
    assert "°C" in text


@needs_compiler
def test_a_board_that_is_lost_on_the_way_keeps_what_was_counted(boards: Callable[..., NvmlSimulator]) -> None:
    simulator = boards(SimulatedBoard(wave=ConstantPower(200.0)))
    lose = (
        "import sys, time; from perjoule.testing import NvmlSimulator; s = NvmlSimulator.attach(); time.sleep(0.7); "
        "s.change(0, lost_at_s=s.now()); time.sleep(0.6)"
    )
    done = perjoule("measure", "--json", sys.executable, "-c", lose, environment=simulator.environment())
    assert done.returncode == 4, done.stderr
    found = json.loads(done.stdout)
    assert found["energy_j"] is None
    assert any("W220" in said for said in found["warnings"])
    assert found["partial_energy_j"] == pytest.approx(200.0 * found["partial_s"], abs=20.0)
    assert found["partial_s"] > 0.5


@needs_compiler
def test_the_doctor_tries_what_there_is(boards: Callable[..., NvmlSimulator]) -> None:
    hidden = SimulatedBoard(wave=ConstantPower(80.0), unsupported=("energy", "energy_field"), memory_bytes=1 << 30)
    simulator = boards(SimulatedBoard(), hidden)
    environment = simulator.environment() | {"CUDA_VISIBLE_DEVICES": "1"}
    done = perjoule("doctor", "--json", environment=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    first, second = (f"nvml:{board_digest(board.uuid)}" for board in simulator.boards)
    assert found["auto"] == second
    by_name = {one["name"]: one for one in found["meters"]}
    counter, power = by_name[first], by_name[second]
    assert counter["works"]
    assert counter["boards"][0]["period"]["median_s"] == pytest.approx(0.1, rel=0.1)
    assert counter["idle_power_w"] == pytest.approx(60.0, abs=3.0)
    assert 0 < counter["rest_to_rest_j"] < 20.0
    assert power["rest_to_rest_j"] is None
    assert "instant power" in power["method"]
    assert [one[:4] for one in power["windows"][0]["warnings"]][:1] == ["W203"]
    for one in (counter, power):
        for window in one["windows"]:
            assert abs(window["energy_j"] - one["idle_power_w"] * window["length_s"]) <= window["uncertainty_j"]
    assert by_name["replay:FILE"]["works"] is None
    assert (by_name["work:cpu"]["works"], by_name["work:cpu"]["windows"]) == (True, [])
    assert not by_name["rapl"]["works"] or by_name["rapl"]["provenance"] == "measured"
    schema = json.loads(perjoule("schema").stdout)["doctor"]
    assert set(found) == set(schema["properties"])
    text = perjoule("doctor", "--quiet", environment=environment)
    assert text.stderr == ""
    assert f"auto uses {second}" in text.stdout
    assert "work between rests" in text.stdout


@needs_compiler
def test_the_doctor_says_what_stands_in_the_way(boards: Callable[..., NvmlSimulator]) -> None:
    simulator = boards(SimulatedBoard(), init_error=4)
    done = perjoule("doctor", environment=simulator.environment())
    assert "check the permissions of /dev/nvidia*" in done.stdout
    assert "Nothing can be measured here" in done.stdout
    assert "perjoule run uses work:cpu instead" in done.stdout
    refused = perjoule("measure", "--meter", "nvml", "true", environment=simulator.environment())
    assert refused.returncode == 4
    assert "check the permissions of /dev/nvidia*" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
