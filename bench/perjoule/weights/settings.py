"""Checks the settings of a network or tokenizer before diffusers or transformers read them.

A model is not trusted: its settings may name files outside its folder, code of the model, kernels to be downloaded and
executed, or so many layers that creating them never ends.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from perjoule.errors import RunError, first_line
from perjoule.opening import content_of, require_few_containers

_FILES = ("config.json", "scheduler_config.json", "tokenizer_config.json", "preprocessor_config.json")
# without this file; transformers would load another model, which it names, instead of the one in the folder
_ADAPTER = "adapter_config.json"
# a tokenizer reads these instead of its own files
_FILES_OF_TOKENIZERS = ("vocab_file", "merges_file", "tokenizer_file", "spm_file", "sentencepiece_model_file")
# implementations that are part of torch or transformers; transformers takes any other name, and those of
# FlashAttention if it is not installed, as a repository whose kernels the package `kernels` downloads and executes
_OWN_IMPLEMENTATIONS = {None, "eager", "sdpa", "flex_attention", "grouped_mm", "batched_mm"}
# largest value by name; the largest of published models are about 130 layers and 1,000 timesteps
_LARGEST = ((r"layers|blocks|per_block|depth|heads|experts", 1_000), (r"timesteps|order$", 100_000), (r"", 10**9))
_MOST_VALUES = 100_000  # of one list
_MOST_LAYERS = 200  # of one list with a value per block or layer
_OF_LAYERS = r"layers|blocks|block_out|block_types"
# numbers of layers per block, each of which multiplies the number of layers; that of Stable Cascade is 9,408
_MULTIPLY = r"layers_per|per_block|res_blocks|blocks_repeat"
_MOST_MULTIPLIED = 20_000
_MOST_SETTINGS = 1_000_000  # of one file
_LONGEST_NAME = 200
_SHOWN = 80


def settings_problem(folder: Path, class_name: str = "") -> str | None:
    """Return what is wrong with the settings in a folder, with file, key, value and remedy, or None.

    Args:
        folder: Folder of a network, scheduler or tokenizer.
        class_name: Class that will read it, e.g. `AutoTokenizer`.
    """
    if (folder / _ADAPTER).exists():
        return f"{folder / _ADAPTER} names another model to be loaded instead: use a model without it"
    for path in sorted([*(folder / name for name in _FILES), *folder.glob("*.index.json")]):
        if path.is_file() and (problem := file_problem(path, class_name)) is not None:
            return problem
    return None


def file_problem(path: Path, class_name: str = "") -> str | None:
    """Return what is wrong with a file of settings; see `settings_problem`."""
    try:
        text = content_of(path, follow=True)
        require_few_containers(text)
        content = json.loads(text)
    except (OSError, RunError, ValueError, RecursionError) as error:
        return f"{path} is not valid JSON ({first_line(error)}): copy or download it again"
    if not isinstance(content, dict):
        return f"{path} contains {type(content).__name__} instead of an object: copy or download it again"
    problem = _leads_out(path, content, class_name)
    return None if problem is None else f"{path}: {problem}: use another model"


def _leads_out(path: Path, content: dict[str, Any], class_name: str) -> str | None:
    if path.name.endswith(".index.json"):
        weight_map = content.get("weight_map")
        shards = weight_map.values() if isinstance(weight_map, dict) else ()
        outside = next((str(s) for s in shards if not isinstance(s, str) or s != Path(s).name), None)
        return None if outside is None else f"weight_map names {outside[:_SHOWN]!r}, which is not in its folder"
    if "auto_map" in content and class_name.startswith("Auto"):
        return "auto_map names code of the model, which is not executed"
    for name in _FILES_OF_TOKENIZERS:
        value = content.get(name)
        if isinstance(value, str) and value != Path(value).name:
            return f"{name} = {value[:_SHOWN]!r} is not a file in its folder"
    settings = list(islice(_settings(content), _MOST_SETTINGS + 1))
    if len(settings) > _MOST_SETTINGS:
        return f"it has more than {_MOST_SETTINGS:,} settings"
    problems = (_setting_problem(path, name, value) for name, value in settings)
    multiplied = (_multiplied_problem(value) for _, value in settings if isinstance(value, dict))
    return next((problem for problem in chain(problems, multiplied) if problem is not None), None)


def _settings(content: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield all settings, also those in settings, as the name and the value; first all of them, without a name.

    The checks of a value take no longer for one that contains many others, and names are cut, because a list may have
    any number of values.
    """
    waiting: list[tuple[str, Any]] = [("", content)]
    while waiting:
        name, value = waiting.pop()
        yield name, value
        if isinstance(value, dict):
            # the parts of {"attn_implementation": {"text_config": …}} are implementations too
            inherits = "implementation" in name
            waiting += [(name if inherits else key[:_LONGEST_NAME], inner) for key, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(name, inner) for inner in value[: _MOST_VALUES + 1]]


def _setting_problem(path: Path, name: str, value: Any) -> str | None:
    if name == "attribute_map":  # transformers would take other names as these settings
        return "attribute_map gives settings other names"
    if "implementation" in name and not isinstance(value, dict | list) and value not in _OWN_IMPLEMENTATIONS:
        shown = (value if isinstance(value, str) else str(value))[:_SHOWN]
        return f"{name[:_SHOWN]} = {shown!r} chooses kernels that would be downloaded and executed"
    if isinstance(value, list) and len(value) > _MOST_VALUES:
        return f"{name[:_SHOWN]} has {len(value):,} values; at most {_MOST_VALUES:,} are read"
    if (
        isinstance(value, list)
        and len(value) > _MOST_LAYERS
        and path.name == "config.json"
        and re.search(_OF_LAYERS, name)
    ):
        return f"{name[:_SHOWN]} has {len(value):,} values; at most {_MOST_LAYERS:,} are possible"
    if isinstance(value, int) and path.name in ("config.json", "scheduler_config.json"):
        largest = next(limit for pattern, limit in _LARGEST if re.search(pattern, name))
        if value > largest:
            return f"{name[:_SHOWN]} = {_short(value)}; at most {largest:,} is possible"
    return None


def _multiplied_problem(settings: dict[str, Any]) -> str | None:
    """Return that the numbers of layers per block, which are possible by themselves, are too many together, or None."""
    blocks = [len(value) for name, value in settings.items() if isinstance(value, list) and re.search(_OF_LAYERS, name)]
    layers = max(blocks, default=1)
    for name, value in settings.items():
        if re.search(_MULTIPLY, name):
            layers *= max(_integers(value), default=1) or 1
        if layers > _MOST_MULTIPLIED:
            return f"the numbers of blocks and of layers per block multiply to more than {_MOST_MULTIPLIED:,} layers"
    return None


def _integers(value: Any) -> Iterator[int]:
    """Yield the integers of a setting, also those in lists of lists."""
    waiting = [value]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, int):
            yield inner
        elif isinstance(inner, list):
            waiting += inner


def _short(value: int) -> str:
    try:
        return f"{value:.3g}"
    except OverflowError:
        return "an integer of more than 300 digits"
