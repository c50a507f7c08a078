"""The loaded pipelines of a router's arms: some stay on the device together, the others take turns."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

from perjoule.errors import SuiteError, UnknownNameError
from perjoule.types import Variant
from perjoule_suites import diffusers_generator
from perjoule_suites.diffusers_generator import DiffusersGenerator
from perjoule_suites.prompt_states import PromptReader
from perjoule_suites.router.arms import RouterArm
from perjoule_suites.router.as_run import SWITCH


class Models:
    """Loads the pipelines of arms.

    Args:
        arms: The arms.
        variant: The policy's own variant.
        generator: Its pipeline, which always stays loaded.
        resident: Names of the variants that stay loaded; None for all.
        batch_size: Images per pipeline call, for the warm-up; None for all images of a window.
        where: Suite file and variant, for messages.

    Raises:
        UnknownNameError: A resident variant has no arm.
        SuiteError: The weights are not those that the router was trained for.
        UsageError: A pipeline cannot be loaded.
    """

    def __init__(
        self,
        arms: Sequence[RouterArm],
        variant: Variant,
        generator: DiffusersGenerator,
        *,
        resident: Sequence[str] | None,
        batch_size: int | None,
        where: str,
    ) -> None:
        names = list(dict.fromkeys(arm.variant.name for arm in arms))
        for name in resident or ():
            if name not in names:
                raise UnknownNameError("variant of the router", name, names, f"{where}.policy_args.resident")
        self._own, self._where = generator, where
        self._digest = PromptReader.of(generator.pipeline).digest
        self._loaded: dict[str, DiffusersGenerator] = {}
        self._guest: tuple[str, DiffusersGenerator] | None = None
        self._counted: list[tuple[int, dict[str, float]]] = []  # of guests that were released
        self._shares: dict[str, bool] = {}
        self._sources: dict[str, dict[str, Any]] = {}
        known = [(variant.pipeline, generator)]
        for name in names:
            arm = next(arm for arm in arms if arm.variant.name == name)
            same = next((g for pipeline, g in known if pipeline == arm.variant.pipeline), None)
            loaded = same or self._load(arm, batch_size)
            self._examine(arm, loaded)
            if same is not None or resident is None or name in resident:
                self._loaded[name] = loaded
                known.append((arm.variant.pipeline, loaded))

    @property
    def sources(self) -> dict[str, dict[str, Any]]:
        """For each model its revision and the SHA-256 of its files."""
        return self._sources

    def of(self, arm: RouterArm) -> DiffusersGenerator:
        """Return the pipeline of an arm; a model that is not resident is loaded in the phase `switch`."""
        name = arm.variant.name
        if name in self._loaded:
            return self._loaded[name]
        if self._guest is None or self._guest[0] != name:
            if self._guest is not None:
                self._counted.append(self._guest[1].take_counts())
            with self._own.timed(SWITCH):
                self._guest = None
                gc.collect()  # pipelines contain reference cycles
                self._guest = (name, diffusers_generator.load(arm.variant, where=self._where))
        return self._guest[1]

    def in_turn(self, arms: Sequence[RouterArm]) -> list[RouterArm]:
        """Return arms so that each model has one turn, first those that are loaded."""
        guest = None if self._guest is None else self._guest[0]

        def place(arm: RouterArm) -> tuple[bool, bool, str, int]:
            name = arm.variant.name
            return name not in self._loaded, name != guest, name, arm.steps

        return sorted(arms, key=place)

    def shares_encoding(self, arm: RouterArm) -> bool:
        """Return whether an arm's pipeline accepts the prompts as the policy's own pipeline encodes them."""
        return self._shares[arm.variant.name]

    def take_counts(self) -> tuple[int, dict[str, float]]:
        """Return denoiser evaluations and seconds by phase of all pipelines since the last call."""
        guests = [] if self._guest is None else [self._guest[1]]
        others = {id(g): g for g in [*self._loaded.values(), *guests] if g is not self._own}
        evaluations, seconds = self._own.take_counts()
        for more, phases in [*self._counted, *(g.take_counts() for g in others.values())]:
            evaluations += more
            for phase, spent_s in phases.items():
                if phase != "host":  # which the clock of the own pipeline includes, as it does the others' phases
                    seconds[phase] = seconds.get(phase, 0.0) + spent_s
                    seconds["host"] = max(seconds["host"] - spent_s, 0.0)
        self._counted = []
        return evaluations, seconds

    def _load(self, arm: RouterArm, batch_size: int | None) -> DiffusersGenerator:
        """Load a model and warm it up."""
        generator = diffusers_generator.load(arm.variant, where=self._where)
        for size in sorted({1, batch_size or 1}):
            generator.generate(["a"] * size, [0] * size, min(2, arm.steps))
        return generator

    def _examine(self, arm: RouterArm, generator: DiffusersGenerator) -> None:
        """Check the weights, and find out whether the arm can use the policy's own encoding of prompts."""
        if arm.digest and generator.digest != arm.digest:
            raise SuiteError(
                f"{self._where}: the weights of {arm.variant.model} are {generator.digest[:12]}, but the router was "
                f"trained for {arm.digest[:12]}: use those weights, or train a router for these"
            )
        for model, source in generator.sources.items():
            known = self._sources.get(model, {"files": {}})
            self._sources[model] = source | {"files": known["files"] | source["files"]}
        self._shares[arm.variant.name] = (
            type(generator.pipeline) is type(self._own.pipeline)
            and "clip_skip" not in arm.variant.call_args
            and PromptReader.of(generator.pipeline).digest == self._digest
        )
