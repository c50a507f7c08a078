"""Prepares a suite: reads it, checks it as far as possible without running it, and plans its trials."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from perjoule.errors import SuiteError, UsageError
from perjoule.files import exists
from perjoule.prompts import Origin, TextEncoder, read_prompt_set
from perjoule.protocols import (
    QualityMetric,
    SetMetric,
    judges_sets,
)
from perjoule.quality import load_metric, uses_reference
from perjoule.quality.clip_encoder import fetch, load_encoder, weights_digest
from perjoule.quality.options import resolve_device
from perjoule.running.examining import examine_models, name_problems, require_extras, suite_folder
from perjoule.running.fidelity import sampling_findings
from perjoule.running.resuming import stored_prompts
from perjoule.runs.directory import is_run, load_run
from perjoule.suite.reading import find_suite, images_per_window, is_imported, load_suite, smoke_of
from perjoule.suite.schedule import make_plan
from perjoule.types import (
    Assignment,
    Examination,
    Prompt,
    Suite,
)
from perjoule.weights.catalogue import revision_of, with_models
from perjoule.weights.models import relative_to, resolve_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A suite that was checked as far as possible without running it.

    `notes` are messages for the user; `examinations` are by variant; `full_reference` names the metrics that compare
    images with the longest run of their family; `shard` is the part of the prompts, e.g. `1/4`, None for all.
    """

    suite: Suite
    source: Path
    prompts: tuple[Prompt, ...]
    origin: Origin
    plan: list[Assignment]
    metrics: list[QualityMetric | SetMetric]
    notes: tuple[str, ...] = ()
    full_reference: tuple[str, ...] = ()
    examinations: Mapping[str, Examination] = field(default_factory=dict)
    shard: str | None = None

    @property
    def folder(self) -> Path:
        """Folder in which relative names of models are searched for first."""
        return suite_folder(self.source)

    @property
    def sides_px(self) -> dict[str, int]:
        """Side of the images that a model draws by itself, by variant, where its files state it."""
        return {name: exam.side_px for name, exam in self.examinations.items() if exam.side_px is not None}


def prepare(
    suite_name: str,
    limit: int | None = None,
    *,
    models: Sequence[str] = (),
    smoke: bool = False,
    side_px: int | None = None,
    resume: Path | None = None,
    shard: str | None = None,
) -> Prepared:
    """Read suite and prompts, load the metrics, and make the plan.

    Args:
        suite_name: Built-in name or file.
        limit: Number of prompts.
        models: Replacements of repositories, see `catalogue.with_models`.
        smoke: Make a minimal run, see `suite.smoke_of`.
        side_px: Size of the images of a minimal run.
        resume: Run directory; if it already contains a run, its prompts are used, see `resuming.stored_prompts`.
        shard: Part of the prompts, e.g. `1/4`, see `shard_of`.

    Raises:
        SuiteError: If the suite is invalid.
        RunError: If the prompts of the run to resume were changed.
        UnknownNameError: If a suite, metric, model or prompt set is unknown.
    """
    path = find_suite(suite_name)
    with relative_to(suite_folder(path)):
        return _prepare(path, limit, models=models, smoke=smoke, side_px=side_px, resume=resume, shard=shard)


