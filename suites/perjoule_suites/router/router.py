"""`Router` chooses an arm for each prompt.

    router = Router.from_pretrained("router")
    arm = router("a large red circle on a white ground")
    image = router.pipeline(arm)("a large red circle on a white ground", **arm.arguments).images[0]

Its input is the output of one pipeline's text encoder, so it works only with that encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perjoule.errors import EvidenceError, SuiteError, UnknownNameError, UsageError
from perjoule.runs.directory import load_run
from perjoule.shares import below_one
from perjoule.statistics.mixtures import best_buys
from perjoule.statistics.resampling import Array
from perjoule.statistics.risk_control import Index, calibrated_margin, cheapest_safe, prompts_needed
from perjoule.suite.diffusers_code import diffusers_code
from perjoule.types import Variant
from perjoule_suites.assembly import assemble
from perjoule_suites.prompt_states import PromptReader
from perjoule_suites.router.arms import RouterArm, places_of, read_arms
from perjoule_suites.router.network import ArmNet, forecast
from perjoule_suites.router.rules import RULES
from perjoule_suites.router.storage import Labels, RouterConfig, read_router, write_router


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The arm of a prompt.

    Attributes:
        cell_id: Its name in the suite.
        variant: Model, sampler and guidance.
        steps: Step count.
        energy_j: J/image, on the device of the router's joules.
        quality: Forecast of the router's metric.
        safe: Whether the arm keeps the floor with its margin; False for the fallback, None for other rules.
    """

    cell_id: str
    variant: Variant
    steps: int
    energy_j: float
    quality: float
    safe: bool | None

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of the pipeline call, in addition to the prompt."""
        variant = self.variant
        steps = {"timesteps": list(variant.timesteps)} if variant.timesteps else {"num_inference_steps": self.steps}
        sizes = {"width": variant.width_px, "height": variant.height_px, "negative_prompt": variant.negative_prompt}
        stated = {key: value for key, value in sizes.items() if value}
        return {**steps, "guidance_scale": variant.guidance, **stated, **variant.call_args}

    @property
    def code(self) -> str:
        """Python code that makes the arm's images with diffusers alone."""
        return diffusers_code(self.variant, self.steps, portable=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class Router:
    """A trained router with the text encoder that it reads.

    Attributes:
        config: Its properties.
        network: The network.
        labels: Statistics of the training set, and the calibration.
        reader: Tokenizer and text encoder.
    """

    config: RouterConfig
    network: ArmNet
    labels: Labels
    reader: PromptReader
    _margin: float = field(init=False, repr=False)
    _pipelines: dict[int, Any] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Calibrate the floor."""
        margin = self._calibrated() if self.config.rule == "quality-floor" else 0.0
        object.__setattr__(self, "_margin", margin)

    @classmethod
    def from_pretrained(cls, source: str | Path, *, pipeline: Any = None) -> Router:
        """Load a router.

        Args:
            source: Folder, hub id, or `builtin:NAME`.
            pipeline: The diffusers pipeline whose text encoder it shares; without it, that text encoder is loaded.

        Raises:
            UsageError: The router does not exist or is damaged.
            EvidenceError: It was trained for another text encoder (the message names both digests).
        """
        stored = read_router(source)
        config = stored.config
        reader = PromptReader.load(config.reader.model, str(source)) if pipeline is None else PromptReader.of(pipeline)
        digest = reader.digest
        if digest != config.text_encoder_digest and pipeline is None:  # e.g. of a pipeline with two text encoders
            reader = PromptReader.of(assemble(config.reader, str(source))[0])
            digest = reader.digest
        if digest != config.text_encoder_digest:
            raise EvidenceError(
                f"{source}: the router was trained for text encoder {config.text_encoder_digest[:12]} of "
                f"{config.reader.model}, but this pipeline's is {digest[:12]}: use that pipeline in the same dtype, or "
                "train a router for this one"
            )
        if reader.pipeline is not None:
            stored.network.to(reader.pipeline.device)
        return cls(config=config, network=stored.network, labels=stored.labels, reader=reader)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `router.safetensors` and `router.json`; no model is copied."""
        write_router(Path(folder), self.config, self.network, self.labels)

    def with_rule(self, rule: str, level: float, miss_rate: float | None = None, *, where: str = "router") -> Router:
        """Return the router with another rule.

        Args:
            rule: One of `rules.RULES`.
            level: The floor, or J per unit of quality.
            miss_rate: Promised rate of the floor; the router's own by default.
            where: Suite file and key, for messages.

        Raises:
            UnknownNameError: The rule does not exist.
            SuiteError: The level or rate is out of range.
            EvidenceError: The calibration prompts do not support the promise.
        """
        rate = self.config.miss_rate if miss_rate is None else miss_rate
        check_rule(rule, level, rate, where)
        return replace(self, config=replace(self.config, rule=rule, level=level, miss_rate=rate))

    def with_prices(self, prices: Array, device: str) -> Router:
        """Return the router with the J/image of its arms on another device, and the promise calibrated for them."""
        arms = tuple(replace(a, energy_j=float(j)) for a, j in zip(self.config.arms, prices, strict=True))
        return replace(self, config=replace(self.config, arms=arms, device=device))

    def priced_by(self, run: str | Path) -> Router:
        """Return the router with the J/image of its arms in a scored run, e.g. of another device."""
        scores = read_arms(load_run(run), self.config.metric)
        return self.with_prices(scores.of(places_of(self.config.arms, scores)).prices, scores.device)

    @property
    def prices(self) -> Array:
        """(arms,) J/image."""
        return np.array([arm.energy_j for arm in self.config.arms])

    @property
    def fallback(self) -> int:
        """The best arm on average over the training prompts, for prompts without a safe arm."""
        return int(self.labels.mean.argmax())

    def __call__(self, prompt: str) -> Choice:
        """Return the arm of a prompt. Raises UsageError for an invalid prompt."""
        return self.choices([prompt])[0]

    def choices(self, prompts: Sequence[str]) -> list[Choice]:
        """Return the arm of each prompt. Raises UsageError for an invalid prompt."""
        if not prompts:
            return []
        qualities = self.forecast(self.reader.states(prompts))
        arms = self.choose(qualities)
        safe = self.are_safe(qualities, arms)
        return [self._choice(arm, float(qualities[i, arm]), safe[i]) for i, arm in enumerate(arms)]

    def are_safe(self, qualities: Array, arms: Index) -> list[bool | None]:
        """Return whether the arm of each prompt keeps the floor with its margin; None for other rules."""
        if self.config.rule != "quality-floor":
            return [None] * len(arms)
        lead = (qualities - self.config.level) / self.labels.error
        return [bool(safe) for safe in lead[np.arange(len(arms)), arms] >= self._margin]

    def forecast(self, states: torch.Tensor) -> Array:
        """Return the forecast quality of each arm. states: (n, tokens, width) -> (n, arms)."""
        return forecast(self.network, states, self.labels.mean, self.labels.spread)

    def choose(self, qualities: Array) -> Index:
        """Return the place of the arm for each forecast. (n, arms) -> (n,)."""
        if self.config.rule == "equal-marginal":
            return best_buys(qualities, self.prices, np.array([self.config.level]))[:, 0]
        order = self._order
        lead = ((qualities - self.config.level) / self.labels.error)[:, order]
        return order[cheapest_safe(lead, self._margin, int(np.flatnonzero(order == self.fallback)[0]))]

    def pipeline(self, choice: Choice) -> Any:
        """Return the diffusers pipeline of an arm; it stays loaded for arms of the same model and settings."""
        numbers = [arm.variant.pipeline for arm in self.config.arms]
        number = numbers.index(choice.variant.pipeline)
        if number not in self._pipelines:
            self._pipelines[number] = assemble(choice.variant, f"router: {choice.cell_id}")[0]
        return self._pipelines[number]

    @property
    def _order(self) -> Index:
        """Places of the arms, the cheapest first."""
        return np.argsort(self.prices, kind="stable")

    def _choice(self, place: int, quality: float, safe: bool | None) -> Choice:
        arm: RouterArm = self.config.arms[place]
        return Choice(
            cell_id=arm.cell_id,
            variant=arm.variant,
            steps=arm.steps,
            energy_j=arm.energy_j,
            quality=quality,
            safe=safe,
        )

    def _calibrated(self) -> float:
        config, labels, order = self.config, self.labels, self._order
        require_prompts(len(labels.true), config.miss_rate)
        missed = (labels.true < config.level).mean(1)[:, order]
        lead = ((labels.predicted - config.level) / labels.error)[:, order]
        best = int(np.flatnonzero(order == self.fallback)[0])
        margin = calibrated_margin(lead, missed, best, config.miss_rate)
        if margin is None:
            raise EvidenceError(self._no_promise(float(missed[:, best].mean())))
        return margin

    def _no_promise(self, risk: float) -> str:
        config, name = self.config, self.config.arms[self.fallback].cell_id
        if risk >= 1:
            return (
                f"no image of the {len(self.labels.true)} calibration prompts reaches the floor {config.metric} = "
                f"{config.level:g} with the best arm ({name}, mean {self.labels.mean.max():.4g}): lower the floor"
            )
        needed = prompts_needed(config.miss_rate, risk)
        more = "" if needed is None else f", or calibrate on {needed} prompts or more"
        return (
            f"the best arm ({name}) misses the floor {config.metric} = {config.level:g} in {risk:.1%} of the images of "
            f"the {len(self.labels.true)} calibration prompts: {config.miss_rate:.1%} cannot be promised; lower the "
            f"floor, allow more misses{more}"
        )


def require_prompts(count: int, miss_rate: float) -> None:
    """Refuse a promise that so few calibration prompts cannot give. Raises EvidenceError with the number needed."""
    needed = prompts_needed(miss_rate) or 0
    if count < needed:
        raise EvidenceError(
            f"{count} calibration prompts are too few to promise at most {miss_rate:.1%} misses: {needed} are needed, "
            "because (n / (n + 1)) · risk + 1 / (n + 1) must not exceed it even if none of them misses"
        )


def check_rule(rule: str, level: float, miss_rate: float, where: str) -> None:
    """Raise UnknownNameError or SuiteError for an invalid rule, level or rate."""
    if rule not in RULES:
        raise UnknownNameError("rule", rule, RULES, where)
    if rule == "equal-marginal" and not 0 < level < np.inf:
        raise SuiteError(f"{where}: {rule} level {level:g}: must be a positive number of joules per unit of quality")
    if not np.isfinite(level):
        raise SuiteError(f"{where}: {rule} level {level:g}: must be a finite quality")
    try:
        below_one(miss_rate, f"{where}: miss_rate")
    except UsageError as error:
        raise SuiteError(str(error)) from None
