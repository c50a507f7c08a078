from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from perjoule_suites.tiny.evaluation import (
    Curves,
    draw_figure,
    held_out_captions,
    icc,
    interval,
    needed,
    similarity,
    table,
)
from perjoule_suites.tiny.world.captions import Level

pytestmark = pytest.mark.slow


def test_icc_is_the_share_of_the_prompts_variance() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0, 2, (4_000, 1)) + rng.normal(0, 1, (4_000, 8))
    assert icc(values) == pytest.approx(4 / 5, abs=0.02)
    assert icc(rng.normal(0, 1, (4_000, 8))) == pytest.approx(0, abs=0.02)
    assert icc(np.ones((5, 3))) == 0


def test_icc_agrees_with_the_f_statistic_of_an_analysis_of_variance() -> None:
    values = np.random.default_rng(1).normal(0, 1, (12, 5)) + np.arange(12)[:, None] / 4
    f = stats.f_oneway(*values).statistic
    assert icc(values) == pytest.approx((f - 1) / (f + 5 - 1))


def test_needed_steps_are_the_first_from_which_the_limit_holds() -> None:
    values = np.array([[0.1, 0.95, 0.5, 0.92, 1.0], [0.9, 0.9, 0.9, 0.9, 0.9], [0.1, 0.1, 0.1, 0.1, 0.1]])
    assert needed(values, 0.9, (2, 3, 4, 8, 16)).tolist() == [3, 1, 4]


def test_similarity_is_one_for_equal_images_and_falls_with_noise() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert similarity(image, image) == pytest.approx(1)
    a, b = (np.clip(image + rng.normal(0, sd, image.shape), 0, 255).astype(np.uint8) for sd in (10, 60))
    assert 1 > similarity(image, a) > similarity(image, b)
    assert similarity(image, a) == pytest.approx(similarity(a, image))
    # constant images: only the luminance term, in closed form
    dark, light = np.full((64, 64, 3), 50, np.uint8), np.full((64, 64, 3), 200, np.uint8)
    c1 = (0.01 * 255) ** 2
    assert similarity(dark, light) == pytest.approx((2 * 50 * 200 + c1) / (50**2 + 200**2 + c1), rel=1e-3)


def test_an_interval_contains_its_figure_and_narrows_with_data() -> None:
    rng = np.random.default_rng(0)
    mean, low, high = interval(lambda v: float(v.mean()), rng.normal(3, 1, 400))
    assert low < mean < high
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.2)


def test_the_table_shows_levels_step_counts_and_the_rise() -> None:
    ladder = (4, 12, 25)
    rise = np.broadcast_to(np.array([0.4, 0.7, 0.8]), (6, 2, 3))
    flat = np.full((6, 2, 3), 0.9)
    found: dict[Level, Curves] = {
        "closed": Curves(scores=flat, likeness=flat, perfect=flat),
        "open": Curves(scores=rise, likeness=rise, perfect=rise),
    }
    text = table(found, ladder)
    assert "| closed | 0.900 [0.900, 0.900] |" in text
    assert "| open | 0.500 | 0.875 | 1.000 |" in text
    assert "open: 12 steps − 4 steps = +0.300 [+0.300, +0.300]" in text
    assert "ICC 1.00 [1.00, 1.00] over 2 seeds" in text
    assert "medians: closed 4.0, open 25.0" in text


def test_the_figure_shows_a_line_for_each_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **more: drawn.append(figure))
    rise = np.broadcast_to(np.array([0.4, 0.8]), (6, 2, 2))
    found: dict[Level, Curves] = {
        "closed": Curves(scores=rise, likeness=rise, perfect=rise),
        "open": Curves(scores=rise / 2, likeness=rise, perfect=rise),
    }
    draw_figure(found, (4, 8), tmp_path / "figure.png")
    lines = {str(line.get_label()): list(line.get_ydata()) for line in drawn[0].axes[0].lines}  # type: ignore[arg-type]
    assert lines == {"closed": pytest.approx([0.4, 0.8]), "open": pytest.approx([0.2, 0.4])}


def test_evaluation_takes_test_captions_of_every_level() -> None:
    for level, captions in held_out_captions(5).items():
        assert {caption.split for caption in captions} == {"test"}
        assert {caption.level for caption in captions} == {level}
