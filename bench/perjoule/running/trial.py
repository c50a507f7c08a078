"""One trial: a window of one cell, on one device.

    one trial
    ──────────┬───────────┬──────────────────────────────┬───────────────────────────
     cooldown │ (warm-up) │ sync  window: iterations  sync│ PNG, hash, trials.jsonl
    ──────────┴───────────┴──────────────────────────────┴───────────────────────────

Warm-up happens whenever the variant changes, with every size of a pipeline call that its windows may contain. Encoding
and writing are outside the window.

If the pipeline or the step policy raises while it is loaded, prepared, warmed up or run, the trial fails with the
reason, and the run continues with the next trial. Only a device that cannot continue ends the run (`Bench.dead`).
If the work does not fit into memory, the suite may ask for another attempt with half as many images per call.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path

import numpy as np

from perjoule.errors import MeterError, PerjouleError
from perjoule.files import replacing
from perjoule.meters.base import BaseMeter
from perjoule.prompts.findings import remarks
from perjoule.protocols import (
    EnergyMeter,
    Generation,
    GeneratorFactory,
    ImageGenerator,
    Images,
    StepPolicy,
    Window,
    reads_prompts,
)
from perjoule.running.deadline import Deadline
from perjoule.running.failures import Failure, failure_of
from perjoule.running.policies import batches, load_policy
from perjoule.runs.pictures import pixel_digest
from perjoule.suite.schedule import image_id
from perjoule.suite.smaller import planned_name, with_batch
from perjoule.types import Assignment, Cell, EnergyReading, Protocol, Trial, Variant
from perjoule.warnings import warning


class NotLoadedError(Exception):
    """A pipeline could not be loaded, or its device failed before the first window; `failure` is the reason."""

    def __init__(self, failure: Failure) -> None:
        """Store the failure."""
        super().__init__(failure.reason)
        self.failure = failure


class GeneratorCache:
    """Loaded pipelines. Variants that differ only in their steps share one.

    Args:
        factory: Loads a variant.
        where: Returns a variant's place in its suite file.
        keep_all: Keep all pipelines; otherwise only one, because two large ones seldom fit.
    """

    def __init__(self, factory: GeneratorFactory, where: Callable[[Variant], str], keep_all: bool = False) -> None:
        self._factory, self.where, self._keep_all = factory, where, keep_all
        self._loaded: list[tuple[Variant, ImageGenerator]] = []
        self._failed: list[tuple[Variant, Failure]] = []

    def get(self, variant: Variant) -> ImageGenerator:
        """Return the generator of a variant, and load it if necessary. A failed load is not repeated.

        Raises:
            NotLoadedError: If loading raised, now or earlier.
            PerjouleError: If the factory raised it, the first time.
        """
        pipeline = variant.pipeline
        loaded = next((generator for known, generator in self._loaded if known == pipeline), None)
        if loaded is not None:
            return loaded
        failed = next((failure for known, failure in self._failed if known == pipeline), None)
        if failed is not None:
            raise NotLoadedError(failed)
        if not self._keep_all:
            self._loaded.clear()  # release the old weights before the new ones are read
        try:
            self._loaded.append((pipeline, self._factory(variant, where=self.where(variant))))
        except Exception as error:
            self._failed.append((pipeline, failure_of(error)))
            if isinstance(error, PerjouleError):
                raise
            raise NotLoadedError(self._failed[-1][1]) from error
        return self._loaded[-1][1]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyCell:
    """A cell whose pipeline is loaded and whose step policy is prepared."""

    cell: Cell
    generator: ImageGenerator
    policy: StepPolicy


def draw_cell(ready: ReadyCell, prompts: Sequence[str], seeds: Sequence[int]) -> Generation:
    """Generate one image per prompt and seed with the cell's step policy; used by trials and by energy tests."""
    return ready.policy.draw(ready.generator, prompts, seeds)


