"""What can be known of a model before its weights are read.

Whether it is a text-to-image pipeline, whether its files are whole, whether its scheduler works at the step counts of
the suite, and which prompts its text encoders cut. Looks at files that are here; downloads nothing.
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
from perjoule.types import Examination, PromptFindings, Variant
from perjoule_suites import hub
from perjoule_suites.faults import broken_file, first_line, kind_and_line, quiet
from perjoule_suites.prompt_lengths import prompt_cuts, token_limits
from perjoule_suites.schedules import schedule_problems

# the arguments with which every pipeline is called
_CALLED_WITH = ("prompt", "guidance_scale", "generator", "output_type")
# inputs other than text, unless the pipeline's documentation calls them optional
_OTHER_INPUTS = ("image", "images", "mask_image", "control_image", "video", "control_video")
_CONFIGS = ("config.json", "scheduler_config.json", "tokenizer_config.json", "preprocessor_config.json")


def examine(variant: Variant, prompts: Sequence[str], where: str) -> Examination:
    """Examine a variant's model as far as its files are here.

    Args:
        variant: The variant.
        prompts: Texts to be drawn.
        where: Suite file and key, for messages.
    """
    try:
        folder, here = hub.local_folder(variant, where)
        if folder is None:
            return Examination(unknown=f"{variant.model} is not downloaded yet")
        index = hub.read_index(folder, variant.model, f"{where}.model")
    except UsageError as error:
        return Examination(problems=(str(error),))
    quiet()  # not before: it imports diffusers, which takes seconds
    try:
        problems = tuple(model_problems(folder, index, variant, where, complete=here))
    except Exception as error:  # of the files of others, which hold what nobody foresaw
        problems = (
            f"{where}.model = {variant.model!r}: {folder} cannot be examined: {_words(error)}: download it again",
        )
    if problems:
        return Examination(problems=problems)
    try:
        return Examination(findings=_prompt_findings(folder, index, variant, prompts))
    except Exception as error:  # of a tokenizer's files
        if not here:
            return Examination(unknown=f"{variant.model} is not downloaded completely")
        return Examination(
            problems=(f"{where}.model = {variant.model!r}: a tokenizer in {folder} cannot be read: {_words(error)}",)
        )


def model_problems(
    folder: Path, index: dict[str, Any], variant: Variant, where: str, *, complete: bool = True
) -> Iterator[str]:
    """Yield what keeps a model from drawing images from text; each problem names file, key, value and remedy.

    Args:
        folder: Of the model.
        index: Its model_index.json.
        variant: What is asked of it.
        where: Suite file and key.
        complete: Whether a file that is not there is missing, or may still be downloaded.
    """
    key = f"{where}.model = {variant.model!r}"
    kind = pipeline_class(index)
    if kind is None:
        yield (
            f"{key}: {folder / hub.INDEX}: _class_name = {index['_class_name']!r} is not a pipeline of diffusers; code "
            "that comes with a model is not run: take a model with one of diffusers' own text-to-image pipelines"
        )
        return
    if problem := input_problem(kind):
        yield (
            f"{key}: {folder / hub.INDEX}: _class_name = {kind.__name__!r}: {problem}: take a text-to-image pipeline, "
            "such as StableDiffusionPipeline"
        )
        return
    before = list(_component_problems(folder, index, kind, variant, key, complete))
    yield from before
    if before:
        return
    try:
        scheduler = _own_scheduler(folder, index)
    except Exception as error:  # of the scheduler's own checks, and of what is not a scheduler
        file = folder / "scheduler" / "scheduler_config.json"
        yield f"{key}: {file}: its scheduler cannot be made: {_words(error)}: copy or download it again"
        return
    if scheduler is not None:
        yield from schedule_problems(scheduler, kind, variant, where)


def pipeline_class(index: dict[str, Any]) -> Any:
    """The pipeline class that an index names; None if diffusers has none of that name."""
    import diffusers

    kind = getattr(diffusers, index["_class_name"], None)
    return kind if isinstance(kind, type) and issubclass(kind, diffusers.DiffusionPipeline) else None


def input_problem(kind: Any) -> str | None:
    """Why a pipeline class does not draw images from a text alone; None if it does."""
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
        return f"it needs {' and '.join(needs)}, not a text alone"
    lacking = [name for name in _CALLED_WITH if name not in known]
    if lacking:
        return f"its call takes no {' and no '.join(lacking)}"
    makes = set(re.findall(r"PipelineOutput\(\s*(\w+)=", _source(function)))
    if makes and "images" not in makes:
        return f"it makes {' and '.join(sorted(makes))}, not images"
    return None


def _is_needed(kind: Any, name: str) -> bool:
    from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING

    if name == "image" and kind in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values() and "ControlNet" not in kind.__name__:
        return False  # they draw from text, and edit an image if there is one
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
    # a part may be null, such as the third text encoder of SD3, but not the scheduler
    there = (set(index) - {"scheduler"}) | {name for name, _, _ in hub.components(index)}
    for name in sorted(wanted - optional - there):
        yield f"{key}: {folder / hub.INDEX}: {name} is missing, which {kind.__name__} needs: download the model again"
    without = hub.unused(index, variant)
    for name, library, class_name in hub.components(index):
        if name in without:
            continue
        if not _is_known(library, class_name):
            yield (
                f"{key}: {folder / hub.INDEX}: {name} = [{library!r}, {class_name!r}] is not a class of the installed "
                "diffusers or transformers; code that comes with a model is not run: update the packages, or take "
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
    for path in sorted([*(part / name for name in _CONFIGS), *part.glob("*.index.json")]):
        if not path.is_file():
            continue
        try:
            read = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            yield f"{key}: {path} is not valid JSON ({first_line(error)}): copy or download it again"
            return
        if not isinstance(read, dict):
            yield f"{key}: {path} holds {type(read).__name__}, not a table: copy or download it again"
            return
    files = hub.weight_files(folder, {part.name: index[part.name]}, variant.file_variant, ())
    if (broken := broken_file(files.values())) is not None:
        yield (
            f"{key} cannot be loaded: {broken.relative_to(folder).as_posix()} is cut short or not a safetensors file "
            f"({broken.resolve().stat().st_size:,} bytes): delete {broken.resolve()} and copy or download it again"
        )
    if not files and complete and _is_network(*index[part.name]):
        yield hub.no_weights(folder, part, key)


def _own_scheduler(folder: Path, index: dict[str, Any]) -> Any:
    import diffusers

    entry = index.get("scheduler")
    if not entry or not (folder / "scheduler" / "scheduler_config.json").is_file():
        return None
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
    """Say what of the prompts has no effect.

    Args:
        tokenizers: Of the pipeline, by component name.
        kind: Pipeline class.
        variant: The variant.
        prompts: Texts to be drawn.
        embedded: Whether the denoiser is told the guidance scale, instead of being run twice.
    """
    limits = token_limits(tokenizers, kind, variant.call_args)
    guided = (variant.guidance > 1 and not embedded) or float(variant.call_args.get("true_cfg_scale", 1.0)) > 1
    cuts = prompt_cuts(limits, prompts)
    if variant.negative_prompt and guided:
        cuts += tuple(replace(cut, negative=True) for cut in prompt_cuts(limits, [variant.negative_prompt]))
    return PromptFindings(cuts=cuts, negative_prompt_ignored=bool(variant.negative_prompt) and not guided)


def _denoiser_config(folder: Path, index: dict[str, Any]) -> dict[str, Any]:
    path = folder / hub.denoiser_name(index) / "config.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def _is_known(library: str, class_name: str) -> bool:
    import diffusers
    import transformers

    known = {"diffusers": diffusers, "transformers": transformers}
    if library in known:
        return hasattr(known[library], class_name)
    return hasattr(diffusers.pipelines, library)  # such as stable_diffusion, for its safety checker


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
