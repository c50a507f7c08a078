"""Trains a router on one scored run and calibrates it on another, which takes minutes on one core."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from perjoule.errors import EvidenceError
from perjoule.prompts import prompt_id
from perjoule.shares import below_one
from perjoule.statistics.resampling import Array
from perjoule.types import Prompt, Variant
from perjoule_suites.budgetfusion.training import RECIPE, TrainingRecipe, fit_network, length_coefficients
from perjoule_suites.diffusers_generator import DiffusersGenerator
from perjoule_suites.prompt_states import PromptReader, check_prompts
from perjoule_suites.router.arms import ArmScores, places_of, require_disjoint
from perjoule_suites.router.network import forecast
from perjoule_suites.router.router import Router, require_prompts
from perjoule_suites.router.storage import Labels, RouterConfig, new_network

LEAST_PROMPTS = 20
_TEXT_BATCH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterFit:
    """Result of the training: R² over images and arms of the validation prompts, and the chosen epoch."""

    r_squared: float
    epoch: int


def train(
    scores: ArmScores,
    calibration: ArmScores,
    generator: DiffusersGenerator,
    reader: Variant,
    *,
    floor: float,
    miss_rate: float,
    recipe: TrainingRecipe = RECIPE,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> tuple[Router, RouterFit]:
    """Train on one set of scores and calibrate on another.

    Args:
        scores: Arms of the training run.
        calibration: The same arms, for other prompts.
        generator: The pipeline whose text encoder reads the prompts.
        reader: Its variant.
        floor: Quality that the cheapest arm must reach.
        miss_rate: Promised rate of images below it.
        recipe: Sizes and rates.
        on_epoch: Called with the epoch and its validation loss.

    Raises:
        EvidenceError: The two runs have other arms or share prompts, there are too few prompts, or no arm reaches the
            floor often enough.
    """
    below_one(miss_rate, "--miss")
    texts, others = ([prompt.text for prompt in part.prompts] for part in (scores, calibration))
    require_disjoint(texts, others, (scores.run, calibration.run))
    calibration = calibration.of(places_of(scores.arms, calibration))
    if len(texts) < LEAST_PROMPTS:
        raise EvidenceError(
            f"{scores.run}: {len(texts)} prompts are too few for training; use at least {LEAST_PROMPTS}, better "
            "hundreds"
        )
    require_prompts(len(others), miss_rate)
    _require_reached(scores, floor)
    source = PromptReader.of(generator.pipeline)
    states, other_states = (read_states(source, part) for part in (texts, others))
    torch.manual_seed(recipe.seed)
    mean, spread = scores.quality.mean((0, 1)), np.maximum(scores.quality.std((0, 1)), 1e-6)
    network = new_network(scores.arms, states.shape[2], recipe.hidden)
    target = torch.from_numpy(((scores.quality - mean) / spread).astype(np.float32))[..., None]
    fit = fit_network(network, states, None, target, torch.arange(len(mean)), (scores.metric,), recipe, on_epoch)
    predicted, other_predicted = (forecast(network.eval(), part, mean, spread) for part in (states, other_states))
    counts = source.token_counts(texts)
    kinds, table = _kinds(scores)
    labels = Labels(
        mean=mean,
        spread=spread,
        error=np.maximum(np.sqrt(((scores.quality - predicted[:, None]) ** 2).mean((0, 1))), 1e-6),
        length=length_coefficients(counts, scores.quality.mean(1)[..., None])[:, 0].astype(np.float64),
        kinds=table,
        predicted=other_predicted,
        true=calibration.quality,
    )
    config = RouterConfig(
        arms=scores.arms,
        reader=reader,
        text_encoder_digest=source.digest,
        metric=scores.metric,
        rule="quality-floor",
        level=floor,
        miss_rate=miss_rate,
        device=scores.device,
        provenance=scores.provenance,
        boundary=scores.boundary,
        kinds=kinds,
        hidden=recipe.hidden,
        prompts=len(texts),
        seen=tuple(sorted(map(prompt_id, [*texts, *others]))),
        seeds=scores.quality.shape[1],
        collected_j=scores.spent_j,
    )
    router = Router(config=config, network=network, labels=labels, reader=source)
    return router, RouterFit(r_squared=fit.r_squared[scores.metric], epoch=fit.epoch)


def read_states(reader: PromptReader, texts: Sequence[str]) -> torch.Tensor:
    """Return token states of many prompts, in batches: (n, tokens, width), on the CPU."""
    check_prompts(texts)
    starts = range(0, len(texts), _TEXT_BATCH)
    return torch.cat([reader.states(texts[start : start + _TEXT_BATCH]).float().cpu() for start in starts])


def kind_of(prompt: Prompt) -> str:
    """Return the kind of a prompt: its category and challenge."""
    return " / ".join(part for part in (prompt.category, prompt.challenge) if part)


def _kinds(scores: ArmScores) -> tuple[tuple[str, ...], Array]:
    """Return the kinds of prompts, and (kinds, arms) mean quality of each."""
    labels = np.array([kind_of(prompt) for prompt in scores.prompts])
    kinds = tuple(sorted(set(labels) - {""}))
    means = scores.quality.mean(1)
    table = np.array([means[labels == kind].mean(0) for kind in kinds])
    return kinds, table.reshape(len(kinds), means.shape[1])


def _require_reached(scores: ArmScores, floor: float) -> None:
    reached = (scores.quality >= floor).mean((0, 1))
    if not reached.any():
        best = int(scores.quality.mean((0, 1)).argmax())
        raise EvidenceError(
            f"{scores.run}: no image reaches the floor {scores.metric} = {floor:g}; the best arm is "
            f"{scores.arms[best].cell_id} with a mean of {scores.quality[..., best].mean():.4g} and a maximum of "
            f"{scores.quality.max():.4g}: lower --floor"
        )