class Cells:
    """Prepares cells, and caches pipelines and step policies.

    Args:
        generators: Loaded pipelines.
        texts: All prompts of the run, for the preparation of step policies.
        keep_all: Keep all policies; otherwise a new policy replaces the others, to free the memory of their weights.
    """

    def __init__(self, generators: GeneratorCache, texts: Sequence[str], keep_all: bool = False) -> None:
        self._generators, self._texts, self._keep_all = generators, texts, keep_all
        self._policies: dict[str, StepPolicy] = {}

    def ready(self, cell: Cell) -> ReadyCell:
        """Load the pipeline and prepare the step policy, unless already done.

        Raises:
            UsageError: If a pipeline or a policy cannot be loaded.
        """
        if cell.cell_id not in self._policies and not self._keep_all:
            self._policies.clear()  # before the next weights are read
        generator = self._generators.get(cell.variant)
        if cell.cell_id not in self._policies:
            policy = load_policy(cell, self._generators.where)
            policy.prepare(generator, self._texts)
            self._policies[cell.cell_id] = policy
        return ReadyCell(cell=cell, generator=generator, policy=self._policies[cell.cell_id])


class Bench:
    """Does trials on one device: loads, warms up, measures idle power, opens the window.

    Args:
        plan: All trials of the run; step policies are prepared for their prompts.
        protocol: Protocol of the suite.
        meter: The open meter.
        generators: Loaded pipelines.
        image_file: Returns the path of an image by its id.
        on_hang: Stores the failed trial before a hanging process ends, see `perjoule.running.deadline`.

    Attributes:
        dead: Reason why no further trial is possible in this process, else None.
    """

    def __init__(
        self,
        plan: Sequence[Assignment],
        protocol: Protocol,
        meter: EnergyMeter,
        generators: GeneratorCache,
        image_file: Callable[[str], Path],
        on_hang: Callable[[Trial], object] = lambda trial: None,
    ) -> None:
        self._protocol, self._meter, self._image_file = protocol, meter, image_file
        self._on_hang = on_hang
        self._cells = Cells(generators, texts_of(plan), keep_all=protocol.interleave)
        self._plan, self._call_sizes = plan, call_sizes(plan)
        self._warm: list[str] = []
        self._idle_power_w: float | None = None
        self._rested = False
        self._unprepared: dict[str, Failure] = {}
        self._drawn: set[str] = set()
        # planned cell -> the largest batch that may fit, if the planned one never has
        self._fitting: dict[str, int] = {}
        self.dead: str | None = None

    def cool(self) -> None:
        """Let every variant be warmed up before its next window, after a pause."""
        self._warm.clear()

    def do(self, assignment: Assignment) -> Trial:
        """Do a trial and store its images; return a failed trial if its pipeline or step policy raises.

        If the protocol asks for it, a trial that does not fit into memory is tried again with smaller batches.

        Raises:
            MeterError: If the window cannot be opened.
            OSError: If the images cannot be written.
        """
        planned, attempts = assignment.cell, list[Trial]()
        size = self._fitting.get(planned.cell_id)
        while True:
            cell = planned if size is None else with_batch(planned, size)
            trial, failure = self._attempt(replace(assignment, cell=cell))
            smaller = min(cell.batch_size or len(assignment.prompts), len(assignment.prompts)) // 2
            is_full = failure is not None and failure.out_of_memory
            if not is_full or self._protocol.on_out_of_memory != "halve-batch" or smaller < 1:
                break
            attempts.append(trial)
            size = smaller
            if cell.cell_id not in self._drawn:
                self._fitting[planned.cell_id] = size
        if failure is not None:
            name, batch_size = planned.variant.name, planned.batch_size
            trial = replace(trial, cell_id=planned.cell_id, variant=name, batch_size=batch_size)
        else:
            self._drawn.add(cell.cell_id)
            if size is not None:
                trial = replace(trial, remarks=(*trial.remarks, _does_not_fit(planned, size)))
        return replace(trial, attempts=tuple(attempts))

    def _attempt(self, assignment: Assignment) -> tuple[Trial, Failure | None]:
        protocol, cell_id = self._protocol, assignment.cell.cell_id
        if cell_id in self._unprepared:
            return self._failed(assignment, self._unprepared[cell_id])
        try:
            ready = self._ready(assignment)
        except NotLoadedError as error:
            return self._failed(assignment, error.failure)
        except Exception as error:  # of the factory, the policy or the warm-up
            self._unprepared[cell_id] = failure_of(error)
            return self._failed(assignment, self._unprepared[cell_id])
        if not self._rested and protocol.idle_s:
            # after the first load, so that the device has the same context as in the windows
            self._idle_power_w, self._rested = self._meter.learn_idle(protocol.idle_s), True
        if protocol.cooldown_s:
            time.sleep(protocol.cooldown_s)
        trial, failure = run_trial(
            assignment,
            protocol,
            self._meter,
            ready,
            self._image_file,
            self._idle_power_w,
            lambda: self._deadline(assignment),
        )
        if failure is not None and failure.kills_context:
            self.dead = failure.reason
        return trial, failure

    def _deadline(self, assignment: Assignment) -> Deadline:
        return Deadline(
            self._protocol.timeout_s,
            lambda reason: self._on_hang(failed_trial(assignment, Failure(reason=f"TrialTimeoutError: {reason}"))),
        )

    def _failed(self, assignment: Assignment, failure: Failure) -> tuple[Trial, Failure]:
        if failure.kills_context:
            self.dead = failure.reason
        return failed_trial(assignment, failure), replace(failure, out_of_memory=False)  # no batch was drawn

    def _ready(self, assignment: Assignment) -> ReadyCell:
        """Return the cell of a trial with its pipeline loaded and warmed up."""
        protocol, cell = self._protocol, assignment.cell
        ready = self._cells.ready(cell)
        name = cell.variant.name
        if name not in self._warm:
            with self._deadline(assignment).running():
                _warm_up(ready, assignment, protocol.warmup_iterations, self._sizes(cell))
            # a variant whose pipeline was released in between must be warmed up again
            loaded = [one for one in self._warm if protocol.interleave or planned_name(one) == planned_name(name)]
            self._warm = [*loaded, name]
        return ready

    def _sizes(self, cell: Cell) -> list[int]:
        """Return the sizes of calls of a variant, which may have a smaller batch than planned."""
        name, planned = cell.variant.name, planned_name(cell.variant.name)
        if name not in self._call_sizes:
            own = [a for a in self._plan if a.cell.variant.name == planned]
            smaller = [replace(a, cell=with_batch(a.cell, cell.batch_size or 1)) for a in own]
            self._call_sizes |= call_sizes(smaller)
        return self._call_sizes[name]


