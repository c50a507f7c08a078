"""`StepPredictor` predicts curves from a prompt, and chooses a number of steps from the curves.

    predictor = StepPredictor.from_pretrained("builtin:steps-tiny", pipeline=pipe)
    steps = predictor.steps_for(["a large red circle on a white ground"])[0]
    image = pipe("a large red circle on a white ground", num_inference_steps=steps).images[0]

Its input is the output of the pipeline's own text encoder, so it works only with that encoder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from perjoule.errors import EvidenceError, UnknownNameError, UsageError
from perjoule.files import write_bytes, write_text
from perjoule.types import Provenance
from perjoule_suites.budgetfusion.network import CurveNet, Shape
from perjoule_suites.budgetfusion.rules import NOT_BY_PROMPT, Array, Calibration, CurveForecast, Rule, make_rule
from perjoule_suites.prompt_states import PromptReader, pretrained_folder

SCHEMA = 1
Source = Literal["network", "mean", "length"]
_WEIGHTS, _CONFIG = "predictor.safetensors", "predictor.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictorConfig:
    """Properties of a predictor, stored in `predictor.json`.

    Attributes:
        model: Pipeline of the curves, as named in the suite.
        model_digest: SHA-256 of that pipeline's weights.
        text_encoder_digest: See `text_encoder_digest`.
        scheduler: Scheduler of that pipeline.
        guidance: Classifier-free guidance scale.
        grid: Possible step counts, increasing.
        metrics: Names of the curves.
        peek: Denoiser evaluations that are used before the choice; 0 for the prompt alone.
        base_j: Energy of an image of N steps is base_j + step_j · N, in J.
        step_j: See `base_j`.
        provenance: Provenance of those joules.
        boundary: Boundary of those joules.
        hidden: Size of the network.
        latent_channels: See `Shape`.
        prompts: Number of training prompts.
        seeds: Number of seeds per prompt.
        collected_j: Energy of their images, None if it was not measured.
        rule: Default rule, see `rules.RULES`.
        metric: Default metric of the rule.
        level: Default parameter of the rule.
        miss_rate: Rate of the quality floor.
        calibration_seeds: Number of seeds per calibration prompt; None in files of earlier versions.
        rule_metrics: Metrics of the plateau rule; all of `metrics` if empty.
        combine: How the plateau rule combines them, see `rules.Plateau`.
        schema: Schema of this file.
    """

    model: str
    model_digest: str
    text_encoder_digest: str
    scheduler: str
    guidance: float
    grid: tuple[int, ...]
    metrics: tuple[str, ...]
    peek: int
    base_j: float
    step_j: float
    provenance: Provenance
    boundary: str
    hidden: int
    latent_channels: int
    prompts: int
    seeds: int
    collected_j: float | None
    rule: str
    metric: str
    level: float
    miss_rate: float = 0.1
    calibration_seeds: int | None = None
    rule_metrics: tuple[str, ...] = ()
    combine: str = "max"
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labels:
    """Statistics of the training curves, and forecasts and true values of the calibration prompts; all float32.

    Attributes:
        mean: (g, m) mean curve; also the control that predicts it for every prompt.
        spread: (g, m) standard deviation between images.
        length: (g, m, 3) coefficients of 1, L and L², L the number of tokens: the control that uses only the length.
        predicted: (n, g, m) forecasts of n calibration images, with the seeds of a prompt in sequence.
        true: (n, g, m) true values.
    """

    mean: NDArray[np.float32]
    spread: NDArray[np.float32]
    length: NDArray[np.float32]
    predicted: NDArray[np.float32]
    true: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class StepPredictor:
    """A trained predictor with the text encoder that it reads.

    Attributes:
        config: Its properties.
        network: The network.
        labels: Statistics and calibration.
        tokenizer: Tokenizer of the pipeline.
        text_encoder: Text encoder of the pipeline; the first one, if it has several.
        pipeline: The pipeline itself, if there is one: it reads prompts with all of its encoders.
        source: `network`, or one of the controls: `mean` curve for all, or a curve of the prompt's `length`.
    """

    config: PredictorConfig
    network: CurveNet
    labels: Labels
    tokenizer: Any
    text_encoder: Any
    pipeline: Any = None
    source: Source = "network"
    _rule: Rule = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check that the text encoder is the one that the predictor was trained on."""
        config = self.config
        digest = self.reader.digest
        if digest != config.text_encoder_digest:
            raise EvidenceError(
                f"the predictor was trained for text encoder {config.text_encoder_digest[:12]} of {config.model}, but "
                f"this pipeline's is {digest[:12]}: use that pipeline (in float32), or train a predictor for this one"
            )
        rule = make_rule(
            config.rule, config.metric, config.level, config.miss_rate,
            metrics=config.rule_metrics, combine=config.combine, where="predictor",
        )  # fmt: skip
        if config.rule == "quality-floor" and self._calibration_prompts() is None:
            raise EvidenceError(NOT_BY_PROMPT)
        object.__setattr__(self, "_rule", rule)

    @classmethod
    def from_pretrained(cls, source: str | Path, *, pipeline: Any = None) -> StepPredictor:
        """Load a predictor.

        Args:
            source: Folder, hub id, or `builtin:NAME`.
            pipeline: The diffusers pipeline whose text encoder it shares; without it, the text encoder of its own
                pipeline is loaded.

        Raises:
            UsageError: The predictor does not exist or is damaged.
            EvidenceError: It was trained for another text encoder (the message names both digests).
        """
        folder = _folder(str(source))
        config, network, labels = _read(folder)
        if pipeline is None:
            reader = PromptReader.load(config.model, str(folder / _CONFIG))
        else:
            reader, network = PromptReader.of(pipeline), network.to(pipeline.device)
        return cls(
            config=config,
            network=network,
            labels=labels,
            tokenizer=reader.tokenizer,
            text_encoder=reader.text_encoder,
            pipeline=pipeline,
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `predictor.safetensors` and `predictor.json`; the text encoder is not copied."""
        from safetensors.numpy import save

        to = Path(folder)
        tensors = {
            f"network.{k}": v.detach().cpu().numpy().astype(np.float32) for k, v in self.network.state_dict().items()
        }
        tensors |= {f"labels.{k}": np.ascontiguousarray(v, np.float32) for k, v in _arrays(self.labels).items()}
        write_bytes(to / _WEIGHTS, save(tensors))
        write_text(to / _CONFIG, json.dumps(asdict(self.config), indent=2) + "\n")

    def with_rule(
        self,
        rule: str,
        metric: str,
        level: float,
        miss_rate: float = 0.1,
        *,
        metrics: tuple[str, ...] = (),
        combine: str = "max",
        where: str = "",
    ) -> StepPredictor:
        """Return the predictor with another rule; see `rules.make_rule` for exceptions."""
        make_rule(rule, metric, level, miss_rate, metrics=metrics, combine=combine, where=where)
        for name in (metric, *metrics):  # now instead of in a window
            if name not in self.config.metrics:
                raise UnknownNameError("predicted metric", name, self.config.metrics, where)
        config = replace(
            self.config, rule=rule, metric=metric, level=level, miss_rate=miss_rate, rule_metrics=metrics,
            combine=combine,
        )  # fmt: skip
        return replace(self, config=config)

    def as_control(self, source: Source) -> StepPredictor:
        """Return the same rule on curves of a control instead of the network's."""
        return replace(self, source=source)

    @property
    def calibration(self) -> Calibration:
        """Forecasts and true values of prompts outside the training set."""
        return Calibration(
            forecast=self._forecast(self.labels.predicted.astype(np.float64)),
            truth=self.labels.true.astype(np.float64),
            prompts=self._calibration_prompts(),
        )

    def _calibration_prompts(self) -> NDArray[np.intp] | None:
        """Prompt of each calibration image (n,); None if neither the file nor the forecasts show it."""
        images, seeds = len(self.labels.predicted), self.config.calibration_seeds
        if seeds is not None:
            return np.arange(images) // seeds
        if self.config.peek:
            return None
        # a predictor without a peek gives the same forecast for all seeds of a prompt
        changes = (np.diff(self.labels.predicted, axis=0) != 0).any((1, 2))
        return np.concatenate([[0], np.cumsum(changes)]).astype(np.intp)[:images]

    def steps_for(self, prompts: Sequence[str]) -> list[int]:
        """Return one step count per prompt, by the default rule.

        Raises:
            UsageError: A prompt is not a text, is empty, or has more than 20,000 characters; or the predictor has a
                peek and needs the first evaluations.
        """
        if self.config.peek:
            raise UsageError("this predictor needs the first evaluations: use the step policy budgetfusion-peek")
        if not prompts:
            return []
        return self.choose(self.forecast(self.states(prompts), self.token_counts(prompts)))

    def curves_for(self, prompts: Sequence[str]) -> CurveForecast:
        """Return predicted curves; see `steps_for` for exceptions."""
        return self.forecast(self.states(prompts), self.token_counts(prompts))

    def choose(self, forecast: CurveForecast) -> list[int]:
        """Return the default rule's step count for each forecast."""
        return [int(self.config.grid[i]) for i in self._rule.choose(forecast, self.calibration)]

    @property
    def reader(self) -> PromptReader:
        """The text encoder that the predictor reads prompts with."""
        return PromptReader(tokenizer=self.tokenizer, text_encoder=self.text_encoder, pipeline=self.pipeline)

    def states(self, prompts: Sequence[str]) -> torch.Tensor:
        """Return the pipeline's encoding of each prompt: (n, tokens, width)."""
        return self.reader.states(prompts)

    def token_counts(self, prompts: Sequence[str]) -> NDArray[np.int64]:
        """Return the number of tokens of each prompt, up to the text encoder's limit: (n,)."""
        return self.reader.token_counts(prompts)

    @torch.inference_mode()
    def forecast(
        self, states: torch.Tensor, token_counts: NDArray[np.int64], latents: torch.Tensor | None = None
    ) -> CurveForecast:
        """Return predicted curves.

        Args:
            states: (n, tokens, width) token states.
            token_counts: (n,), for the control `length`.
            latents: (n, c, h, w) predicted clean latents after `config.peek` evaluations.
        """
        mean, labels = self.labels.mean[None].astype(np.float64), self.labels
        if self.source == "mean":
            return self._forecast(np.repeat(mean, len(token_counts), axis=0))
        if self.source == "length":
            length = np.asarray(token_counts, np.float64)
            return self._forecast(np.einsum("gmk,kn->ngm", labels.length, np.stack([length**0, length, length**2])))
        device = next(self.network.parameters()).device
        text = self.network.read(states.to(device, torch.float32))
        clean = None if latents is None else latents.to(device, torch.float32)
        units = self.network(text, torch.tensor(self.config.grid, device=device), clean)
        return self._forecast(mean + labels.spread * units.double().cpu().numpy())

    def _forecast(self, values: Array) -> CurveForecast:
        grid = np.array(self.config.grid, np.int64)
        energy_j = np.asarray(self.config.base_j + self.config.step_j * grid, np.float64)
        return CurveForecast(
            grid=grid,
            energy_j=energy_j,
            metrics=self.config.metrics,
            values=values,
        )


def read_config(source: str) -> PredictorConfig:
    """Return the properties of the predictor at a folder, hub id or `builtin:NAME`. Raises UsageError."""
    return _read(_folder(source))[0]


def _folder(source: str) -> Path:
    return pretrained_folder(source, "step predictor", (_WEIGHTS, _CONFIG))


def _read(folder: Path) -> tuple[PredictorConfig, CurveNet, Labels]:
    from pydantic import TypeAdapter
    from safetensors.numpy import load_file

    try:
        table = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        if table.get("schema") != SCHEMA:
            raise UsageError(f"{folder / _CONFIG}: schema = {table.get('schema')!r}: this version reads {SCHEMA}")
        config = TypeAdapter(PredictorConfig).validate_python(table)
        tensors = load_file(folder / _WEIGHTS)
        shape = Shape(
            text_width=tensors["network.project.weight"].shape[1],
            metrics=len(config.metrics),
            hidden=config.hidden,
            latent_channels=config.latent_channels,
        )
        network = CurveNet(shape).eval()
        state = {
            k.removeprefix("network."): torch.from_numpy(v) for k, v in tensors.items() if k.startswith("network.")
        }
        network.load_state_dict(state)
        labels = Labels(**{k.removeprefix("labels."): v for k, v in tensors.items() if k.startswith("labels.")})
    except UsageError:
        raise
    except Exception as error:  # JSON, safetensors and torch raise many types
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{folder}: cannot read a step predictor from this folder: {first}") from error
    seeds = config.calibration_seeds
    if seeds is not None and (seeds < 1 or len(labels.predicted) % seeds):
        raise UsageError(
            f"{folder / _CONFIG}: calibration_seeds = {seeds}: {len(labels.predicted)} calibration images are not "
            "a multiple of that"
        )
    wanted = (len(config.grid), len(config.metrics))
    if labels.mean.shape != wanted or labels.predicted.shape[1:] != wanted or labels.true.shape[1:] != wanted:
        raise UsageError(f"{folder}: {_CONFIG} has {wanted} steps and metrics, but {_WEIGHTS} has {labels.mean.shape}")
    return config, network, labels


def _arrays(labels: Labels) -> dict[str, NDArray[np.float32]]:
    return {name: getattr(labels, name) for name in Labels.__slots__}
