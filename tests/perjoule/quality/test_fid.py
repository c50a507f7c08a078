from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import linalg

from perjoule.errors import UsageError
from perjoule.protocols import judges_sets
from perjoule.quality.fid import fid, frechet_distance, gaussian_from, gaussian_of, reference_files

pytestmark = pytest.mark.slow


def features(rng, size, count):
    return rng.normal(size=(count, size)) @ rng.normal(size=(size, size)) + rng.normal(size=size)


def by_matrix_root(x, y):
    """Heusel et al., equation 6, as it stands there."""
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 12))
def test_it_is_the_formula_of_the_paper(seed, size):
    rng = np.random.default_rng(seed)
    x, y = features(rng, size, 3 * size), features(rng, size, 4 * size)
    a, b = gaussian_of(x), gaussian_of(y)
    wanted = pytest.approx(by_matrix_root(x, y), rel=1e-6, abs=1e-6)
    assert frechet_distance(a, b) == wanted
    assert frechet_distance(b, a) == wanted
    assert frechet_distance(a, gaussian_from(y.mean(0), np.cov(y, rowvar=False))) == wanted
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9 * (a.root**2).sum())


def test_closed_forms():
    eye, zero = np.eye(3), np.zeros(3)
    a = gaussian_from(zero, eye)
    assert frechet_distance(a, gaussian_from(zero + 2, eye)) == pytest.approx(12)
    # commuting covariances: the squared distance of their roots
    assert frechet_distance(a, gaussian_from(zero, 9 * eye)) == pytest.approx(3 * (3 - 1) ** 2)


def test_with_fewer_images_than_features_it_stays_real_and_agrees_with_torch_fidelity():
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    rng = np.random.default_rng(0)
    x, y = features(rng, 40, 8), features(rng, 40, 12)
    moments = [{"mu": z.mean(0), "sigma": np.cov(z, rowvar=False)} for z in (x, y)]
    wanted = fid_statistics_to_metric(*moments, verbose=False)[KEY_METRIC_FID]
    assert gaussian_of(x).root.shape == (40, 8)
    assert frechet_distance(gaussian_of(x), gaussian_of(y)) == pytest.approx(wanted, rel=1e-5)


def test_other_dimensions_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(UsageError, match="the reference has 3 features, must be 2"):
        frechet_distance(gaussian_of(features(rng, 2, 9)), gaussian_of(features(rng, 3, 9)))


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    """torch-fidelity's Inception with random weights, in its own layout. -> (file, network)"""
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):
        def load_state_dict(self, state):
            pass

    file = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save({}, file)
    torch.manual_seed(0)
    network = Untrained("inception-v3-compat", ["2048"], str(file))
    torch.save(network.state_dict(), file)
    return file, network


@pytest.fixture
def folder(tmp_path, noise):
    for number, image in enumerate(noise(4, 32, seed=5)):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    return tmp_path


def test_a_cell_against_a_folder(inception, folder, pictures, noise, tmp_path):
    import torch

    file, network = inception
    images = [*noise(3, 32), *noise(2, 48, seed=1)]
    metric = fid({"reference": str(folder), "weights": str(file), "device": "cpu", "batch_size": 2})
    assert judges_sets(metric)
    done: list[int] = []
    outcome = metric.score_set(pictures(images).image_set(), [0, 1, 2, 4], done.append)
    assert done == [2, 1, 1]

    def seen(pictures):
        with torch.inference_mode():
            rows = [network(torch.from_numpy(p).permute(2, 0, 1)[None])[0][0].double().numpy() for p in pictures]
        return np.stack(rows)

    own = seen([images[i] for i in (0, 1, 2, 4)])
    theirs = seen([np.array(Image.open(f)) for f in sorted(folder.glob("*.png"))])
    wanted = frechet_distance(gaussian_of(own), gaussian_of(theirs))
    assert outcome.value == pytest.approx(wanted, rel=1e-4)
    assert "4 images: fewer than features (2048)" in outcome.notes[0]
    assert "4 reference images" in outcome.notes[1]

    np.savez(tmp_path / "stats.npz", mu=theirs.mean(0), sigma=np.cov(theirs, rowvar=False))
    again = fid({"reference": str(tmp_path / "stats.npz"), "weights": str(file), "device": "cpu"})
    found = again.score_set(pictures(images).image_set(), [0, 1, 2, 4], done.append)
    assert found.value == pytest.approx(outcome.value, rel=1e-4)
    assert len(found.notes) == 1
    lonely = metric.score_set(pictures(images).image_set(), [0], done.append)
    assert (lonely.value, lonely.reason_unscored) == (None, "1 images: a covariance needs 2")


def test_the_spec_is_advisory_and_names_the_weights(inception, folder):
    spec = fid({"reference": str(folder), "weights": str(inception[0])}).spec
    assert (spec.advisory, spec.direction, len(spec.weights_digest)) == (True, "lower", 64)


def test_faults_are_named(inception, folder, tmp_path, monkeypatch, pictures, noise):
    import torch

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UsageError, match="option reference is missing"):
        _ = fid({}).spec
    with pytest.raises(UsageError, match="nor a folder with images"):
        reference_files(str(tmp_path / "nothing"))
    with pytest.raises(UsageError, match=r"weights-inception-2015-12-05-6726825d\.pth is not in the cache"):
        _ = fid({"reference": str(folder)}).spec
    with pytest.raises(UsageError, match="no such file"):
        _ = fid({"reference": str(folder), "weights": "nothing.pth"}).spec

    run = pictures(noise(2, 32)).image_set()
    torch.save({"fc.bias": torch.zeros(3)}, tmp_path / "x.pth")
    with pytest.raises(UsageError, match="not weights of the FID Inception"):
        fid({"reference": str(folder), "weights": str(tmp_path / "x.pth")}).score_set(run, [0, 1], lambda n: None)
    np.savez(tmp_path / "x.npz", mu=np.zeros(3))
    options = {"reference": str(tmp_path / "x.npz"), "weights": str(inception[0]), "device": "cpu"}
    with pytest.raises(UsageError, match="does not contain mu and sigma"):
        fid(options).score_set(run, [0, 1], lambda n: None)
