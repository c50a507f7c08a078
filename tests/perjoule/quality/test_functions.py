from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perjoule import registry
from perjoule.errors import UsageError
from perjoule.protocols import Images, ImageSet
from perjoule.quality import load_metric, metric, metric_rows
from perjoule.types import Prompt


@metric("contrast", bounds=(0.0, 127.5), margin=1.0)
def contrast(image: Images) -> float:
    """Standard deviation of the pixel values.

    More is better.
    """
    if not image.any():
        raise ValueError("the image is black")
    return image.std()


class Point:
    def load(self) -> object:
        return contrast


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "registered", lambda group: {"contrast": Point()} if group == "metrics" else {})


def test_a_function_becomes_a_metric() -> None:
    pictures = [np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 7, np.uint8), np.eye(4, dtype=np.uint8) * 200]
    prompt = Prompt(prompt_id="p", text="a dog")
    images = ImageSet(
        image_ids=["a", "b", "c"],
        prompts=[prompt] * 3,
        images=lambda i: pictures[i],
        reference_ids=[None] * 3,
        references=lambda i: pictures[i],
        all_prompts=[prompt],
    )
    found: Any = load_metric("contrast", {}, "s.toml")
    done: list[int] = []
    scores = found.score(images, done.append)
    assert [score.value for score in scores] == [None, 0.0, pytest.approx(86.6, abs=0.1)]
    assert scores[0].reason_unscored == "the image is black"
    assert (sum(done), scores[0].metric) == (3, "contrast")


def test_it_is_listed_with_its_facts() -> None:
    row = metric_rows()[0]
    assert (row["metric"], row["description"]) == ("contrast", "Standard deviation of the pixel values.")
    assert (row["cached"], row["direction"], row["margin"]) == (True, "higher", 1.0)


def test_it_has_no_options() -> None:
    with pytest.raises(UsageError, match=r"s\.toml: metric contrast: unknown option 'size'"):
        load_metric("contrast", {"size": 3}, "s.toml")
