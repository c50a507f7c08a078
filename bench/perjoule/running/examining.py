"""Examines the models of a suite before anything is downloaded, loaded or measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from perjoule import registry
from perjoule.errors import SuiteError
from perjoule.files import read_json
from perjoule.prompts.findings import record_of, sentences
from perjoule.protocols import examines_models
from perjoule.types import Examination, Prompt, Suite, Variant


def suite_folder(path: Path) -> Path:
    """Return the folder in which a suite's relative model names are searched for first: its own.

    For the copy of a suite in a run directory it is the folder of the original suite.
    """
    record = path.parent / "environment.json"
    recorded = read_json(record).get("suite_folder") if record.is_file() else None
    return Path(recorded) if recorded else path.parent.resolve()


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
    found = {variant.name: examination for variant, examination in model_examinations(suite, texts, path)}
    problems = [problem for examination in found.values() for problem in examination.problems]
    if problems:
        raise SuiteError("\n".join(problems))
    return found


def prompt_notes(examinations: Mapping[str, Examination], prompts: Sequence[Prompt]) -> Iterator[str]:
    """Yield sentences about prompts that are cut and negative prompts without effect, or why that is unknown."""
    known = {name: found.findings for name, found in examinations.items() if found.findings is not None}
    yield from sentences(record_of(known, prompts))
    unknown: dict[str, list[str]] = {}
    for name, found in examinations.items():
        if found.findings is None:
            unknown.setdefault(found.unknown, []).append(name)
    for reason, names in unknown.items():
        yield f"it is unknown which prompts the text encoder of {', '.join(names)} cuts before its download: {reason}"
