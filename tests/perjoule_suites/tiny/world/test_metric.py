from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from perjoule.errors import UsageError
from perjoule.protocols import ImageSet
from perjoule.types import Prompt
from perjoule_suites.tiny.world.captions import LEVELS, draw_caption
from perjoule_suites.tiny.world.metric import scene
from perjoule_suites.tiny.world.scenes import draw_scene, render


def image_set(texts: list[str], images: list[np.ndarray]) -> ImageSet:
    prompts = [Prompt(prompt_id=str(i), text=text) for i, text in enumerate(texts)]

    def no_reference(index: int) -> np.ndarray:
        raise AssertionError("the metric needs no reference")

    return ImageSet(
        image_ids=[f"image-{i}" for i in range(len(texts))],
        prompts=prompts,
        images=lambda index: images[index],
        reference_ids=[None] * len(texts),
        references=no_reference,
        all_prompts=prompts,
    )


def test_renders_score_one_and_other_captions_less() -> None:
    rng = np.random.default_rng(0)
    captions = [draw_caption(rng, level="closed") for _ in range(6)]
    images = [render(draw_scene(caption, rng)) for caption in captions]
    texts = [caption.text(rng) for caption in captions]
    done: list[int] = []
    right = scene({"batch_size": 4}).score(image_set(texts, images), done.append)
    assert [score.value for score in right] == pytest.approx([1.0] * 6, abs=0.05)
    assert done == [4, 2]
    wrong = scene({}).score(image_set(texts, images[1:] + images[:1]), done.append)
    assert max(score.value for score in wrong) < 0.9


def test_foreign_captions_and_other_sizes_are_unscored_with_a_reason() -> None:
    black = np.zeros((64, 64, 3), np.uint8)
    images = image_set(["a lighthouse at dusk", "five stars", "a star", "a star"], [black, black, black[:32], black])
    lighthouse, five, small, empty = scene({}).score(images, lambda count: None)
    assert "not a caption of the tiny world" in lighthouse.reason_unscored
    assert "'five stars'" in five.reason_unscored
    assert "64 x 32 px" in small.reason_unscored
    assert empty.value == 0


def test_the_metric_is_absolute() -> None:
    spec = scene({}).spec
    assert (spec.track, spec.needs_reference, spec.bounds, spec.advisory) == ("absolute", False, (0, 1), False)
    with pytest.raises(UsageError, match="unknown option 'model'"):
        scene({"model": "x"})


def test_a_change_of_the_definition_has_another_digest() -> None:
    """Golden pair: scores of renders, whole and damaged, and the digest that stands for them.

    If the scores change, change the version in `metric._DEFINITION` as well, then both values here.
    """
    rng = np.random.default_rng(11)
    captions = [draw_caption(rng, level=LEVELS[i % 3]) for i in range(24)]
    images = [render(draw_scene(caption, rng)) for caption in captions]
    mixed = [
        ((9 * image.astype(int) + other) // 10).astype(np.uint8) for image, other in pairwise([*images, images[0]])
    ]
    texts = [caption.text() for caption in captions]
    scores = scene({}).score(image_set(texts * 2, images + mixed), lambda count: None)
    total = sum(score.value for score in scores)
    assert total == pytest.approx(36.00, abs=0.02)
    assert scene({}).spec.weights_digest[:12] == "0322f90d3071"
