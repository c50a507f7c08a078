"""Validates the absolute score on pictures whose right score is known: renders, damaged renders, wrong captions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from perjoule_suites.tiny.world.captions import LEVELS, Caption, draw_distinct
from perjoule_suites.tiny.world.scenes import SIDE_PX, Scene, draw_scene, ground_image, render
from perjoule_suites.tiny.world.score import Verdict, judge

Images = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A set of pictures with a known right score.

    Attributes:
        name: In words.
        least: The mean score must not be lower.
        most: The mean score must not be higher.
        verdicts: One per picture.
    """

    name: str
    least: float
    most: float
    verdicts: tuple[Verdict, ...]

    @property
    def score(self) -> float:
        """Mean score."""
        return float(np.mean([verdict.score for verdict in self.verdicts]))

    @property
    def is_met(self) -> bool:
        """True if the mean score is within its limits."""
        return self.least <= self.score <= self.most


def probes(count: int, seed: int, round_trip: Callable[[Images], Images] | None = None) -> Iterator[Probe]:
    """Judge renders of held-out captions and damaged forms of them.

    Args:
        count: Captions, in equal shares of the three levels.
        seed: Seed of captions and scenes.
        round_trip: Encodes and decodes images; adds renders through the autoencoder.
    """
    rng = np.random.default_rng(seed)
    captions = [c for level in LEVELS for c in draw_distinct(-(-count // len(LEVELS)), level, "test", seed)]
    scenes = [draw_scene(caption, rng) for caption in captions]
    whole = np.stack([render(scene) for scene in scenes])
    grounds = np.stack([ground_image(scene.ground, scene.pattern) for scene in scenes])
    strangers = whole[rng.permutation(len(whole))]

    def probe(name: str, images: Images, least: float = 0.0, most: float = 1.0) -> Probe:
        verdicts = tuple(judge(image, caption) for image, caption in zip(images, captions, strict=True))
        return Probe(name=name, least=least, most=most, verdicts=verdicts)

    yield probe("renders", whole, least=0.98)
    if round_trip is not None:
        yield probe("renders through the autoencoder", round_trip(whole), least=0.93)
    yield probe("reduced to 50 % of the pixels' side", _each(_reduced(0.5), whole))
    yield probe("reduced to 25 % of the pixels' side", _each(_reduced(0.25), whole), most=0.5)
    yield probe("blurred, 1 px", _each(_blurred(1), whole))
    yield probe("blurred, 2 px", _each(_blurred(2), whole), most=0.5)
    yield probe("render of another caption", strangers, most=0.5)
    yield probe("half blended with another render", _mixed(whole, strangers, 0.5), most=0.5)
    yield probe("a quarter blended with another render", _mixed(whole, strangers, 0.25), most=0.5)
    yield probe("half faded into the ground", _mixed(whole, grounds, 0.5), most=0.5)
    yield probe("empty ground", grounds, most=0.1)
    yield probe("one thing missing", np.stack([_without_one(scene) for scene in scenes]), most=0.75)
    yield probe("right half erased", np.concatenate([whole[:, :, :32], grounds[:, :, 32:]], 2), most=0.5)
    yield probe("mean of 8 renders of the caption", np.stack([_mean(caption, rng) for caption in captions]))
    yield probe("noise", rng.integers(0, 256, whole.shape).astype(np.uint8), most=0.1)


def _each(change: Callable[[Images], Images], images: Images) -> Images:
    return np.stack([change(image) for image in images])


def _reduced(share: float) -> Callable[[Images], Images]:
    side = round(SIDE_PX * share)

    def change(image: Images) -> Images:
        small = Image.fromarray(image).resize((side, side), Image.Resampling.BOX)
        return np.asarray(small.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC))

    return change


def _blurred(sigma_px: float) -> Callable[[Images], Images]:
    return lambda image: np.stack(
        [ndimage.gaussian_filter(image[..., band].astype(float), sigma_px).round() for band in range(3)], -1
    ).astype(np.uint8)


def _mixed(images: Images, others: Images, share: float) -> Images:
    return (images * (1 - share) + others * share).round().astype(np.uint8)


def _without_one(scene: Scene) -> Images:
    return render(Scene(things=scene.things[1:], ground=scene.ground, pattern=scene.pattern))


def _mean(caption: Caption, rng: np.random.Generator) -> Images:
    """What a one-step prediction tends to: the mean over the pictures of a caption."""
    renders = np.stack([render(draw_scene(caption, rng)) for _ in range(8)])
    mean: Images = renders.mean(0).round().astype(np.uint8)
    return mean
