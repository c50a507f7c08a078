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


@pytest.mark.parametrize(
    ("options", "gain", "offset_w"),
    [
        (("--sensor", "0.9,20"), 0.9, 20.0),
        (("--sensor-gain", "0.9", "--sensor-offset", "20"), 0.9, 20.0),
        (("--sensor-gain", "0.9"), 0.9, 0.0),
        (("--sensor-offset", "-5"), 1.0, -5.0),
    ],
)
def test_gain_and_offset(
    log: Path, options: tuple[str, ...], gain: float, offset_w: float, capsys: pytest.CaptureFixture[str]
) -> None:
    window = ("--from", "1", "--to", "9", "--json")
    raw, corrected = (
        json.loads(call("integrate", str(log), *window, *more, capsys=capsys)[1]) for more in ((), options)
    )
    assert corrected["energy_j"] == pytest.approx(gain * raw["energy_j"] + offset_w * 8.0)
    assert f"gain {gain:.4g} and offset {offset_w:+.3g} W (as stated)" in corrected["method"]
    assert corrected["provenance"] == raw["provenance"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--from", "5", "--to", "2"), 2, "--from 5 is not before --to 2"),
        (("--from", "20", "--to", "30"), 4, "covers 0.000 to 9.900 s, not 20.000 to 30.000 s"),
        (("--from", "noon"), 2, "is not a time"),
        (("--column", "volts"), 4, "no column 'volts'"),
        (("--sensor", "stored"), 4, "which board"),
        (("--sensor", "1.1,5", "--sensor-gain", "1.1"), 2, "not both"),
        (("--sensor-gain", "9"), 2, "a gain of 0.5 to 2"),
        (("--plot", "plot.txt"), 2, "must end in"),
    ],
)
def test_refusals(
    log: Path, arguments: tuple[str, ...], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = call("integrate", str(log), *arguments, capsys=capsys)
    assert status == code
    assert message in err