def texts_of(plan: Sequence[Assignment]) -> list[str]:
    """Return the distinct prompts of a plan, in its order."""
    return list(dict.fromkeys(prompt.text for assignment in plan for prompt in assignment.prompts))


def run_trial(
    assignment: Assignment,
    protocol: Protocol,
    meter: EnergyMeter,
    ready: ReadyCell,
    image_file: Callable[[str], Path],
    idle_power_w: float | None = None,
    time_limit: Callable[[], Deadline] = lambda: Deadline(None),
) -> tuple[Trial, Failure | None]:
    """Measure one window, store and hash its images, and record failures.

    Raises:
        MeterError: If the window cannot be opened.
        OSError: If the images cannot be written.
    """
    texts = [prompt.text for prompt in assignment.prompts]
    result: Generation | None = None
    failure: Failure | None = None
    window: Window | None = None
    deadline = time_limit()

    def synchronize() -> None:
        # in a time of its own: after a trial that was too slow, the energy until now is still measured
        with time_limit().running():
            ready.generator.synchronize()

    try:
        with meter.window(
            label=assignment.trial_id, sync=synchronize, max_uncertainty=protocol.max_uncertainty
        ) as window:
            try:
                for _ in window.repeat(at_least=protocol.iterations):
                    with deadline.running():
                        result = draw_cell(ready, texts, assignment.seeds)
            except Exception as error:
                failure = failure_of(error, synchronize)
    except MeterError:
        raise
    except Exception as error:  # from waiting for the device, at either end of the window
        failure = failure or failure_of(error, synchronize)
    trial = failed_trial(assignment, failure or Failure(reason=""))
    if window is not None:
        reading = _with_net_energy(window.reading, idle_power_w)
        trial = replace(trial, reading=reading, iterations=reading.iterations or protocol.iterations)
    if failure is None and (problem := problem_of(result, len(texts))):
        failure = Failure(reason=problem)
        trial = replace(trial, failure=problem)
    prompt_warnings: tuple[str, ...] = ()
    if failure is None:
        try:
            prompt_warnings = _prompt_remarks(ready.generator, texts)
        except Exception as error:  # from a tokenizer, which is a part of the pipeline
            failure = failure_of(error)
            trial = replace(trial, failure=failure.reason, traceback=failure.traceback)
    if failure is not None or result is None:
        return trial, failure
    if trial.reading is not None:
        trial = replace(trial, reading=_with_steps(trial.reading, meter, result, trial.iterations))
    hashes, image_warnings = _store(result.images, assignment, image_file)
    finished = replace(
        trial,
        steps=tuple(int(steps) for steps in result.steps),  # numbers of numpy cannot be written as JSON
        nfe_per_image=float(result.nfe_per_image),
        image_count=len(texts),
        image_sha256=hashes,
        phases_s={k: round(float(v), 6) for k, v in result.phases_s.items()},
        failure=None,
        remarks=(*image_warnings, *prompt_warnings),
    )
    return finished, None


