"""The tiny models: a real latent text-to-image model in the diffusers format, small enough for two CPU cores.

`world` has the captions, the pictures and the absolute score; this package has the models and their trainings. Nothing
outside treats it specially: `model_folders` is an entry point, and the folders are of the kind that `from_pretrained`
loads.
"""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"


def model_folders() -> dict[str, Path]:
    """Model name -> folder, for `builtin:NAME`."""
    return {folder.name: folder for folder in sorted(WEIGHTS.iterdir()) if folder.is_dir()}


def sd_tiny() -> Path:
    """Folder of the `StableDiffusionPipeline`."""
    return WEIGHTS / "sd-tiny"


def sd_tiny_lcm() -> Path:
    """Folder of the few-step student; its guidance is built in."""
    return WEIGHTS / "sd-tiny-lcm"


def sd_tiny_pruned() -> Path:
    """Folder of the block-pruned student."""
    return WEIGHTS / "sd-tiny-pruned"


def clip_tiny() -> Path:
    """Folder of the `CLIPModel` with its tokenizer."""
    return WEIGHTS / "clip-tiny"
