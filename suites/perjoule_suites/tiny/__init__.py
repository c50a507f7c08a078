"""The tiny family: a real latent text-to-image model in the diffusers format, small enough for two CPU cores.

Code outside this package does not treat it specially: the entry points below return folders for `from_pretrained`.
"""

from __future__ import annotations

from pathlib import Path

_WEIGHTS = Path(__file__).parent / "weights"


def sd_tiny() -> Path:
    """Folder of the `StableDiffusionPipeline`."""
    return _WEIGHTS / "sd-tiny"


def sd_tiny_lcm() -> Path:
    """Folder of the few-step student; its guidance is built in."""
    return _WEIGHTS / "sd-tiny-lcm"


def sd_tiny_pruned() -> Path:
    """Folder of the block-pruned student."""
    return _WEIGHTS / "sd-tiny-pruned"


def steps_tiny() -> Path:
    """Folder of the teacher's step predictor."""
    return _WEIGHTS / "steps-tiny"


def steps_tiny_peek1() -> Path:
    """Folder of the step predictor that uses the first evaluation."""
    return _WEIGHTS / "steps-tiny-peek1"


def steps_tiny_peek2() -> Path:
    """Folder of the step predictor that uses the first two evaluations."""
    return _WEIGHTS / "steps-tiny-peek2"


def steps_tiny_lcm() -> Path:
    """Folder of the few-step student's step predictor."""
    return _WEIGHTS / "steps-tiny-lcm"


def steps_tiny_shared() -> Path:
    """Folder of the step predictor that uses only the prompt, for schedules that share their first two timesteps."""
    return _WEIGHTS / "steps-tiny-shared"


def clip_tiny() -> Path:
    """Folder of the `CLIPModel` with its tokenizer."""
    return _WEIGHTS / "clip-tiny"


def recogniser_tiny() -> Path:
    """Folder of the recogniser of the metric `scene`."""
    return _WEIGHTS / "recogniser-tiny"