def failed_trial(assignment: Assignment, failure: Failure) -> Trial:
    """Return a failed trial with its reason."""
    cell = assignment.cell
    return Trial(
        trial_id=assignment.trial_id,
        cell_id=cell.cell_id,
        variant=cell.variant.name,
        role=cell.variant.role,
        policy=cell.variant.policy,
        block=assignment.block,
        prompts=tuple(prompt.text for prompt in assignment.prompts),
        prompt_ids=tuple(prompt.prompt_id for prompt in assignment.prompts),
        seeds=assignment.seeds,
        steps=(cell.steps,) * len(assignment.prompts) if cell.steps else (),
        nfe_per_image=None,
        image_count=0,
        iterations=0,
        reading=None,
        batch_size=cell.batch_size,
        failure=failure.reason,
        traceback=failure.traceback,
    )


def call_sizes(plan: Sequence[Assignment]) -> dict[str, list[int]]:
    """Return the sizes of pipeline calls that each variant may make in its windows, largest first.

    Cells of fixed steps make full calls, and one with the rest of a window. A step policy puts images of equal steps
    together, so its calls may have any size up to the batch size.
    """
    sizes: dict[str, set[int]] = {}
    for assignment in plan:
        cell, count = assignment.cell, len(assignment.prompts)
        if cell.steps is None:
            found = set(range(1, min(cell.batch_size or count, count) + 1))
        else:
            found = {len(rows) for rows in batches(count, cell.batch_size)}
        sizes.setdefault(cell.variant.name, set()).update(found)
    return {name: sorted(found, reverse=True) for name, found in sizes.items()}


def _warm_up(ready: ReadyCell, assignment: Assignment, iterations: int, sizes: Sequence[int]) -> None:
    """Warm up a cell with two steps, which are enough to allocate memory, choose kernels and fill caches.

    Kernels are chosen for each size of a call, so each of `sizes` is drawn: the first `iterations` times, the others
    once. A step policy, which may need a network of its own, is drawn once in addition.
    """
    texts, seeds = [prompt.text for prompt in assignment.prompts], list(assignment.seeds)
    steps = min(2, assignment.cell.steps or 2)
    rounds = [size for size in sizes for _ in range(iterations if size == sizes[0] else min(iterations, 1))]
    try:
        for size in rounds:
            repeats = -(-size // len(texts))  # a window may have fewer images than the largest call
            ready.generator.generate((texts * repeats)[:size], (seeds * repeats)[:size], steps)
        if assignment.cell.steps is None and iterations:
            draw_cell(ready, texts[: assignment.cell.batch_size], seeds[: assignment.cell.batch_size])
    except Exception as error:
        failure = failure_of(error, ready.generator.synchronize)
        if failure.kills_context:
            raise NotLoadedError(failure) from error
        # the trial itself will fail in the same way and record the reason


def _does_not_fit(cell: Cell, size: int) -> str:
    planned = f"{cell.batch_size} images" if cell.batch_size else "all images of the window"
    return warning("W266", f"{planned} per pipeline call did not fit into memory: drawn with {size}")


def _with_net_energy(reading: EnergyReading, idle_power_w: float | None) -> EnergyReading:
    """Add idle power from the run's own rest period, if the meter did not measure it."""
    if idle_power_w is None or reading.energy_j is None or reading.net_energy_j is not None:
        return reading
    return replace(
        reading,
        idle_power_w=idle_power_w,
        net_energy_j=reading.energy_j - idle_power_w * reading.duration_s,
    )


def _with_steps(reading: EnergyReading, meter: EnergyMeter, result: Generation, iterations: int) -> EnergyReading:
    """Add W215 if the denoising steps, or the network's evaluations in them, keep step with a part-time sensor."""
    if reading.energy_j is None or not isinstance(meter, BaseMeter):
        return reading
    steps, evaluations = max(result.steps, default=0), round(float(result.nfe_per_image))
    for count in dict.fromkeys((steps, evaluations)):
        said = meter.in_step(reading.duration_s / (iterations * count), reading.duration_s) if count > 0 else None
        if said is not None and said not in reading.warnings:
            return replace(reading, warnings=(*reading.warnings, said))
    return reading


def _prompt_remarks(generator: ImageGenerator, texts: Sequence[str]) -> tuple[str, ...]:
    return remarks(generator.read_prompts(texts), len(texts)) if reads_prompts(generator) else ()


def problem_of(result: object, count: int) -> str | None:
    """Return the error in a policy's result, which must contain `count` images; None if it is valid."""
    if not isinstance(result, Generation):
        return f"the step policy returned {type(result).__name__}, not a Generation"
    images = result.images
    if not isinstance(images, np.ndarray):
        return f"the pipeline returned {type(images).__name__}, not an array of images"
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) != count or images.shape[3] != 3 or not images.size:
        return f"the pipeline returned {images.dtype} images of shape {images.shape}, not ({count}, h, w, 3) uint8"
    if not isinstance(result.steps, Sized) or len(result.steps) != count:
        number = len(result.steps) if isinstance(result.steps, Sized) else "no"
        return f"the step policy returned {number} step counts for {count} images"
    numbers = {"steps": result.steps, "nfe_per_image": (result.nfe_per_image,), "phases_s": result.phases_s.values()}
    for name, values in numbers.items():
        if not all(isinstance(value, Real) and math.isfinite(value) for value in values):
            return f"the step policy returned {name} = {getattr(result, name)!r}: must be finite numbers"
    return None


def _store(
    images: Images, assignment: Assignment, image_file: Callable[[str], Path]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Write the images of block 0; return the SHA-256 of each image's pixels, and remarks."""
    from PIL import Image

    hashes = []
    for picture, prompt, seed in zip(images, assignment.prompts, assignment.seeds, strict=True):
        hashes.append(pixel_digest(picture))
        if assignment.block == 0:
            name = image_id(assignment.cell.cell_id, prompt.prompt_id, seed)
            with replacing(image_file(name)) as file:
                Image.fromarray(picture).save(file, "PNG", compress_level=1)
    flat_colours = [picture[0, 0] for picture in images if (picture == picture[0, 0]).all()]
    if not flat_colours:
        return tuple(hashes), ()
    colour = "#" + bytes(flat_colours[0]).hex()
    verb = "is" if len(flat_colours) == 1 else "are"
    return tuple(hashes), (
        warning("W270", f"{len(flat_colours)} of {len(images)} images {verb} of one colour ({colour})"),
    )
