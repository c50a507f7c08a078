"""The result of `integrate`, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.perjoule.test_cli import call


@pytest.fixture
def log(tmp_path: Path) -> Path:
    file = tmp_path / "power.csv"
    rows = "".join(f"{i / 10},{(300 if 30 <= i < 70 else 60) + i % 3}\n" for i in range(100))
    file.write_text("t_s,power_w\n" + rows)
    return file


def test_json_text_and_plot(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot = tmp_path / "power.svg"
    window = ("--from", "1", "--to", "9", "--plot", str(plot), "--json")
    code, out, _ = call("integrate", str(log), *window, capsys=capsys)
    assert code == 0
    found = json.loads(out)
    assert abs(found["energy_j"] - 4 * 301 - 4 * 61) <= found["uncertainty_j"]
    assert plot.read_text().startswith("<?xml")
    assert "±" in call("integrate", str(log), capsys=capsys)[1]


def test_gain_and_offset_by_name(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    by_name = call("integrate", str(log), "--sensor-gain", "1.05", "--sensor-offset", "-2", "--json", capsys=capsys)
    found = json.loads(by_name[1])
    assert found == json.loads(call("integrate", str(log), "--sensor", "1.05,-2", "--json", capsys=capsys)[1])
    assert (found["gain"], found["offset_w"]) == (1.05, -2.0)


def test_a_window_that_is_mostly_a_gap_has_no_energy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "gap.csv"
    file.write_text("t_s,power_w\n" + "".join(f"{i / 10 + 60 * (i > 30)},{60 + i % 3}\n" for i in range(60)))
    code, out, _ = call("integrate", str(file), capsys=capsys)
    assert code == 4
    assert "there are no samples for 60.0 s of a window of 65.9 s" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--from", "5", "--to", "2"), 2, "--from 5 is not before --to 2"),
        (("--from", "20", "--to", "30"), 4, "covers 0.000 to 9.900 s, not 20.000 to 30.000 s"),
        (("--from", "noon"), 2, "is not a time"),
        (("--column", "volts"), 4, "no column 'volts'"),
        (("--sensor", "stored"), 4, "which board"),
        (("--sensor", "1,2", "--sensor-gain", "1"), 2, "either --sensor or --sensor-gain"),
        (("--plot", "plot.txt"), 2, "must end in"),
    ],
)
def test_refusals(
    log: Path, arguments: tuple[str, ...], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = call("integrate", str(log), *arguments, capsys=capsys)
    assert status == code
    assert message in err
