from __future__ import annotations

import numpy as np
import pytest

from perjoule.errors import UsageError
from perjoule.protocols import ImageSet
from perjoule.types import Prompt
from perjoule_suites.tiny.world.captions import draw_caption
from perjoule_suites.tiny.world.metric import world
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
    right = world({"batch_size": 4}).score(image_set(texts, images), done.append)
    assert [score.value for score in right] == pytest.approx([1.0] * 6, abs=0.05)
    assert done == [4, 2]
    wrong = world({}).score(image_set(texts, images[1:] + images[:1]), done.append)
    assert max(score.value for score in wrong) < 0.9


def test_foreign_captions_and_other_sizes_are_unscored_with_a_reason() -> None:
    black = np.zeros((64, 64, 3), np.uint8)
    images = image_set(["a lighthouse at dusk", "five stars", "a star", "a star"], [black, black, black[:32], black])
    lighthouse, five, small, empty = world({}).score(images, lambda count: None)
    assert "not a caption of the tiny world" in lighthouse.reason_unscored
    assert "'five stars'" in five.reason_unscored
    assert "64 x 32 px" in small.reason_unscored
    assert empty.value == 0


def test_the_metric_is_absolute_and_has_no_weights() -> None:
    spec = world({}).spec
    assert (spec.track, spec.needs_reference, spec.bounds, spec.weights_digest) == ("absolute", False, (0, 1), "none")
    with pytest.raises(UsageError, match="unknown option 'model'"):
        world({"model": "x"})
