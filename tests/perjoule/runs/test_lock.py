"""Of two processes on one run directory or one board, one goes on; a crash leaves no lock behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perjoule.errors import MeterError, UsageError
from perjoule.meters.base import BaseMeter
from perjoule.runs.lock import being_read, being_written, measured_alone
from perjoule.testing import SyntheticMeter, VirtualClock

HOLDER = """
import sys, time
from pathlib import Path
from perjoule.runs.lock import being_written
with being_written(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_is_refused_by_number_until_it_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"is being written by process {holder.pid}"), being_written(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with being_written(tmp_path):
            assert list(tmp_path.iterdir()) == []  # nothing is left behind, by either


def test_several_may_read_but_nobody_writes_meanwhile(tmp_path: Path) -> None:
    reader = HOLDER.replace("being_written", "being_read")
    with subprocess.Popen([sys.executable, "-c", reader, tmp_path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with being_read(tmp_path):
            pass
        with pytest.raises(UsageError, match=f"is being read by process {holder.pid}"), being_written(tmp_path):
            pass
        holder.kill()
    with (
        being_written(tmp_path),
        pytest.raises(UsageError, match=f"is being written by process {os.getpid()}"),
        being_read(tmp_path),
    ):
        pass


def test_a_lock_ends_with_its_block_even_if_that_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="work"), being_written(tmp_path):
        raise ValueError("work")
    with being_written(tmp_path):
        pass


def test_a_file_system_without_locks_is_used_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(handle: int, operation: int) -> None:
        raise OSError(95, os.strerror(95))

    monkeypatch.setattr("fcntl.flock", unsupported)
    with being_written(tmp_path), being_written(tmp_path):
        pass


def board(digest: str) -> Any:
    return SimpleNamespace(model="A100", digest=digest)


class TestBoards:
    @pytest.fixture
    def meter(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BaseMeter[float]:
        monkeypatch.setenv("PERJOULE_STATE", str(tmp_path))
        meter = SyntheticMeter(10.0, VirtualClock())
        meter.facts = (board("d1"),)
        return meter

    def test_a_board_is_measured_by_one_run_at_a_time(self, meter: BaseMeter[float]) -> None:
        refused = pytest.raises(MeterError, match="A100 is being measured by process")
        with measured_alone(meter), refused, measured_alone(meter):
            pass
        with measured_alone(meter):
            pass

    def test_other_boards_and_meters_without_boards_are_free(self, meter: BaseMeter[float]) -> None:
        with (
            measured_alone(meter),
            measured_alone(SyntheticMeter(10.0, VirtualClock())),
            measured_alone(SyntheticMeter(10.0, VirtualClock())),
        ):
            meter.facts = (board("d2"),)
            with measured_alone(meter):
                pass

    def test_without_a_folder_to_write_to_there_is_no_lock(
        self, meter: BaseMeter[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("PERJOULE_STATE", str(tmp_path / "file"))
        with measured_alone(meter), measured_alone(meter):
            pass
