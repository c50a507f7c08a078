"""Trains a step predictor on collected curves, which takes minutes on one core."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from perjoule.errors import EvidenceError
from perjoule_suites.budgetfusion import peek as peeking
from perjoule_suites.budgetfusion.curves import Array, Curves
from perjoule_suites.budgetfusion.network import CurveNet, Shape
from perjoule_suites.budgetfusion.predictor import (
    Labels,
    PredictorConfig,
    StepPredictor,
)
from perjoule_suites.budgetfusion.records import Payback
from perjoule_suites.budgetfusion.rules import saving_on
from perjoule_suites.diffusers_generator import DiffusersGenerator
from perjoule_suites.prompt_states import PromptReader, check_prompts

_LOOK_BATCH = 16
_LENGTH_RIDGE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecipe:
    """Settings of the training.

    Attributes:
        epochs: Maximum passes over the prompts; the best epoch on the validation prompts is kept.
        batch_prompts: Prompts per batch, each with all its seeds.
        learning_rate: Learning rate of AdamW, with cosine decay.
        weight_decay: Weight decay of AdamW.
        validation_share: Share of the prompts for early stopping.
        difference_weight: Weight of the loss on differences between neighbouring steps.
        hidden: Size of the network.
        seed: Seed of weights, order and split.
    """

    epochs: int = 120
    batch_prompts: int = 24
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    validation_share: float = 0.15
    difference_weight: float = 0.1
    hidden: int = 48
    seed: int = 7


RECIPE = TrainingRecipe()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Result of the training: R² of each metric over images of the validation prompts, and the chosen epoch."""

    r_squared: dict[str, float]
    epoch: int


