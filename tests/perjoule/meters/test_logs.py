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
        ("t_s;power_w\n0,5;126,97 W\n1,5;127,00 W\n", [(0.5, 126.97), (1.5, 127.0)]),
        ("t_s,power_w\n0 s,5\n500 ms,6\n", [(0.0, 5.0), (0.5, 6.0)]),
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


# -- exact headers of other tools ----------------------------------------------------------------------------------

# codecarbon/output_methods/emissions_data.py, version 3
CODECARBON = (
    "timestamp,project_name,run_id,experiment_id,duration,emissions,emissions_rate,cpu_power,gpu_power,ram_power,"
    "cpu_energy,gpu_energy,ram_energy,energy_consumed,water_consumed,country_name,country_iso_code,region,"
    "cloud_provider,cloud_region,os,python_version,codecarbon_version,cpu_count,cpu_model,gpu_count,gpu_model,longitude,"
    "latitude,ram_total_size,tracking_mode,cpu_utilization_percent,gpu_utilization_percent,ram_utilization_percent,"
    "ram_used_gb,on_cloud,pue,wue\n"
)


def codecarbon(run: str, second: int, power_w: float) -> str:
    """A row of emissions.csv."""
    return (
        f"2026-11-28T16:00:{second:02d},codecarbon,{run},test,{second}.0,1e-05,1e-06,42.5,{power_w},3.0,1e-4,2e-3,1e-5,"
        "2.1e-3,0.0,France,FRA,île-de-france,,,Linux-6.8,3.11.9,3.0.4,16,AMD EPYC,1,1 x NVIDIA A100,2.3,48.8,64.0,"
        "machine,1.0,90.0,5.0,3.1,N,1.0,0.0\n"
    )


def test_codecarbon(tmp_path: Path) -> None:
    rows = CODECARBON + "".join(codecarbon("one", 15 * i, 100.0 + i) for i in range(3))
    assert log(tmp_path, rows, column="gpu_power") == [(0.0, 100.0), (15.0, 101.0), (30.0, 102.0)]
    assert read_log(tmp_path / "power.csv", column="gpu_power").provenance == "estimated"
    with pytest.raises(MeterError, match="cpu_power, gpu_power, ram_power; choose one with --column"):
        read_log(tmp_path / "power.csv")
    with pytest.raises(MeterError, match="rows of 2 runs of codecarbon; a row sums up a run"):
        log(tmp_path, rows + codecarbon("other", 59, 90.0), column="gpu_power")


def test_zeus(tmp_path: Path) -> None:
    """Its power monitor wrote time() and W of each board, without a header, until version 0.11."""
    rows = "".join(f"{1764345600 + i / 10},{126.97 + i},{88.1 + i}\n" for i in range(3))
    found = log(tmp_path, rows, board="1")
    assert [power_w for _, power_w in found] == pytest.approx([88.1, 89.1, 90.1])
    with pytest.raises(MeterError, match="mixes 2 boards: 0, 1; choose one with --board"):
        read_log(tmp_path / "power.csv")
    windows = "start_time,window_name,elapsed_time,gpu0_energy\n1764345600.1,step,2.5,300.0\n"
    with pytest.raises(MeterError, match="no column of times and power; it has start_time"):
        log(tmp_path, windows)


@pytest.mark.parametrize(("title", "column"), [("POWER", "power.draw"), ("POWINST", "power.draw.instant")])
def test_dcgmi_dmon_as_it_prints_columns(tmp_path: Path, title: str, column: str) -> None:
    """Widths of dcgmi/DeviceMonitor.cpp; the header is repeated, and a missing value is N/A."""
    header = f"{'#Entity':<16}{'TMPTR':<10}{title:<12}\n{'ID':<16}{'C':<10}{'W':<12}\n"
    rows = [f"{'GPU 0':<16}{'41':<10}{power:<12}\n" for power in ("126.970", "N/A", "300.500")]
    text = header + "".join(rows) + header + rows[0]
    assert log(tmp_path, text, interval_s=0.5) == [(0.0, 126.97), (1.0, 300.5), (1.5, 126.97)]
    assert read_log(tmp_path / "power.csv", interval_s=0.5).column == column


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("timestamp, power.draw [W]\n", "{time}, {power:.2f} W\n"),  # --format=csv -lms 100
        ("index, timestamp, power.draw [W], clocks.current.sm [MHz]\n", "0, {time}, {power:.2f} W, 1545 MHz\n"),
        ("timestamp, power.draw [W], power.draw.instant [W], enforced.power.limit [W]\n",
         "{time}, 5.00 W, {power:.2f} W, 350.00 W\n"),
        ("timestamp, index, power.draw [W]\n", "{time}, 0, {power:.2f}\n"),  # nounits
        ("", "{time}, {power:.2f}\n"),  # noheader,nounits
        ("", "{time}, 0, {power:.2f}\n"),
        ("", "{time}, {power:.2f} W\n"),  # noheader
    ],
)  # fmt: skip
def test_nvidia_smi_formats(tmp_path: Path, header: str, row: str) -> None:
    times = [f"2026/11/28 16:00:0{i}.25{i}" for i in range(4)]
    text = header + "".join(row.format(time=time, power=120 + 5.5 * i) for i, time in enumerate(times))
    found = log(tmp_path, text)
    assert [power_w for _, power_w in found] == [120.0, 125.5, 131.0, 136.5]
    assert [t_s for t_s, _ in found] == pytest.approx([0.0, 1.001, 2.002, 3.003])
    assert read_log(tmp_path / "power.csv").source == "nvidia-smi"


@pytest.mark.parametrize("apart_s", [0.0, 0.002])
@pytest.mark.parametrize("boards", [2, 3])
def test_boards_that_are_not_named_are_not_mixed(tmp_path: Path, boards: int, apart_s: float) -> None:
    rows = "".join(
        f"{i / 10 + board * apart_s:.3f},{(300 if 20 <= i < 40 else 60) + 40 * board + i % 3}\n"
        for i in range(60)
        for board in range(boards)
    )
    with pytest.raises(MeterError, match=f"mixes the readings of {boards} boards and does not name them"):
        log(tmp_path, "t_s,power_w\n" + rows)


def test_one_board_that_works_and_rests_in_turn_is_not_taken_for_two(tmp_path: Path) -> None:
    assert log(tmp_path, "t_s,power_w\n" + "".join(f"{i / 10:.1f},{60 + 240 * (i % 2)}\n" for i in range(60)))


def test_a_gap_is_noted(tmp_path: Path) -> None:
    log(tmp_path, "t_s,power_w\n" + "".join(f"{i / 10 + (3600 if i > 30 else 0)},{60 + i % 3}\n" for i in range(60)))
    note = "no samples for 3.6e+03 s after 3.000 s (nothing was logged, or the clock was set)"
    assert read_log(tmp_path / "power.csv").notes == (note,)
