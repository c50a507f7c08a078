"""What only a GPU can show: kernels that refuse shapes, devices that differ, errors that end a process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.gpu.networks import pipeline as random_pipeline

from perjoule.types import Runtime, Variant
from perjoule_suites.assembly import _set_runtime
from perjoule_suites.budgetfusion import StepPredictor
from perjoule_suites.diffusers_generator import DiffusersGenerator, load

pytestmark = [pytest.mark.slow, pytest.mark.gpu]

TINY = Variant(name="tiny", model="builtin:sd-tiny", steps=(4,), guidance=3.0)
PROMPTS = ["a large red circle on a white ground", "a blue star above a pink ring on a grey ground"]


@pytest.fixture(scope="module")
def tiny() -> DiffusersGenerator:
    return load(TINY, where="s")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Stable Diffusion 2.1 with random weights, whose VAE has one head of 512 channels."""
    made = random_pipeline("sd21", "cuda", tmp_path_factory.mktemp("tokenizer"), tiny=False)
    yield made
    del made
    torch.cuda.empty_cache()


def test_images_of_a_gpu_are_those_of_the_cpu_but_for_rounding(tiny: DiffusersGenerator) -> None:
    drawn = tiny.generate(PROMPTS, [1, 2], 4)
    arguments = tiny.call_arguments(PROMPTS, [1, 2], 4)
    tiny.pipeline.to("cpu")
    try:
        images = tiny.pipeline(**arguments).images
    finally:
        tiny.pipeline.to("cuda")
    difference = np.abs(drawn.images.astype(float) - 255 * images)
    assert difference.mean() < 1
    assert np.quantile(difference, 0.99) <= 8


def test_bytes_of_a_gpu_are_those_of_the_cpu(tiny: DiffusersGenerator) -> None:
    pictures = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1)).half()
    assert np.array_equal(tiny.as_uint8(pictures.cuda()), tiny.as_uint8(pictures))


def test_phases_are_times_of_the_device_and_the_host_has_the_rest(tiny: DiffusersGenerator) -> None:
    seconds = tiny.generate(PROMPTS, [1, 2], 4).phases_s
    assert set(seconds) == {"text_encoder", "denoise", "vae_decode", "host"}
    assert min(seconds["text_encoder"], seconds["denoise"], seconds["vae_decode"]) > 0


@pytest.mark.parametrize("kernel", ["math", "efficient", "flash", "cudnn"])
def test_every_attention_kernel_leaves_the_vae_alone(large: Any, kernel: Any) -> None:
    variant = replace(TINY, dtype="float16", width_px=256, height_px=256, runtime=Runtime(attention=kernel))
    forward = large.unet.forward
    _set_runtime(large, variant, "s")
    try:
        images = DiffusersGenerator(large, variant, ()).generate(PROMPTS[:1], [1], 1).images
    finally:
        large.unet.forward = forward
        for module in (large.unet, large.text_encoder, large.vae.decoder):
            module._forward_hooks.clear()
            module._forward_pre_hooks.clear()
    assert images.shape == (1, 256, 256, 3)


def test_the_step_predictor_is_on_the_gpu(tiny: DiffusersGenerator) -> None:
    predictor = StepPredictor.from_pretrained("builtin:steps-tiny", pipeline=tiny.pipeline)
    assert {parameter.device.type for parameter in predictor.network.parameters()} == {"cuda"}
    alone = StepPredictor.from_pretrained("builtin:steps-tiny")
    np.testing.assert_allclose(
        predictor.curves_for(PROMPTS).values, alone.curves_for(PROMPTS).values, rtol=1e-3, atol=1e-3
    )


def test_an_assertion_on_the_device_is_known_to_end_the_context() -> None:
    code = """
import torch
from perjoule.running.failures import failure_of
try:
    torch.zeros(4, device="cuda")[torch.tensor([9], device="cuda")]
    torch.cuda.synchronize()
except RuntimeError as error:
    print(failure_of(error, torch.cuda.synchronize).kills_context)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr[-2000:]


def test_memory_of_a_failed_call_is_freed() -> None:
    code = """
import torch
from perjoule.running.failures import failure_of
def work():
    held = [torch.empty(2**28, dtype=torch.uint8, device="cuda")]
    held.append(torch.empty(2**50, dtype=torch.uint8, device="cuda"))
try:
    work()
except RuntimeError as error:
    assert not failure_of(error, torch.cuda.synchronize).kills_context
print(torch.cuda.memory_reserved())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "0", done.stderr[-2000:]
