"""Networks of the right architecture and minimal size, with random weights and a few thousand parameters each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

LATENT_SIDE = 4  # 32 px with an autoencoder that reduces by 8
TEXT_WIDTH = 16
_LENGTH, _BOS, _EOS = 77, 512, 513
_UNET: dict[str, Any] = {
    "sample_size": LATENT_SIDE,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": TEXT_WIDTH,
    "attention_head_dim": 4,
    "norm_num_groups": 4,
}


def unet(**changes: Any) -> Any:
    """Return the UNet of Stable Diffusion 1; changes turn it into others."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(**_UNET | changes)


def unet_xl(**changes: Any) -> Any:
    """Return the UNet of SDXL, with both text encoders, image size and pooled text as conditions."""
    return unet(
        **{
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2),
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 6 * 4 + TEXT_WIDTH,
            "cross_attention_dim": 2 * TEXT_WIDTH,
        }
        | changes
    )


def transformer() -> Any:
    """Return the transformer of Stable Diffusion 3.5 medium, with dual attention in its first blocks."""
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        sample_size=LATENT_SIDE,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=4,
        dual_attention_layers=(0, 1),
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=2 * TEXT_WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=2 * TEXT_WIDTH,
        pos_embed_max_size=LATENT_SIDE,
        qk_norm="rms_norm",
    )


def autoencoder(**changes: Any) -> Any:
    """Return an autoencoder that reduces by 8."""
    from diffusers import AutoencoderKL

    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    sizes = {"block_out_channels": (4, 4, 4, 4), "norm_num_groups": 2, "latent_channels": 4}
    return AutoencoderKL(**{"sample_size": 8 * LATENT_SIDE, **kinds, **sizes, **changes})


def clip_text(*, projection: bool = False) -> Any:
    """Return a CLIP text encoder, with a projection as in SDXL's second and both of SD3."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=_EOS + 1,
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=TEXT_WIDTH,
        max_position_embeddings=_LENGTH,
        bos_token_id=_BOS,
        eos_token_id=_EOS,
        pad_token_id=_EOS,
    )
    return CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)


def clip() -> Any:
    """Return a whole CLIP model, for scoring images."""
    from transformers import CLIPConfig, CLIPModel

    return CLIPModel(
        CLIPConfig(
            text_config=clip_text().config.to_dict(),
            vision_config={
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": 32,
                "patch_size": 16,
                "projection_dim": TEXT_WIDTH,
            },
            projection_dim=TEXT_WIDTH,
        )
    )


def t5() -> Any:
    """Return the T5 encoder of Stable Diffusion 3, as wide as both CLIP encoders together."""
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=300, d_model=2 * TEXT_WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2, is_encoder_decoder=False
        )
    )


def write_clip_tokenizer(folder: Path) -> None:
    """Write a byte tokenizer without merges as `vocab.json` and `merges.txt`, as on the hub."""
    letters = sorted(_bytes_as_letters())
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    end = {"content": "<|endoftext|>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    start = end | {"content": "<|startoftext|>"}
    specials = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": "<|endoftext|>"}
    _write_json(folder / "vocab.json", {word: number for number, word in enumerate(words)})
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    _write_json(folder / "special_tokens_map.json", specials)
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": _LENGTH, "do_lower_case": True}
    _write_json(folder / "tokenizer_config.json", settings | specials)


def write_t5_tokenizer(folder: Path) -> None:
    """Return a unigram model over letters."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    pieces = ["<pad>", "</s>", "<unk>", "▁", *(chr(c) for c in range(33, 127))]
    model = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=2))
    model.pre_tokenizer = pre_tokenizers.Metaspace()
    model.decoder = decoders.Metaspace()
    model.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    folder.mkdir(parents=True, exist_ok=True)
    model.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    _write_json(folder / "special_tokens_map.json", names)
    settings = {"tokenizer_class": "T5TokenizerFast", "model_max_length": 512, "extra_ids": 0}
    _write_json(folder / "tokenizer_config.json", settings | names)


def lora_of(network: Any, seed: int) -> dict[str, torch.Tensor]:
    """Return an adapter for all attention projections with kohya's names, as in LCM-LoRA and Hyper-SD."""
    chance = torch.Generator().manual_seed(seed)
    adapter: dict[str, torch.Tensor] = {}
    for name, module in network.named_modules():
        if not name.endswith(("to_q", "to_k", "to_v", "to_out.0")):
            continue
        key = "lora_unet_" + name.replace(".", "_")
        out_width, in_width = module.weight.shape
        adapter[f"{key}.lora_down.weight"] = torch.randn(2, in_width, generator=chance) / in_width**0.5
        adapter[f"{key}.lora_up.weight"] = torch.randn(out_width, 2, generator=chance)
        adapter[f"{key}.alpha"] = torch.tensor(2.0)
    return adapter


def _bytes_as_letters() -> list[str]:
    """Return GPT-2's printable characters for the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in plain] + [chr(256 + n) for n in range(256 - len(plain))]


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")
