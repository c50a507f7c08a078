from __future__ import annotations

import numpy as np
import pytest

from perjoule.errors import UsageError
from perjoule.protocols import ImageSet
from perjoule.types import Prompt
from perjoule_suites.tiny.scene_metric import scene
from perjoule_suites.tiny.scenes import Scene, Thing, caption, parse_caption, render, sample_scene

pytestmark = pytest.mark.slow


def ignore(count: int) -> None:
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A recogniser with random weights."""
    import torch

    from perjoule_suites.tiny.recogniser import Recogniser

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("recogniser")
    Recogniser().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(0)
    return [sample_scene(rng) for _ in range(12)]


def image_set(prompts, images) -> ImageSet:
    listed = [Prompt(prompt_id=str(i), text=t) for i, t in enumerate(prompts)]

    def no_reference(index):
        raise AssertionError("scene needs no reference")

    return ImageSet(
        image_ids=[f"image-{p}" for p in prompts],
        prompts=listed,
        images=lambda index: images[index],
        reference_ids=[None] * len(listed),
        references=no_reference,
        all_prompts=listed,
    )


@pytest.fixture(scope="module")
def rendered(scenes):
    rng = np.random.default_rng(1)
    return image_set([caption(s) for s in scenes], [render(s, rng) for s in scenes])


def test_scores_are_shares_of_what_the_caption_asks_for(folder, scenes, rendered):
    from perjoule_suites.tiny.recogniser import Recogniser, accuracy

    scores = scene({"model": str(folder)}).score(rendered, ignore)
    images = np.stack([rendered.images(i) for i in range(12)])
    wanted = accuracy(Recogniser.from_pretrained(folder).recognise(images), scenes)
    assert [s.value for s in scores] == pytest.approx(wanted.tolist())
    assert all(0 <= s.value <= 1 for s in scores)
    assert [s.image_id for s in scores] == list(rendered.image_ids)


def test_batch_size_does_not_matter(folder, rendered):
    done: list[int] = []
    by_five = scene({"model": str(folder), "batch_size": 5}).score(rendered, done.append)
    assert by_five == scene({"model": str(folder)}).score(rendered, ignore)
    assert done == [5, 5, 2]


def test_a_recogniser_that_sees_everything_gives_one(folder, scenes, rendered, monkeypatch):
    from perjoule_suites.tiny import recogniser as module

    truths = iter(scenes)
    monkeypatch.setattr(
        module.Recogniser, "recognise", lambda self, images: [module.asked(next(truths)) for _ in images]
    )
    assert [s.value for s in scene({"model": str(folder)}).score(rendered, ignore)] == [1.0] * 12


def test_foreign_prompts_and_other_sizes_have_a_reason(folder):
    words = "a large red circle on a white ground"
    black = np.zeros((64, 64, 3), np.uint8)
    images = image_set(["a lighthouse at dusk", words, words], [black, black[:32], black])
    foreign, small, fine = scene({"model": str(folder)}).score(images, ignore)
    assert "not a caption of the tiny world" in foreign.reason_unscored
    assert "64 x 32 px" in small.reason_unscored
    assert fine.value is not None


@pytest.mark.parametrize("seed", range(40))
def test_every_paraphrase_of_a_caption_is_understood(seed):
    rng = np.random.default_rng(seed)
    drawn = sample_scene(rng)
    assert parse_caption(caption(drawn, rng)) == drawn


def test_no_one_is_asked_what_the_caption_leaves_open():
    from perjoule_suites.tiny.recogniser import asked

    thing = Thing(colour="red", shape="star", texture="plain", size="medium")
    pair = Scene(things=(thing, thing), arrangement="beside", position="centre", ground="grey", ground_pattern="plain")
    assert {"size", "position"}.isdisjoint(asked(pair))
    assert {"size", "position"} <= set(asked(parse_caption("a large red star on a grey ground")))


def test_the_spec_is_absolute_and_names_the_weights(folder):
    spec = scene({"model": str(folder)}).spec
    assert (spec.track, spec.needs_reference, spec.bounds, spec.advisory) == ("absolute", False, (0.0, 1.0), False)
    assert len(spec.weights_digest) == 64


def test_a_model_that_is_not_there_is_a_usage_error(tmp_path, rendered):
    with pytest.raises(UsageError, match="no such folder"):
        scene({"model": "someone/recogniser"})
    with pytest.raises(UsageError, match="cannot load a recogniser"):
        scene({"model": str(tmp_path)}).score(rendered, ignore)
    with pytest.raises(UsageError, match="unknown option 'modell'"):
        scene({"modell": "x"})
