"""Step policies for suites, which predict, decide and generate inside the energy window.

    policy             policy_args                                                a level is
    budgetfusion       predictor, rule, metric, metrics, combine, miss_rate,      the rule's parameter
                       control, control_seed, shared
    budgetfusion-peek  the same without `shared`, and a predictor with a peek     the rule's parameter
    shared-start       shared                                                     a number of steps

`shared`: number of first timesteps that all schedules have in common (`peek.shared_schedule`).

A window's images of equal steps share pipeline calls of up to `batch_size` images, so with several batches in a window
(`protocol.images_per_window`) few calls are left half full.

`control` replaces the predictor's information, but keeps its cost: `mean` uses the training mean for every prompt,
`length` uses only the number of tokens, `shuffled` assigns the decisions to other prompts of the run.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from perjoule.errors import SuiteError, UnknownNameError
from perjoule.protocols import Generation, ImageGenerator, Images
from perjoule.running.policies import batches
from perjoule.types import Cell
from perjoule_suites.budgetfusion import peek
from perjoule_suites.budgetfusion.predictor import StepPredictor, read_config
from perjoule_suites.diffusers_generator import DiffusersGenerator

CONTROLS = ("", "mean", "length", "shuffled")
_TEXT_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyArguments:
    """`policy_args` of budgetfusion and budgetfusion-peek.

    Attributes:
        predictor: Folder, hub id or `builtin:NAME`.
        rule: One of `rules.RULES`.
        metric: Metric of the rule; the predictor's default if empty.
        metrics: Metrics of the plateau rule; all predicted ones if empty.
        combine: How the plateau rule combines them: `max`, `median` or `mean`.
        miss_rate: Rate of the quality floor.
        control: One of `CONTROLS`.
        control_seed: Seed of the shuffling.
        shared: 1 or 2 uses schedules with a shared start; 0 keeps the scheduler's own spacing. A peek shares the
            evaluations that its predictor uses.
    """

    predictor: str
    rule: str = "equal-marginal"
    metric: str = ""
    metrics: tuple[str, ...] = ()
    combine: str = "max"
    miss_rate: float = 0.1
    control: str = ""
    control_seed: int = 1
    shared: int = 0


class PredictedSteps:
    """BudgetFusion, which decides from the prompt. Images of equal steps share pipeline calls."""

    def __init__(self, cell: Cell, where: str) -> None:
        """Create the policy; the predictor is read in `prepare`. Raises SuiteError for invalid arguments."""
        self._arguments = arguments = read_arguments(cell, where)
        if arguments.shared not in (0, 1, peek.MOST_SHARED):
            raise SuiteError(f"{where}.policy_args.shared = {arguments.shared!r}: must be 0, 1 or {peek.MOST_SHARED}")
        self._level, self._batch_size, self._where = _level(cell, where), cell.batch_size, where
        self._predictor: StepPredictor | None = None
        self._dealt: dict[str, int] = {}

    def prepare(self, generator: ImageGenerator, prompts: Sequence[str]) -> None:
        """Load the predictor for this pipeline's text encoder; for the shuffled control, assign the decisions."""
        self._predictor = predictor = _prepared(self._arguments, self._level, generator, self._where)
        if predictor.config.peek:
            raise SuiteError(f"{self._where}.policy_args.predictor: it needs a peek; set policy = 'budgetfusion-peek'")
        if self._arguments.shared:
            assert isinstance(generator, DiffusersGenerator)
            peek.require_one_step_sampler(generator.pipeline, self._where)
        if self._arguments.control == "shuffled":
            self._dealt = dict(zip(prompts, _decided(predictor, self._arguments, prompts), strict=True))

    def draw(self, generator: ImageGenerator, prompts: Sequence[str], seeds: Sequence[int]) -> Generation:
        """Read the prompts once, decide, and generate group by group."""
        assert isinstance(generator, DiffusersGenerator) and self._predictor is not None  # noqa: PT018
        predictor = self._predictor
        generator.take_counts()
        encoded = _encoded(generator, prompts, self._batch_size)
        with generator.timed("predictor"):
            counts = predictor.token_counts(prompts)
            steps = predictor.choose(predictor.forecast(encoded["prompt_embeds"], counts))
        steps = [self._dealt.get(prompt, n) for prompt, n in zip(prompts, steps, strict=True)]

        def some(rows: Sequence[int], n: int) -> Images:
            texts, own, part = [prompts[i] for i in rows], [seeds[i] for i in rows], _rows(encoded, rows)
            if self._arguments.shared:
                return peek.draw_shared(generator, texts, own, n, self._arguments.shared, part)
            arguments = generator.call_arguments(texts, own, n)
            for key in ("prompt", "negative_prompt"):
                arguments.pop(key, None)
            return generator.call(arguments | part)

        return _grouped(generator, steps, some, self._batch_size)


