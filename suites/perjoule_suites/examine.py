"""Examines a model before its weights are read.

It checks whether the model is a text-to-image pipeline, whether its files are complete, whether its scheduler works at
the step counts of the suite, and which prompts its text encoders cut. It uses only local files.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from perjoule.errors import PerjouleError, UsageError
from perjoule.types import Examination, PromptFindings, Sampling, Variant
from perjoule.weights.settings import settings_problem
from perjoule_suites import hub
from perjoule_suites.faults import broken_file, kind_and_line, quiet, size_words
from perjoule_suites.prompt_lengths import prompt_cuts, token_limits
from perjoule_suites.schedules import samplings_of, schedule_problems

# the arguments with which every pipeline is called
_CALLED_WITH = ("prompt", "guidance_scale", "generator", "output_type")
# inputs other than text, unless they are optional according to the pipeline's documentation
_OTHER_INPUTS = ("image", "images", "mask_image", "control_image", "video", "control_video")
_MOST_LATENT_PX = 10_000


def examine(variant: Variant, prompts: Sequence[str], where: str) -> Examination:
    """Examine a variant's model as far as its files are local.

    Args:
        variant: The variant.
        prompts: The prompts.
        where: Suite file and key, for messages.
    """
    try:
        folder, complete = hub.local_folder(variant, where)
        if folder is None:
            return Examination(unknown=f"{variant.model} is not downloaded yet")
        index = hub.read_index(folder, variant.model, f"{where}.model")
    except UsageError as error:
        return Examination(problems=(str(error),))
    quiet()  # called late, because it imports diffusers, which takes seconds
    try:
        problems = tuple(model_problems(folder, index, variant, where, complete=complete))
    except Exception as error:  # foreign files may contain anything
        problems = (
            f"{where}.model = {variant.model!r}: {folder} cannot be examined: {_words(error)}: download it again",
        )
    if problems:
        return Examination(problems=problems)
    try:
        findings = _prompt_findings(folder, index, variant, prompts)
        return Examination(findings=findings, side_px=_side_px(folder, index))
    except Exception as error:  # from a tokenizer's files
        if not complete:
            return Examination(unknown=f"{variant.model} is not downloaded completely")
        return Examination(
            problems=(f"{where}.model = {variant.model!r}: a tokenizer in {folder} cannot be read: {_words(error)}",)
        )


def samplings(variant: Variant, step_counts: Sequence[int], where: str) -> tuple[Sampling, ...] | str:
    """Return how a variant samples at each step count, or the reason why that is not known.

    Args:
        variant: The variant.
        step_counts: Values of `num_inference_steps`.
        where: Suite file and key, for messages.
    """
    try:
        folder, _ = hub.local_folder(variant, where)
        if folder is None:
            return f"{variant.model} is not downloaded yet"
        index = hub.read_index(folder, variant.model, f"{where}.model")
    except UsageError as error:
        return str(error)
    quiet()
    try:
        own, kind = _own_scheduler(folder, index), pipeline_class(index)
        if own is None or kind is None:
            return f"{variant.model} has no scheduler"
        return samplings_of(own, kind, variant, step_counts, where)
    except Exception as error:  # of foreign files, or of a step count that does not work
        return _words(error)


def model_problems(
    folder: Path, index: dict[str, Any], variant: Variant, where: str, *, complete: bool = True
) -> Iterator[str]:
    """Yield problems that prevent a model from generating images from text, with file, key, value and remedy.

    Args:
        folder: Folder of the model.
        index: Its model_index.json.
        variant: The variant.
        where: Suite file and key.
        complete: True if the folder must be complete, False if files may still be downloaded.
    """
    key = f"{where}.model = {variant.model!r}"
    kind = pipeline_class(index)
    if kind is None:
        yield (
            f"{key}: {folder / hub.INDEX}: _class_name = {index['_class_name']!r} is not a pipeline of diffusers; code "
            "in a model is not executed: use a model with one of diffusers' own text-to-image pipelines"
        )
        return
    if problem := input_problem(kind):
        yield (
            f"{key}: {folder / hub.INDEX}: _class_name = {kind.__name__!r}: {problem}: use a text-to-image pipeline, "
            "e.g. StableDiffusionPipeline"
        )
        return
    before = list(_component_problems(folder, index, kind, variant, key, complete))
    yield from before
    if before:
        return
    try:
        scheduler = _own_scheduler(folder, index)
    except Exception as error:  # from the scheduler's own checks, or because it is not a scheduler
        file = folder / "scheduler" / "scheduler_config.json"
        yield f"{key}: {file}: its scheduler cannot be created: {_words(error)}: copy or download it again"
        return
    if scheduler is not None:
        yield from schedule_problems(scheduler, kind, variant, where)


def pipeline_class(index: dict[str, Any]) -> Any:
    """Return the pipeline class in an index; None if diffusers does not have it."""
    import diffusers

    kind = getattr(diffusers, index["_class_name"], None)
    return kind if isinstance(kind, type) and issubclass(kind, diffusers.DiffusionPipeline) else None


def input_problem(kind: Any) -> str | None:
    """Return the reason why a pipeline class cannot generate images from text alone, or None."""
    function = kind.__call__
    known = inspect.signature(function).parameters
    needs = [
        name
        for name, parameter in known.items()
        if parameter.default is parameter.empty
        and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        and name not in ("self", "prompt")
    ]
    needs += [name for name in _OTHER_INPUTS if name in known and name not in needs and _is_needed(kind, name)]
    if needs:
        return f"it needs {' and '.join(needs)}, not only text"
    lacking = [name for name in _CALLED_WITH if name not in known]
    if lacking:
        return f"its call has no argument {' and no '.join(lacking)}"
    makes = set(re.findall(r"PipelineOutput\(\s*(\w+)=", _source(function)))
    if makes and "images" not in makes:
        return f"it makes {' and '.join(sorted(makes))}, not images"
    return None


def _is_needed(kind: Any, name: str) -> bool:
    from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING

    if name == "image" and kind in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values() and "ControlNet" not in kind.__name__:
        return False  # they generate from text, and edit an image only if it is given
    documented = re.search(rf"^\s*{name} \((.*)$", kind.__call__.__doc__ or "", re.MULTILINE)
    return documented is not None and "optional" not in documented[1]


def _component_problems(
    folder: Path, index: dict[str, Any], kind: Any, variant: Variant, key: str, complete: bool
) -> Iterator[str]:
    optional = set(getattr(kind, "_optional_components", ()))
    wanted = {
        name
        for name, parameter in inspect.signature(kind.__init__).parameters.items()
        if parameter.default is parameter.empty and name not in ("self", "args", "kwargs")
    }
    # a part may be null, e.g. the third text encoder of SD3, but not the scheduler
    available = (set(index) - {"scheduler"}) | {name for name, _, _ in hub.components(index)}
    for name in sorted(wanted - optional - available):
        yield f"{key}: {folder / hub.INDEX}: {name} is missing, which {kind.__name__} needs: download the model again"
    without = hub.unused(index, variant)
    for name, library, class_name in hub.components(index):
        if name in without:
            continue
        if not _is_known(library, class_name):
            yield (
                f"{key}: {folder / hub.INDEX}: {name} = [{library!r}, {class_name!r}] is not a class of the installed "
                "diffusers or transformers; code in a model is not executed: update the packages, or use "
                "another model"
            )
            continue
        part = folder / name
        if not part.is_dir():
            if complete:
                yield f"{key}: {part} is missing, which {hub.INDEX} names: copy or download the model again"
            continue
        yield from _file_problems(folder, part, index, variant, key, complete)


def _file_problems(
    folder: Path, part: Path, index: dict[str, Any], variant: Variant, key: str, complete: bool
) -> Iterator[str]:
    if problem := settings_problem(part, index[part.name][1]):
        yield f"{key}: {problem}"
        return
    files = hub.weight_files(folder, {part.name: index[part.name]}, variant, ())
    if (broken := broken_file(files.values())) is not None:
        yield (
            f"{key} cannot be loaded: {broken.relative_to(folder).as_posix()} is cut short or not a safetensors file "
            f"({size_words(broken)}): delete {hub.to_delete(broken)} and copy or download it again"
        )
    if not files and complete and _is_network(*index[part.name]):
        yield hub.no_weights(folder, part, key, variant)


def _own_scheduler(folder: Path, index: dict[str, Any]) -> Any:
    import diffusers

    entry = index.get("scheduler")
    if not entry or not (folder / "scheduler" / "scheduler_config.json").is_file():
        return None
    if problem := settings_problem(folder / "scheduler"):
        raise UsageError(problem)
    return getattr(diffusers, entry[1]).from_pretrained(folder, subfolder="scheduler", local_files_only=True)


def _prompt_findings(folder: Path, index: dict[str, Any], variant: Variant, prompts: Sequence[str]) -> PromptFindings:
    import transformers

    names = [(name, kind) for name, _, kind in hub.components(index) if name.startswith("tokenizer")]
    tokenizers = {
        name: getattr(transformers, kind).from_pretrained(folder / name, local_files_only=True) for name, kind in names
    }
    config = _denoiser_config(folder, index)
    embedded = config.get("time_cond_proj_dim") is not None or bool(config.get("guidance_embeds", False))
    return prompt_findings(tokenizers, pipeline_class(index), variant, prompts, embedded=embedded)


def prompt_findings(
    tokenizers: dict[str, Any], kind: type, variant: Variant, prompts: Sequence[str], *, embedded: bool
) -> PromptFindings:
    """Find parts of prompts without effect.

    Args:
        tokenizers: Tokenizers of the pipeline, by component name.
        kind: Pipeline class.
        variant: The variant.
        prompts: The prompts.
        embedded: Whether the guidance scale is an input of the denoiser, which then runs only once per step.
    """
    limits = token_limits(tokenizers, kind, variant.call_args)
    guided = (variant.guidance > 1 and not embedded) or float(variant.call_args.get("true_cfg_scale", 1.0)) > 1
    cuts = prompt_cuts(limits, prompts)
    if variant.negative_prompt and guided:
        cuts += tuple(replace(cut, negative=True) for cut in prompt_cuts(limits, [variant.negative_prompt]))
    return PromptFindings(cuts=cuts, negative_prompt_ignored=bool(variant.negative_prompt) and not guided)


def _denoiser_config(folder: Path, index: dict[str, Any]) -> dict[str, Any]:
    path = folder / hub.denoiser_name(index) / "config.json"
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return config


def _side_px(folder: Path, index: dict[str, Any]) -> int | None:
    """Return the side of the images as diffusers computes it: that of the latents times the factor of the decoder."""
    configs: list[Any] = []
    for name in (hub.denoiser_name(index), "vae"):
        path = folder / name / "config.json"
        try:
            configs.append(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):  # absent, or reported as a problem elsewhere
            return None
    match configs:
        case [{"sample_size": int(latent)}, {"block_out_channels": list(levels)}] if 0 < latent < _MOST_LATENT_PX:
            return latent * (1 << (len(levels) - 1)) if levels else None
    return None


def _is_known(library: str, class_name: str) -> bool:
    import diffusers
    import transformers

    known = {"diffusers": diffusers, "transformers": transformers}
    if library in known:
        return hasattr(known[library], class_name)
    return hasattr(diffusers.pipelines, library)  # e.g. stable_diffusion, for its safety checker


def _is_network(library: str, class_name: str) -> bool:
    import diffusers
    import transformers
    from torch import nn

    kind = getattr({"diffusers": diffusers, "transformers": transformers}.get(library), class_name, None)
    return isinstance(kind, type) and issubclass(kind, nn.Module)


def _source(function: Callable[..., Any]) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return ""


def _words(error: BaseException) -> str:
    return str(error) if isinstance(error, PerjouleError) else kind_and_line(error)
