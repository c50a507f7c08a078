from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from perjoule.errors import UnknownNameError, UsageError
from perjoule.quality.lsnr import lap_var, laplacian, lsnr, lsnr_a, lsnr_b, luminance

FORMULAS = {"a": lsnr_a, "b": lsnr_b, "lap_var": lap_var}


def edge_with_noise(sigma: float) -> np.ndarray:
    y = np.where(np.arange(64) < 32, 0.2, 0.8) * np.ones((64, 1))
    return y + np.random.default_rng(0).normal(0, sigma, y.shape)


@pytest.mark.parametrize("formula", [lsnr_a, lsnr_b])
@given(scale=st.floats(0.05, 1.0), shift=st.floats(0.0, 0.3))
@settings(max_examples=25, deadline=None)
def test_ratios_do_not_change_with_contrast_or_brightness(formula, scale, shift):
    y = edge_with_noise(0.02)
    assert formula(scale * y + shift) == pytest.approx(formula(y), abs=1e-4)


@given(scale=st.floats(0.05, 1.0))
@settings(max_examples=25, deadline=None)
def test_plain_sharpness_grows_with_contrast_squared(scale):
    y = edge_with_noise(0.02)
    assert lap_var(scale * y) == pytest.approx(scale**2 * lap_var(y))


def test_gaussian_noise_has_no_signal_above_its_own_floor():
    y = np.random.default_rng(1).normal(0.5, 0.1, (256, 256))
    assert lsnr_a(y) == pytest.approx(0.0, abs=0.15)
    assert lsnr_b(y) == pytest.approx(0.0, abs=0.15)
    assert lap_var(y) == pytest.approx(20 * 0.1**2, rel=0.03)


def test_laplacian_of_a_parabola_is_its_second_derivative_and_borders_are_mirrored():
    x = np.arange(8.0)
    found = laplacian(np.tile(x**2, (5, 1)))
    np.testing.assert_allclose(found[:, 1:-1], 2.0)
    np.testing.assert_allclose(found[:, 0], 2.0)  # mirrored at 0: 1 + 1 - 2 * 0
    np.testing.assert_allclose(found[:, -1], 2 * 36 - 2 * 49)


def test_luminance_weights_sum_to_one():
    assert luminance(np.full((2, 2, 3), 255, np.uint8)) == pytest.approx(1.0)
    assert luminance(np.array([[[0, 255, 0]]], np.uint8)) == pytest.approx(0.587)


def test_noise_lowers_both_ratios_and_raises_plain_sharpness():
    for formula in (lsnr_a, lsnr_b):
        assert formula(edge_with_noise(0.005)) > formula(edge_with_noise(0.05))
    assert lap_var(edge_with_noise(0.005)) < lap_var(edge_with_noise(0.05))


@given(image=arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
@settings(max_examples=200, deadline=None)
def test_every_image_has_a_finite_score_or_a_reason(pictures, values, image):
    for definition in FORMULAS:
        values(lsnr({"definition": definition}).score(pictures([image]).image_set(), lambda n: None))


@pytest.mark.parametrize("definition", FORMULAS)
@pytest.mark.parametrize("grey", [0, 77, 255])
def test_a_flat_image_is_unscored(pictures, definition, grey):
    image = np.full((64, 64, 3), grey, np.uint8)
    (score,) = lsnr({"definition": definition}).score(pictures([image]).image_set(), lambda n: None)
    assert score.value is None
    assert "flat" in score.reason_unscored


def test_the_spec_says_it_is_advisory_and_ours():
    spec = lsnr({}).spec
    assert (spec.advisory, spec.needs_reference, spec.weights_digest, spec.unit) == (True, False, "none", "dB")
    assert "not the paper's" in spec.description
    assert lsnr({"definition": "lap_var"}).spec.bounds == (0.0, None)


def test_order_does_not_matter_and_progress_adds_up(pictures, noise, values):
    run = pictures(noise(5, 16))
    done: list[int] = []
    assert values(lsnr({}).score(run.image_set(), done.append)) == values(
        lsnr({}).score(run.image_set([3, 1, 4, 0, 2]), lambda n: None)
    )
    assert sum(done) == 5
    assert run.loaded == [2] * 5


def test_what_it_does_not_know_it_names():
    with pytest.raises(UnknownNameError, match="lap_var"):
        lsnr({"definition": "lapvar"})
    with pytest.raises(UsageError, match=r"definitoin.*did you mean 'definition'"):
        lsnr({"definitoin": "a"})
    with pytest.raises(UsageError, match="definition = 3: must be str"):
        lsnr({"definition": 3})