class PeekedSteps:
    """BudgetFusion with a peek, which decides from the prompt and the first evaluations."""

    def __init__(self, cell: Cell, where: str) -> None:
        """Create the policy; the predictor is read in `prepare`. Raises SuiteError for invalid arguments."""
        self._arguments = read_arguments(cell, where)
        if self._arguments.control == "shuffled":
            raise SuiteError(
                f"{where}.policy_args.control: a peek decides per image; shuffle a prompt's decisions instead"
            )
        if self._arguments.shared:
            raise SuiteError(f"{where}.policy_args.shared: a peek sets it by its predictor; remove the key")
        if cell.variant.guidance_share < 1:
            raise SuiteError(
                f"{where}.guidance_share: a peek splits the pipeline call whose share it is; remove the key"
            )
        self._level, self._batch_size, self._where = _level(cell, where), cell.batch_size, where
        self._predictor: StepPredictor | None = None

    def prepare(self, generator: ImageGenerator, prompts: Sequence[str]) -> None:
        """Load the predictor for this pipeline's text encoder."""
        self._predictor = _prepared(self._arguments, self._level, generator, self._where)
        if not self._predictor.config.peek:
            raise SuiteError(f"{self._where}.policy_args.predictor: it has no peek; set policy = 'budgetfusion'")
        assert isinstance(generator, DiffusersGenerator)
        peek.require_one_step_sampler(generator.pipeline, self._where)

    def draw(self, generator: ImageGenerator, prompts: Sequence[str], seeds: Sequence[int]) -> Generation:
        """Read the prompts, do the shared evaluations, decide, and continue group by group."""
        assert isinstance(generator, DiffusersGenerator) and self._predictor is not None  # noqa: PT018
        predictor, shared = self._predictor, self._predictor.config.peek
        generator.take_counts()
        encoded = _encoded(generator, prompts, self._batch_size)
        looks = [
            peek.glimpse(generator, _rows(encoded, rows), [prompts[i] for i in rows], [seeds[i] for i in rows], shared)
            for rows in batches(len(prompts), self._batch_size)
        ]
        glimpse = peek.Glimpse(
            clean=torch.cat([look.clean for look in looks]),
            sample=torch.cat([look.sample for look in looks]),
            output=torch.cat([look.output for look in looks]),
        )
        with generator.timed("predictor"):
            counts = predictor.token_counts(prompts)
            steps = predictor.choose(predictor.forecast(encoded["prompt_embeds"], counts, glimpse.clean))

        def some(rows: Sequence[int], n: int) -> Images:
            chosen = list(rows)
            part = peek.Glimpse(
                clean=glimpse.clean[chosen], sample=glimpse.sample[chosen], output=glimpse.output[chosen]
            )
            texts, own = [prompts[i] for i in rows], [seeds[i] for i in rows]
            return peek.go_on(generator, _rows(encoded, rows), texts, own, part, n, shared)

        return _grouped(generator, steps, some, self._batch_size)


class SharedStart:
    """A fixed ladder on the schedules of a peek, to measure their energy."""

    def __init__(self, cell: Cell, where: str) -> None:
        """Create the policy. Raises SuiteError for a level that is not a number of steps."""
        unknown = set(cell.variant.policy_args) - {"shared"}
        if unknown:
            raise SuiteError(f"{where}.policy_args: unknown key {min(unknown)!r}; known: shared")
        self._shared, level = cell.variant.policy_args.get("shared", 2), _level(cell, where)
        if self._shared not in (1, 2):
            raise SuiteError(f"{where}.policy_args.shared = {self._shared!r}: must be 1 or 2")
        if level != int(level) or not self._shared <= level <= 1000:
            raise SuiteError(f"{where}.levels: {level:g}: must be a number of steps from {self._shared} to 1000")
        self._steps, self._batch_size, self._where = int(level), cell.batch_size, where

    def prepare(self, generator: ImageGenerator, prompts: Sequence[str]) -> None:
        """Check the sampler."""
        assert isinstance(generator, DiffusersGenerator)
        peek.require_one_step_sampler(generator.pipeline, self._where)

    def draw(self, generator: ImageGenerator, prompts: Sequence[str], seeds: Sequence[int]) -> Generation:
        """Generate the images with one pipeline call per batch."""
        assert isinstance(generator, DiffusersGenerator)
        generator.take_counts()

        def some(rows: Sequence[int], n: int) -> Images:
            return peek.draw_shared(generator, [prompts[i] for i in rows], [seeds[i] for i in rows], n, self._shared)

        return _grouped(generator, [self._steps] * len(prompts), some, self._batch_size)


