"""Examines the models of a suite before anything is downloaded, loaded or measured."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from perjoule import registry
from perjoule.errors import RunError, SuiteError, UnknownNameError, UsageError, install_command
from perjoule.files import read_json
from perjoule.prompts.findings import record_of, sentences
from perjoule.protocols import examines_models
from perjoule.types import Examination, Prompt, Suite, Variant
from perjoule.weights.models import find_path, resolve_model

# the package of a metric, where drawing images does not need it as well
_SCORERS = {"cvvdp": "pycvvdp", "lpips": "lpips", "fid": "torch_fidelity"}


def scorers(suite: Suite) -> dict[str, str]:
    """Return the package that each metric needs, by metric, without those that drawing images needs as well."""
    return {name: _SCORERS[name] for name in suite.metrics.names if name in _SCORERS}


def require_extras(suite: Suite, path: Path) -> None:
    """Raise UsageError if a package that draws or scores images is not installed; names the extras."""
    missing = [name for name in ("diffusers", *scorers(suite).values()) if find_spec(name) is None]
    if missing:
        raise UsageError(f"{path}: {', '.join(missing)} not installed: {install_command(*missing)}")


def suite_folder(path: Path) -> Path:
    """Return the folder in which a suite's relative model names are searched for first: its own.

    For the copy of a suite in a run directory it is the folder of the original suite.
    """
    record = path.parent / "environment.json"
    recorded = read_json(record).get("suite_folder") if record.is_file() else None
    if recorded is not None and not isinstance(recorded, str):
        raise RunError(f"{record}: suite_folder = {recorded!r}: must be the path of a folder, or be left out")
    return Path(recorded) if recorded else path.parent.resolve()


def name_problems(suite: Suite, path: Path) -> Iterator[tuple[Variant, str]]:
    """Yield models, schedulers and step policies that do not exist. Imports neither torch nor diffusers.

    Args:
        suite: The suite.
        path: Suite file, for messages.
    """
    for number, variant in enumerate(suite.variants):
        where = f"{path}: variants[{number}]"
        for key in ("", "denoiser.", "lora."):
            part = getattr(variant, key[:-1]) if key else variant
            if part is not None and (problem := _model_problem(part.model, f"{where}.{key}model")):
                yield variant, problem
        known = scheduler_names()
        if known and variant.scheduler not in {"", *known}:
            near = get_close_matches(variant.scheduler, known, n=3, cutoff=0.5) or sorted(known)
            problem = f"{where}.scheduler = {variant.scheduler!r} is not a scheduler of diffusers"
            yield variant, f"{problem}: did you mean {', '.join(near)}?"
        policies = registry.registered("policies")
        if variant.policy not in {"fixed", *policies}:
            yield variant, str(UnknownNameError("step policy", variant.policy, policies, f"{where}.policy"))


def _model_problem(name: str, where: str) -> str | None:
    if find_path(name) is not None or Path(name).suffix[1:2].isalpha():
        return None  # the generator explains names of single files
    try:
        resolve_model(name, where)
    except UsageError as error:
        return str(error)
    return None


@cache
def scheduler_names() -> tuple[str, ...]:
    """Return the schedulers of the installed diffusers, read from its source, since its import takes seconds."""
    spec = find_spec("diffusers")
    source = Path(spec.origin).parent / "schedulers" / "__init__.py" if spec and spec.origin else None
    if source is None or not source.is_file():
        return ()
    return tuple(sorted(set(re.findall(r'"(\w+Scheduler)"', source.read_text(encoding="utf-8")))))


def model_examinations(suite: Suite, texts: Sequence[str], path: Path) -> Iterator[tuple[Variant, Examination]]:
    """Yield the examination of each variant's model, if its generator supports this.

    Args:
        suite: The suite.
        texts: The prompts.
        path: Suite file, for messages.
    """
    factory = registry.load("generators", "diffusers", kind="generator")
    if examines_models(factory):
        for number, variant in enumerate(suite.variants):
            yield variant, factory.examine(variant, texts, where=f"{path}: variants[{number}]")


def examine_models(suite: Suite, texts: Sequence[str], path: Path) -> dict[str, Examination]:
    """Return the examination of each variant's model, by variant.

    Raises:
        SuiteError: If any variant cannot run; the message lists file, key, value and remedy of each.
    """
    examinations = {variant.name: examination for variant, examination in model_examinations(suite, texts, path)}
    problems = [problem for examination in examinations.values() for problem in examination.problems]
    if problems:
        raise SuiteError("\n".join(problems))
    return examinations


def prompt_notes(examinations: Mapping[str, Examination], prompts: Sequence[Prompt]) -> Iterator[str]:
    """Yield sentences about prompts that are cut and negative prompts without effect, or why that is unknown."""
    known = {name: exam.findings for name, exam in examinations.items() if exam.findings is not None}
    yield from sentences(record_of(known, prompts))
    unknown: dict[str, list[str]] = {}
    for name, exam in examinations.items():
        if exam.findings is None:
            unknown.setdefault(exam.unknown, []).append(name)
    for reason, names in unknown.items():
        yield f"it is unknown which prompts the text encoder of {', '.join(names)} cuts before its download: {reason}"
