"""Checks the requirements of a suite without downloading: packages, weights, licences, memory, disk."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from perjoule.errors import PerjouleError, install_command
from perjoule.files import free_bytes
from perjoule.quality import load_metric, uses_reference
from perjoule.running.examining import model_examinations, name_problems, scorers, suite_folder
from perjoule.running.fidelity import sampling_findings
from perjoule.runs.environment import nvidia_gpus
from perjoule.types import Suite, Variant
from perjoule.weights.catalogue import facts_of, repositories
from perjoule.weights.models import find_path, relative_to

State = Literal["ok", "missing", "note"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A requirement of a suite.

    Attributes:
        kind: Kind of requirement.
        name: Package, repository, or resource.
        state: `missing` stops a run, a `note` should be read, `ok` is available.
        says: The finding, and its remedy.
    """

    kind: Literal["package", "model", "weights", "licence", "token", "memory", "disk"]
    name: str
    state: State
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteNeeds:
    """What `perjoule doctor --suite SUITE --json` prints."""

    suite: str
    ready: bool
    needs: tuple[Need, ...]


def examine(suite: Suite, source: Path | None = None) -> SuiteNeeds:
    """Return all requirements of the suite, in the order in which to meet them, and whether a run can start.

    Args:
        suite: The suite.
        source: Its file; relative model names start from its folder.

    Weights that are not in the hub's cache are missing only if `HF_HUB_OFFLINE` is set, because a run downloads them.
    """
    with relative_to(suite_folder(source)) if source else nullcontext():
        needs = tuple(_examine(suite, source))
    return SuiteNeeds(suite=suite.name, ready=all(need.state != "missing" for need in needs), needs=needs)


def _examine(suite: Suite, source: Path | None) -> list[Need]:
    packages = _packages(suite)
    if any(need.name == "diffusers" and need.state == "missing" for need in packages):
        return [*packages, *_names(suite, source), *_predictors(suite), *_memory(suite)]
    scoring = [str(o["model"]) for o in suite.metrics.options.values() if "model" in o]
    if suite.prompts.select:
        scoring.append(suite.prompts.select_model)
    drawing = [name for variant in suite.variants for name in repositories(variant)]
    models = list(dict.fromkeys(drawing + scoring))
    # `_pipelines` reports missing paths and files
    hub = [name for name in models if not name.startswith("builtin:") and find_path(name) is None and _is_hub_id(name)]
    cached = {name for name in hub if _is_cached(name)}
    return [
        *packages,
        *(_names(suite, source) or _pipelines(suite, source)),
        *(need for name in hub for need in _terms(name, name in cached)),
        *(_weights(name, name in cached) for name in hub),
        *_predictors(suite),
        *_memory(suite),
        *_disk(suite, set(hub) - cached),
    ]


def _names(suite: Suite, source: Path | None) -> list[Need]:
    """Return names of models, schedulers and policies that do not exist."""
    problems = name_problems(suite, source or Path(suite.name))
    return [Need(kind="model", name=variant.model, state="missing", says=says) for variant, says in problems]


def _pipelines(suite: Suite, source: Path | None) -> list[Need]:
    """Examine every model whose files are local, without reading weights."""
    needs = []
    for variant, examination in model_examinations(suite, (), source or Path(suite.name)):
        needs += [Need(kind="model", name=variant.model, state="missing", says=says) for says in examination.problems]
        if not examination.problems and not examination.unknown:
            says = f"generates images from text, with the schedules of {variant.name}"
            needs.append(Need(kind="model", name=variant.model, state="ok", says=says))
    return [*needs, *_samplers(suite, source)]


def _samplers(suite: Suite, source: Path | None) -> list[Need]:
    """Check that the images of each family can be compared with its longest run."""
    findings = sampling_findings(suite, source or Path(suite.name))
    metrics: list[str] = []
    for name in suite.metrics.names:
        with suppress(PerjouleError, ModuleNotFoundError):  # a missing package is a need of its own
            metric = load_metric(name, dict(suite.metrics.options.get(name, {})), suite.name)
            metrics += [name] if uses_reference(metric) else []
    return [
        *(Need(kind="model", name="samplers", state="missing", says=says) for says in findings.problems(metrics)),
        *(Need(kind="model", name="samplers", state="note", says=says) for says in findings.notes(metrics)),
    ]


def _is_hub_id(name: str) -> bool:
    return name.count("/") <= 1 and not name.startswith((".", "/", "~"))


def as_text(found: SuiteNeeds) -> str:
    """Return the requirements as text, missing ones first."""
    missing = sum(need.state == "missing" for need in found.needs)
    head = f"{found.suite}: {missing or 'nothing'} missing"
    marks = {"missing": "MISSING", "note": "note", "ok": "ok"}
    order = sorted(found.needs, key=lambda need: list(marks).index(need.state))
    return "\n".join([head, *(f"  {marks[n.state]:8}{n.kind:9}{n.name}: {n.says}" for n in order)])


