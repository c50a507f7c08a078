"""Power logs as other tools write them, and what is wrong with some."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perjoule.errors import MeterError
from perjoule.meters.logs import read_log
from perjoule.text import board_digest

UUIDS = ("GPU-11111111-aaaa-bbbb-cccc-000000000000", "GPU-22222222-aaaa-bbbb-cccc-000000000000")
SMI = """timestamp, index, uuid, power.draw [W], power.limit [W]
2026/11/28 16:00:00.000, 0, {0}, 126.97 W, 350.00 W
2026/11/28 16:00:00.000, 1, {1}, 50.00 W, 350.00 W
2026/11/28 16:00:00.250, 0, {0}, [N/A], 350.00 W
2026/11/28 16:00:00.250, 1, {1}, 51.00 W, 350.00 W
2026/11/28 16:00:00.500, 0, {0}, 300.50 W, 350.00 W
2026/11/28 16:00:00.500, 1, {1}, 52.00 W, 350.00 W
""".format(*UUIDS)
DMON = """#Entity   POWER     TOTEC
ID        W         mJ
GPU 0     126.970   123456
GPU 1     50.000    1
GPU 0     127.970   123457
GPU 1     51.000    2
"""
DCGM = "".join(
    f'DCGM_FI_DEV_POWER_USAGE{{gpu="0",UUID="{UUIDS[0]}",modelName="A"}} {power} {1764345600000 + 250 * i}\n'
    for i, power in enumerate((126.97, 130.0, 300.5))
)


def log(folder: Path, text: str, **chosen: Any) -> list[tuple[float, float]]:
    file = folder / "power.csv"
    file.write_text(text)
    return read_log(file, **chosen).good


@pytest.mark.parametrize("board", ["0", UUIDS[0], UUIDS[0][:9], board_digest(UUIDS[0])])
def test_nvidia_smi_of_two_boards(tmp_path: Path, board: str) -> None:
    times, powers = zip(*log(tmp_path, SMI, board=board), strict=True)
    assert times == pytest.approx((0.0, 0.5))
    assert powers == pytest.approx((126.97, 300.5))
    read = read_log(tmp_path / "power.csv", board=board)
    assert (read.provenance, read.boundary, read.board) == ("measured", "gpu-board", board_digest(UUIDS[0]))
    assert read.time_s("2026-11-28 16:00:00.4") == pytest.approx(0.4)
    assert UUIDS[0] not in repr(read)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026/11/28 16:00:00.000, 126.97 W\n2026/11/28 16:00:00.500, 127 W\n", [(0.0, 126.97), (0.5, 127.0)]),
        ("2026/11/28 16:00:00.000, 126.97\n2026/11/28 16:00:00.500, 127.00\n", [(0.0, 126.97), (0.5, 127.0)]),
        ("1764345600.0,126.97\n1764345600.5,127.0\n", [(0.0, 126.97), (0.5, 127.0)]),
        ("time,0\n1764345600.0,126.97\n1764345600.5,127.0\n", [(0.0, 126.97), (0.5, 127.0)]),
        ("t_s,power_mw\n1,126970\n2,127000\n", [(1.0, 126.97), (2.0, 127.0)]),
        ("timestamp_ms;Power (kW)\n0;0.5\n500;0.6\n", [(0.0, 500.0), (0.5, 600.0)]),
        ("t_s,power_w\n0,5\n0,5\n1,6\n", [(0.0, 5.0), (1.0, 6.0)]),
        ("t_s,power_w\n0,5.00\n1,6.00\n2,7.", [(0.0, 5.0), (1.0, 6.0)]),
        ("t_s,power_w\n0,5\n1,6\n2", [(0.0, 5.0), (1.0, 6.0)]),
        (DCGM, [(0.0, 126.97), (0.25, 130.0), (0.5, 300.5)]),
        ("timestamp,run_id,emissions,gpu_power\n2026-11-28T16:00:00,a,1,5\n2026-11-28T16:00:15,a,2,6\n",
         [(0.0, 5.0), (15.0, 6.0)]),
    ],
)  # fmt: skip
def test_formats(tmp_path: Path, text: str, expected: list[tuple[float, float]]) -> None:
    assert [(round(t_s, 4), round(power_w, 4)) for t_s, power_w in log(tmp_path, text)] == expected


def test_dmon_needs_the_time_between_its_rows(tmp_path: Path) -> None:
    assert log(tmp_path, DMON, board="1", interval_s=0.1) == [(0.0, 50.0), (0.1, 51.0)]
    with pytest.raises(MeterError, match="--interval"):
        read_log(tmp_path / "power.csv", board="1")


def test_a_truncated_last_line_is_noted(tmp_path: Path) -> None:
    log(tmp_path, "t_s,power_w\n0,5\n1,6\n2")
    assert "truncated" in read_log(tmp_path / "power.csv").notes[0]


@pytest.mark.parametrize(
    ("text", "chosen", "message"),
    [
        ("", {}, "has no rows"),
        (SMI, {}, "mixes 2 boards.*--board"),
        (SMI, {"board": "7"}, "has no board '7'"),
        (SMI, {"board": "0", "column": "volts"}, "has no column 'volts'; it has timestamp, index, uuid, power.draw"),
        (DMON, {"interval_s": 1.0}, "mixes 2 boards"),
        ("timestamp,cpu_power,ram_power,gpu_power\n1,2,3,4\n2,2,3,4\n", {}, "several columns of power.*--column"),
        ("time,0,1\n1764345600.0,126.97,5\n1764345600.5,127.0,5\n", {}, "mixes 2 boards"),
        ("timestamp,temperature\n0,5\n1,6\n", {}, "no column of power; it has timestamp, temperature"),
        ("t_s,power_w\n0,5\n2,5\n1,6\n", {}, "sample 3: t_s goes back from 2 s to 1 s"),
        ('DCGM_FI_DEV_POWER_USAGE{gpu="0"} 5\n', {}, "without times"),
        ("t_s,power_w\nlater,5\n1,6\n", {}, "sample 1: t_s is 'later'"),
    ],
)
def test_bad_logs_have_one_clear_error(tmp_path: Path, text: str, chosen: dict[str, str], message: str) -> None:
    with pytest.raises(MeterError, match=message) as caught:
        log(tmp_path, text, **chosen)
    assert "power.csv" in str(caught.value)
    assert "\n" not in str(caught.value)
