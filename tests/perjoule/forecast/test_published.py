from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.forecast.published import anchor, is_guided, own_side_px, published_price, tables
from perjoule.types import Cell, Variant

A100, H100 = "NVIDIA A100-SXM4-40GB", "NVIDIA H100 80GB HBM3"
SD21 = Variant(name="sd21", model="stabilityai/stable-diffusion-2-1", steps=(25,), dtype="float16")
SDXL = Variant(name="sdxl", model="stabilityai/stable-diffusion-xl-base-1.0", steps=(25,), dtype="float16")


def cell(variant: Variant = SD21, steps: int | None = 25, **settings: int | float) -> Cell:
    return Cell(cell_id="c", variant=variant, steps=steps, **settings)  # type: ignore[arg-type]


def test_every_figure_has_its_source() -> None:
    names = [model["name"] for model in tables()["models"]]
    ids = [known.lower() for model in tables()["models"] for known in model["ids"]]
    assert len(set(names)) == len(names)
    assert len(set(ids)) == len(ids)
    for model in tables()["models"]:
        assert model.get("figures") or model["figures_of"] in names
        for figure in model.get("figures", []):
            assert figure["source"].startswith("ml-energy/leaderboard"), figure
            assert "@" in figure["source"]
            assert figure["steps"] > 0
            assert figure["energy_j"] > 0
            # a board draws 50 to 700 W while it draws images
            assert "duration_s" not in figure or 50 < figure["energy_j"] / figure["duration_s"] < 700
    assert all(0 < entry["low"] <= entry["high"] and entry["source"] for entry in tables()["spread"].values())


@pytest.mark.parametrize(("variant", "base", "step"), [(SD21, 19.2, 17.01), (SDXL, 35.7, 42.3)])
def test_the_lines_are_the_published_ones(variant: Variant, base: float, step: float) -> None:
    """Fitted elsewhere without weights; the weights make little difference but at very few steps."""
    for steps in (10, 25, 50, 100):
        found = anchor(cell(variant, steps), 1.0, "gpu-board")
        assert found is not None
        assert found.energy_j_per_image == pytest.approx(base + step * steps, rel=0.02)
        assert found.device == A100


def test_a_price_holds_the_figure_and_is_branded() -> None:
    price = published_price(cell(steps=50), A100)
    assert price.energy_j is not None
    assert price.duration_s is not None
    assert price.energy_j.low < 871.1 < price.energy_j.high
    assert price.duration_s.low < 2.29 < price.duration_s.high
    assert (price.energy_j.provenance, price.energy_j.level) == ("estimated", None)
    assert (price.rests_on, price.boundary) == ("measured", "gpu-board")
    assert "ml-energy/leaderboard@" in price.source


def test_the_own_board_comes_first_and_another_one_widens() -> None:
    here, there = published_price(cell(), A100).energy_j, published_price(cell(), "NVIDIA GeForce GTX 1080").energy_j
    assert here is not None
    assert there is not None
    assert there.low < here.low < here.high < there.high
    on_h100 = published_price(cell(), H100)
    assert on_h100.energy_j is not None
    assert on_h100.energy_j.low < 386.5 < on_h100.energy_j.high
    assert on_h100.duration_s is not None


@pytest.mark.parametrize(
    ("variant", "low", "high"),
    [
        (replace(SD21, dtype="float32"), 1.0, 4.2),
        (replace(SD21, guidance=1.0), 0.5, 1.0),
        (replace(SD21, width_px=1536, height_px=1536), 4**0.19, 4**1.12),
        (replace(SD21, model="stabilityai/stable-diffusion-2-1-base"), (4 / 9) ** 1.12, (4 / 9) ** 0.19),
        (replace(SD21, model="stabilityai/sd-turbo", guidance=0.0), 0.5 * (4 / 9) ** 1.12, (4 / 9) ** 0.19),
    ],
)
def test_other_settings_move_the_range_by_the_declared_factors(variant: Variant, low: float, high: float) -> None:
    plain, other = published_price(cell(), A100).energy_j, published_price(cell(variant), A100).energy_j
    assert plain is not None
    assert other is not None
    assert other.low == pytest.approx(plain.low * low)
    assert other.high == pytest.approx(plain.high * high)
    assert other.low < other.value < other.high


def test_a_pruned_model_costs_no_more_than_the_whole_one() -> None:
    whole, pruned = (
        published_price(cell(replace(SD21, model=model)), A100).energy_j
        for model in ("stable-diffusion-v1-5/stable-diffusion-v1-5", "nota-ai/bk-sdm-tiny")
    )
    assert whole is not None
    assert pruned is not None
    assert pruned.low == pytest.approx(whole.low * 0.28)
    assert pruned.high == whole.high


def test_larger_batches_may_cost_less_but_not_more() -> None:
    one, many = published_price(cell(), A100).energy_j, published_price(cell(batch_size=16), A100).energy_j
    assert one is not None
    assert many is not None
    assert many.low < one.low
    assert many.high == one.high


@given(steps=st.integers(1, 200))
def test_more_steps_cost_more(steps: int) -> None:
    for variant in (SD21, SDXL, replace(SD21, model="stabilityai/stable-diffusion-3.5-large")):
        fewer, more = (published_price(cell(variant, n), None).energy_j for n in (steps, steps + 1))
        assert fewer is not None
        assert more is not None
        assert 0 < fewer.low < fewer.value < fewer.high
        assert fewer.value < more.value


def test_what_is_not_known_is_absent_with_a_reason() -> None:
    for unknown in (cell(replace(SD21, model="somebody/model")), cell(steps=None, level=1.0)):
        price = published_price(unknown, A100)
        assert price.energy_j is None
        assert "--calibrate" in price.reason
    no_seconds = published_price(cell(replace(SD21, model="stabilityai/stable-diffusion-3.5-medium"), 28), None)
    assert no_seconds.energy_j is not None
    assert no_seconds.duration_s is None
    assert "no seconds" in no_seconds.reason


def test_anchors_compare_like_with_like() -> None:
    assert anchor(cell(steps=50), 871.1, "cpu-package") is None
    assert anchor(cell(replace(SD21, model="builtin:sd-tiny")), 1.0, "gpu-board") is None
    good, odd = anchor(cell(steps=50), 871.1, "gpu-board"), anchor(cell(steps=50), 8.7, "gpu-board")
    assert good is not None
    assert odd is not None
    assert good.remark == ""
    assert good.ratio == pytest.approx(1.0, abs=0.01)
    assert "0.01 times the 869 J published for NVIDIA A100" in odd.remark


def test_embedded_guidance_is_one_row_a_step() -> None:
    lcm = Variant(name="lcm", model="SimianLuo/LCM_Dreamshaper_v7", guidance=8.0, dtype="float16")
    assert not is_guided(lcm)
    assert is_guided(SD21)
    assert own_side_px(lcm.model) == 768
    assert own_side_px("builtin:sd-tiny") is None
