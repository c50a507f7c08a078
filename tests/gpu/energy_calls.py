"""`pytest --benchmark` with calls on the GPU; run twice, the second time against the first as a baseline (A/A)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="module")
def pipe() -> Any:
    from diffusers import StableDiffusionPipeline

    from perjoule_suites.tiny import sd_tiny

    made = StableDiffusionPipeline.from_pretrained(sd_tiny(), dtype=torch.float32).to(DEVICE)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize("steps", [2, 8] if DEVICE == "cuda" else [1])
def test_tiny_images(energy_benchmark: Any, pipe: Any, steps: int) -> None:
    prompts = ["a large red circle on a white ground"] * (4 if DEVICE == "cuda" else 1)
    assert len(energy_benchmark(pipe, prompts, num_inference_steps=steps).images) == len(prompts)


def test_matrix_product(energy_benchmark: Any) -> None:
    side, dtype = (4096, torch.bfloat16) if DEVICE == "cuda" else (256, torch.float32)
    a = torch.randn(side, side, device=DEVICE, dtype=dtype)

    def multiply() -> torch.Tensor:
        product = a
        for _ in range(50):
            product = a @ a
        return product

    assert energy_benchmark(multiply).shape == (side, side)
