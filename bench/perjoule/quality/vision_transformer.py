"""Vision transformer of DINO and of CLIP's image tower, built from torch's layers and loaded from tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_HEAD_WIDTH = 64  # of every ViT-S, -B and -L


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Properties that tensors do not contain.

    Attributes:
        quick_gelu: OpenAI's x·σ(1.702 x) instead of GELU.
        norm_eps: Epsilon of all layer norms.
        first_norm: Whether tokens are normalised before the first block, as in CLIP.
        last_norm: Whether the class token is normalised after the last block.
    """

    quick_gelu: bool
    norm_eps: float
    first_norm: bool
    last_norm: bool


class VisionTransformer(nn.Module):
    """Maps (n, 3, side, side) normalised pixels to (n, d): the class token, projected if there is a projection.

    Tensors are named as in facebookresearch/dino: `cls_token`, `pos_embed`, `patch_embed.proj`, `blocks.N.attn.qkv`, …
    """

    def __init__(self, state: Mapping[str, Tensor], kind: Kind) -> None:
        """Build and load the network. Raises KeyError or RuntimeError if tensors are missing or have wrong shapes."""
        super().__init__()
        patch = state["patch_embed.proj.weight"]
        width = patch.shape[0]
        self.patches = nn.Conv2d(3, width, patch.shape[-1], stride=patch.shape[-1])
        nn.init.zeros_(self.patches.bias)  # type: ignore[arg-type]
        self.class_token = nn.Parameter(state["cls_token"].float())
        self.positions = nn.Parameter(state["pos_embed"].float())
        self.projection = nn.Parameter(state["proj"].float() if "proj" in state else torch.eye(width))
        self.first = nn.LayerNorm(width, kind.norm_eps) if kind.first_norm else nn.Identity()
        self.last = nn.LayerNorm(width, kind.norm_eps) if kind.last_norm else nn.Identity()
        depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
        self.blocks = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    width,
                    width // _HEAD_WIDTH,
                    state[f"blocks.{n}.mlp.fc1.weight"].shape[0],
                    dropout=0.0,
                    activation=_quick_gelu if kind.quick_gelu else nn.functional.gelu,
                    layer_norm_eps=kind.norm_eps,
                    batch_first=True,
                    norm_first=True,
                )
                for n in range(depth)
            )
        )
        self._fill(state)
        self.eval().requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute the class token, see the class."""
        patches = self.patches(pixels).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(pixels), -1, -1), patches], dim=1) + self.positions
        output: Tensor = self.last(self.blocks(self.first(tokens))[:, 0]) @ self.projection
        return output

    def _fill(self, state: Mapping[str, Tensor]) -> None:
        named = {"patches": "patch_embed.proj"}
        named |= {"first": "pos_drop"} if isinstance(self.first, nn.LayerNorm) else {}
        named |= {"last": "norm"} if isinstance(self.last, nn.LayerNorm) else {}
        for n in range(len(self.blocks)):
            source, target = f"blocks.{n}", f"blocks.{n}"
            named |= {
                f"{target}.self_attn.in_proj_": f"{source}.attn.qkv",
                f"{target}.self_attn.out_proj": f"{source}.attn.proj",
                f"{target}.linear1": f"{source}.mlp.fc1",
                f"{target}.linear2": f"{source}.mlp.fc2",
                f"{target}.norm1": f"{source}.norm1",
                f"{target}.norm2": f"{source}.norm2",
            }
        own = self.state_dict()
        filled = {"class_token", "positions", "projection"}
        for target, source in named.items():
            for kind in ("weight", "bias"):
                name = target + kind if target.endswith("_") else f"{target}.{kind}"
                if f"{source}.{kind}" not in state and name == "patches.bias":
                    filled.add(name)  # CLIP's network has no such bias
                    continue
                own[name].copy_(state[f"{source}.{kind}"])
                filled.add(name)
        assert filled == set(own), filled ^ set(own)


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)
