"""Pipelines with the architecture and sizes of Stable Diffusion 2.1 and SDXL, and random weights.

The kernels and their sizes are the real ones; the images are noise. The weights are small and finite, because zeros
and NaNs draw less power.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

_ENDS = {"bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}  # of the tokenizer of the tests
_UNET: dict[str, dict[str, Any]] = {
    "sd21": {
        "sample_size": 96,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "block_out_channels": (320, 640, 1280, 1280),
        "attention_head_dim": (5, 10, 20, 20),
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
    },
    "sdxl": {
        "sample_size": 128,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (320, 640, 1280),
        "attention_head_dim": (5, 10, 20),
        "transformer_layers_per_block": (1, 2, 10),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
_OPEN_CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_OPEN_CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
_OPEN_CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
_TEXT: dict[str, tuple[dict[str, Any], ...]] = {
    "sd21": (_OPEN_CLIP_H | {"hidden_act": "gelu"},),
    "sdxl": (_OPEN_CLIP_L, _OPEN_CLIP_G | {"hidden_act": "gelu", "projection_dim": 1280}),
}


def pipeline(name: str, device: str, folder: Path, *, tiny: bool) -> Any:
    """Return a pipeline of `sd21` or `sdxl`: in float16 on a GPU, in float32 on a CPU; `tiny` for rehearsals."""
    import diffusers
    from transformers import CLIPTokenizer

    from perjoule_suites.testing import parts

    parts.write_clip_tokenizer(folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    torch.manual_seed(1)
    with torch.device(device), torch.no_grad():
        unet, texts, vae = _tiny(name) if tiny else _full(name)
    for network in (unet, vae, *texts):
        network.to(torch.float16 if device == "cuda" else torch.float32).eval()
    scheduler = diffusers.DPMSolverMultistepScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    shared = {"unet": unet, "vae": vae, "scheduler": scheduler, "tokenizer": tokenizer, "text_encoder": texts[0]}
    if name == "sdxl":
        made = diffusers.StableDiffusionXLPipeline(
            **shared, text_encoder_2=texts[1], tokenizer_2=tokenizer, add_watermarker=False
        )
    else:
        made = diffusers.StableDiffusionPipeline(
            **shared, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    made.set_progress_bar_config(disable=True)
    return made.to(device)


def _tiny(name: str) -> tuple[Any, list[Any], Any]:
    from perjoule_suites.testing import parts

    if name == "sdxl":
        return parts.unet_xl(), [parts.clip_text(), parts.clip_text(projection=True)], parts.autoencoder()
    return parts.unet(), [parts.clip_text()], parts.autoencoder()


def _full(name: str) -> tuple[Any, list[Any], Any]:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    unet = UNet2DConditionModel(in_channels=4, out_channels=4, layers_per_block=2, **_UNET[name])
    texts = [
        kind(CLIPTextConfig(vocab_size=49408, max_position_embeddings=77, **_ENDS, **config))
        for kind, config in zip((CLIPTextModel, CLIPTextModelWithProjection), _TEXT[name], strict=False)
    ]
    xl = name == "sdxl"
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
        sample_size=1024 if xl else 768,
        scaling_factor=0.13025 if xl else 0.18215,
        force_upcast=xl,
    )
    return unet, texts, vae
