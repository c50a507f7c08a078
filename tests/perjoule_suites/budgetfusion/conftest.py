from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perjoule.types import Variant
from perjoule_suites import diffusers_generator
from perjoule_suites.budgetfusion import training
from perjoule_suites.budgetfusion.curves import Curves, StepCost
from perjoule_suites.budgetfusion.predictor import StepPredictor
from perjoule_suites.diffusers_generator import DiffusersGenerator
from perjoule_suites.tiny.world.captions import draw_caption

GRID = (1, 2, 4, 8)
TINY = Variant(name="tiny", model="builtin:sd-tiny", steps=GRID, guidance=3.0)
ONE_STEP = replace(TINY, scheduler="DPMSolverMultistepScheduler", scheduler_args={"solver_order": 1})


@pytest.fixture(scope="session")
def generator() -> DiffusersGenerator:
    return diffusers_generator.load(ONE_STEP, where="suite.toml: variants[0]")


def synthetic_curves(generator: DiffusersGenerator, count: int, seed: int, seeds: int = 2) -> Curves:
    """Captions with a striped thing are four times as hard; the truth is known."""
    chance = np.random.default_rng(seed)
    prompts: list[str] = []
    while len(prompts) < count:
        text = draw_caption(chance, openness=0.2).text()
        if text not in prompts:
            prompts.append(text)
    hardness = np.array([4.0 if "striped" in p else 1.0 for p in prompts])
    clean = 1 - np.exp(-np.array(GRID) / hardness[:, None])
    values = clean[:, None, :, None] + 0.01 * chance.normal(size=(count, seeds, len(GRID), 2))
    return Curves(
        variant=TINY,
        prompts=tuple(prompts),
        seeds=tuple(range(seeds)),
        grid=GRID,
        metrics=("quality", "other"),
        values=values,
        cost=StepCost(base_j=1.0, step_j=1.0, provenance="simulated", boundary="estimate"),
        collected_j=1000.0,
        image_count=count * seeds * len(GRID),
        digest=generator.digest,
    )


@pytest.fixture(scope="session")
def curves(generator: DiffusersGenerator) -> tuple[Curves, Curves]:
    return synthetic_curves(generator, 60, seed=1), synthetic_curves(generator, 40, seed=2)


@pytest.fixture(scope="session")
def trained(generator: DiffusersGenerator, curves: tuple[Curves, Curves]) -> StepPredictor:
    learnt, known = curves
    kept = [i for i, p in enumerate(known.prompts) if p not in learnt.prompts]
    known = replace(known, prompts=tuple(known.prompts[i] for i in kept), values=known.values[kept])
    recipe = training.TrainingRecipe(epochs=40, hidden=24)
    predictor, fit = training.train(learnt, known, generator, rule=("equal-marginal", "quality", 12.0), recipe=recipe)
    assert fit.r_squared["quality"] > 0.8
    return predictor
