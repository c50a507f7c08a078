"""The device that trials run on: pipelines loaded, the meter open, the system under test described."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from perjoule import registry
from perjoule.errors import DeviceLostError, PerjouleError, SuiteError, UsageError
from perjoule.meters import open_meter
from perjoule.prompts.findings import record_of
from perjoule.protocols import (
    EnergyMeter,
    ImageGenerator,
    reads_prompts,
)
from perjoule.running.examining import suite_folder
from perjoule.running.execute import execute
from perjoule.running.failures import Failure, failure_of
from perjoule.running.fidelity import sampling_findings
from perjoule.running.policies import load_policy
from perjoule.running.prepared import Prepared
from perjoule.running.trial import GeneratorCache, NotLoadedError
from perjoule.runs.environment import describe
from perjoule.runs.lock import measured_alone
from perjoule.suite.reading import cells_of
from perjoule.suite.smaller import planned_name
from perjoule.types import (
    Assignment,
    Cell,
    PromptFindings,
    Protocol,
    Suite,
    Variant,
)
from perjoule.weights.catalogue import weights_name
from perjoule.weights.models import relative_to


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Device on which trials can start: open meter, loaded pipelines, and the record of the system under test."""

    meter: EnergyMeter
    generators: GeneratorCache
    environment: dict[str, Any]

    def executor(self, plan: Sequence[Assignment], protocol: Protocol) -> Callable[..., None]:
        """Return `execute` without writer, progress and budget."""
        return partial(execute, plan, protocol=protocol, meter=self.meter, generators=self.generators)


@contextmanager
def ready(prepared: Prepared, cells: Sequence[Cell], meter_name: str, command: Sequence[str]) -> Iterator[Device]:
    """Prepare a device for trials: load pipelines, open the meter, describe the system.

    Every pipeline and step policy of the cells is loaded once, so that missing files and misspelt names are found now.
    If loading raises any other error, the trials of the cell fail with the reason, and the other cells continue.

    Raises:
        UsageError: If a pipeline or a policy is not available or its settings do not fit, or none can be loaded.
        DeviceLostError: If the device cannot run any further work.
        MeterError: If energy cannot be measured.
    """
    with torch_threads(prepared.suite.protocol.threads):
        pipelines = _load(prepared, cells)
        with open_meter(meter_name, of_networks=True) as meter, measured_alone(meter), relative_to(prepared.folder):
            yield _device(prepared, pipelines, meter, command)


@contextmanager
def ready_sides(sides: Sequence[Prepared], meter_name: str, command: Sequence[str]) -> Iterator[tuple[Device, ...]]:
    """Prepare one device for the trials of several suites, which share the meter; raises as `ready`.

    Torch uses the CPU threads of the first suite. Trials must run in `relative_to` of their suite's folder.
    """
    with torch_threads(sides[0].suite.protocol.threads):
        pipelines = [_load(side, cells_of(side.suite)) for side in sides]
        with open_meter(meter_name, of_networks=True) as meter, measured_alone(meter):
            yield tuple(_device(side, one, meter, command) for side, one in zip(sides, pipelines, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pipelines:
    """Pipelines of a suite that were loaded once, and what they consist of."""

    generators: GeneratorCache
    digests: dict[str, str]
    weights: dict[str, Any]
    not_loaded: dict[str, str]
    findings: dict[str, PromptFindings]
    unlike_references: list[Any]


def _load(prepared: Prepared, cells: Sequence[Cell]) -> _Pipelines:
    generators = generators_of(prepared.suite, prepared.source)
    digests: dict[str, str] = {}
    weights: dict[str, Any] = {}
    not_loaded: dict[str, str] = {}
    findings: dict[str, PromptFindings] = {}
    texts = [prompt.text for prompt in prepared.prompts]
    for cell in cells:
        try:
            with relative_to(prepared.folder):
                digest, sources, prompt_findings = _load_once(cell, generators, texts)
        except NotLoadedError as error:
            not_loaded[cell.cell_id] = _survivable(error.failure).reason
            continue
        except PerjouleError:
            raise
        except Exception as error:  # of the step policy
            not_loaded[cell.cell_id] = _survivable(failure_of(error)).reason
            continue
        findings[cell.variant.name] = prompt_findings
        digests[weights_name(cell.variant)] = digest
        for model, source in sources:
            weights = _with_files(weights, model, source)
    if len(not_loaded) == len(cells):
        reasons = "\n".join(f"{prepared.source}: {cell_id}: {reason}" for cell_id, reason in not_loaded.items())
        raise UsageError(f"no cell of {prepared.suite.name} can be loaded:\n{reasons}")
    with relative_to(prepared.folder):  # again, because models may have been downloaded since
        sampling = sampling_findings(prepared.suite, prepared.source)
    if problems := sampling.problems(prepared.full_reference):
        raise SuiteError("\n".join(problems))
    return _Pipelines(
        generators=generators,
        digests=digests,
        weights=weights,
        not_loaded=not_loaded,
        findings=findings,
        unlike_references=[one.facts for one in sampling.unlike],
    )


def _device(prepared: Prepared, pipelines: _Pipelines, meter: EnergyMeter, command: Sequence[str]) -> Device:
    with relative_to(prepared.folder):
        environment = describe(prepared.suite, meter, pipelines.digests, list(command))
    environment |= {
        "weights": pipelines.weights,
        "prompts": asdict(prepared.origin),
        "not_loaded": pipelines.not_loaded,
        "prompt_findings": record_of(pipelines.findings, prepared.prompts),
        "suite_folder": str(prepared.folder),
        "unlike_references": pipelines.unlike_references,
    }
    if prepared.shard is not None:
        environment |= {"shard": prepared.shard}
    return Device(meter=meter, generators=pipelines.generators, environment=environment)


def _load_once(
    cell: Cell, generators: GeneratorCache, texts: Sequence[str]
) -> tuple[str, list[tuple[str, dict[str, Any]]], PromptFindings]:
    """Load a cell's pipeline and prepare its policy, in a separate scope so that both are released at its end."""
    generator = generators.get(cell.variant)
    policy = load_policy(cell, generators.where)
    policy.prepare(generator, texts)
    findings = generator.read_prompts(texts) if reads_prompts(generator) else PromptFindings()
    # a policy may load other models itself
    sources = [*generator.sources.items(), *getattr(policy, "sources", {}).items()]
    return generator.digest, sources, findings


def _survivable(failure: Failure) -> Failure:
    if failure.kills_context:
        raise DeviceLostError(f"the GPU's context is dead: {failure.reason}; nothing was measured, start a new process")
    return failure


def _with_files(weights: dict[str, Any], model: str, source: dict[str, Any]) -> dict[str, Any]:
    """Return `weights` with the files of one more source; variants may use different files of one repository."""
    known = weights.get(model, {"files": {}})
    return weights | {model: source | {"files": known["files"] | source["files"]}}


def generators_of(suite: Suite, source: Path) -> GeneratorCache:
    """Return the pipelines of a suite, loaded on demand; `source` names its file in messages."""
    load = registry.load("generators", "diffusers", kind="generator")
    index = {variant.name: number for number, variant in enumerate(suite.variants)}
    folder = suite_folder(source)

    def factory(variant: Variant, *, where: str) -> ImageGenerator:
        with relative_to(folder):
            generator: ImageGenerator = load(variant, where=where)
            return generator

    def where(variant: Variant) -> str:
        return f"{source}: variants[{index[planned_name(variant.name)]}]"

    return GeneratorCache(factory, where, keep_all=suite.protocol.interleave)


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let torch use `count` CPU threads, and restore the old number afterwards."""
    if count is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
