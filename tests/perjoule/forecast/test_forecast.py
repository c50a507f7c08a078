from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.commands.plan_text import as_text
from perjoule.forecast import Forecast, Price, Projection, forecast
from perjoule.forecast.budget import Budget
from perjoule.forecast.measured import Windows, measured_price
from perjoule.forecast.records import total
from perjoule.suite.reading import cells_of
from perjoule.suite.schedule import make_plan
from perjoule.types import Suite, Variant
from perjoule.types.documents import document
from tests.perjoule.forecast.worlds import J_PER_STEP, MODEL, PROMPTS, STEP_S, named, run_of, suite_of

SD21 = Variant(name="sd21", model="stabilityai/stable-diffusion-2-1", steps=(10, 50), dtype="float16")


def foresee(suite: Suite, prices: dict[str, Price] | None = None, device: str | None = None) -> Forecast:
    return forecast(suite, make_plan(suite, PROMPTS), measured=prices or {}, device=device)


def measured(suite: Suite, path: Path) -> dict[str, Price]:
    windows = Windows.of(run_of(suite, path))
    return {cell.cell_id: measured_price(cell, windows, suite.protocol, None) for cell in cells_of(suite)}


def test_the_bill_is_the_sum_of_what_the_run_then_costs(tmp_path: Path) -> None:
    suite = suite_of(blocks=2, iterations=3, cooldown_s=0.0)
    found = foresee(suite, measured(suite_of(), tmp_path / "pilot"))
    assert found.energy_j is not None
    assert found.energy_kwh is not None
    assert found.duration_s is not None
    bill = float(run_of(suite, tmp_path / "whole").trials["energy_j"].sum())
    assert found.energy_j.value == pytest.approx(bill)
    assert found.energy_j.value == pytest.approx(J_PER_STEP * (1 + 4) * 8 * 2 * 3)
    assert found.energy_kwh.value == pytest.approx(bill / 3.6e6)
    assert found.duration_s.value == pytest.approx(STEP_S * (1 + 4) * 8 * 2 * 3)
    assert found.energy_j.low < bill < found.energy_j.high
    assert found.images == 2 * 8 * 2 * 3
    assert found.evaluations == 2 * (1 + 4) * 8 * 2 * 3


def test_rests_are_time() -> None:
    rested, restless = (foresee(suite_of(SD21, cooldown_s=s, idle_s=s)).duration_s for s in (2.0, 0.0))
    assert rested is not None
    assert restless is not None
    assert rested.value - restless.value == pytest.approx(2.0 * (16 + 1))
    assert rested.low - restless.low == pytest.approx(2.0 * (16 + 1))


def test_what_is_not_known_is_left_out_and_said(tmp_path: Path) -> None:
    adaptive = named(MODEL, "w", steps=(), policy="budgetfusion", levels=(2.0,))
    suite = suite_of(MODEL, adaptive, named(MODEL, "x", model="n"))
    found = foresee(suite, measured(suite_of(), tmp_path / "pilot"))
    by_cell = {cell.cell_id: cell for cell in found.cells}
    assert found.unpriced == 3
    for cell_id in ("w-2", "x-001", "x-004"):
        cell = by_cell[cell_id]
        assert (cell.energy_j, cell.energy_j_per_image, cell.duration_s) == (None, None, None)
        assert cell.reason
    assert by_cell["w-2"].evaluations is None
    assert "without 3 cells of which nothing is known" in as_text(found)
    nothing = foresee(suite_of(MODEL))
    assert (nothing.energy_j, nothing.energy_kwh, nothing.duration_s) == (None, None, None)
    assert "energy: not known" in as_text(nothing)
    assert "time: not known, because" in as_text(nothing)
    assert "--calibrate measures a few images, --from RUN takes" in as_text(nothing)


@pytest.mark.parametrize("width", [60, 80])
def test_a_plan_fits_the_terminal(width: int) -> None:
    found = replace(foresee(suite_of(MODEL, SD21)), notes=("a note " * 40,))
    assert [line for line in as_text(found, width).splitlines() if len(line) > width] == []


def test_published_figures_fill_in_for_what_was_not_measured(tmp_path: Path) -> None:
    found = foresee(suite_of(MODEL, SD21), measured(suite_of(), tmp_path / "pilot"))
    sources = {cell.cell_id: cell.source for cell in found.cells}
    assert sources["sd21-050"].startswith("published: ml-energy")
    assert "the cell's own windows" in sources["v-004"]
    assert found.energy_j is not None
    assert found.energy_j.level is None
    text = as_text(found)
    assert "ESTIMATED" in text
    assert "estimated (judged range) from measured joules (gpu-board): published: ml-energy" in text


