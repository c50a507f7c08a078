"""The tiny models: a real latent text-to-image model in the diffusers format, small enough for two CPU cores.

Nothing outside this package treats it specially: `model_folders` is an entry point, and the folders are of the kind
that `from_pretrained` loads.
"""

from __future__ import annotations

from pathlib import Path

_WEIGHTS = Path(__file__).parent / "weights"


def model_folders() -> dict[str, Path]:
    """Model name -> folder, for `builtin:NAME`."""
    return {folder.name: folder for folder in sorted(_WEIGHTS.iterdir()) if folder.is_dir()}


def sd_tiny() -> Path:
    """Folder of the `StableDiffusionPipeline`."""
    return _WEIGHTS / "sd-tiny"


def sd_tiny_lcm() -> Path:
    """Folder of the few-step student; its guidance is built in."""
    return _WEIGHTS / "sd-tiny-lcm"


def sd_tiny_pruned() -> Path:
    """Folder of the block-pruned student."""
    return _WEIGHTS / "sd-tiny-pruned"


def clip_tiny() -> Path:
    """Folder of the `CLIPModel` with its tokenizer."""
    return _WEIGHTS / "clip-tiny"


def recogniser_tiny() -> Path:
    """Folder of the recogniser of the metric `scene`."""
    return _WEIGHTS / "recogniser-tiny"
