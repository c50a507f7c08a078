from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from perjoule.errors import UnknownNameError, UsageError
from perjoule.quality import load_metric, pyiqa_adapter
from perjoule.quality.pyiqa_adapter import pyiqa_metric
from perjoule.quality.weights import digest_state

pytestmark = pytest.mark.slow

CONFIGS = {
    "psnr": {"metric_opts": {"type": "PSNR"}, "metric_mode": "FR", "score_range": "~0, ~40"},
    "piqe": {"metric_opts": {"type": "PIQE"}, "metric_mode": "NR", "lower_better": True},
    "fid": {"metric_opts": {"type": "FID"}, "metric_mode": "NR"},
    "dice": {"metric_opts": {"type": "Dice"}, "metric_mode": "NR"},
}


def ignore(count: int) -> None:
    pass


def forget() -> None:
    """What the adapter remembers of the package."""
    remembered: Any
    for remembered in (pyiqa_adapter._create, pyiqa_adapter._say_licence):
        remembered.cache_clear()


@pytest.fixture
def fake(monkeypatch):
    """A pyiqa that is not there: `psnr` is exact, `piqe` fails on small images and is NaN on black ones."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, x, y=None):
            if self.name == "psnr":
                return -10 * ((x - y) ** 2).mean((1, 2, 3)).clamp(min=1e-8).log10()
            if self.name == "dice":
                return torch.rand(1)
            if x.shape[-1] < 16:
                raise RuntimeError("Kernel size can't be greater than actual input size\n  at layer 3")
            return x.mean((1, 2, 3)) / x.max()

    package, registry = ModuleType("pyiqa"), ModuleType("pyiqa.default_model_configs")
    vars(package)["create_metric"] = lambda name, device: Net(name).to(device)
    vars(registry)["DEFAULT_CONFIGS"] = CONFIGS
    monkeypatch.setitem(sys.modules, "pyiqa", package)
    monkeypatch.setitem(sys.modules, "pyiqa.default_model_configs", registry)
    forget()
    yield SimpleNamespace(package=package)
    forget()


def test_a_missing_extra_says_what_to_install_and_its_licence(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    monkeypatch.setitem(sys.modules, "pyiqa.default_model_configs", None)
    with pytest.raises(UsageError, match=r"s\.toml: .*pip install 'perjoule\[pyiqa\]' .*PolyForm-Noncommercial"):
        load_metric("pyiqa:psnr", {}, "s.toml")


def test_direction_and_reference_need_come_from_the_registry(fake):
    psnr, piqe = pyiqa_metric("psnr", {}).spec, pyiqa_metric("piqe", {}).spec
    assert (psnr.name, psnr.direction, psnr.needs_reference, psnr.track) == ("pyiqa:psnr", "higher", True, "fidelity")
    assert (piqe.direction, piqe.needs_reference, piqe.track) == ("lower", False, "absolute")
    assert psnr.licence.startswith("PolyForm-Noncommercial")
    assert psnr.weights_digest == "none"


def test_the_licence_is_said_once_on_stderr(fake, capsys):
    pyiqa_metric("psnr", {})
    pyiqa_metric("piqe", {})
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("PolyForm-Noncommercial") == 1


def test_full_reference_scores(fake, pictures):
    grey = [np.full((32, 32, 3), g, np.uint8) for g in (100, 110, 120)] + [np.zeros((16, 32, 3), np.uint8)]
    run = pictures(grey, references=[0, 0, None, 0])
    own, other, orphan, cropped = pyiqa_metric("psnr", {"device": "cpu"}).score(run.image_set(), ignore)
    assert own.value == pytest.approx(80.0)
    assert other.value == pytest.approx(20 * np.log10(255 / 10), abs=1e-3)
    assert "no reference" in orphan.reason_unscored
    assert "another size" in cropped.reason_unscored


def test_what_it_cannot_score_has_a_reason(fake, pictures, noise):
    run = pictures([noise(1, 8)[0], np.zeros((32, 32, 3), np.uint8), noise(1, 32)[0]])
    small, black, fine = pyiqa_metric("piqe", {"device": "cpu"}).score(run.image_set(), ignore)
    assert small.reason_unscored == "piqe cannot score 8 x 8 px: Kernel size can't be greater than actual input size"
    assert "nan" in black.reason_unscored
    assert fine.value is not None


def test_metrics_that_draw_at_random_repeat_and_leave_the_generator_alone(fake, pictures, noise):
    import torch

    before = torch.random.get_rng_state()
    found = pyiqa_metric("dice", {"device": "cpu"}).score(pictures(noise(3, 16)).image_set(), ignore)
    assert len({score.value for score in found}) == 1
    assert torch.equal(before, torch.random.get_rng_state())


def test_what_it_does_not_know_it_names(fake):
    with pytest.raises(UnknownNameError, match="did you mean 'psnr'"):
        pyiqa_metric("psnrr", {})
    with pytest.raises(UsageError, match="fid scores sets of images"):
        pyiqa_metric("fid", {})
    with pytest.raises(UsageError, match=r"unknown option 'net'.*known: device"):
        pyiqa_metric("psnr", {"net": "vgg"})


def test_weights_that_cannot_be_had_are_a_usage_error(fake):
    def refuse(name, device):
        raise ConnectionError("offline")

    fake.package.create_metric = refuse
    with pytest.raises(UsageError, match="pyiqa:piqe cannot be loaded: offline"):
        _ = pyiqa_metric("piqe", {}).spec


def test_the_digest_sees_every_byte_of_the_state():
    import torch

    state = {
        "b": torch.ones(2, dtype=torch.bfloat16),
        "a": torch.zeros(3),
        "empty": torch.empty(0),
        "n": torch.tensor(1),
    }
    digest = digest_state(state)
    assert digest == digest_state(dict(reversed(state.items())))
    assert digest != digest_state(state | {"n": torch.tensor(2)})
    assert digest_state({"empty": torch.empty(0)}) == "none"


@pytest.mark.parametrize(
    ("name", "direction"),
    [("psnr", "higher"), ("ssim", "higher"), ("gmsd", "lower"), ("entropy", "higher"), ("piqe", "lower")],
)
def test_the_real_thing(name, direction, monkeypatch, capsys, pictures, noise, values):
    pytest.importorskip("pyiqa")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    forget()
    smooth = np.repeat(np.repeat(noise(1, 8)[0], 8, 0), 8, 1)
    run = pictures([smooth, *noise(2, 64)], references=[0, 0, 0])
    metric = pyiqa_metric(name, {"device": "cpu"})
    assert metric.spec.direction == direction
    assert "PolyForm-Noncommercial" in capsys.readouterr().err
    found = values(metric.score(run.image_set(), ignore))
    assert None not in found.values()
    assert found == pytest.approx(values(metric.score(run.image_set([2, 0, 1]), ignore)))
