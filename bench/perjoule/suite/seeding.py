"""From (prompt, seed) to the noise an image starts from."""

from __future__ import annotations

import hashlib


def image_seed(prompt: str, seed: int) -> int:
    """The seed of the CPU generator that draws the initial latents of one image. -> 63-bit int.

    It depends on prompt and seed alone, so every step count, batch size and sampler of a suite starts from the same
    noise, and two prompts with the same seed do not.
    """
    digest = hashlib.sha256(f"{seed}\x00{prompt}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 1
