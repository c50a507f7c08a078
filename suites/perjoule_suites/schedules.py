"""Creates the scheduler of a variant and tests it on noise, before any weights are read.

The test is the loop of the pipeline with random numbers instead of the network. It takes milliseconds and raises the
errors of the real loop, e.g. if a solver reads past its last step, a distilled schedule has fewer steps, or a scheduler
lacks a method.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from perjoule.errors import SuiteError
from perjoule.suite.timesteps import sampler_of, timesteps_of
from perjoule.types import Sampling, Variant
from perjoule_suites.faults import kind_and_line

_SHAPE = (1, 4, 8, 8)
_TRAIN_TIMESTEPS = 1000
# a solver that adds noise does so in every step but the last
_ENOUGH_STEPS = 3
_OWN_SIGMAS = "np.linspace(1.0, 1 / num_inference_steps"
# how DDIM and PNDM find the end of a step, whatever their timesteps are (diffusers issues 11347 and 12633)
_INTEGER_STRIDE = "timestep - self.config.num_train_timesteps // self.num_inference_steps"


def make_scheduler(own: Any, variant: Variant, where: str) -> Any:
    """Return the scheduler of a variant: its declared class and settings, with the configuration of `own`.

    Raises:
        SuiteError: The class is not a scheduler, a setting is unknown, or they do not fit the model.
    """
    import diffusers
    from diffusers.schedulers.scheduling_utils import SchedulerMixin

    declared, settings = sampler_of(variant)
    name = declared or type(own).__name__
    kind = getattr(diffusers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, SchedulerMixin)):
        what = "is not a scheduler of diffusers" if kind is None else "of diffusers is not a scheduler"
        raise SuiteError(f"{where}.scheduler = {name!r} {what}; these fit: {', '.join(_fitting(own))}")
    known_args = parameters(kind.__init__)  # type: ignore[misc]
    if declared and not variant.scheduler and kind not in {*own.compatibles, type(own)}:
        raise SuiteError(
            f"{where}.schedule = {variant.schedule!r}: its sampler {name} does not fit the model's "
            f"{type(own).__name__}; remove the key"
        )
    for key in settings:
        if key not in known_args:
            raise SuiteError(f"{where}.scheduler_args.{key}: {name} has no such setting: {', '.join(known_args)}")
    try:
        return kind.from_config(own.config, **settings)  # type: ignore[attr-defined]
    except Exception as error:  # from the scheduler's own checks
        given = f", scheduler_args = {settings}" if settings else ""
        raise SuiteError(
            f"{where}.scheduler = {name!r}{given}: cannot be created from the configuration of the model's "
            f"{type(own).__name__}: {kind_and_line(error)}"
        ) from error


def schedule_problems(own: Any, pipeline_class: type, variant: Variant, where: str) -> list[str]:
    """Return errors about step counts that do not work with a variant's scheduler and pipeline; empty if all do."""
    try:
        scheduler = make_scheduler(own, variant, where)
    except SuiteError as error:
        return [str(error)]
    name = type(scheduler).__name__
    if variant.scheduler:
        key = f"{where}.scheduler = {name!r}"
    elif variant.schedule:
        key = f"{where}.schedule = {variant.schedule!r}: its sampler {name}"
    else:
        key = f"{where}.model = {variant.model!r}: its own scheduler {name}"
    key = f"{key} (variant {variant.name!r})"
    if key_of_times := "timesteps" if variant.timesteps else "schedule" if variant.schedule else "":
        for owner, function in ((pipeline_class, pipeline_class.__call__), (type(scheduler), scheduler.set_timesteps)):
            if "timesteps" not in parameters(function):
                return [f"{where}.{key_of_times}: {owner.__name__} does not support custom schedules"]
    if variant.schedule and scheduler.config.num_train_timesteps != _TRAIN_TIMESTEPS:
        return [
            f"{where}.schedule = {variant.schedule!r}: is defined for {_TRAIN_TIMESTEPS} training timesteps, but the "
            f"model has {scheduler.config.num_train_timesteps}; give the timesteps instead"
        ]
    lacking = [attribute for attribute in _needed(pipeline_class) if not hasattr(scheduler, attribute)]
    if lacking:
        return [
            f"{key}: it does not fit {pipeline_class.__name__}, which needs its {', '.join(lacking)}; these fit: "
            f"{', '.join(_fitting(own))}"
        ]
    demanded = _demanded(scheduler.set_timesteps)
    if demanded:
        return [f"{key}: its set_timesteps also needs {', '.join(demanded)}, which a pipeline does not pass"]
    settings = f" with scheduler_args = {variant.scheduler_args}" if variant.scheduler_args else ""
    failed: dict[str, tuple[str, list[int]]] = {}
    for steps in variant.steps:
        try:
            _walk(make_scheduler(own, variant, where), pipeline_class, variant, steps)
        except Exception as error:  # errors of the pipeline's loop
            words = kind_and_line(error)
            failed.setdefault(re.sub(r"\d+", "#", words), (words, []))[1].append(steps)
    bad = {steps for _, some in failed.values() for steps in some}
    good = ", ".join(str(steps) for steps in variant.steps if steps not in bad)
    remedy = f"choose other step counts ({good} work) or another scheduler" if good else "choose another scheduler"
    return [
        f"{key}{settings}: steps = {', '.join(map(str, steps))} do not work: {words}; {remedy}"
        for words, steps in failed.values()
    ]


