from __future__ import annotations

from io import BytesIO
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perjoule.errors import MeterError
from perjoule.meters.replay import ReplayMeter
from perjoule.testing import VirtualClock


def csv(path: Path, text: str) -> Path:
    file = path / "trace.csv"
    file.write_text(text)
    return file


def test_windows_follow_each_other_and_rests_cost_nothing(tmp_path: Path) -> None:
    """A ramp of 100 W a second: energy between a and b is 50 (b^2 - a^2), and each bound covers its error."""
    rows = "".join(f"{i / 20},{5 * i}\n" for i in range(81))
    clock = VirtualClock()
    with ReplayMeter(csv(tmp_path, f"t_s,power_w\n{rows}"), clock) as meter:
        readings = []
        for length_s in (0.5, 1.25, 2.0):
            clock.advance(7.0)
            with meter.window() as window:
                clock.advance(length_s)
            readings.append(window.reading)
        for reading, truth_j in zip(readings, [12.5, 50 * (1.75**2 - 0.25), 50 * (3.75**2 - 1.75**2)], strict=True):
            assert reading.energy_j is not None
            assert reading.uncertainty_j is not None
            assert 0 < abs(reading.energy_j - truth_j) <= reading.uncertainty_j
        with meter.window() as window:
            clock.advance(0.5)
        assert window.reading.energy_j is None
        assert window.reading.warnings[0].startswith("W240")
        with meter.window() as window:
            clock.advance(0.1)
        assert window.reading.energy_j is None
    first = readings[0]
    assert (first.provenance, first.boundary) == ("simulated", "estimate")
    assert first.trace is not None
    assert first.trace.power_w[:2] == (0.0, 5.0)
    assert "trace.csv" in first.method


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    powers=st.lists(st.integers(1, 500), min_size=3, max_size=20),
    shares=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6),
)
def test_the_parts_add_up_to_the_whole(tmp_path: Path, powers: list[int], shares: list[float]) -> None:
    rows = "\n".join(f"{i * 0.1 + 3:.1f},{power}" for i, power in enumerate(powers))
    clock = VirtualClock()
    length_s = (len(powers) - 1) * 0.1 - 1e-9
    total_j = 0.0
    with ReplayMeter(csv(tmp_path, f"t_s,power_w\n{rows}\n"), clock) as meter:
        for share in shares:
            with meter.window() as window:
                clock.advance(length_s * share / sum(shares))
            assert window.reading.energy_j is not None
            total_j += window.reading.energy_j
        meter._cursor_s = meter._first_s
        with meter.window() as window:
            clock.advance(length_s * (1 - 1e-9))
    assert total_j == pytest.approx(window.reading.energy_j, rel=1e-6)


def test_the_power_table_of_a_run_replays_its_trials_in_turn(tmp_path: Path) -> None:
    table = pl.DataFrame(
        {
            "trial_id": ["a"] * 21 + ["b"] * 21,
            "t_s": [i / 20 for i in range(21)] * 2,
            "power_w": [100.0 + i % 2 for i in range(21)] + [300.0 + i % 2 for i in range(21)],
            "source": ["instant"] * 42,
            "provenance": ["measured"] * 42,
            "boundary": ["gpu-board"] * 42,
        }
    )
    file = tmp_path / "power.parquet"
    table.write_parquet(file)
    clock = VirtualClock()
    with ReplayMeter(file, clock) as meter:
        with meter.window() as first:
            clock.advance(0.75)
        with meter.window() as second:
            clock.advance(0.5)
    assert first.reading.energy_j == pytest.approx(75.4, abs=0.2)
    assert second.reading.energy_j == pytest.approx(0.25 * 100.5 + 0.25 * 300.5, abs=second.reading.uncertainty_j)
    assert (first.reading.provenance, first.reading.boundary) == ("measured", "gpu-board")
    assert "instant" in first.reading.method


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"),
        ("t_s,power_w\n", "0 samples"),
        ("t_s,power_w\n0,5\n", "1 samples"),
        ("time,volts\n0,5\n1,5\n", "no column of power; it has time, volts"),
        ("t_s,power_w\n0,5\n1,oops\n", "sample 2: power_w is 'oops'"),
        ("t_s,power_w\n0,5\n1,\n", "1 samples"),
        ("t_s,power_w\n0,5\n1,inf\n", "sample 2: power_w"),
        ("t_s,power_w\n0,5\n1,-3\n", "below 0"),
        ("t_s,power_w\n1,5\n0,5\n", "goes back.*must increase"),
        ("trial_id,t_s,power_w\na,0,5\nb,1,5\n", "has no duration"),
        ("t_s,power_w,provenance\n0,5,sworn\n1,5,sworn\n", "provenance is 'sworn'"),
        ("t_s,power_w,boundary\n0,5,gpu-board\n1,5,estimate\n", "mixes boundaries"),
    ],
)
def test_bad_files_are_refused_with_the_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(MeterError, match=message) as caught:
        ReplayMeter(csv(tmp_path, text))
    assert "trace.csv" in str(caught.value)