def _packages(suite: Suite) -> list[Need]:
    wanted = {"diffusers": [variant.name for variant in suite.variants]}
    for variant in suite.variants:
        if variant.lora:
            wanted.setdefault("peft", []).append(variant.name)
        if variant.cache and variant.cache.kind == "deepcache":
            wanted.setdefault("DeepCache", []).append(variant.name)
    wanted |= {module: [name] for name, module in scorers(suite).items()}
    by_pyiqa = [name for name in suite.metrics.names if name.startswith("pyiqa:")]
    if by_pyiqa:
        wanted["pyiqa"] = by_pyiqa
    needs = []
    for module, users in wanted.items():
        installed = find_spec(module) is not None
        says = f"for {', '.join(users)}" + ("" if installed else f": {install_command(module)}")
        needs.append(Need(kind="package", name=module, state="ok" if installed else "missing", says=says))
    return needs


def _terms(model: str, cached: bool) -> list[Need]:
    facts = facts_of(model)
    if facts is None:
        return [Need(kind="licence", name=model, state="note", says="not in the catalogue: read its card")]
    says = f"{facts.licence}, commercial use: {facts.commercial} ({facts.licence_url})"
    state: State = "ok" if facts.commercial == "yes" else "note"
    needs = [Need(kind="licence", name=model, state=state, says=f"{says}; {facts.note}" if facts.note else says)]
    if facts.gated:
        needs.append(_token(model, cached))
    return needs


def _token(model: str, cached: bool) -> Need:
    from huggingface_hub import get_token

    if cached:
        return Need(kind="token", name=model, state="ok", says="gated, but in the cache already")
    page = f"https://huggingface.co/{model}"
    if get_token() is None:
        return Need(
            kind="token",
            name=model,
            state="missing",
            says=f"gated: accept the licence at {page}, then `hf auth login` or set HF_TOKEN",
        )
    return Need(kind="token", name=model, state="note", says=f"gated: your account must accept the licence at {page}")


def _weights(model: str, cached: bool) -> Need:
    from huggingface_hub import constants

    facts = facts_of(model)
    size = f"about {facts.size_mib / 1024:.1f} GiB" if facts and facts.size_mib else "of unknown size"
    if cached:
        return Need(kind="weights", name=model, state="ok", says=f"in {constants.HF_HUB_CACHE}")
    if constants.HF_HUB_OFFLINE:
        return Need(
            kind="weights",
            name=model,
            state="missing",
            says=f"{size}, not in {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE is set",
        )
    return Need(kind="weights", name=model, state="note", says=f"{size}, will be downloaded from {constants.ENDPOINT}")


def _predictors(suite: Suite) -> list[Need]:
    """Check step predictors and routers in folders; those with a name are checked when the suite is loaded."""
    makers = {"predictor": "budgetfusion", "router": "route"}
    names = {(str(v.policy_args[key]), key) for v in suite.variants for key in makers if key in v.policy_args}
    needs = []
    for name, key in sorted(names):
        if name.startswith((".", "/", "~")):
            exists = find_path(name) is not None
            says = "exists" if exists else f"train it first: perjoule {makers[key]} train --help"
            needs.append(Need(kind="weights", name=name, state="ok" if exists else "missing", says=says))
    return needs


def _memory(suite: Suite) -> list[Need]:
    needs = {v.name: need for v in suite.variants if (need := _vram_mib(v)) is not None}
    if not needs:
        return []
    largest = max(needs, key=lambda name: needs[name])
    needed_mib = needs[largest]
    says = f"{needed_mib / 1024:.1f} GiB (approximate) for {largest} at batch 1"
    boards = nvidia_gpus()
    if not boards:
        return [Need(kind="memory", name="GPU", state="note", says=f"{says}; without an NVIDIA GPU the CPU is used")]
    name = boards[0]["name"] or "GPU"
    if boards[0]["memory_bytes"] is None:  # boards that share the CPU's memory do not report it
        return [Need(kind="memory", name=name, state="note", says=f"{says}; the board does not report its memory")]
    memory_mib = boards[0]["memory_bytes"] >> 20
    state: State = "ok" if memory_mib >= needed_mib else "missing"
    return [Need(kind="memory", name=name, state=state, says=f"{says}; {memory_mib / 1024:.1f} GiB available")]


def _vram_mib(variant: Variant) -> int | None:
    known = [facts.vram_mib for model in repositories(variant) if (facts := facts_of(model)) and facts.vram_mib]
    return max(known, default=None)


def _disk(suite: Suite, missing: set[str]) -> list[Need]:
    from huggingface_hub import constants

    if not missing:
        return []
    files: dict[tuple[str, str], int] = {}
    for variant in suite.variants:
        parts = [(variant.model, ""), *((p.model, p.file) for p in (variant.denoiser, variant.lora) if p is not None)]
        for model, file in parts:
            facts = facts_of(model)
            if model in missing and facts and facts.size_mib:
                files[model, file] = facts.size_mib
    need, cache = sum(files.values()), Path(constants.HF_HUB_CACHE)
    free = free_bytes(cache) >> 20
    says = f"about {need / 1024:.1f} GiB to download, {free / 1024:.1f} GiB free"
    if free < need:
        return [Need(kind="disk", name=str(cache), state="missing", says=f"{says}: free some space, or set HF_HOME")]
    return [Need(kind="disk", name=str(cache), state="ok", says=says)]


def _is_cached(model: str) -> bool:
    """Return whether the hub's cache has weights of a model; a run checks whether they are complete."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{model.replace('/', '--')}" / "snapshots"
    return any(next(folder.rglob(f"*{suffix}"), None) for suffix in (".safetensors", ".bin"))
