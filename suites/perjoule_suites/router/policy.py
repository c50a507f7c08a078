"""The step policy `router`: reads the prompts, chooses an arm for each, and generates, inside the energy window.

    policy    policy_args                                 a level is
    router    router, rule, miss_rate, resident, prices   the quality floor, or J per unit of quality (`equal-marginal`)

The variant itself is the pipeline whose text encoder reads the prompts. If it has the settings of an arm, it generates
that arm's images too; the pipelines of the other arms are loaded by the policy. Those in `resident` (all by default)
stay loaded together. The others take turns: one is loaded from disk when it is needed, in the phase `switch`, and
released when another is needed. Images of equal arms share pipeline calls, and each model has at most one turn in a
window, so windows of many images switch less often for each image.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from perjoule.errors import MeterError, SuiteError, UnknownNameError
from perjoule.meters.identity import cpu_name
from perjoule.meters.work import choose_profile
from perjoule.protocols import Generation, ImageGenerator, Images
from perjoule.running.policies import batches
from perjoule.types import Cell
from perjoule_suites.diffusers_generator import DiffusersGenerator
from perjoule_suites.prompt_embeddings import encode_prompts
from perjoule_suites.router.arms import RouterArm
from perjoule_suites.router.as_run import PHASE
from perjoule_suites.router.models import Models
from perjoule_suites.router.router import Router, check_rule
from perjoule_suites.router.storage import read_router


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterArguments:
    """`policy_args` of the policy.

    Attributes:
        router: Folder, hub id or `builtin:NAME`.
        rule: One of `rules.RULES`.
        miss_rate: Promised rate of the floor; the router's own by default.
        resident: Names of the variants that stay loaded together; all by default.
        prices: Scored run of the router's arms on this device, whose joules replace those of the training run.
    """

    router: str
    rule: str = "quality-floor"
    miss_rate: float | None = None
    resident: tuple[str, ...] | None = None
    prices: str = ""


class RoutedArms:
    """Chooses an arm for each prompt."""

    def __init__(self, cell: Cell, where: str) -> None:
        """Create the policy; the router is read in `prepare`. Raises SuiteError for invalid arguments."""
        self._cell, self._where = cell, where
        self._arguments = arguments = _read_arguments(cell, where)
        if cell.level is None:
            raise SuiteError(f"{where}.levels is empty: a step policy needs a level per cell")
        rate = 0.5 if arguments.miss_rate is None else arguments.miss_rate
        check_rule(arguments.rule, cell.level, rate, f"{where}.levels")
        self._router: Router | None = None
        self._models: Models | None = None

    @property
    def sources(self) -> dict[str, dict[str, Any]]:
        """Weights of the arms' models, see `ImageGenerator.sources`."""
        return {} if self._models is None else self._models.sources

    def code(self) -> str:
        """Return Python code that chooses an arm and makes its image, with the models and steps of all arms.

        Raises:
            PerjouleError: The router cannot be read.
        """
        arguments, level = self._arguments, self._cell.level
        config = read_router(arguments.router).config
        rate = config.miss_rate if arguments.miss_rate is None else arguments.miss_rate
        lines = ["from perjoule_suites.router import Router", ""]
        lines += [f"# {arm.cell_id}: {arm.variant.model}, {arm.steps} steps" for arm in config.arms]
        lines.append(f"router = Router.from_pretrained({arguments.router!r})")
        if arguments.prices:
            lines.append(f"router = router.priced_by({arguments.prices!r})")
        lines += [
            f"router = router.with_rule({arguments.rule!r}, {level!r}, {rate!r})",
            "arm = router(prompt)",
            "image = router.pipeline(arm)(prompt, **arm.arguments).images[0]",
        ]
        return "\n".join(lines)

    def prepare(self, generator: ImageGenerator, prompts: Sequence[str]) -> None:
        """Load the router for this pipeline's text encoder, and the pipelines of its arms."""
        arguments, where, level = self._arguments, self._where, self._cell.level
        if not isinstance(generator, DiffusersGenerator):
            raise SuiteError(f"{where}.policy: needs a diffusers pipeline, not a {type(generator).__name__}")
        assert level is not None
        router = Router.from_pretrained(arguments.router, pipeline=generator.pipeline)
        if arguments.prices:
            router = router.priced_by(arguments.prices)
        elif arguments.rule == "equal-marginal":
            _require_same_device(router.config.device, where)
        self._router = router.with_rule(arguments.rule, level, arguments.miss_rate, where=f"{where}.levels")
        self._models = Models(
            router.config.arms,
            self._cell.variant,
            generator,
            resident=arguments.resident,
            batch_size=self._cell.batch_size,
            where=where,
        )

    def draw(self, generator: ImageGenerator, prompts: Sequence[str], seeds: Sequence[int]) -> Generation:
        """Read the prompts once, choose arms, and generate arm by arm."""
        router, models = self._router, self._models
        assert isinstance(generator, DiffusersGenerator) and router is not None and models is not None  # noqa: PT018
        models.take_counts()
        size = self._cell.batch_size
        parts = [
            encode_prompts(generator.pipeline, [prompts[i] for i in rows], guided=False)
            for rows in batches(len(prompts), size)
        ]
        encoded = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        with generator.timed(PHASE):
            chosen = router.choose(router.forecast(encoded["prompt_embeds"]))
        arms = [router.config.arms[int(place)] for place in chosen]
        images: list[Images | None] = [None] * len(prompts)
        for arm in models.in_turn(list({a.cell_id: a for a in arms}.values())):
            own = models.of(arm)
            rows = [i for i, a in enumerate(arms) if a.cell_id == arm.cell_id]
            for batch in batches(len(rows), size):
                part = [rows[i] for i in batch]
                drawn = _call(own, arm, models.shares_encoding(arm), encoded, prompts, seeds, part)
                for row, image in zip(part, drawn, strict=True):
                    images[row] = image
        shapes = {image.shape for image in images if image is not None}
        if len(shapes) > 1:
            raise SuiteError(
                f"{self._where}: the arms' images have {len(shapes)} sizes: a window needs one; train a router on arms "
                "of equal width_px and height_px"
            )
        evaluations, seconds = models.take_counts()
        return Generation(
            images=np.stack([image for image in images if image is not None]),
            nfe_per_image=evaluations / len(images),
            steps=tuple(arm.steps for arm in arms),
            phases_s=seconds,
        )


def router(cell: Cell, *, where: str) -> RoutedArms:
    """Factory of the policy `router`."""
    return RoutedArms(cell, where)


def _call(
    generator: DiffusersGenerator,
    arm: RouterArm,
    shared: bool,
    encoded: dict[str, torch.Tensor],
    prompts: Sequence[str],
    seeds: Sequence[int],
    rows: list[int],
) -> Images:
    arguments = generator.call_arguments([prompts[i] for i in rows], [seeds[i] for i in rows], arm.steps)
    if shared:
        del arguments["prompt"]
        arguments |= {name: tensor[rows] for name, tensor in encoded.items()}
    return generator.call(arguments)


def _read_arguments(cell: Cell, where: str) -> RouterArguments:
    from pydantic import TypeAdapter, ValidationError

    known = tuple(RouterArguments.__slots__)
    for key in cell.variant.policy_args:
        if key not in known:
            raise UnknownNameError("policy argument", key, known, f"{where}.policy_args")
    try:
        return TypeAdapter(RouterArguments).validate_python(cell.variant.policy_args)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise SuiteError(f"{where}.policy_args.{key}: {first['msg'].lower()}") from None


def _require_same_device(device: str, where: str) -> None:
    """Refuse levels in joules of another device."""
    here = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name()
    names = [here]
    with suppress(MeterError):  # there may be no profile of this device
        names.append(f"{choose_profile().device_model} (profile)")
    if not any(device.startswith(name) for name in names):
        raise SuiteError(
            f"{where}.levels: J per unit of quality are those of {device}, where the router was trained, but this "
            f"machine is {here}: joules do not carry over between devices: set policy_args.prices to a scored run of "
            "the same arms on this machine, or use rule = 'quality-floor'"
        )
