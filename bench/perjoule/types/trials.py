"""Cells of a suite, and the trials that measure them."""

from __future__ import annotations

from dataclasses import dataclass, field

from perjoule.types.energy import EnergyReading
from perjoule.types.prompts import Prompt
from perjoule.types.suites import Role, Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One variant at one step count, or at one level of its step policy: the unit of comparison.

    Attributes:
        cell_id: Unique in the suite.
        variant: The variant.
        steps: diffusers' `num_inference_steps`, or None for a step policy.
        level: Level of the step policy, or None for `fixed`.
        batch_size: Maximum number of images per pipeline call; None generates all images of a window in one call.
    """

    cell_id: str
    variant: Variant
    steps: int | None = None
    level: float | None = None
    batch_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A planned trial. `seeds[i]` belongs to `prompts[i]`."""

    trial_id: str
    cell: Cell
    block: int
    prompts: tuple[Prompt, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One finished window: a row of `trials.jsonl`.

    `nfe_per_image` counts denoiser evaluations by a hook on the denoiser; guidance counts two per step.
    `phases_s` are wall seconds per pipeline phase (text_encoder, denoise, vae_decode, host). `failure` is the reason
    why the trial has no images; its `traceback` is stored in `failures.jsonl`. `remarks` are coded warnings about
    images, prompts and memory, in addition to those of the reading. `attempts` are earlier attempts at the same trial,
    which are stored in `superseded.jsonl`.
    """

    trial_id: str
    cell_id: str
    variant: str
    role: Role
    policy: str
    block: int
    prompts: tuple[str, ...]
    prompt_ids: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: tuple[int, ...]
    nfe_per_image: float | None
    image_count: int
    iterations: int
    reading: EnergyReading | None
    batch_size: int | None = None
    image_sha256: tuple[str, ...] = ()
    phases_s: dict[str, float] = field(default_factory=dict)
    failure: str | None = None
    traceback: str = ""
    remarks: tuple[str, ...] = ()
    attempts: tuple[Trial, ...] = ()
