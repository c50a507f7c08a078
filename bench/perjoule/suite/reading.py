"""Reads suite files from TOML into a checked `Suite`, and writes them with all defaults."""

from __future__ import annotations

import json
import keyword
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from difflib import get_close_matches
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from perjoule.errors import SuiteError, UnknownNameError, UsageError
from perjoule.files import decode_text, write_text
from perjoule.opening import content_of
from perjoule.registry import merged_files
from perjoule.shares import below_one
from perjoule.text import is_name
from perjoule.types import Cell, PromptSource, Protocol, Suite, Variant

MAX_STEPS = 1_000
_MOST_BYTES = 16 * 2**20
# far beyond any run; without limits, one number in a suite could fill the memory, or sleep for years
_MOST_TIMES, _MOST_PAUSE_S, _MOST_THREADS, _MOST_VARIANTS = 1_000_000, 86_400.0, 4_096, 10_000
# no suite has such a key, and the parser's time grows with the square of its length
_LONG_KEY = re.compile(r"""^[ \t]*\[{0,2}[ \t]*(?:("[^"\n]*"|'[^'\n]*'|[\w-]+)[ \t]*\.[ \t]*){16}""", re.MULTILINE)
_MOST_MESSAGES, _MOST_SHOWN = 20, 300
_SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_SEED = 2**64 - 1
# the prompt source, and an unstated model, in a suite written by `perjoule import`
IMPORTED = "imported"
# keys that other tools use, and ours
_SYNONYMS = {
    "guidance_scale": "guidance",
    "height": "height_px",
    "model_id": "model",
    "num_inference_steps": "steps",
    "torch_dtype": "dtype",
    "width": "width_px",
}


def suite_names() -> list[str]:
    """Return the built-in suites."""
    return sorted(merged_files("suites"))


def find_suite(name_or_path: str) -> Path:
    """Return the TOML file of a built-in name or a path.

    Raises:
        UnknownNameError: If it is neither.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    files = merged_files("suites")
    if name_or_path in files:
        return Path(files[name_or_path])
    if path.suffix == ".toml" or "/" in name_or_path:
        raise SuiteError(f"{name_or_path}: no such file. Built-in suites: {', '.join(sorted(files))}")
    raise UnknownNameError("suite", name_or_path, files)


def load_suite(
    path: Path, *, follow: bool = True, migrate: Callable[[dict[str, Any]], dict[str, Any]] = lambda table: table
) -> Suite:
    """Read and check a suite file.

    Args:
        path: The file.
        follow: Whether it may be a symbolic link, which it may not in a run directory.
        migrate: Turns the table of a run of an earlier version into one of this version.

    Raises:
        SuiteError: The suite is invalid; the message names the file, the key, its value and the remedy.
    """
    try:
        text = decode_text(content_of(path, _MOST_BYTES, follow=follow, error=SuiteError), f"{path}:", SuiteError)
        if long := _LONG_KEY.search(text):
            line = text.count("\n", 0, long.start()) + 1
            raise SuiteError(f"{path}: line {line}: a key of more than 16 parts: no key of a suite has so many")
        table = tomllib.loads(text)
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SuiteError(f"{path}: not valid TOML: {error}") from error
    return parse_suite(migrate(table), where=str(path))


def parse_suite(table: dict[str, Any], *, where: str) -> Suite:
    """Check a table from TOML or JSON; `where` names its source in messages."""
    from pydantic import ValidationError

    try:
        # JSON mode, so that strict validation rejects "8" for 8 but accepts TOML's arrays as tuples
        suite: Suite = _reader().validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        details = error.errors()
        messages = [_explain(detail, table, where) for detail in details[:_MOST_MESSAGES]]
        more = [f"{where}: and {len(details) - len(messages)} more"] if len(details) > len(messages) else []
        raise SuiteError("\n".join(messages + more)) from None
    _check(suite, where)
    return suite


def write_suite(suite: Suite, path: Path) -> None:
    """Write a suite as TOML with all defaults (absent values are left out)."""
    import tomli_w

    text = tomli_w.dumps(_without_none(asdict(suite)))
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        line = text[: error.start].splitlines()[-1]
        raise SuiteError(f"{suite.name}: {line!a}…: a name that is not UTF-8 cannot be stored: rename it") from None
    write_text(path, text)


def is_imported(suite: Suite) -> bool:
    """Return True if `perjoule import` wrote the suite: it describes a table and cannot be run."""
    return suite.prompts.source == IMPORTED


def cells_of(suite: Suite) -> list[Cell]:
    """Return one cell per variant and step count, or level of its policy, in the order of the file."""
    cells: list[Cell] = []
    for variant in suite.variants:
        cell = partial(Cell, variant=variant, batch_size=variant.batch_size or suite.protocol.batch_size)
        cells += [cell(cell_id=f"{variant.name}-{n:03d}", steps=n) for n in variant.steps]
        cells += [cell(cell_id=f"{variant.name}-{x:g}", level=x) for x in variant.levels]
    return cells


def smoke_of(suite: Suite, side_px: int | None = None) -> Suite:
    """Return a minimal version of a suite: every variant at its shortest rung, one prompt, seed and window.

    Args:
        suite: The full suite.
        side_px: Size of the images, instead of the variants' own.
    """

    def shortest(variant: Variant) -> Variant:
        size: dict[str, Any] = {} if side_px is None else {"width_px": side_px, "height_px": side_px}
        return replace(variant, steps=variant.steps[:1], levels=variant.levels[:1], batch_size=None, **size)

    once = Protocol(
        seeds=suite.protocol.seeds[:1],
        idle_s=0.0,
        order_seed=suite.protocol.order_seed,
        threads=suite.protocol.threads,
        timeout_s=suite.protocol.timeout_s,
    )
    return replace(
        suite,
        prompts=replace(suite.prompts, limit=1),
        protocol=once,
        variants=tuple(shortest(variant) for variant in suite.variants),
    )


def images_per_window(suite: Suite) -> int:
    """Return the number of images in a window: as in the protocol, or one call of the suite's largest batch."""
    return suite.protocol.images_per_window or _largest_batch(suite)


