"""Models of metrics are loaded once, and let go of before pipelines are measured."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from tests.perjoule.running.test_execute import make_suite
from tests.perjoule.statistics.test_points import spec

from perjoule.quality.clip_encoder import load_encoder
from perjoule.quality.keeping import kept, let_go
from perjoule.running import scoring
from perjoule_suites.tiny import clip_tiny

pytestmark = pytest.mark.slow


class Weights:
    """What takes up memory."""


@kept
def load(name: str) -> Weights:
    return Weights()


def test_a_model_is_loaded_once_until_it_is_let_go_of():
    first = weakref.ref(load("a"))
    assert first() is load("a")
    assert load("b") is not load("a")
    let_go()
    gc.collect()
    assert first() is None


def test_the_weights_of_a_rehearsed_metric_do_not_stay(monkeypatch: pytest.MonkeyPatch):
    """They would take up the GPU while pipelines are measured, and count as their peak memory."""
    seen = []

    class Metric:
        spec = spec("m")

        def score(self, images, on_progress):
            seen.append(weakref.ref(load("weights of m")))
            return []

    monkeypatch.setattr(scoring, "load_metric", lambda name, options, where: Metric())
    scoring.rehearse(make_suite(), [Metric()], "suite.toml: metrics.names")
    assert [weights() for weights in seen] == [None]


def test_a_real_encoder_is_among_them():
    def parameters() -> int:
        gc.collect()
        return sum(isinstance(thing, torch.nn.Parameter) for thing in gc.get_objects())

    let_go()
    before = parameters()
    load_encoder(clip_tiny(), "cpu")
    assert parameters() > before
    let_go()
    assert parameters() == before
