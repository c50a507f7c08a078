"""The same settings by hand: the code that `perjoule recommend` prints makes the same images, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.perjoule_suites.hub.conftest import Worker

from perjoule.forecast.nfe import nfe_per_image
from perjoule.suite.reading import find_suite, load_suite
from perjoule.testing import HubMirror
from perjoule.types import Runtime, Variant

pytestmark = pytest.mark.slow

# one of each kind of pipeline, sampler, schedule, guidance, adapter, single file, and reuse
KINDS = {
    "sd15": ("sd15-dpm2m", "sd15-unipc", "sd15-ays10"),
    "sd21": ("sd21-ddim",),
    "sdxl": ("sdxl-euler",),
    "sd35": ("sd35-euler", "sd35-dpm2m"),
    "few-step": (
        "lcm-dreamshaper",
        "lcm-sdxl",
        "lcm-lora-sd15",
        "sdxl-turbo",
        "sdxl-lightning-4",
        "hyper-sdxl-unet-1",
        "hyper-sdxl-unified",
        "dmd2-sdxl-4",
    ),
    "compressed": ("bk-sdm-small", "ssd-1b"),
    "caching": ("sd21-deepcache-3", "sd21-pab", "sd35-taylorseer"),
}
NAMES = [(suite, name) for suite, names in KINDS.items() for name in names]


@pytest.fixture(scope="module")
def worker(mirror: HubMirror, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    made = Worker(mirror.environment(tmp_path_factory.mktemp("home"), token=mirror.token))
    yield made
    made.close()


def variant_of(suite: str, name: str) -> Variant:
    """The built-in variant at 32 px and its shortest rung."""
    (variant,) = (v for v in load_suite(find_suite(suite)).variants if v.name == name)
    return replace(variant, width_px=32, height_px=32, steps=variant.steps[:1])


@pytest.mark.parametrize(("suite", "name"), NAMES)
def test_images_are_those_of_the_printed_code(worker: Worker, suite: str, name: str) -> None:
    variant = variant_of(suite, name)
    found = worker.load(variant, call=True)
    assert found.get("pixels") == found.get("call"), found
    assert found["shape"] == [2, 32, 32, 3]
    assert found["nfe"] == nfe_per_image(variant, variant.steps[0])


@pytest.mark.parametrize(
    "runtime",
    [
        Runtime(attention="math"),
        Runtime(channels_last=True, vae_tiling=True, vae_slicing=True),
        Runtime(compile="default"),
    ],
)
def test_a_declared_runtime_is_that_of_the_printed_code(worker: Worker, runtime: Runtime) -> None:
    found = worker.load(replace(variant_of("sd15", "sd15-dpm2m"), dtype="float32", runtime=runtime), call=True)
    assert found.get("pixels") == found.get("call"), found


def test_guidance_in_a_share_of_the_calls_is_that_of_the_printed_code(worker: Worker) -> None:
    variant = replace(variant_of("sd15", "sd15-dpm2m"), guidance_share=0.6)
    found = worker.load(variant, call=True)
    assert found.get("pixels") == found.get("call"), found
    assert found["nfe"] == 5 + 3


def test_weights_are_recorded_by_commit_and_digest(worker: Worker, mirror: HubMirror, repositories: Path) -> None:
    import hashlib

    variant = variant_of("few-step", "sdxl-lightning-4")
    assert variant.denoiser is not None
    sources = worker.load(variant)["sources"]
    assert set(sources) == {variant.model, variant.denoiser.model}
    for model, source in sources.items():
        assert source["revision"] == mirror.commit(model)
        for name, digest in source["files"].items():
            assert hashlib.sha256((repositories / model / name).read_bytes()).hexdigest() == digest
    # the base's own UNet is neither loaded nor recorded
    assert not [name for name in sources[variant.model]["files"] if name.startswith("unet/")]
    assert sources[variant.denoiser.model]["files"].keys() == {variant.denoiser.file}
