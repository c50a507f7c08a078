"""Seeds of the initial noise of images."""

from __future__ import annotations

import hashlib


def image_seed(prompt: str, seed: int) -> int:
    """Return the 63-bit seed of the CPU generator that draws the initial latents of one image.

    It depends only on prompt and seed, so all step counts, batch sizes and samplers of a suite start from the same
    noise, but two prompts with the same seed do not.
    """
    digest = hashlib.sha256(f"{seed}\x00{prompt}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 1
