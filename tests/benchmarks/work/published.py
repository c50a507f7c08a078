"""Profiles of boards with published joules: `python -m tests.benchmarks.work.published` prints rows for profiles.toml.

Joules are those of `perjoule/forecast/published.toml`. Work is counted from the configurations of the networks, without
weights. For the A100 a point is a step: the slope of the published joules over 30, 40 and 50 steps, and one evaluation
of the denoiser. The H100 has one step count for each model, so a point is an image: text encoders, all evaluations and
the decoder; the joules then include what runs between them.

Which coefficients the points carry is decided by the error of models that are left out of the fit. All counts are those
of the networks as diffusers builds them, with fused attention; a compiled network starts fewer kernels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch

from perjoule.forecast.published import tables
from perjoule.types import Work
from perjoule.work.counter import WorkCounter, total_work
from perjoule.work.fitting import fit_work
from perjoule.work.shapes import shapes_only

A100, H100 = "NVIDIA A100-SXM4-40GB", "NVIDIA H100 80GB HBM3"
SDXL = {
    "cross_attention_dim": 2048,
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "use_linear_projection": True,
}
SD21 = {
    "cross_attention_dim": 1024,
    "sample_size": 96,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
}
SD3 = {"joint_attention_dim": 4096, "pooled_projection_dim": 2048, "out_channels": 16, "sample_size": 128}
SD3M = SD3 | {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536, "pos_embed_max_size": 192}
SD35M = SD3M | {"dual_attention_layers": tuple(range(13)), "qk_norm": "rms_norm", "pos_embed_max_size": 384}
SD35L = SD3 | {
    "num_layers": 38,
    "num_attention_heads": 38,
    "caption_projection_dim": 2432,
    "pos_embed_max_size": 192,
    "qk_norm": "rms_norm",
}
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}


@dataclass(frozen=True, kw_only=True)
class Model:
    """A published model: its networks, and the parameters of its denoiser as published, in billions."""

    name: str
    denoiser: Callable[[int], Work]
    parameters: float
    rows: int
    side_px: int
    encoders: tuple[dict[str, int], ...]
    t5_tokens: int = 0
    latents: int = 4
    calls: Callable[[int], int] = lambda steps: steps


def counted(call: Callable[[], Any], dtype: str = "float16") -> Work:
    with shapes_only(dtype), WorkCounter(count_new=True) as counter:
        call()
    assert counter.work is not None
    assert not counter.work.unknown
    return counter.work


def unet(config: dict[str, Any], side_px: int, parameters: float, **embedded: Any) -> Callable[[int], Work]:
    def call(rows: int) -> None:
        from diffusers import UNet2DConditionModel

        network = UNet2DConditionModel(**config, **embedded).eval()
        checked(network, parameters)
        more: dict[str, Any] = {}
        if embedded:
            more["timestep_cond"] = torch.empty(rows, embedded["time_cond_proj_dim"])
        if "addition_embed_type" in config:
            more["added_cond_kwargs"] = {"text_embeds": torch.empty(rows, 1280), "time_ids": torch.empty(rows, 6)}
        text = torch.empty(rows, 77, config["cross_attention_dim"])
        network(torch.empty(rows, 4, side_px // 8, side_px // 8), torch.empty((), dtype=torch.int64), text, **more)

    return lambda rows: counted(lambda: call(rows))


def sd3(config: dict[str, Any], parameters: float) -> Callable[[int], Work]:
    def call(rows: int) -> None:
        from diffusers import SD3Transformer2DModel

        network = SD3Transformer2DModel(**config).eval()
        checked(network, parameters)
        pooled, text = torch.empty(rows, 2048), torch.empty(rows, 333, 4096)
        network(torch.empty(rows, 16, 128, 128), text, pooled, torch.empty(rows))

    return lambda rows: counted(lambda: call(rows))


def flux(rows: int) -> Work:
    def call() -> None:
        from diffusers import FluxTransformer2DModel

        network = FluxTransformer2DModel(guidance_embeds=True).eval()
        checked(network, 11.9)
        network(
            torch.empty(rows, 4096, 64), torch.empty(rows, 512, 4096), torch.empty(rows, 768), torch.empty(rows),
            img_ids=torch.empty(4096, 3), txt_ids=torch.empty(512, 3), guidance=torch.empty(rows),
        )  # fmt: skip

    return counted(call)


def checked(network: torch.nn.Module, parameters: float) -> None:
    """Stop if the weights have another number of values than the published ones."""
    billions = sum(one.numel() for one in network.state_dict().values()) / 1e9
    assert abs(billions / parameters - 1) < 0.02, (billions, parameters)


def decoder(side_px: int, latents: int) -> Work:
    def call() -> None:
        from diffusers import AutoencoderKL

        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=latents,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        ).eval()  # fmt: skip
        vae.decoder(torch.empty(1, latents, side_px // 8, side_px // 8))

    return counted(call)


def clip(config: dict[str, int], rows: int) -> Work:
    def call() -> None:
        from transformers import CLIPTextConfig, CLIPTextModel

        CLIPTextModel(CLIPTextConfig(**config)).eval()(torch.zeros(rows, 77, dtype=torch.int64))

    return counted(call)


@cache
def t5(tokens: int, rows: int) -> Work:
    def call() -> None:
        from transformers import T5Config, T5EncoderModel

        config = T5Config(
            d_model=4096, d_ff=10240, num_layers=24, num_heads=64, d_kv=64, feed_forward_proj="gated-gelu"
        )
        T5EncoderModel(config).eval()(torch.zeros(rows, tokens, dtype=torch.int64))

    return counted(call)


MODELS = (
    # PNDM, the scheduler of Stable Diffusion 1.5, evaluates one timestep twice
    Model(name="Stable Diffusion 1.5", denoiser=unet({"cross_attention_dim": 768}, 512, 0.860), parameters=0.860,
          rows=2, side_px=512, encoders=(CLIP_L,), calls=lambda steps: steps + 1),
    Model(name="Stable Diffusion 2.1", denoiser=unet(SD21, 768, 0.866), parameters=0.866, rows=2, side_px=768,
          encoders=(CLIP_H,)),
    Model(name="SDXL base 1.0", denoiser=unet(SDXL, 1024, 2.567), parameters=2.567, rows=2, side_px=1024,
          encoders=(CLIP_L, CLIP_G)),
    Model(name="SDXL-Turbo", denoiser=unet(SDXL, 512, 2.567), parameters=2.567, rows=1, side_px=512,
          encoders=(CLIP_L, CLIP_G)),
    Model(name="LCM Dreamshaper v7",
          denoiser=unet({"cross_attention_dim": 768}, 768, 0.860, time_cond_proj_dim=256), parameters=0.860, rows=1,
          side_px=768, encoders=(CLIP_L,)),
    Model(name="Stable Diffusion 3 medium", denoiser=sd3(SD3M, 2.08), parameters=2.08, rows=2, side_px=1024,
          encoders=(CLIP_L, CLIP_G), t5_tokens=256, latents=16),
    Model(name="Stable Diffusion 3.5 medium", denoiser=sd3(SD35M, 2.47), parameters=2.47, rows=2, side_px=1024,
          encoders=(CLIP_L, CLIP_G), t5_tokens=256, latents=16),
    Model(name="Stable Diffusion 3.5 large", denoiser=sd3(SD35L, 8.06), parameters=8.06, rows=2, side_px=1024,
          encoders=(CLIP_L, CLIP_G), t5_tokens=256, latents=16),
    Model(name="FLUX.1-dev", denoiser=flux, parameters=11.9, rows=1, side_px=1024, encoders=(CLIP_L,), t5_tokens=512,
          latents=16),
)  # fmt: skip


def image_work(model: Model, steps: int, evaluation: Work) -> Work:
    # SDXL takes zeros for the empty negative prompt
    times = 1 if model.name.startswith("SDXL") else model.rows
    texts = [(clip(config, 1), times) for config in model.encoders]
    if model.t5_tokens:
        texts.append((t5(model.t5_tokens, 1), model.rows))
    return total_work([(evaluation, model.calls(steps)), (decoder(model.side_px, model.latents), 1), *texts])


def figures(name: str, device: str) -> list[dict[str, Any]]:
    (row,) = (row for row in tables()["models"] if row["name"] == name)
    return [figure for figure in row["figures"] if figure["device"] == device]


def points() -> dict[str, list[tuple[str, Work, float]]]:
    """(model, work, joules) by board."""
    found: dict[str, list[tuple[str, Work, float]]] = {A100: [], H100: []}
    for model in MODELS:
        evaluation = model.denoiser(model.rows)
        ladder = figures(model.name, A100)
        if len(ladder) > 1:
            slope_j = np.polyfit([one["steps"] for one in ladder], [one["energy_j"] for one in ladder], 1)[0]
            found[A100].append((model.name, evaluation, float(slope_j)))
        for one in figures(model.name, H100):
            found[H100].append((model.name, image_work(model, one["steps"], evaluation), one["energy_j"]))
    return found


def only(work: Work, names: Sequence[str]) -> Work:
    """The work with zero for every count that is not in `names`."""
    zero: dict[str, Any] = {name: 0 for name in ("flops", "bytes_moved", "operators", "calls") if name not in names}
    return replace(work, parts=tuple(replace(part, **zero) for part in work.parts))


FEATURES = (
    ("flops",),
    ("flops", "operators"),
    ("flops", "bytes_moved"),
    ("flops", "bytes_moved", "operators"),
)
CHOSEN = ("flops", "operators")  # more coefficients do not lower the error of models that are left out on both boards
# board -> name of the profile, data types of the figures, what a point is
PROFILES = {
    A100: ("a100-40gb", ["float16"], "steps: slopes of published joules over 30 to 50 steps, batch 1"),
    H100: ("h100", ["bfloat16", "float16"], "whole images: published joules at one step count of 25 to 50, batch 1"),
}
SOURCE = "ml-energy leaderboards, see forecast/published.toml"


def report(board: str, rows: Sequence[tuple[str, Work, float]]) -> None:
    """Print the points, the errors of each choice of coefficients, and the profile."""
    energies = [energy_j for _, _, energy_j in rows]
    print(f"\n# {board}")
    for name, work, energy_j in rows:
        print(
            f"# {name}: {work.flops / 1e12:.2f} TFLOP, {work.bytes_moved / 1e9:.0f} GB, {work.operators} operators, "
            f"{energy_j:.1f} J, {energy_j / work.flops * 1e12:.2f} J/TFLOP"
        )
    fits = {names: fit_work([only(work, names) for _, work, _ in rows], energies) for names in FEATURES}
    for names, fit in fits.items():
        print(f"# {' + '.join(names)}: R2 {fit.r_squared:.3f}, worst {fit.worst:.0%}, left out {fit.held_out:.0%}")
    fit = fits[CHOSEN]
    profile, dtypes, what = PROFILES[board]
    print(f"[{profile}]")
    for key, value in {
        "device": "cuda", "device_model": board, "dtypes": dtypes, "j_per_flop": float(f"{fit.coefficients[0]:.3g}"),
        "j_per_operator": float(f"{fit.coefficients[2]:.3g}"),
        # what two data sets of one board may differ by
        "level_error": round(tables()["spread"]["same_device"]["high"] - 1, 2),
        "shape_error": round(fit.held_out, 2), "boundary": "gpu-board",
        "origin": f"fitted to {len(rows)} models, {what} ({SOURCE})",
    }.items():  # fmt: skip
        print(f"{key} = {json.dumps(value)}")


def main() -> None:
    for board, rows in points().items():
        report(board, rows)


if __name__ == "__main__":
    main()
