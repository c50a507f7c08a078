from __future__ import annotations

import polars as pl
import pytest

from perjoule.errors import RunError
from perjoule.runs.directory import Run
from perjoule.statistics.devices import Mixture, devices_of, mixtures, require_one_device, require_same_device


def windows(*rows: tuple[str, str | None, float | None], **changes: list[object]) -> pl.DataFrame:
    """Finished windows: cell, device, power limit."""
    columns = {
        "trial_id": [f"t{i}" for i in range(len(rows))],
        "cell_id": [cell for cell, _, _ in rows],
        "device": [device for _, device, _ in rows],
        "power_limit_w": [limit for _, _, limit in rows],
        "energy_j": [1.0] * len(rows),
        "failure": [None] * len(rows),
    }
    schema = {"device": pl.String, "power_limit_w": pl.Float64, "failure": pl.String}
    return pl.DataFrame(columns | changes, schema_overrides=schema)


def run_of(trials: pl.DataFrame, run: Run) -> Run:
    """A run with these trials."""
    other = Run(path=run.path)
    vars(other).update(trials=trials)
    return other


def test_a_cell_is_measured_on_one_device() -> None:
    same = windows(("a", "A100", 250.0), ("b", "H100", 700.0), ("a", "A100", 250.0))
    assert mixtures(same) == []
    mixed = windows(
        ("b", "A100", 250.0), ("b", "A100", 300.0), ("b", "A100", 350.0), ("a", "A100", 250.0), ("a", "H100", 250.0)
    )
    assert mixtures(mixed) == [
        Mixture(cell_id="a", key="device", values=("A100", "H100"), trials=("t3", "t4")),
        Mixture(cell_id="b", key="power_limit_w", values=(250.0, 300.0), trials=("t0", "t1")),
    ]


def test_what_is_not_known_or_not_measured_does_not_count() -> None:
    assert mixtures(windows(("a", "A100", None), ("a", None, 250.0))) == []
    assert mixtures(windows(("a", "A100", None), ("a", "H100", None), energy_j=[1.0, None])) == []
    assert mixtures(windows(("a", "A100", None), ("a", "H100", None), failure=["out of memory", None])) == []
    # an older run states the limit only, or neither
    old = windows(("a", "A100", 1.0), ("a", "H100", 2.0)).drop("device")
    assert [mixture.key for mixture in mixtures(old)] == ["power_limit_w"]
    assert mixtures(old.drop("power_limit_w")) == []


def test_the_error_names_cell_key_values_and_trials(run: Run) -> None:
    words = (
        r"W265: cell a holds windows of different devices: device is 'A100' in trial t0 and 'H100' in trial t1; "
        "their joules are not pooled"
    )
    with pytest.raises(RunError, match=words):
        require_one_device(run_of(windows(("a", "A100", 1.0), ("a", "H100", 1.0)), run))
    require_one_device(run_of(windows(("a", "A100", 1.0), ("b", "H100", 1.0)), run))


def test_a_line_needs_one_device_for_all_cells(run: Run) -> None:
    require_same_device(run_of(windows(("a", "A100", 1.0), ("b", "A100", 1.0), ("b", None, None)), run))
    with pytest.raises(RunError, match="W265: the cells were measured on A100 at 1 W, H100 at 1 W: no line"):
        require_same_device(run_of(windows(("a", "A100", 1.0), ("b", "H100", 1.0)), run))
    with pytest.raises(RunError, match="cell a holds windows of different devices"):
        require_same_device(run_of(windows(("a", "A100", 1.0), ("a", "H100", 1.0)), run))


def test_devices_are_named_with_their_limits() -> None:
    trials = windows(("a", "A100", 250.0), ("b", "H100", None), ("c", "A100", 250.0), ("c", None, 9.0))
    assert devices_of(trials) == ("A100 at 250 W", "H100")
    assert devices_of(trials.drop("power_limit_w")) == ("A100", "H100")
    assert devices_of(trials.drop("device")) == ()
    assert devices_of(windows(("a", "A100", 1.0), ("a", "H100", 1.0), energy_j=[None, 1.0])) == ("H100 at 1 W",)
    assert devices_of(windows(("a", "A100", 1.0), ("a", "H100", 1.0), failure=[None, "x"])) == ("A100 at 1 W",)
