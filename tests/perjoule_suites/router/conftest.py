from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.support.routes import is_hard, route_run

from perjoule.prompts import prompt_id
from perjoule.runs.directory import Run
from perjoule.types import Variant
from perjoule_suites import diffusers_generator
from perjoule_suites.budgetfusion.training import TrainingRecipe
from perjoule_suites.router import training
from perjoule_suites.router.arms import ArmScores, read_arms
from perjoule_suites.router.network import ArmNet
from perjoule_suites.router.router import Router
from perjoule_suites.router.storage import Labels, RouterConfig
from perjoule_suites.router.training import RouterFit

DIGEST = "ab" * 32


class KnownText:
    """A reader whose token states say whether a prompt is hard: 1 or 0."""

    digest = DIGEST

    def states(self, prompts: Sequence[str]) -> torch.Tensor:
        return torch.tensor([[[float(is_hard(text))]] for text in prompts])

    def token_counts(self, prompts: Sequence[str]) -> NDArray[np.int64]:
        return np.array([len(text.split()) + 2 for text in prompts])


class KnownNet(ArmNet):
    """A network that knows the quality of each arm, in the order of prices: (2, arms) for easy and hard prompts."""

    def __init__(self, quality: list[list[float]]) -> None:
        torch.nn.Module.__init__(self)
        self.quality = torch.nn.Parameter(torch.tensor(quality))

    def forward(self, text: torch.Tensor, places: torch.Tensor | None = None) -> torch.Tensor:
        return self.quality[text[:, 0, 0].long()][..., None]


def known_router(calibration: ArmScores, quality: list[list[float]] | None = None, **changes: Any) -> Router:
    """A router with forecasts that are exact, or `quality`."""
    arms = calibration.arms
    exact = [[0.9, 0.6, 0.9], [0.4, 0.5, 0.9]] if quality is None else quality
    reader: Any = KnownText()
    states = reader.states([prompt.text for prompt in calibration.prompts])
    hard = states[:, 0, 0].numpy().astype(int)
    count = len(arms)
    labels = Labels(
        mean=np.array(exact).mean(0),
        spread=np.ones(count),
        error=np.full(count, 0.05),
        length=np.concatenate([np.array(exact).mean(0)[:, None], np.zeros((count, 2))], axis=1),
        kinds=np.array(exact),
        predicted=np.array(exact)[hard],
        true=calibration.quality,
    )
    config = RouterConfig(
        arms=arms,
        reader=Variant(name="reader", model="builtin:sd-tiny", guidance=1.0),
        text_encoder_digest=DIGEST,
        metric=calibration.metric,
        rule="quality-floor",
        level=0.75,
        miss_rate=0.1,
        device=calibration.device,
        provenance=calibration.provenance,
        boundary=calibration.boundary,
        kinds=("easy", "hard"),
        hidden=8,
        prompts=100,
        seen=tuple(sorted(prompt_id(prompt.text) for prompt in calibration.prompts)),
        seeds=2,
        collected_j=None,
    )
    # the network adds nothing to the mean, and the known qualities are relative to it
    network = KnownNet((np.array(exact) - np.array(exact).mean(0)).tolist())
    return Router(config=replace(config, **changes), network=network, labels=labels, reader=reader)


@pytest.fixture(scope="session")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return route_run(tmp_path_factory.mktemp("dev"), "dev", 60, 0, seed=1)


@pytest.fixture(scope="session")
def test_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return route_run(tmp_path_factory.mktemp("test"), "test", 120, 100, seeds=8, seed=2)


@pytest.fixture(scope="session")
def router(dev: Run) -> Router:
    return known_router(read_arms(dev))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RouterFit]:
    """The folder of a router that was trained on the tiny text encoder."""
    place = tmp_path_factory.mktemp("trained")
    reader = Variant(name="reader", model="builtin:sd-tiny", guidance=1.0)
    scores, calibration = (read_arms(route_run(place, name, 100, start)) for name, start in (("a", 300), ("b", 400)))
    router, fit = training.train(
        scores,
        calibration,
        diffusers_generator.load(reader, where="s"),
        reader,
        floor=0.75,
        miss_rate=0.1,
        recipe=TrainingRecipe(epochs=40),
    )
    router.save_pretrained(place / "router")
    return place / "router", fit
