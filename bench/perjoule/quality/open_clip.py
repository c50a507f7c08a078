"""Converts OpenCLIP checkpoints to transformers' CLIP: other names, and query, key and value in one matrix.

The names are those of github.com/mlfoundations/open_clip, class `CLIP` with a `VisionTransformer`. On random weights
the vectors of the converted model agreed with those of package open_clip_torch 3.3.0 within 1e-6.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perjoule.errors import UsageError
from perjoule.quality.weights import load_tensors

_PLAIN = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
_TURNED = {"text_projection": "text_projection.weight", "visual.proj": "visual_projection.weight"}
_BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)")
_IN_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_NO_WEIGHTS = {"attn_mask"}  # some checkpoints contain the causal mask


def load_open_clip(folder: Path, weights: Path) -> Any:
    """Return a CLIPModel of the architecture in `folder`'s config.json, with the weights of an OpenCLIP checkpoint.

    Raises:
        UsageError: If the checkpoint is not OpenCLIP's or does not fit the architecture (names the first difference).
    """
    from transformers import CLIPConfig, CLIPModel

    model: Any = CLIPModel(CLIPConfig.from_pretrained(folder))
    tensors = load_tensors(weights, "CLIP")
    state = to_transformers(tensors.get("state_dict", tensors), weights)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if "position_ids" not in name}
    for name in sorted({*state, *shapes}):
        shape, expected = tuple(state[name].shape) if name in state else None, shapes.get(name)
        if shape != expected:
            raise UsageError(f"{weights}: these weights do not fit {folder}: {name} is {shape}, must be {expected}")
    model.load_state_dict(state, strict=False)
    return model.float()


def to_transformers(state: Mapping[str, Any], where: object = "checkpoint") -> dict[str, Any]:
    """Return the tensors of OpenCLIP under transformers' names.

    Raises:
        UsageError: If a name is not one of OpenCLIP's.
    """
    renamed: dict[str, Any] = {}
    for name, tensor in state.items():
        name = name.removeprefix("module.")
        block = _BLOCK.fullmatch(name)
        if name in _PLAIN:
            renamed[_PLAIN[name]] = tensor
        elif name in _TURNED:
            renamed[_TURNED[name]] = tensor.T.contiguous()
        elif block is not None:
            tower = "vision_model" if block[1] else "text_model"
            renamed |= _in_block(f"{tower}.encoder.layers.{block[2]}", block[3], tensor, where)
        elif name not in _NO_WEIGHTS:
            raise UsageError(f"{where}: {name} is not a tensor of OpenCLIP's CLIP")
    return renamed


def _in_block(block: str, name: str, tensor: Any, where: object) -> dict[str, Any]:
    if name in ("attn.in_proj_weight", "attn.in_proj_bias"):
        kind = name.rpartition("_")[2]
        parts = zip(("q_proj", "k_proj", "v_proj"), tensor.chunk(3), strict=True)
        return {f"{block}.self_attn.{part}.{kind}": piece.contiguous() for part, piece in parts}
    module, _, kind = name.rpartition(".")
    if module not in _IN_BLOCK:
        raise UsageError(f"{where}: {block}: {name} is not a tensor of OpenCLIP's CLIP")
    return {f"{block}.{_IN_BLOCK[module]}.{kind}": tensor}
