from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from perjoule.errors import UnknownNameError, UsageError
from perjoule.quality.cvvdp import cvvdp

pytestmark = pytest.mark.slow


def ignore(count: int) -> None:
    pass


@pytest.fixture(scope="module")
def ladder():
    """A smooth picture and the same with ever more noise; the first is the reference."""
    x, y = np.meshgrid(np.arange(64), np.arange(64))
    clean = 128 + 60 * np.sin((x + y) / 6)[..., None] * np.array([1.0, 0.6, -0.4])
    rng = np.random.default_rng(0)
    grain = rng.normal(0, 1, clean.shape)
    return [np.clip(clean + s * grain, 0, 255).astype(np.uint8) for s in (0, 2, 8, 30, 80)]


@pytest.fixture(scope="module")
def scores(pictures, ladder):
    return cvvdp({"device": "cpu"}).score(pictures(ladder, references=[0] * 5).image_set(), ignore)


def test_the_reference_has_ten_and_more_noise_has_less(scores):
    found = [score.value for score in scores]
    assert found[0] == 10.0
    assert all(a > b for a, b in pairwise(found))


def test_a_twin_of_the_reference_also_has_ten(pictures, ladder):
    run = pictures([ladder[0], ladder[0].copy()], references=[0, 0])
    assert [s.value for s in cvvdp({"device": "cpu"}).score(run.image_set(), ignore)] == [10.0, pytest.approx(10.0)]


def test_neither_batch_size_nor_order_matters(pictures, ladder, scores, values):
    run = pictures(ladder, references=[0] * 5)
    single = cvvdp({"device": "cpu", "batch_size": 1}).score(run.image_set([4, 2, 0, 3, 1]), ignore)
    assert values(single) == pytest.approx(values(scores), abs=1e-5)


def test_enlarging_makes_it_stricter(pictures, ladder, scores):
    run = pictures(ladder, references=[0] * 5)
    near = cvvdp({"device": "cpu", "pixels_per_degree": 15}).score(run.image_set(), ignore)
    assert all(n.value < s.value for n, s in zip(near[1:], scores[1:], strict=True))


def test_what_cannot_be_compared_has_a_reason(pictures, noise):
    images = [*noise(1, 64), *noise(1, 32), *noise(1, 2), *noise(1, 2, seed=1), *noise(1, 64, seed=2)]
    run = pictures(images, references=[None, 0, 3, 3, 0])
    orphan, other_size, tiny, own, fine = cvvdp({"device": "cpu"}).score(run.image_set(), ignore)
    assert "no reference" in orphan.reason_unscored
    assert "32 x 32 px cannot be compared with its reference of 64 x 64 px" in other_size.reason_unscored
    assert "too small" in tiny.reason_unscored
    assert own.value == 10.0
    assert fine.value < 9


def test_no_console_noise(pictures, noise, capfd):
    cvvdp({"device": "cpu"}).score(pictures(noise(2), references=[0, 0]).image_set(), ignore)
    assert capfd.readouterr() == ("", "")


def test_the_spec_says_how_it_is_looked_at():
    spec = cvvdp({"display": "standard_phone", "pixels_per_degree": 60}).spec
    assert spec.unit == "JOD"
    assert spec.bounds == (None, 10.0)
    assert "standard_phone, 60 pixels per degree" in spec.description
    assert "by definition" in spec.description
    assert len(spec.weights_digest) == 64


def test_a_display_that_is_unknown_or_not_srgb_is_named():
    with pytest.raises(UnknownNameError, match="standard_fhd"):
        cvvdp({"display": "standard_fdh"})
    with pytest.raises(UnknownNameError, match="unknown sRGB display 'standard_hdr_pq'"):
        cvvdp({"display": "standard_hdr_pq"})
    with pytest.raises(UsageError, match="pixels_per_degree = 0"):
        cvvdp({"pixels_per_degree": 0})