def train(
    curves: Curves,
    calibration: Curves,
    generator: DiffusersGenerator,
    *,
    peek: int = 0,
    rule: tuple[str, str, float] = ("equal-marginal", "", 1.0),
    recipe: TrainingRecipe = RECIPE,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> tuple[StepPredictor, Fit]:
    """Train on one set of curves and calibrate on another.

    Args:
        curves: Training curves.
        calibration: Curves of other prompts, with the same grid, metrics and pipeline.
        generator: The pipeline of the curves; its text encoder is used, and for a peek its first evaluations.
        peek: Number of evaluations to use; 0 for the prompt alone.
        rule: Default rule, metric (the first one if empty) and level.
        recipe: Sizes and rates.
        on_epoch: Called with the epoch and its validation loss.

    Raises:
        EvidenceError: The two sets do not match or share prompts, or the pipeline is a different one.
    """
    _require_kin(curves, calibration, generator)
    torch.manual_seed(recipe.seed)
    mean = curves.values.mean((0, 1))
    spread = np.maximum(curves.values.std((0, 1)), 1e-6)  # a constant curve must not be amplified
    states, latents = _inputs(curves, generator, peek)
    shape = Shape(
        text_width=states.shape[2],
        metrics=len(curves.metrics),
        hidden=recipe.hidden,
        latent_channels=0 if latents is None else latents.shape[2],
    )
    network = CurveNet(shape)
    target = torch.from_numpy(((curves.values - mean) / spread).astype(np.float32))
    fit = fit_network(network, states, latents, target, torch.tensor(curves.grid), curves.metrics, recipe, on_epoch)
    rule_name, metric, level = rule
    config = PredictorConfig(
        model=curves.variant.model,
        model_digest=curves.digest,
        text_encoder_digest=PromptReader.of(generator.pipeline).digest,
        scheduler=type(generator.pipeline.scheduler).__name__,
        guidance=curves.variant.guidance,
        grid=curves.grid,
        metrics=curves.metrics,
        peek=peek,
        base_j=curves.cost.base_j,
        step_j=curves.cost.step_j,
        provenance=curves.cost.provenance,
        boundary=curves.cost.boundary,
        hidden=recipe.hidden,
        latent_channels=shape.latent_channels,
        prompts=len(curves.prompts),
        seeds=len(curves.seeds),
        collected_j=curves.collected_j,
        rule=rule_name,
        metric=metric or curves.metrics[0],
        level=level,
    )
    nothing = np.zeros((0, len(curves.grid), len(curves.metrics)), np.float32)
    predictor = StepPredictor(
        config=config,
        network=network.eval(),
        labels=Labels(
            mean=mean.astype(np.float32),
            spread=spread.astype(np.float32),
            length=nothing,
            predicted=nothing,
            true=nothing,
        ),
        tokenizer=generator.pipeline.tokenizer,
        text_encoder=generator.pipeline.text_encoder,
        pipeline=generator.pipeline,
    )
    length = length_coefficients(predictor.token_counts(curves.prompts), curves.values.mean(1))
    predictor = replace(predictor, labels=replace(predictor.labels, length=length))
    labels = _calibrated(predictor, calibration, generator)
    config = replace(config, calibration_seeds=len(calibration.seeds))
    return replace(predictor, labels=labels, config=config), fit


def forecast_images(predictor: StepPredictor, curves: Curves, generator: DiffusersGenerator) -> Array:
    """Return forecasts for every image of some curves: (n, seeds, g, m)."""
    states, latents = _inputs(curves, generator, predictor.config.peek)
    counts = predictor.token_counts(curves.prompts)
    if latents is None:
        once = predictor.forecast(states, counts).values[:, None]
        return np.repeat(once, curves.values.shape[1], axis=1)
    by_seed = [predictor.forecast(states, counts, latents[:, s]).values for s in range(latents.shape[1])]
    return np.stack(by_seed, axis=1)


def pays_after(predictor: StepPredictor) -> Payback:
    """Return the number of images after which the predictor has saved the energy of its training images.

    The saving per image is that of the default rule on the calibration prompts, compared with the fixed number of
    steps of equal mean quality. The number is None if there is no saving, or the energy was not measured.
    """
    config, calibration = predictor.config, predictor.calibration
    places = np.array([config.grid.index(n) for n in predictor.choose(calibration.forecast)])
    chosen_j, fixed_j = saving_on(calibration, places, config.metric)
    saved_j = fixed_j - chosen_j
    pays = saved_j > 0 and config.collected_j is not None
    return Payback(
        saved_j_per_image=saved_j,
        pays_after_images=(config.collected_j or 0.0) / saved_j if pays else None,
    )


def _calibrated(predictor: StepPredictor, curves: Curves, generator: DiffusersGenerator) -> Labels:
    shape = (-1, len(curves.grid), len(curves.metrics))
    predicted = forecast_images(predictor, curves, generator).reshape(shape).astype(np.float32)
    return replace(predictor.labels, predicted=predicted, true=curves.values.reshape(shape).astype(np.float32))


@torch.inference_mode()
def _inputs(curves: Curves, generator: DiffusersGenerator, peek: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return token states (n, tokens, width), and with a peek clean latents (n, seeds, c, h, w), else None."""
    check_prompts(curves.prompts)
    batches = [curves.prompts[i : i + _LOOK_BATCH] for i in range(0, len(curves.prompts), _LOOK_BATCH)]
    encoded = [generator.encode(batch) for batch in batches]
    states = torch.cat([e["prompt_embeds"] for e in encoded]).float().cpu()
    if not peek:
        return states, None
    rows = []
    for batch, text in zip(batches, encoded, strict=True):
        looks = [peeking.glimpse(generator, text, batch, [seed] * len(batch), peek).clean for seed in curves.seeds]
        rows.append(torch.stack(looks, dim=1).float().cpu())
    return states, torch.cat(rows)


def fit_network(
    network: Any,
    states: torch.Tensor,
    latents: torch.Tensor | None,
    target: torch.Tensor,
    steps: torch.Tensor,
    metrics: Sequence[str],
    recipe: TrainingRecipe,
    on_epoch: Callable[[int, float], None],
) -> Fit:
    """Train a network to predict `target`, and keep its best epoch on the validation prompts.

    Args:
        network: A `CurveNet`, or a network with the same arguments.
        states: (n, tokens, width) token states.
        latents: (n, seeds, c, h, w) for a peek.
        target: (n, seeds, g, m).
        steps: Second argument of the network.
        metrics: (m,) names.
        recipe: Sizes and rates.
        on_epoch: Called with the epoch and its validation loss.
    """
    chance = np.random.default_rng(recipe.seed)
    order = chance.permutation(len(states))
    validation_count = max(2, round(recipe.validation_share * len(order)))
    validation, training = order[:validation_count], order[validation_count:]
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.epochs)

    def predict(index: NDArray[np.int64]) -> torch.Tensor:
        """Return (n, seeds, g, m); the prompt is encoded once for all its seeds."""
        text = network.read(states[index])
        if latents is None:
            return network(text, steps)[:, None]  # type: ignore[no-any-return]
        n, seeds = latents[index].shape[:2]
        each = network(text.repeat_interleave(seeds, 0), steps, latents[index].flatten(0, 1))
        return each.reshape(n, seeds, *each.shape[1:])  # type: ignore[no-any-return]

    best, best_state = (np.inf, 0), {k: v.clone() for k, v in network.state_dict().items()}
    for epoch in range(recipe.epochs):
        network.train()
        training = chance.permutation(training)
        for start in range(0, len(training), recipe.batch_prompts):
            index = training[start : start + recipe.batch_prompts]
            loss = _loss(predict(index), target[index], recipe.difference_weight)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        cosine.step()
        network.eval()
        with torch.no_grad():
            validation_loss = _loss(predict(validation), target[validation], recipe.difference_weight).item()
        on_epoch(epoch, validation_loss)
        if validation_loss < best[0]:
            best, best_state = (validation_loss, epoch), {k: v.clone() for k, v in network.state_dict().items()}
    network.load_state_dict(best_state)
    network.eval()
    with torch.no_grad():
        error = (predict(validation) - target[validation]).square().mean((0, 1, 2))
        variance = (target[validation] - target[validation].mean((0, 1))).square().mean((0, 1, 2))
    shares = 1 - error / variance
    return Fit(r_squared=dict(zip(metrics, map(float, shares), strict=True)), epoch=best[1])


def _loss(predicted: torch.Tensor, target: torch.Tensor, difference_weight: float) -> torch.Tensor:
    """Return the squared error of the curves, and of their differences between neighbouring steps."""
    error = predicted - target
    return error.square().mean() + difference_weight * error.diff(dim=2).square().mean()


def length_coefficients(counts: NDArray[np.int64], values: Array) -> NDArray[np.float32]:
    """Fit each point of the curves by ridge regression on 1, L and L². values: (n, g, m) -> (g, m, 3)."""
    length = counts.astype(np.float64)
    design = np.stack([length**0, length, length**2], axis=1)
    scale = np.abs(design).max(0)
    gram = (design / scale).T @ (design / scale) + _LENGTH_RIDGE * np.eye(3)
    flat = np.linalg.solve(gram, (design / scale).T @ values.reshape(len(values), -1)) / scale[:, None]
    return np.asarray(np.moveaxis(flat.reshape(3, *values.shape[1:]), 0, -1), np.float32)


def _require_kin(curves: Curves, calibration: Curves, generator: DiffusersGenerator) -> None:
    for key, actual, expected in (
        ("pipeline", generator.digest, curves.digest),
        ("pipeline", calibration.digest, curves.digest),
        ("grid", calibration.grid, curves.grid),
        ("metrics", calibration.metrics, curves.metrics),
    ):
        if actual != expected:
            raise EvidenceError(f"curves and predictor do not match: {key} is {actual!r} and {expected!r}")
    shared = set(curves.prompts) & set(calibration.prompts)
    if shared:
        raise EvidenceError(
            f"{len(shared)} prompts are in both sets, e.g. {min(shared)!r}: guarantees must be calibrated "
            "on prompts outside the training set"
        )
    if not np.isfinite(curves.values).all() or not np.isfinite(calibration.values).all():
        raise EvidenceError("the curves contain NaN: score the run again")
