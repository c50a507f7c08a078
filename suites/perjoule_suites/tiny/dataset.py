"""Rendered scenes on disk, shared by all trainings of the family."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perjoule_suites.tiny.scenes import SIDE_PX, Scene, caption, parse_caption, render, sample_scene

_CHUNK = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Scenes with their renders: `images[i]` shows `scenes[i]`. images: (n, 64, 64, 3) uint8, memory-mapped."""

    scenes: list[Scene]
    images: NDArray[np.uint8]

    def captions(self, index: NDArray[np.int64], rng: np.random.Generator) -> list[str]:
        """A paraphrase for each indexed scene."""
        return [caption(self.scenes[int(i)], rng) for i in index]


def load_or_render(folder: Path, *, count: int, held_out: bool, seed: int, workers: int = 2) -> Dataset:
    """Return the data set in `folder`, and render it if it does not exist."""
    stem = folder / f"{'held-out' if held_out else 'train'}-{count}-{seed}"
    images_file, captions_file = stem.with_suffix(".npy"), stem.with_suffix(".json")
    if not captions_file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        images = np.lib.format.open_memmap(images_file, mode="w+", dtype=np.uint8, shape=(count, SIDE_PX, SIDE_PX, 3))
        starts = list(range(0, count, _CHUNK))
        jobs = [(seed, s, min(_CHUNK, count - s), held_out) for s in starts]
        captions: list[str] = []
        with ProcessPoolExecutor(workers) as pool:
            for start, (texts, chunk) in zip(starts, pool.map(_render_chunk, jobs), strict=True):
                images[start : start + len(chunk)] = chunk
                captions += texts
        images.flush()
        captions_file.write_text(json.dumps(captions), encoding="utf-8")
    scenes = [parse_caption(text) for text in json.loads(captions_file.read_text(encoding="utf-8"))]
    return Dataset(scenes=[s for s in scenes if s is not None], images=np.load(images_file, mmap_mode="r"))


def _render_chunk(job: tuple[int, int, int, bool]) -> tuple[list[str], NDArray[np.uint8]]:
    seed, start, count, held_out = job
    rng = np.random.default_rng([seed, start, int(held_out)])
    scenes = [sample_scene(rng, held_out=held_out) for _ in range(count)]
    return [caption(s) for s in scenes], np.stack([render(s, rng) for s in scenes])