def test_a_bound_widens_the_bill_up_to_a_minute_a_window() -> None:
    free, bound = (foresee(suite_of(SD21, max_uncertainty=u)).energy_j for u in (None, 0.02))
    assert "repeats each window for a minute" in foresee(suite_of(SD21, max_uncertainty=0.02)).notes[0]
    assert free is not None
    assert bound is not None
    assert bound.low == pytest.approx(free.low)
    assert bound.high > 10 * free.high
    limited = foresee(suite_of(SD21, max_uncertainty=0.02)).duration_s
    free_s = foresee(suite_of(SD21)).duration_s
    assert limited is not None
    assert free_s is not None
    assert limited.high == pytest.approx(free_s.high + 16 * 60)
    # a window of 10 steps takes some 190 J, far more than a counter's 1 J at 2 % asks for
    assert bound.value == pytest.approx(free.value)
    tight = foresee(suite_of(SD21, max_uncertainty=0.001)).energy_j
    assert tight is not None
    # 1 J / (0.8 · 0.001) = 1,250 J a window, in whole repetitions
    assert 1_250 * 16 <= tight.value <= 1_250 * 16 + free.value


def test_an_implausible_price_is_noted() -> None:
    price = Price(
        energy_j=Projection(value=3.0, low=2.9, high=3.1, level=0.95),
        duration_s=Projection(value=1.0, low=0.9, high=1.1, level=0.95),
        source="a run",
        rests_on="measured",
        boundary="gpu-board",
    )
    found = foresee(suite_of(SD21), {"sd21-050": price})
    assert len(found.notes) == 1
    assert "sd21-050: 3 J/image" in found.notes[0]
    assert found.cells[1].anchor is not None
    assert found.cells[0].anchor is None  # a published figure is no check of itself


def test_a_budget_is_too_small_only_if_all_that_is_known_says_so() -> None:
    found = foresee(suite_of(SD21))
    assert found.energy_j is not None
    assert found.duration_s is not None
    assert found.too_small(Budget()) is None
    assert found.too_small(Budget(max_joules=found.energy_j.low * 1.01)) is None
    problem = found.too_small(Budget(max_joules=found.energy_j.low * 0.99))
    assert problem is not None
    assert "--limit 1 may fit" in problem
    assert "--max-joules" in problem
    minutes = found.too_small(Budget(max_minutes=found.duration_s.low / 60 * 0.01))
    assert minutes is not None
    assert "not even one prompt" in minutes
    assert foresee(suite_of(MODEL)).too_small(Budget(max_joules=1e-9)) is None


def test_disk_follows_the_size_of_the_images() -> None:
    own = foresee(suite_of(SD21)).disk_bytes_at_most
    assert own == 2 * 8 * 768 * 768 * 2
    assert (
        foresee(suite_of(replace(SD21, width_px=64, height_px=32), blocks=3)).disk_bytes_at_most == 2 * 8 * 64 * 32 * 2
    )


def test_the_files_of_a_model_state_the_size_of_its_images() -> None:
    """Small images are never 512 px, and each takes whole blocks of the disk."""
    suite = suite_of(MODEL)
    plan = make_plan(suite, PROMPTS)
    found = forecast(suite, plan, measured={}, device=None, sides_px={"v": 64})
    images = 2 * 2 * len(PROMPTS)  # seeds x steps
    assert found.image_sizes == ((64, 64),)
    assert found.disk_bytes_at_most == images * 8192
    assert found.disk_bytes == round(images * 64 * 64 * 0.92)
    tiny = forecast(suite, plan, measured={}, device=None, sides_px={"v": 16})
    assert tiny.disk_bytes_at_most == images * 4096
    assert foresee(suite).image_sizes == ((512, 512),)
    assert foresee(suite).disk_bytes is None  # measured for small images only


def test_json_is_plain(tmp_path: Path) -> None:
    from pydantic import TypeAdapter

    found = foresee(suite_of(MODEL, SD21), measured(suite_of(), tmp_path / "pilot"))
    table = json.loads(json.dumps(document(found), allow_nan=False))
    assert table.pop("schema") == 1
    assert TypeAdapter(Forecast).validate_python(table) == found
    assert table["energy_j"]["provenance"] == "estimated"


spans = (
    st.tuples(*[st.floats(0.1, 1e6)] * 3)
    .map(sorted)
    .map(lambda v: Projection(value=v[1], low=v[0], high=v[2], level=0.95))
)


@given(parts=st.lists(spans | st.none(), max_size=6), factor=st.floats(0.1, 100.0))
def test_sums_and_factors_keep_the_order(parts: list[Projection | None], factor: float) -> None:
    whole = total(parts)
    known = [part for part in parts if part is not None]
    assert (whole is None) == (not known)
    if whole is not None:
        assert whole.low <= whole.value <= whole.high
        assert whole.level == 0.95
        for other in (whole.times(factor), whole.widened(factor, 2 * factor), whole.by(whole)):
            assert other.low <= other.value <= other.high
        assert whole.widened(1.0, 2.0).level is None
