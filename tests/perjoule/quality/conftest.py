"""A run of images in memory, and an untrained CLIP in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from perjoule.protocols import Images, ImageSet
from perjoule.types import Prompt, Score


class Pictures:
    """Images with prompts and references by position; remembers how often each was loaded."""

    def __init__(
        self,
        images: Sequence[Images],
        prompts: Sequence[str] | None = None,
        references: Sequence[int | None] | None = None,
        all_prompts: Sequence[str] | None = None,
    ) -> None:
        self.images = [image.copy() for image in images]
        for image in self.images:  # as Pillow gives them
            image.flags.writeable = False
        texts = list(prompts) if prompts is not None else [f"prompt {i}" for i in range(len(self.images))]
        self.prompts = [Prompt(prompt_id=f"id-{t}", text=t) for t in texts]
        self.references = list(references) if references is not None else [None] * len(self.images)
        everything = list(all_prompts) if all_prompts is not None else list(dict.fromkeys(texts))
        self.all_prompts = [Prompt(prompt_id=f"id-{t}", text=t) for t in everything]
        self.loaded = [0] * len(self.images)

    def image_set(self, order: Sequence[int] | None = None) -> ImageSet:
        """The set, its rows in another order if one is given."""
        rows = list(order) if order is not None else list(range(len(self.images)))

        def load(position: int) -> Images:
            self.loaded[rows[position]] += 1
            return self.images[rows[position]]

        def reference(position: int) -> Images:
            index = self.references[rows[position]]
            assert index is not None, "asked for a reference that is not there"
            return self.images[index]

        names = [None if r is None else f"image-{r}" for r in self.references]
        return ImageSet(
            image_ids=[f"image-{i}" for i in rows],
            prompts=[self.prompts[i] for i in rows],
            images=load,
            reference_ids=[names[i] for i in rows],
            references=reference,
            all_prompts=self.all_prompts,
        )


@pytest.fixture(scope="session")
def pictures() -> type[Pictures]:
    return Pictures


@pytest.fixture(scope="session")
def noise() -> Callable[..., list[Images]]:
    """`noise(n, side, seed)`: n different images of uniform noise."""

    def make(count: int, side: int = 64, seed: int = 0) -> list[Images]:
        rng = np.random.default_rng(seed)
        return [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(count)]

    return make


@pytest.fixture(scope="session")
def values() -> Callable[[list[Score]], dict[str, float | None]]:
    def by_id(scores: list[Score]) -> dict[str, float | None]:
        for score in scores:  # an absent value has a reason, a present one is a number and has none
            assert (score.value is None) == (score.reason_unscored is not None)
            assert score.value is None or np.isfinite(score.value)
        return {score.image_id: score.value for score in scores}

    return by_id


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP with random weights, with the image settings that the trained one will have."""
    import torch

    from perjoule_suites.tiny.clip import build, train_tokenizer

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = train_tokenizer(["a large red circle on a white ground", "a small striped blue star on a grey ground"])
    build(tokenizer).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"height": 64, "width": 64},
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "do_convert_rgb": True,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder
