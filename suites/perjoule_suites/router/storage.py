"""The files of a router: `router.json` and `router.safetensors`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch

from perjoule.errors import UsageError, first_line
from perjoule.files import write_bytes, write_text
from perjoule.statistics.resampling import Array
from perjoule.types import Provenance, Variant
from perjoule_suites.prompt_states import pretrained_folder
from perjoule_suites.router.arms import RouterArm
from perjoule_suites.router.network import ArmNet

SCHEMA = 1
_WEIGHTS, _CONFIG = "router.safetensors", "router.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterConfig:
    """Properties of a router, stored in `router.json`.

    Attributes:
        arms: The arms between which it chooses, the cheapest first.
        reader: The variant whose text encoder reads the prompts.
        text_encoder_digest: SHA-256 of that encoder's weights.
        metric: Metric of the forecasts.
        rule: Default rule, see `rules.RULES`.
        level: Its parameter: the floor, or J per unit of quality.
        miss_rate: Promised rate of the floor.
        device: Device of the arms' joules in words.
        provenance: Provenance of those joules.
        boundary: Boundary of those joules.
        kinds: Kinds of prompts of the training set, for the control that knows only the kind.
        hidden: Size of the network.
        prompts: Number of training prompts.
        seen: Ids of the training and calibration prompts, on which the router must not be evaluated.
        seeds: Number of seeds per training prompt.
        collected_j: Energy of the training images, None if it was not measured.
        schema: Schema of this file.
    """

    arms: tuple[RouterArm, ...]
    reader: Variant
    text_encoder_digest: str
    metric: str
    rule: str
    level: float
    miss_rate: float
    device: str
    provenance: Provenance
    boundary: str
    kinds: tuple[str, ...]
    hidden: int
    prompts: int
    seen: tuple[str, ...]
    seeds: int
    collected_j: float | None
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labels:
    """Statistics of the training set, and forecasts and true values of the calibration prompts.

    Attributes:
        mean: (arms,) mean quality.
        spread: (arms,) standard deviation between images.
        error: (arms,) root mean square error of the forecasts of training images.
        length: (arms, 3) coefficients of 1, L and L², L the number of tokens: the control that knows only the length.
        kinds: (kinds, arms) mean quality of each kind of prompt.
        predicted: (n, arms) forecasts of the calibration prompts.
        true: (n, seeds, arms) true values.
    """

    mean: Array
    spread: Array
    error: Array
    length: Array
    kinds: Array
    predicted: Array
    true: Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredRouter:
    """Content of the files."""

    config: RouterConfig
    network: ArmNet
    labels: Labels


def new_network(arms: tuple[RouterArm, ...], text_width: int, hidden: int) -> ArmNet:
    """Return a network with random weights for some arms; arms of the same model and settings share a curve."""
    numbers: list[Variant] = []
    for arm in arms:
        if arm.variant.pipeline not in numbers:
            numbers.append(arm.variant.pipeline)
    return ArmNet(text_width, [a.steps for a in arms], [numbers.index(a.variant.pipeline) for a in arms], hidden)


def write_router(folder: Path, config: RouterConfig, network: ArmNet, labels: Labels) -> None:
    """Write the files of a router."""
    from safetensors.numpy import save

    tensors = {f"network.{k}": v.detach().cpu().numpy().astype(np.float32) for k, v in network.state_dict().items()}
    # in full precision, so that a reloaded router makes the same choices
    tensors |= {f"labels.{field.name}": np.ascontiguousarray(getattr(labels, field.name)) for field in fields(labels)}
    write_bytes(folder / _WEIGHTS, save(tensors))
    write_text(folder / _CONFIG, json.dumps(asdict(config), indent=1) + "\n")


def read_router(source: str | Path) -> StoredRouter:
    """Read the router at a folder, hub id or `builtin:NAME`. Raises UsageError."""
    from pydantic import TypeAdapter
    from safetensors.numpy import load_file

    folder = pretrained_folder(source, "router", (_WEIGHTS, _CONFIG))
    try:
        text = (folder / _CONFIG).read_text(encoding="utf-8")
        if (schema := json.loads(text).get("schema")) != SCHEMA:
            raise UsageError(f"{folder / _CONFIG}: schema = {schema!r}: this version reads {SCHEMA}")
        config = TypeAdapter(RouterConfig).validate_json(text)
        tensors = load_file(folder / _WEIGHTS)
        network = new_network(config.arms, tensors["network.curves.project.weight"].shape[1], config.hidden).eval()
        state = {k: torch.from_numpy(v) for k, v in tensors.items() if k.startswith("network.")}
        network.load_state_dict({k.removeprefix("network."): v for k, v in state.items()})
        labels = Labels(**{field.name: tensors[f"labels.{field.name}"] for field in fields(Labels)})
    except UsageError:
        raise
    except Exception as error:  # JSON, safetensors and torch raise many types
        raise UsageError(f"{folder}: cannot read a router from this folder: {first_line(error)}") from error
    count = len(config.arms)
    shapes = {field.name: getattr(labels, field.name).shape for field in fields(labels)}
    ends = {name: shape[0] if name == "length" else shape[-1] for name, shape in shapes.items()}
    if wrong := [name for name, end in ends.items() if end != count]:
        raise UsageError(f"{folder}: {_CONFIG} has {count} arms, but {wrong[0]} in {_WEIGHTS} is {shapes[wrong[0]]}")
    return StoredRouter(config=config, network=network, labels=labels)