def read_arguments(cell: Cell, where: str) -> PolicyArguments:
    """Check `policy_args`. Raises SuiteError, UnknownNameError."""
    from pydantic import TypeAdapter, ValidationError

    known = tuple(PolicyArguments.__slots__)
    for key in cell.variant.policy_args:
        if key not in known:
            raise UnknownNameError("policy argument", key, known, f"{where}.policy_args")
    try:
        arguments = TypeAdapter(PolicyArguments).validate_python(cell.variant.policy_args)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise SuiteError(f"{where}.policy_args.{key}: {first['msg'].lower()}") from None
    if arguments.rule == "plateau" and arguments.metric:
        raise SuiteError(f'{where}.policy_args.metric: the plateau rule reads metrics = ["{arguments.metric}", ...]')
    if arguments.control not in CONTROLS:
        raise UnknownNameError("control", arguments.control, CONTROLS[1:], f"{where}.policy_args.control")
    return arguments


def decided_steps(cells: Sequence[Cell], prompts: Sequence[str]) -> list[list[int]]:
    """Return the steps that cells of a variant with the policy `budgetfusion` take for all prompts of a run."""
    where = cells[0].cell_id
    arguments = read_arguments(cells[0], where)
    known = read_config(arguments.predictor).metrics
    for name in (arguments.metric or known[0], *arguments.metrics):  # before the text encoder is loaded
        if name not in known:
            raise UnknownNameError("predicted metric", name, known, where)
    predictor = StepPredictor.from_pretrained(arguments.predictor)
    return [_decided(_configured(predictor, arguments, _level(one, where), where), arguments, prompts) for one in cells]


def _decided(predictor: StepPredictor, arguments: PolicyArguments, prompts: Sequence[str]) -> list[int]:
    starts = range(0, len(prompts), _TEXT_BATCH)
    steps = [n for start in starts for n in predictor.steps_for(prompts[start : start + _TEXT_BATCH])]
    if arguments.control == "shuffled":
        random.Random(arguments.control_seed).shuffle(steps)
    return steps


def _prepared(arguments: PolicyArguments, level: float, generator: ImageGenerator, where: str) -> StepPredictor:
    if not isinstance(generator, DiffusersGenerator):
        raise SuiteError(f"{where}.policy: needs a diffusers pipeline, not a {type(generator).__name__}")
    predictor = StepPredictor.from_pretrained(arguments.predictor, pipeline=generator.pipeline)
    return _configured(predictor, arguments, level, where)


def _configured(predictor: StepPredictor, arguments: PolicyArguments, level: float, where: str) -> StepPredictor:
    metric = arguments.metric or predictor.config.metric
    predictor = predictor.with_rule(
        arguments.rule, metric, level, arguments.miss_rate,
        metrics=arguments.metrics, combine=arguments.combine, where=f"{where}.levels",
    )  # fmt: skip
    if arguments.control in ("mean", "length"):
        predictor = predictor.as_control(arguments.control)  # type: ignore[arg-type]
    return predictor


def _level(cell: Cell, where: str) -> float:
    if cell.level is None:
        raise SuiteError(f"{where}.levels is empty: a step policy needs a level per cell")
    return cell.level


def _encoded(generator: DiffusersGenerator, prompts: Sequence[str], batch_size: int | None) -> dict[str, Any]:
    parts = [generator.encode([prompts[i] for i in rows]) for rows in batches(len(prompts), batch_size)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _rows(encoded: dict[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    return {name: tensor[list(rows)] for name, tensor in encoded.items()}


def _grouped(
    generator: DiffusersGenerator,
    steps: Sequence[int],
    draw: Callable[[list[int], int], Images],
    batch_size: int | None,
) -> Generation:
    """Generate images of equal steps together, at most `batch_size` at a time, and return them in order."""
    groups: dict[int, list[int]] = defaultdict(list)
    for row, n in enumerate(steps):
        groups[n].append(row)
    calls = [
        (n, [rows[i] for i in batch]) for n, rows in sorted(groups.items()) for batch in batches(len(rows), batch_size)
    ]
    parts = [(rows, draw(rows, n)) for n, rows in calls]
    evaluations, seconds = generator.take_counts()
    images = np.empty((len(steps), *parts[0][1].shape[1:]), np.uint8)
    for rows, part in parts:
        images[rows] = part
    return Generation(
        images=images,
        nfe_per_image=evaluations / len(images),
        steps=tuple(steps),
        phases_s=seconds,
    )