def samplings_of(
    own: Any, pipeline_class: type, variant: Variant, step_counts: Sequence[int], where: str
) -> tuple[Sampling, ...]:
    """Return how a variant samples at each step count, found by running its schedule on noise.

    Args:
        own: The model's own scheduler.
        pipeline_class: The pipeline.
        variant: The variant.
        step_counts: Values of `num_inference_steps`.
        where: Suite file and key, for messages.
    """

    def walked(steps: int, noise_seed: int) -> tuple[Any, torch.Tensor]:
        scheduler = make_scheduler(own, variant, where)
        return scheduler, _walk(scheduler, pipeline_class, variant, steps, noise_seed, most=_ENOUGH_STEPS)

    found = []
    for steps in step_counts:
        (scheduler, one), (_, other) = walked(steps, 0), walked(steps, 1)
        times = [float(t) for t in scheduler.timesteps]
        found.append(
            Sampling(
                scheduler=type(scheduler).__name__,
                steps=steps,
                first_timestep=times[0],
                stochastic=not torch.equal(one, other),
                stride_error=_stride_error(scheduler, times, steps),
            )
        )
    return tuple(found)


def parameters(function: Callable[..., Any]) -> list[str]:
    """Return the names of a function's parameters."""
    return [name for name in inspect.signature(function).parameters if name not in ("self", "kwargs")]


def _walk(
    scheduler: Any, pipeline_class: type, variant: Variant, steps: int, noise_seed: int = 0, most: int | None = None
) -> torch.Tensor:
    """Run a schedule like the pipeline, with noise instead of the network's output; return the last sample.

    `noise_seed` changes only the noise that a stochastic solver adds, from its generator or from torch's own. With
    `most`, only so many of the first steps are run.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    added = torch.Generator("cpu").manual_seed(noise_seed)
    scheduler.set_timesteps(**_timestep_arguments(scheduler, pipeline_class, variant, steps))
    sample = torch.randn(_SHAPE, generator=generator) * getattr(scheduler, "init_noise_sigma", 1.0)
    known = parameters(scheduler.step)
    more: dict[str, Any] = {"generator": [added]} if "generator" in known else {}
    of_call = inspect.signature(pipeline_class.__call__).parameters
    if "eta" in known and "eta" in of_call:
        more["eta"] = variant.call_args.get("eta", of_call["eta"].default)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(noise_seed)
        for timestep in scheduler.timesteps[:most]:
            if hasattr(scheduler, "scale_model_input"):
                scheduler.scale_model_input(sample, timestep)
            output = torch.randn(_SHAPE, generator=generator)
            sample = scheduler.step(output, timestep, sample, **more, return_dict=False)[0]
    if not torch.isfinite(sample).all():
        raise FloatingPointError("the solver turns finite values into NaN or infinity")
    return sample


def _stride_error(scheduler: Any, times: Sequence[float], steps: int) -> int:
    """Return how far a step's end is from the beginning of the next one, for solvers that stride by `1000 // N`."""
    solvers = [getattr(type(scheduler), name, None) for name in ("step", "step_plms")]
    if not any(_INTEGER_STRIDE in _text(solver) for solver in solvers if solver is not None):
        return 0
    stride = scheduler.config.num_train_timesteps // steps
    # PNDM evaluates its second timestep twice
    begun = list(dict.fromkeys(times))
    return max((round(abs(before - stride - after)) for before, after in pairwise(begun)), default=0)


def _timestep_arguments(scheduler: Any, pipeline_class: type, variant: Variant, steps: int) -> dict[str, Any]:
    known = parameters(scheduler.set_timesteps)
    arguments: dict[str, Any] = {}
    if timesteps := timesteps_of(variant, steps):
        arguments["timesteps"] = timesteps
    elif _OWN_SIGMAS in _source(pipeline_class) and not scheduler.config.get("use_flow_sigmas", False):
        if "sigmas" not in known:
            raise TypeError(f"{pipeline_class.__name__} passes sigmas, which its set_timesteps does not accept")
        arguments["sigmas"] = np.linspace(1.0, 1 / steps, steps)
    else:
        arguments["num_inference_steps"] = steps
    if scheduler.config.get("use_dynamic_shifting") and "mu" in known:
        arguments["mu"] = 1.0  # pipelines compute it from the size of the image
    return arguments


def _needed(pipeline_class: type) -> Iterator[str]:
    """Return attributes of the scheduler that the pipeline's loop uses without checking that they exist."""
    source = _source(pipeline_class)
    optional = set(re.findall(r"hasattr\(self\.scheduler, \"(\w+)\"", source))
    yield from sorted(set(re.findall(r"self\.scheduler\.(\w+)", source)) - optional - {"config"})


def _source(pipeline_class: type) -> str:
    parts = [getattr(pipeline_class, name, None) for name in ("__call__", "prepare_latents")]
    return "".join(_text(part) for part in parts if part is not None)


def _text(function: Callable[..., Any]) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return ""


def _demanded(function: Callable[..., Any]) -> list[str]:
    return [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and name not in ("num_inference_steps", "device")
    ]


def _fitting(own: Any) -> list[str]:
    return sorted({c.__name__ for c in own.compatibles} | {type(own).__name__})
