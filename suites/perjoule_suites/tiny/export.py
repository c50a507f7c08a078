"""Reads and writes folders of pipelines, in the layouts of diffusers and transformers; `export` writes fp16 weights.

A student differs from the teacher only in its UNet. Text encoder, tokenizer, autoencoder and scheduler are links to the
teacher's files: every student folder is a whole pipeline, and the weights are stored once.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

from perjoule.errors import UsageError

STUDENTS = ("sd-tiny-lcm", "sd-tiny-pruned")
_SIDE = 64


def load_pipeline(folder: Path) -> StableDiffusionPipeline:
    """A pipeline of the family in float32, quietly."""
    logging.disable_progress_bar()
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


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


def save_student(unet: UNet2DConditionModel, teacher: Path, to: Path) -> None:
    """Write the UNet as fp16 safetensors and link everything else to the teacher's folder."""
    shutil.rmtree(to, ignore_errors=True)
    half = UNet2DConditionModel.from_config(unet.config)
    half.load_state_dict(unet.state_dict())
    half.half().save_pretrained(to / "unet", safe_serialization=True)
    for file in sorted(teacher.rglob("*")):
        inside = file.relative_to(teacher)
        if file.is_file() and inside.parts[0] != "unet":
            target = to / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            # files, not folders: a glob for weights does not look into linked folders
            target.symlink_to(os.path.relpath(file, target.parent))