def test_absent_files_and_folders_are_refused(tmp_path: Path) -> None:
    for name in ("absent.csv", "."):
        with pytest.raises(MeterError, match="not a file"):
            ReplayMeter(tmp_path / name)


def parquet(table: pl.DataFrame) -> bytes:
    buffer = BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()


TRACE = parquet(pl.DataFrame({"t_s": [0.0, 1.0], "power_w": [5.0, 6.0]}))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("trace.parquet", b"", "cannot be read"),
        ("trace.parquet", b"PAR1 no", "cannot be read"),
        ("trace.parquet", TRACE[: len(TRACE) // 2], "cannot be read"),
        ("trace.parquet", TRACE[:-1], "cannot be read"),
        ("trace.parquet", b"t_s,power_w\n0,5\n1,5\n", "cannot be read"),
        ("trace.csv", TRACE, "cannot be read|no column|no rows"),
        ("trace.csv", b"\xff\xfe\x00\x01", "cannot be read|no column|no rows"),
        ("trace.csv", b"t_s,power_w\n0,5,6,7\n", "cannot be read"),
        ("trace.csv", b"# nothing but a remark\n", "has no rows"),
        ("trace.parquet", parquet(pl.DataFrame()), "no column of times and power; it has none"),
        (
            "trace.parquet",
            parquet(pl.DataFrame({"t_s": [0.0, 1.0], "volts": [5.0, 5.0]})),
            "no column of power; it has",
        ),
        ("trace.parquet", parquet(pl.DataFrame({"t_s": [], "power_w": []})), "has 0 samples"),
        ("trace.parquet", parquet(pl.DataFrame({"t_s": [[0.0], [1.0]], "power_w": [5.0, 5.0]})), "sample 1: t_s is"),
        ("trace.parquet", parquet(pl.DataFrame({"t_s": [None, None], "power_w": [5.0, 5.0]})), "t_s is None"),
    ],
)
def test_damaged_files_are_refused_in_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(MeterError, match=message) as caught:
        ReplayMeter(file)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_reader_that_panics_is_a_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Polars does so over some damaged bytes, with an exception that is no Exception."""

    def panic(file: object) -> None:
        raise pl.exceptions.PanicException("index out of bounds\nrun with RUST_BACKTRACE=1")

    monkeypatch.setattr(pl, "scan_parquet", panic)
    file = tmp_path / "trace.parquet"
    file.write_bytes(TRACE)
    with pytest.raises(MeterError, match="cannot be read: index out of bounds; give"):
        ReplayMeter(file)


def test_no_power_is_no_energy(tmp_path: Path) -> None:
    clock = VirtualClock()
    with ReplayMeter(csv(tmp_path, "t_s,power_w\n0,0\n1,0\n"), clock) as meter, meter.window() as window:
        clock.advance(0.5)
    assert window.reading.energy_j is None
    assert window.reading.warnings[0].startswith("W202")


def test_mixed_provenance_is_the_weakest(tmp_path: Path) -> None:
    file = csv(tmp_path, "t_s,power_w,provenance\n0,5,measured\n1,5,estimated\n")
    assert ReplayMeter(file).provenance == "estimated"
    assert ReplayMeter(file).learn_idle(1.0) is None


def test_a_frozen_log_is_refused(tmp_path: Path) -> None:
    rows = "".join(f"{i / 20},232.4\n" for i in range(100))
    with pytest.raises(MeterError, match="never changes") as caught:
        ReplayMeter(csv(tmp_path, f"t_s,power_w\n{rows}"))
    assert caught.value.exit_code == 4