def _prepare(
    path: Path,
    limit: int | None,
    *,
    models: Sequence[str],
    smoke: bool,
    side_px: int | None,
    resume: Path | None,
    shard: str | None,
) -> Prepared:
    suite = with_models(load_suite(path), models)
    if is_imported(suite):
        raise SuiteError(
            f"{path}: prompts.source = {suite.prompts.source!r}: `perjoule import` wrote this suite, which describes "
            "a table and not how to generate the images; it cannot be run"
        )
    if problems := [problem for _, problem in name_problems(suite, path)]:
        raise SuiteError("\n".join(problems))
    require_extras(suite, path)
    if smoke:
        suite = smoke_of(suite, side_px)
    elif side_px is not None:
        raise UsageError("--size needs --smoke: add it, or set width_px and height_px in the suite")
    if limit is not None:
        if limit < 1:
            raise UsageError(f"--limit {limit}: at least 1 prompt is needed")
        suite = replace(suite, prompts=replace(suite.prompts, limit=limit))
    notes: tuple[str, ...] = ()
    if resume is not None and is_run(resume):
        begun = load_run(resume)
        if shard not in (None, begun.environment.get("shard")):
            raise UsageError(
                f"--shard {shard}: {resume} has the shard {begun.environment.get('shard')}: leave the option out"
            )
        stored = stored_prompts(begun, suite.prompts, path.parent)
        suite = replace(suite, prompts=stored.source)
        prompts, origin, notes = stored.prompts, stored.origin, (stored.note,) if stored.note else ()
    else:
        suite, prompts, origin = with_prompts(suite, path)
        if shard is not None:
            prompts = shard_of(prompts, images_per_window(suite), shard)
    metrics = [
        load_metric(name, dict(suite.metrics.options.get(name, {})), f"{path}: metrics.options.{name}")
        for name in suite.metrics.names
    ]
    if judges_sets(metrics[suite.metrics.names.index(suite.metrics.primary)]):
        raise SuiteError(
            f"{path}: metrics.primary = {suite.metrics.primary!r}: it scores sets instead of images and is "
            "advisory: choose another primary metric"
        )
    plan = make_plan(suite, prompts)
    examinations = examine_models(suite, [prompt.text for prompt in prompts], path)
    full_reference = tuple(
        name for name, metric in zip(suite.metrics.names, metrics, strict=True) if uses_reference(metric)
    )
    findings = sampling_findings(suite, path)
    if problems := findings.problems(full_reference):
        raise SuiteError("\n".join(problems))
    return Prepared(
        suite=suite,
        source=path,
        prompts=prompts,
        origin=origin,
        plan=plan,
        metrics=metrics,
        notes=(*notes, *findings.notes(full_reference)),
        full_reference=full_reference,
        examinations=examinations,
        shard=shard,
    )


def shard_of(prompts: Sequence[Prompt], per_window: int, shard: str) -> tuple[Prompt, ...]:
    """Return a part of the prompts for one of several machines; `perjoule merge` joins the runs.

    Parts consist of whole windows, so that the merged run has the windows of one plan.

    Args:
        prompts: All prompts.
        per_window: Images per window.
        shard: `I/N`, the I-th of N parts, from 1.

    Raises:
        UsageError: If it is not such a text, or the part has no prompt.
    """
    number, _, count = shard.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UsageError(f"--shard {shard}: write I/N, e.g. 1/4 for the first of four parts")
    windows = math.ceil(len(prompts) / per_window)
    if int(count) > windows:
        raise UsageError(
            f"--shard {shard}: {len(prompts)} prompts in windows of {per_window} images make {windows} parts at most"
        )
    first, end = (windows * part // int(count) * per_window for part in (int(number) - 1, int(number)))
    return tuple(prompts[first:end])


def with_prompts(suite: Suite, path: Path) -> tuple[Suite, tuple[Prompt, ...], Origin]:
    """Read the prompts of a suite; return the suite with an absolute path to its prompt file, prompts, and origin.

    Raises:
        SuiteError: If the prompts cannot be read.
    """
    prompt_file = path.parent / suite.prompts.source
    if not suite.prompts.source.startswith("builtin:") and exists(prompt_file) and prompt_file.is_file():
        # a relative path would be wrong in the copy of the suite in the run directory
        absolute = str(prompt_file.resolve())
        suite = replace(suite, prompts=replace(suite.prompts, source=absolute))
    encoder = text_encoder(suite.prompts.select_model, f"{path}: prompts") if suite.prompts.select else None
    prompts, origin = read_prompt_set(suite.prompts, where=f"{path}: prompts.source", encoder=encoder)
    return suite, prompts, origin


def text_encoder(model: str, where: str) -> TextEncoder:
    """Return the text encoder of a CLIP model, by which prompts are selected; a hub id is downloaded.

    Raises:
        SuiteError: If the model is not available.
    """
    metric = "clip-farthest"
    try:
        folder = fetch(resolve_model(model, f"{where}.select_model"), revision_of(model), metric)
        encoder = load_encoder(folder, resolve_device("auto", metric))
    except UsageError as error:
        reason = str(error).removeprefix(f"metric {metric}: ")
        raise SuiteError(
            f"{where}.select_model = {model!r}: select = 'clip-farthest' needs this text encoder: {reason}; download "
            "it first, name a folder or builtin:clip-tiny, or remove `select` to use the stratified order"
        ) from error
    return TextEncoder(embed=encoder.texts, weights=weights_digest(folder))
