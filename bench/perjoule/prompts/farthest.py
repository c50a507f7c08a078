"""Selects prompts that differ as much as possible: greedy farthest points by the cosine of text embeddings.

Each next prompt is the one whose most similar chosen prompt is least similar to it (Gonzalez 1985).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perjoule.types import Prompt

# n texts -> (n, d) vectors of length one
Embed = Callable[[Sequence[str]], NDArray[np.float64]]
# cosines that differ by less are equal, so that rounding in the encoder seldom decides
_DECIMALS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEncoder:
    """A text encoder with the SHA-256 of its weights."""

    embed: Embed
    weights: str


def farthest(prompts: Sequence[Prompt], embed: Embed, count: int, seed: int) -> tuple[list[Prompt], float | None]:
    """Return `count` prompts in the order of their selection, and the largest cosine between two of them.

    The first prompt is the one with the smallest hash of seed and id; of equally similar ones, the first id is taken.
    A smaller count therefore gives a prefix.

    Args:
        prompts: The candidates, with distinct ids.
        embed: Text encoder.
        count: At most the number of candidates.
        seed: Chooses the first prompt.
    """
    ordered = sorted(prompts, key=lambda prompt: prompt.prompt_id)
    vectors = embed([prompt.text for prompt in ordered])
    hashes = [hashlib.sha256(f"{seed}\0{prompt.prompt_id}".encode()).digest() for prompt in ordered]
    chosen = [hashes.index(min(hashes))]
    # the cosine with the most similar chosen prompt
    nearest = np.full(len(ordered), -np.inf)
    largest: float | None = None
    while len(chosen) < count:
        nearest = np.maximum(nearest, np.round(vectors @ vectors[chosen[-1]], _DECIMALS))
        nearest[chosen[-1]] = np.inf
        following = int(nearest.argmin())
        largest = max(float(nearest[following]), -1.0 if largest is None else largest)
        chosen.append(following)
    return [ordered[i] for i in chosen], largest
