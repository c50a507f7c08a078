from __future__ import annotations

import numpy as np
import pytest

from perjoule.errors import UnknownNameError, UsageError
from perjoule.quality.lpips import lpips

pytestmark = pytest.mark.slow


def ignore(count: int) -> None:
    pass


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """An untrained SqueezeNet in torchvision's layout: 5 MB, where an AlexNet would be 244."""
    import torch
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("net") / "squeezenet.pth"
    torch.save(squeezenet1_1(weights=None).state_dict(), file)
    return file


@pytest.fixture
def options(backbone):
    return {"net": "squeeze", "weights": str(backbone), "device": "cpu"}


def test_it_is_what_the_package_gives_with_the_same_backbone(options, backbone, pictures, noise):
    import lpips as package
    import torch
    from torchvision.models import squeezenet1_1

    network = squeezenet1_1(weights=None)
    network.load_state_dict(torch.load(backbone, weights_only=True))
    reference = package.LPIPS(net="squeeze", pnet_rand=True, verbose=False)
    for slice_name, block in reference.net.named_children():
        if slice_name.startswith("slice"):
            for number, layer in block.named_children():
                layer.load_state_dict(network.features[int(number)].state_dict())
    images = noise(4, 64)
    run = pictures(images, references=[3, 3, 0, 3])
    scores = lpips(options | {"batch_size": 2}).score(run.image_set(), ignore)
    for index, other in ((0, 3), (1, 3), (2, 0)):
        one, two = (torch.from_numpy(images[i]).permute(2, 0, 1)[None] / 127.5 - 1 for i in (index, other))
        with torch.inference_mode():
            assert scores[index].value == pytest.approx(float(reference(one, two)), abs=1e-6)
    assert scores[3].value == 0.0


def test_neither_batch_nor_order_matters_and_sizes_are_told(options, pictures, noise, values):
    images = [*noise(3, 64), *noise(2, 48, seed=1), noise(1, 16)[0], noise(1, 16, seed=2)[0]]
    run = pictures(images, references=[1, 1, None, 4, 4, 6, 6])
    whole = values(lpips(options).score(run.image_set(), ignore))
    single = values(lpips(options | {"batch_size": 1}).score(run.image_set([6, 5, 4, 3, 2, 1, 0]), ignore))
    assert single == pytest.approx(whole, abs=1e-6)
    assert whole["image-2"] is None
    reasons = {s.image_id: s.reason_unscored for s in lpips(options).score(run.image_set(), ignore)}
    assert reasons["image-5"] == "16 x 16 px is too small: 32 px are needed"
    mixed = pictures([images[0], images[3]], references=[1, 1])
    assert "cannot be compared" in lpips(options).score(mixed.image_set(), ignore)[0].reason_unscored


def test_the_spec_says_that_lower_is_better_and_names_the_weights(options, backbone, tmp_path):
    import torch

    spec = lpips(options).spec
    assert (spec.direction, spec.track, spec.needs_reference, spec.commercial) == ("lower", "fidelity", True, True)
    state = torch.load(backbone, weights_only=True)
    state["features.0.bias"] += 1
    torch.save(state, tmp_path / "other.pth")
    assert lpips(options | {"weights": str(tmp_path / "other.pth")}).spec.weights_digest != spec.weights_digest


def test_faults_are_named(options, tmp_path, monkeypatch):
    import torch

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UnknownNameError, match="unknown backbone 'alexnet': did you mean 'alex'"):
        lpips({"net": "alexnet"})
    with pytest.raises(UsageError, match=r"alexnet-owt-7be5be79\.pth is not in the cache and the network is off"):
        _ = lpips({}).spec
    assert not lpips({}).weights_here()
    with pytest.raises(UsageError, match="no such file"):
        _ = lpips(options | {"weights": "nothing.pth"}).spec
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(UsageError, match=r"does not contain torchvision's squeeze: .* is missing"):
        _ = lpips(options | {"weights": str(tmp_path / "x.pth")}).spec


def test_false_weights_in_torchs_own_cache_are_refused(backbone, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(backbone.read_bytes())
    metric = lpips({"net": "squeeze", "device": "cpu"})
    assert metric.weights_here()
    with pytest.raises(UsageError, match=r"metric lpips: .* has SHA-256 .* instead of b8a52dc0"):
        _ = metric.spec


def test_black_images_are_alike(options, pictures):
    black = np.zeros((64, 64, 3), np.uint8)
    found = lpips(options).score(pictures([black, black.copy()], references=[1, 1]).image_set(), ignore)
    assert found[0].value == pytest.approx(0, abs=1e-6)
