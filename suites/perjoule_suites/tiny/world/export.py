"""Writes the trained family as fp16 safetensors in the layouts of diffusers and transformers."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

from perjoule.errors import UsageError
from perjoule_suites.tiny.distil import save_student

STUDENTS = ("sd-tiny-lcm", "sd-tiny-pruned")
_SIDE = 64


def export(trained: Path, to: Path) -> dict[str, int]:
    """Write all parts that exist. -> name: bytes of its own weights.

    Raises:
        UsageError: The teacher or CLIP is not trained yet.
    """
    for part in ("sd-tiny", "clip"):
        if not (trained / part).exists():
            raise UsageError(f"{trained / part}: not trained yet; run train --out {trained} first")
    names = ["sd-tiny", "clip-tiny"]
    for name in (*names, *STUDENTS):
        shutil.rmtree(to / name, ignore_errors=True)
    pipeline = StableDiffusionPipeline.from_pretrained(trained / "sd-tiny", dtype=torch.float16)
    pipeline.save_pretrained(to / "sd-tiny", safe_serialization=True)
    CLIPModel.from_pretrained(trained / "clip", dtype=torch.float16).save_pretrained(to / "clip-tiny")
    CLIPTokenizer.from_pretrained(trained / "tokenizer").save_pretrained(to / "clip-tiny")
    half = [0.5, 0.5, 0.5]
    size = {"height": _SIDE, "width": _SIDE}
    CLIPImageProcessor(size={"shortest_edge": _SIDE}, crop_size=size, image_mean=half, image_std=half).save_pretrained(
        to / "clip-tiny"
    )
    for name in STUDENTS:
        if (trained / name).exists():
            save_student(UNet2DConditionModel.from_pretrained(trained / name / "unet"), to / "sd-tiny", to / name)
            names.append(name)
    for file in (file for name in names for file in (to / name).rglob("*.json") if not file.is_symlink()):
        # remove the path of the weights during training
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        file.write_text("".join(line for line in lines if '"_name_or_path"' not in line), encoding="utf-8")
    return {
        name: sum(f.stat().st_size for f in (to / name).rglob("*.safetensors") if not f.is_symlink()) for name in names
    }