def _largest_batch(suite: Suite) -> int:
    return max(variant.batch_size or suite.protocol.batch_size for variant in suite.variants)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the suite file."""
    schema: dict[str, Any] = _reader().json_schema()
    return schema


@cache
def _reader() -> Any:
    """Return the validator of suites; creating it takes longer than reading a hundred suites."""
    from pydantic import TypeAdapter

    return TypeAdapter(Suite)


def _check(suite: Suite, where: str) -> None:
    """Check the rules that a schema cannot express."""
    if suite.schema != 1:
        raise SuiteError(f"{where}: schema = {suite.schema}: this version of perjoule reads schema 1")
    _check_name(suite.name, "name", where)
    if not suite.variants:
        raise SuiteError(f"{where}: variants: at least one [[variants]] is needed")
    _at_most(len(suite.variants), _MOST_VARIANTS, f"{where}: number of variants")
    names: set[str] = set()
    protocol, metrics = suite.protocol, suite.metrics
    for index, variant in enumerate(suite.variants):
        if variant.name in names:
            raise SuiteError(f"{where}: variants[{index}].name = {variant.name!r}: used twice: names must be unique")
        names.add(variant.name)
        _check_variant(variant, f"{where}: variants[{index}]", imported=is_imported(suite))
        if variant.batch_size is not None:
            _at_least(variant.batch_size, 1, f"{where}: variants[{index}].batch_size")
            _at_most(variant.batch_size, _MOST_TIMES, f"{where}: variants[{index}].batch_size")
        if variant.runtime.compile and variant.policy != "fixed" and (variant.batch_size or protocol.batch_size) > 1:
            raise SuiteError(
                f"{where}: variants[{index}].runtime.compile = {variant.runtime.compile!r}: a step policy makes calls "
                "of many sizes, and each would be compiled inside a window: set batch_size = 1, or remove the key"
            )
    for key in ("batch_size", "blocks", "iterations"):
        _at_least(getattr(protocol, key), 1, f"{where}: protocol.{key}")
    for key in ("batch_size", "blocks", "iterations", "warmup_iterations", "images_per_window"):
        _at_most(getattr(protocol, key) or 0, _MOST_TIMES, f"{where}: protocol.{key}")
    for key in ("idle_s", "cooldown_s"):
        _at_most(getattr(protocol, key), _MOST_PAUSE_S, f"{where}: protocol.{key}")
    for key in ("warmup_iterations", "idle_s", "cooldown_s"):
        _at_least(getattr(protocol, key), 0, f"{where}: protocol.{key}")
    largest = _largest_batch(suite)
    if protocol.images_per_window is not None and protocol.images_per_window < largest:
        raise SuiteError(
            f"{where}: protocol.images_per_window = {protocol.images_per_window}: must be at least "
            f"the largest batch ({largest})"
        )
    _check_seeds(protocol.seeds, f"{where}: protocol.seeds", imported=is_imported(suite))
    if protocol.max_uncertainty is not None:
        _share(protocol.max_uncertainty, f"{where}: protocol.max_uncertainty")
    if protocol.threads is not None:
        _at_least(protocol.threads, 1, f"{where}: protocol.threads")
        _at_most(protocol.threads, _MOST_THREADS, f"{where}: protocol.threads")
    if protocol.timeout_s is not None and not 0 < protocol.timeout_s < math.inf:
        raise SuiteError(f"{where}: protocol.timeout_s = {protocol.timeout_s}: a positive number of seconds is needed")
    _check_prompts(suite.prompts, f"{where}: prompts")
    if not metrics.names and not metrics.primary and is_imported(suite):
        return  # a table that contains only joules
    _unique(metrics.names, f"{where}: metrics.names", "one metric")
    if metrics.primary not in metrics.names:
        raise SuiteError(
            f"{where}: metrics.primary = {metrics.primary!r}: not in metrics.names "
            f"({', '.join(metrics.names)}); add it there"
        )
    for key in ("options", "labels", "margins"):
        for name in getattr(metrics, key):
            if name not in metrics.names:
                raise SuiteError(f"{where}: metrics.{key}.{name}: no such metric in metrics.names")
    for name, margin in metrics.margins.items():
        if margin == "resolvable" and len(protocol.seeds) < 2 and not is_imported(suite):
            raise SuiteError(
                f"{where}: metrics.margins.{name} = 'resolvable': one seed does not show how much scores vary between "
                "images of a prompt: set protocol.seeds = [1, 2], or write a number"
            )
        if margin != "resolvable" and not 0 < margin < math.inf:
            raise SuiteError(
                f"{where}: metrics.margins.{name} = {margin}: must be above 0, in units of the metric, or "
                "'resolvable', the smallest loss that the prompts can show"
            )


def _check_prompts(prompts: PromptSource, where: str) -> None:
    if prompts.limit is not None:
        _at_least(prompts.limit, 1, f"{where}.limit")
    if prompts.select and prompts.limit is None:
        raise SuiteError(f"{where}.select = {prompts.select!r}: needs limit, the number of prompts to select")
    if prompts.sha256 is not None and not _SHA256.fullmatch(prompts.sha256):
        raise SuiteError(f"{where}.sha256 = {prompts.sha256!r}: must be 64 hex digits in lower case, as in sha256sum")
    for key in ("revision", "hub_split"):
        if getattr(prompts, key) is not None and not prompts.source.startswith("hub:"):
            raise SuiteError(f"{where}.{key}: only for data sets of the hub, but source = {prompts.source!r}")


def _check_seeds(seeds: Sequence[int], where: str, *, imported: bool) -> None:
    if seeds or not imported:  # a table may have no seeds
        _unique(seeds, where, "one seed")
    for seed in seeds:
        if not 0 <= seed <= MAX_SEED:
            raise SuiteError(f"{where}: {seed} is out of range: 0 to {MAX_SEED}")


def _check_variant(variant: Variant, where: str, *, imported: bool) -> None:
    _check_name(variant.name, "name", where)
    _check_identifiers(variant, where)
    if imported:  # its policy can have any name, and its steps may be unknown
        _check_steps(variant, where)
        return
    if variant.policy == "fixed":
        _unique(variant.steps, f"{where}.steps", "one step count")
        for key in ("levels", "policy_args"):
            if getattr(variant, key):
                raise SuiteError(f"{where}.{key}: only for step policies; policy = 'fixed' uses `steps` unchanged")
    else:
        _unique([f"{level:g}" for level in variant.levels], f"{where}.levels", "one level of the policy")
        if variant.steps:
            raise SuiteError(f"{where}.steps: policy {variant.policy!r} chooses the steps itself; remove the key")
    _check_steps(variant, where)
    if not 0 <= variant.guidance <= 100:
        raise SuiteError(f"{where}.guidance = {variant.guidance}: must be 0 to 100; 1 or less disables guidance")
    if variant.timesteps:
        _check_timesteps(variant, where)
        if variant.schedule:
            raise SuiteError(f"{where}.schedule = {variant.schedule!r}: timesteps are given too; remove one key")
    if variant.guidance_mode == "none" and variant.guidance > 1:
        raise SuiteError(
            f"{where}.guidance_mode = 'none', but guidance = {variant.guidance}: set guidance to 1.0 or less, which "
            "disables it"
        )
    if variant.guidance_share != 1:
        _check_guidance_share(variant, where)
    for key in ("width_px", "height_px"):
        size = getattr(variant, key)
        if size is not None and (size < 8 or size > 8192 or size % 8):
            raise SuiteError(f"{where}.{key} = {size}: must be a multiple of 8 from 8 to 8192")


def _check_identifiers(variant: Variant, where: str) -> None:
    """Refuse what is not a name in Python, because `recommend` and reports print code with these names."""
    names = {f"{where}.scheduler": [variant.scheduler] if variant.scheduler else []}
    names |= {f"{where}.{key}": list(getattr(variant, key)) for key in ("scheduler_args", "call_args")}
    for key, found in names.items():
        for name in found:
            if not name.isidentifier() or keyword.iskeyword(name):
                raise SuiteError(f"{key}: {name[:_MOST_SHOWN]!r} is not a name in Python")


def _check_guidance_share(variant: Variant, where: str) -> None:
    key = f"{where}.guidance_share = {variant.guidance_share}"
    if not 0 < variant.guidance_share <= 1:
        raise SuiteError(f"{key}: must be above 0 and at most 1, e.g. 0.67 for no guidance in the last third")
    if variant.guidance <= 1 or variant.guidance_mode in ("embedded", "none"):
        raise SuiteError(f"{key}: the variant has no classifier-free guidance (see guidance, guidance_mode)")
    if variant.cache is not None:
        raise SuiteError(f"{key}: a cache stores both halves of the batch, but the last calls have one; remove a key")
    if variant.runtime.compile:
        raise SuiteError(f"{key}: the denoiser would be compiled again for one half of the batch; remove a key")


def _check_steps(variant: Variant, where: str) -> None:
    for steps in variant.steps:
        if not 1 <= steps <= MAX_STEPS:
            raise SuiteError(f"{where}.steps: {steps} is out of range: 1 to {MAX_STEPS} denoising steps")


def _check_timesteps(variant: Variant, where: str) -> None:
    times = variant.timesteps
    if variant.policy != "fixed" or variant.steps != (len(times),):
        raise SuiteError(
            f"{where}.timesteps has {len(times)} entries: set steps = [{len(times)}] and policy 'fixed', because a "
            "given schedule has one length"
        )
    if any(a <= b for a, b in pairwise(times)) or times[-1] < 0:
        raise SuiteError(f"{where}.timesteps = {list(times)}: must decrease from step to step and not be below 0")


def _check_name(name: str, key: str, where: str) -> None:
    if not is_name(name):
        raise SuiteError(
            f"{where}: {key} = {name!r}: use up to 64 letters, digits, '.', '_' and '-', first a letter or digit"
        )


def _share(value: float, where: str) -> None:
    """Refuse e.g. 2 for 2 %, and 0, because a bound of 0 cannot be reached."""
    try:
        below_one(value, where)
    except UsageError as error:
        raise SuiteError(str(error)) from None


def _at_least(value: float, least: int, where: str) -> None:
    if value < least:
        raise SuiteError(f"{where} = {value}: must be at least {least}")


def _at_most(value: float, most: float, where: str) -> None:
    if not value <= most:
        raise SuiteError(f"{where} = {value}: must be at most {most:,.0f}")


def _unique(values: Sequence[Any], where: str, least: str) -> None:
    if not values:
        raise SuiteError(f"{where} is empty: at least {least} is needed")
    if len(set(values)) != len(values):
        raise SuiteError(f"{where} = {str(list(values))[:_MOST_SHOWN]}: duplicate value")


def _explain(detail: Any, table: dict[str, Any], where: str) -> str:
    """Return a pydantic error as one line with the keys of the file."""
    path = list(detail["loc"])
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
    if detail["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = _keys_at(path[:-1])
        last = str(path[-1])
        near = [synonym] if (synonym := _SYNONYMS.get(last)) in known else get_close_matches(last, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        return f"{where}: unknown key {key!r}: {hint}"
    if detail["type"] in ("missing", "missing_argument"):
        return f"{where}: {key} is missing: it has no default"
    value = detail.get("input")
    if detail["type"] in ("tuple_type", "list_type"):
        if isinstance(value, dict):
            return f"{where}: [{key}] is a single table: write [[{key}]]"
        return f"{where}: {key} = {value!r}: a list is needed: write [{json.dumps(value, ensure_ascii=False)}]"
    return f"{where}: {key} = {value!r}: {detail['msg'].lower()}"


def _keys_at(path: Iterable[Any]) -> list[str]:
    """Return the keys that the schema allows at a place in the file."""
    schema = json_schema()
    node: Any = schema
    for part in path:
        node = node.get("items", {}) if isinstance(part, int) else node.get("properties", {}).get(part, {})
        # an optional record is "a record or null"
        node = next((choice for choice in node.get("anyOf", ()) if "$ref" in choice), node)
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return list(node.get("properties", {}))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_without_none(v) for v in value]
    return value
