"""Converts a table of measurements made elsewhere into a run directory.

    variant                                       needed
    energy_j, quality:<metric>                    at least one of them; higher is better unless --lower names the metric
    prompt_id, seed                               one row per image; without prompts a row is a whole cell, and `n` is
                                                  the number of images in its mean
    role, policy, steps, duration_s, uncertainty_j, nfe_per_image, provenance, boundary, family, prompt, category,
    challenge, device, model, batch_size, block   optional; block counts repeated measurements of one image

Energies, uncertainties and durations are those of one image. Values that the table does not state are absent from the
run. A quality that a table repeats for all prompts of a cell is a single number, without an interval.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, get_args

import polars as pl

from perjoule import __version__
from perjoule.errors import PerjouleError, UnknownNameError, UsageError
from perjoule.files import write_json, write_json_lines, write_parquet
from perjoule.importing.foreign_table import (
    COLUMNS,
    NUMBERS,
    QUALITY,
    WHOLE_NUMBERS,
    ForeignTable,
    read_table,
    without_unit,
)
from perjoule.quality import load_metric, metric_names
from perjoule.runs.columns import IMAGE_COLUMNS, SCHEMA, SCORE_COLUMNS, TRIAL_COLUMNS
from perjoule.runs.directory import WHOLE_CELL, Run, load_run
from perjoule.runs.writer import require_vacant
from perjoule.statistics.points import operating_points
from perjoule.suite.reading import IMPORTED, MAX_SEED, MAX_STEPS, write_suite
from perjoule.text import one_line
from perjoule.types import (
    PROVENANCES,
    Boundary,
    Metrics,
    MetricSpec,
    PromptSource,
    Protocol,
    Role,
    Suite,
    Variant,
    weakest,
)
from perjoule.warnings import warning

_MOST = 2**31 - 1
# beyond these, sums of squares overflow and logarithms are meaningless
_LARGEST, _SMALLEST = 1e100, 1e-100
_RANGES = {
    "seed": (0, MAX_SEED),
    "steps": (1, MAX_STEPS),
    "batch_size": (1, _MOST),
    "block": (0, _MOST),
    "n": (1, _MOST),
}
_ADAPTIVE = ("predicted", "control")
_ROW = "row number"  # a name that none of our columns has
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricFacts:
    """Properties of metrics that a table does not contain.

    Attributes:
        lower: Metrics for which lower is better.
        fidelity: Full-reference metrics, compared only within one family.
        bounds: Smallest and largest possible value, None where unbounded.
    """

    lower: Sequence[str] = ()
    fidelity: Sequence[str] = ()
    bounds: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)


def import_table(
    table: Path,
    out: Path,
    *,
    lower: Sequence[str] = (),
    fidelity: Sequence[str] = (),
    bounds: Mapping[str, tuple[float | None, float | None]] | None = None,
) -> Run:
    """Create a run directory from a table.

    Args:
        table: A file in CSV, TSV, JSON, JSON lines or Parquet.
        out: Directory of the run; must be empty or not exist. It is created atomically.
        lower: Metrics for which lower is better.
        fidelity: Full-reference metrics, compared only within one family.
        bounds: Smallest and largest possible value by metric. A quality at its bound may be the same for all prompts.

    Returns:
        The run. `environment["import_notes"]` describes conversions, skipped columns and missing statements.

    Raises:
        UsageError: The table is invalid; the message names file, row, column, value and remedy.
        OSError: The run cannot be written; the error names `out`.
    """
    require_vacant(out)
    facts = MetricFacts(lower=lower, fidelity=fidelity, bounds=bounds or {})
    foreign = read_table(table)
    metrics = _metrics(foreign, facts)
    notes = [*foreign.notes]
    frame = _arranged(_parsed(foreign, metrics, notes), foreign, notes)
    specs = {name: _spec(name, facts, notes) for name in metrics}
    trials = _trials(frame)
    _note_provenance(trials, notes)
    with _whole_or_nothing(out) as folder:
        _write(folder, table, frame, trials, specs)
        # last, because this file makes the directory a run
        environment = _environment(table, frame)
        write_json(folder / "environment.json", environment)
        run = load_run(folder)
        points = operating_points(run)
        write_parquet(points, folder / "points.parquet")
        _note_cell_values(points, notes)
        write_json(folder / "environment.json", environment | {"import_notes": notes})
    return load_run(out)


@contextmanager
def _whole_or_nothing(out: Path) -> Iterator[Path]:
    """Create a folder next to `out` that is moved to `out` when it is complete, and removed if anything fails."""
    target = out.resolve()
    try:
        parent = next(folder for folder in target.parents if folder.is_dir())
        room = Path(mkdtemp(prefix=".perjoule-import-", dir=parent))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(out)) from error
    try:
        (room / "run").mkdir()
        yield room / "run"
        target.parent.mkdir(parents=True, exist_ok=True)
        (room / "run").rename(target)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(out)) from error
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _write(
    folder: Path, table: Path, frame: pl.DataFrame, trials: pl.DataFrame, specs: Mapping[str, MetricSpec]
) -> None:
    write_suite(_suite(table, frame, list(specs)), folder / "suite.toml")
    write_json_lines(folder / "prompts.jsonl", _prompts(frame))
    write_parquet(trials, folder / "trials.parquet")
    trials.with_columns(phases_s=pl.lit(None, pl.String)).write_ndjson(folder / "trials.jsonl")
    scored = frame.filter("is_scored")
    write_parquet(_images(scored), folder / "images.parquet")
    write_parquet(_scores(scored, list(specs)), folder / "scores.parquet")
    write_json(folder / "metrics.json", {"schema": SCHEMA, "metrics": [asdict(specs[name]) for name in sorted(specs)]})


# -- the cells of the table --------------------------------------------------------------------------------------------


def _metrics(foreign: ForeignTable, facts: MetricFacts) -> list[str]:
    """Return the metrics of the table, in its order; raises UsageError if a required column is missing."""
    path, columns = foreign.path, foreign.frame.columns
    there = ", ".join(columns) or "no known columns"
    if "variant" not in columns:
        raise UsageError(f"{path}: column variant is missing; it names what was measured. Found: {there}")
    metrics = [name.removeprefix(QUALITY) for name in columns if name.startswith(QUALITY)]
    if "energy_j" not in columns and not metrics:
        vague = without_unit(foreign.ignored)
        hint = f" ({', '.join(vague)}: name the energy of one image energy_j, energy_kJ, energy_Wh or energy_kWh)"
        raise UsageError(
            f"{path}: column energy_j is missing{hint if vague else ''}, and there is no column {QUALITY}<metric>: at "
            f"least one of them is required; found: {there}"
        )
    if "energy_j" not in columns and (vague := without_unit(foreign.ignored)):
        raise UsageError(
            f"{path}: column {', '.join(vague)}: the unit is missing. Name the energy of one image energy_j, "
            "energy_kJ, energy_Wh or energy_kWh"
        )
    for name in metrics:
        if name != one_line(name):
            raise UsageError(f"{path}: column {QUALITY}{name!r}: control characters in the name of a metric")
    for name in (*facts.lower, *facts.fidelity, *facts.bounds):
        if name not in metrics:
            raise UnknownNameError("metric", name, metrics, str(path))
    if foreign.frame.is_empty():
        raise UsageError(f"{path}: the table has no rows")
    return metrics


def _parsed(foreign: ForeignTable, metrics: Sequence[str], notes: list[str]) -> pl.DataFrame:
    """Return all known columns with their types; absent columns are null."""
    numeric = [name for name in foreign.frame.columns if name.startswith(QUALITY) or _type(name) == pl.Float64]
    decimal_comma = foreign.decimal_comma(numeric)
    if decimal_comma:
        notes.append("numbers were read with a decimal comma")
    found: dict[str, pl.Series] = {}
    for name in (*COLUMNS, *(QUALITY + metric for metric in metrics)):
        if not foreign.has(name):
            found[name] = pl.Series([None] * len(foreign.frame), dtype=_type(name))
        elif name in WHOLE_NUMBERS:
            found[name] = foreign.whole_numbers(name, *_RANGES[name])
        elif _type(name) == pl.Float64:
            found[name] = foreign.numbers(name, decimal_comma)
        else:
            found[name] = foreign.texts(name)
    frame = pl.DataFrame([series.alias(name) for name, series in found.items()]).with_row_index(_ROW)
    _check_filled(frame, foreign)
    _check_numbers(frame, foreign)
    return _with_words(frame, foreign)


def _type(name: str) -> Any:
    if name in WHOLE_NUMBERS:
        return pl.UInt64
    return pl.Float64 if name in NUMBERS or name.startswith(QUALITY) else pl.String


def _check_filled(frame: pl.DataFrame, foreign: ForeignTable) -> None:
    """Check that every row has its names, and a seed or a count of repeats if any row has one."""
    for name in ("variant", "prompt_id", "seed"):
        empty = frame.filter(pl.col(name).is_null())
        needed = name == "variant" or (foreign.has(name) and len(empty) < len(frame))
        if len(empty) and needed:
            raise UsageError(
                f"{foreign.place(empty[_ROW][0])}: {name} is empty in {len(empty)} rows: give it in every row"
            )


def _check_numbers(frame: pl.DataFrame, foreign: ForeignTable) -> None:
    for name, least, word in (
        ("energy_j", 0.0, "positive and finite"),
        ("duration_s", 0.0, "positive and finite"),
        ("uncertainty_j", -1e-300, "0 or more, and finite"),
        ("nfe_per_image", -1e-300, "0 or more, and finite"),
    ):
        bad = frame.filter((pl.col(name) <= least) | pl.col(name).is_infinite())
        if len(bad):
            raise foreign.fault(bad[_ROW][0], name, f"must be {word}; leave it empty if it is unknown")
    for name in (column for column, kind in frame.schema.items() if kind == pl.Float64):
        size = pl.col(name).abs()
        # an infinite quality, such as the PSNR of equal images, counts as unscored
        extreme = frame.filter(size.is_finite() & ((size > _LARGEST) | ((size < _SMALLEST) & (pl.col(name) > 0))))
        if len(extreme):
            remedy = f"must be from {_SMALLEST:g} to {_LARGEST:g}; leave it empty if it is unknown"
            raise foreign.fault(extreme[_ROW][0], name, remedy)


def _with_words(frame: pl.DataFrame, foreign: ForeignTable) -> pl.DataFrame:
    """Return the columns of fixed words in our spelling, with their defaults."""
    for name, known, default in (
        ("role", get_args(Role), "fixed"),
        ("provenance", PROVENANCES, "not stated"),
        ("boundary", get_args(Boundary), None),
    ):
        frame = frame.with_columns(pl.col(name).str.to_lowercase().fill_null(pl.lit(default, pl.String)))
        strange = frame.filter(~pl.col(name).is_in(known))
        if len(strange):
            where = f"{foreign.place(strange[_ROW][0])}: {name}"
            raise UnknownNameError(name, str(strange[name][0]), known, where)
    kinds = sorted(frame.filter(pl.col("energy_j").is_not_null())["boundary"].drop_nulls().unique())
    if len(kinds) > 1:
        raise UsageError(
            f"{foreign.path}: boundary: {', '.join(kinds)}: different boundaries are not comparable; import them apart"
        )
    # provenance and boundary are meaningless without joules
    metered = pl.col("energy_j").is_not_null()
    return frame.with_columns(
        pl.when(metered).then(pl.col(name)).alias(name) for name in ("provenance", "boundary", "uncertainty_j")
    )


# -- from rows to cells ------------------------------------------------------------------------------------------------


def _arranged(frame: pl.DataFrame, foreign: ForeignTable, notes: list[str]) -> pl.DataFrame:
    """Return rows with the ids of their cell, trial and image; raises UsageError if two rows are the same image."""
    frame = _with_prompts(frame, foreign, notes)
    frame = _with_variants(frame, foreign, notes)
    for name in ("role", "family"):
        _require_one(frame, foreign, name)
    # an adaptive arm is one cell per policy, whatever its steps; a ladder has one cell per step count
    adaptive = pl.col("role").is_in(_ADAPTIVE)
    several = pl.col("policy").n_unique().over("variant") > 1
    policies = {name: _name(name) for name in frame["policy"].drop_nulls().unique()}
    policy = pl.col("policy").replace(policies).fill_null("unstated")
    setting = pl.when(several).then(pl.format("{}@{}", "variant", policy)).otherwise(pl.col("variant"))
    rung = pl.format("{}-{}", "variant", pl.col("steps").cast(pl.String).str.zfill(3)).fill_null(pl.col("variant"))
    frame = frame.with_columns(cell_id=pl.when(adaptive).then(setting).otherwise(rung))
    _require_apart(frame, foreign)
    _require_once(frame, foreign)
    return _with_ids(frame)


def _with_prompts(frame: pl.DataFrame, foreign: ForeignTable, notes: list[str]) -> pl.DataFrame:
    """Add a prompt id to every row: from the table, from the prompt, or that of a whole cell."""
    if not foreign.has("prompt_id") or frame["prompt_id"].null_count() == len(frame):
        texts = frame["prompt"].drop_nulls().unique().to_list()
        if texts:
            # like the ids of prompt sets
            ids = {text: hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:10] for text in texts}
            frame = frame.with_columns(prompt_id=pl.col("prompt").replace(ids))
            empty = frame.filter(pl.col("prompt_id").is_null())
            if len(empty):
                raise UsageError(f"{foreign.place(empty[_ROW][0])}: prompt is empty, and there is no prompt_id")
            notes.append("prompt_id was computed from the text of the prompt")
        else:
            frame = frame.with_columns(prompt_id=pl.lit(WHOLE_CELL))
            notes.append("the table has no prompts: each row is treated as a whole cell, which has no interval")
    texts_of = frame.group_by("prompt_id").agg(pl.col("prompt").drop_nulls().unique().sort(), pl.col(_ROW).min())
    for row in texts_of.filter(pl.col("prompt").list.len() > 1).sort(_ROW).iter_rows(named=True):
        one, other = (repr(text[:40]) for text in row["prompt"][:2])
        raise UsageError(
            f"{foreign.place(row[_ROW])}: prompt_id = {row['prompt_id']!r} has several prompts ({one}, {other}): use "
            "one id per prompt"
        )
    return frame


def _with_variants(frame: pl.DataFrame, foreign: ForeignTable, notes: list[str]) -> pl.DataFrame:
    """Split variants by columns that must not be averaged over, and give them names that suites accept.

    The joules of two devices, batch sizes, models or fixed policies under one variant become two variants, which form
    one family unless their models differ.
    """
    parts = ("model", "device", "batch_size", "policy")
    frame = frame.with_columns(original=pl.col("variant"))
    for name in parts:
        value = pl.col(name).cast(pl.String)
        # the policies of an adaptive variant are its cells
        splits = (value.n_unique().over("original") > 1) & ~(
            pl.col("role").is_in(_ADAPTIVE) if name == "policy" else pl.lit(False)
        )
        split = frame.filter(splits)
        for variant, values in split.group_by("original", maintain_order=True).agg(value.unique().sort()).iter_rows():
            listed = ", ".join("not stated" if one is None else one for one in values)
            notes.append(f"variant {variant!r} has several values of {name} ({listed}): each became a separate variant")
        prefix = "b" if name == "batch_size" else ""
        label = pl.format("{}_{}", "variant", pl.lit(prefix) + value.fill_null("unstated"))
        family = pl.col("family") if name == "model" else pl.col("family").fill_null(pl.col("original"))
        frame = frame.with_columns(
            variant=pl.when(splits).then(label).otherwise(pl.col("variant")),
            family=pl.when(splits).then(family).otherwise(pl.col("family")),
        )
    names: dict[str, str] = {}
    for variant in frame["variant"].unique().sort():
        plain = _name(variant)
        if plain in names.values():  # two names that differ only in characters that names cannot contain
            digest = hashlib.sha256(variant.encode("utf-8", "surrogatepass")).hexdigest()[:8]
            plain = f"{plain[:55]}-{digest}"
        names[variant] = plain
    changed = [f"{variant!r} as {plain}" for variant, plain in names.items() if variant != plain]
    if changed:
        more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        notes.append(f"variants were renamed to names that suites accept: {', '.join(changed[:_SHOWN])}{more}")
    return frame.with_columns(pl.col("variant").replace_strict(names), pl.col("family").fill_null(""))


def _require_one(frame: pl.DataFrame, foreign: ForeignTable, name: str) -> None:
    """Raise UsageError if a variant has several values of a property that must be unique in an arm."""
    several = frame.group_by("variant").agg(pl.col(name).unique().sort(), pl.col(_ROW).min())
    for row in several.filter(pl.col(name).list.len() > 1).sort(_ROW).iter_rows(named=True):
        values = ", ".join(value or "not stated" for value in row[name])
        raise UsageError(
            f"{foreign.path}: variant {row['variant']!r} has several values of {name} ({values}): make each a separate "
            "variant"
        )


def _require_apart(frame: pl.DataFrame, foreign: ForeignTable) -> None:
    """Raise UsageError if two cells have the same id, e.g. variant a at 8 steps and variant a-008."""
    for name, plural in (("variant", "variants"), ("policy", "policies")):
        kinds = frame.group_by("cell_id").agg(pl.col(name).unique().sort(), pl.col(_ROW).min())
        for row in kinds.filter(pl.col(name).list.len() > 1).sort(_ROW).iter_rows(named=True):
            listed = " and ".join("not stated" if one is None else repr(one) for one in row[name])
            raise UsageError(
                f"{foreign.path}: {plural} {listed} would share the cell {row['cell_id']}: rename one of them"
            )


def _require_once(frame: pl.DataFrame, foreign: ForeignTable) -> None:
    """Raise UsageError if an image appears twice, or a whole cell together with other rows of it."""
    whole = frame.filter(
        (pl.col("prompt_id") == WHOLE_CELL).any().over("cell_id") & (pl.len().over("cell_id", "block") > 1)
    )
    if len(whole):
        rows = whole.filter(pl.col("cell_id") == whole["cell_id"][0])
        raise UsageError(
            f"{foreign.place(rows[_ROW][1])}: {len(rows)} rows belong to cell {rows['cell_id'][0]}, but their prompts "
            "are unknown: add a column prompt_id, or give one row per cell"
        )
    keys = ["cell_id", "prompt_id", "seed", "block"]
    twice = frame.filter(frame.select(keys).is_duplicated())
    if len(twice):
        first = twice.row(0, named=True)
        same = twice.filter(pl.all_horizontal(pl.col(key).eq_missing(pl.lit(first[key])) for key in keys))
        stated = {
            key: first[key]
            for key in ("variant", "prompt_id", "seed", "steps", "policy", "block")
            if first[key] is not None
        }
        raise UsageError(
            f"{foreign.place(same[_ROW][1])}: the image {stated} appears {len(same)} times: give one row per image; "
            "number repeated measurements in a column block"
        )


def _with_ids(frame: pl.DataFrame) -> pl.DataFrame:
    """Add trial and image ids. A repeat is a separate trial, but a separate image only if its scores differ."""
    qualities = [name for name in frame.columns if name.startswith(QUALITY)]
    image = ["cell_id", "prompt_id", "seed"]
    block = pl.col("block").fill_null(0)
    frame = frame.with_columns(block=block, image_count=pl.col("n").fill_null(1)).sort("block", _ROW)
    repeat = pl.col(_ROW) != pl.col(_ROW).first().over(image)
    same = pl.all_horizontal(
        pl.lit(True), *(pl.col(q).is_null() | pl.col(q).eq_missing(pl.col(q).first().over(image)) for q in qualities)
    )
    stem = pl.format("{}.{}", "cell_id", "prompt_id") + pl.format(".s{}", "seed").fill_null("")
    suffix = pl.when(repeat).then(pl.format(".b{}", "block")).otherwise(pl.lit(""))
    frame = frame.with_columns(
        is_scored=~(repeat & same), image_id=stem + suffix, trial_id=pl.format("b{}.", "block") + stem
    ).sort(_ROW)
    # ids of texts with dots may collide; the row number then distinguishes them
    row = pl.format(".r{}", pl.col(_ROW) + 1)
    return frame.with_columns(
        pl.when(pl.col(name).is_duplicated()).then(pl.col(name) + row).otherwise(pl.col(name)).alias(name)
        for name in ("image_id", "trial_id")
    )


# -- the tables of the run ---------------------------------------------------------------------------------------------


def _trials(frame: pl.DataFrame) -> pl.DataFrame:
    # a trial contains the joules and seconds of all its images, the table those of one
    count = pl.col("image_count")
    whole = {name: pl.col(name) * count for name in ("energy_j", "uncertainty_j", "duration_s")}
    unstated = warning("W280", "the table does not state how this energy was obtained")
    filled = frame.select(
        "trial_id", "cell_id", "variant", "role", "policy", "block", "boundary", "provenance", "nfe_per_image",
        "image_count", "device",
        **whole,
        prompts=pl.concat_list("prompt"),
        prompt_ids=pl.concat_list("prompt_id"),
        seeds=pl.concat_list("seed"),
        steps=pl.concat_list("steps"),
        iterations=pl.lit(1),
        method=pl.lit("imported"),
        warnings=pl.when(pl.col("provenance") == "not stated")
        .then(pl.lit([unstated], pl.List(pl.String)))
        .otherwise(pl.lit([], pl.List(pl.String))),
        image_sha256=pl.lit([], pl.List(pl.String)),
        phases_s=pl.lit("{}"),
    )  # fmt: skip
    return filled.select(
        (pl.col(name) if name in filled.columns else pl.lit(None)).cast(kind).alias(name)
        for name, kind in TRIAL_COLUMNS.items()
    )


def _images(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(
        "image_id", "trial_id", "cell_id", "variant", "prompt_id", "seed", "steps",
        file=pl.lit(""),
        sha256=pl.lit(None, pl.String),
    ).cast(pl.Schema(IMAGE_COLUMNS))  # fmt: skip


def _scores(frame: pl.DataFrame, metrics: Sequence[str]) -> pl.DataFrame:
    if not metrics:
        return pl.DataFrame(schema=SCORE_COLUMNS)
    value = pl.col("value")
    absent = value.is_null() | ~value.is_finite()
    return (
        frame.select("image_id", "cell_id", "prompt_id", "seed", *(pl.col(QUALITY + m).alias(m) for m in metrics))
        .unpivot(on=list(metrics), index=["image_id", "cell_id", "prompt_id", "seed"], variable_name="metric")
        .with_columns(reason_unscored=pl.when(absent).then(pl.lit("no number in the imported table")))
        .with_columns(value=pl.when(absent).then(None).otherwise(value))
        .select(list(SCORE_COLUMNS))
        .cast(pl.Schema(SCORE_COLUMNS))
    )


def _prompts(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the prompts of the table; a text that it does not state is empty."""
    stated = ("prompt", "category", "challenge")
    known = (
        frame.filter(pl.col("prompt_id") != WHOLE_CELL)
        .group_by("prompt_id")
        .agg(pl.col(name).drop_nulls().first().fill_null("") for name in stated)
        .sort("prompt_id")
    )
    return known.rename({"prompt": "text"}).to_dicts()


def _suite(table: Path, frame: pl.DataFrame, metrics: list[str]) -> Suite:
    arms = frame.group_by("variant", maintain_order=True).agg(
        pl.col("role", "policy", "family", "model", "batch_size").first(),
        pl.col("steps").drop_nulls().unique().sort(),
    )
    return Suite(
        name=_name(table.stem),
        title=f"Imported from {one_line(table.name)}",
        description="Measurements made elsewhere.",
        prompts=PromptSource(source=IMPORTED),
        metrics=Metrics(primary=metrics[0] if metrics else "", names=tuple(metrics)),
        protocol=Protocol(seeds=tuple(frame["seed"].drop_nulls().unique().sort())),
        variants=tuple(
            Variant(
                name=row["variant"], model=row["model"] or IMPORTED,
                steps=() if row["role"] in _ADAPTIVE else tuple(row["steps"]), role=row["role"],
                policy=row["policy"] or "fixed", family=row["family"], batch_size=row["batch_size"],
            )
            for row in arms.iter_rows(named=True)
        ),
    )  # fmt: skip


def _name(text: str) -> str:
    """Return a name that suites accept, e.g. `SD_1.5` for `SD 1.5`."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in text)[:64]
    return kept if kept[:1].isalnum() else f"x{kept}"[:64]


def _spec(name: str, facts: MetricFacts, notes: list[str]) -> MetricSpec:
    """Return the spec of perjoule's metric of that name, else one that is better if higher and has no bounds."""
    spec = _known_spec(name)
    if spec is None:
        spec = MetricSpec(
            name=name, direction="higher", track="absolute", needs_reference=False, unit="", weights_digest=IMPORTED,
            licence="unknown", description="Imported.", advisory=False, bounds=(None, None),
        )  # fmt: skip
    elif spec.direction == "lower" or spec.track == "fidelity":
        kind = "full-reference, compared within one family" if spec.track == "fidelity" else "compared across variants"
        notes.append(f"{name} is treated as perjoule's metric of that name: {spec.direction} is better, {kind}")
    if name in facts.lower:
        spec = replace(spec, direction="lower")
    if name in facts.fidelity:
        spec = replace(spec, track="fidelity", needs_reference=True)
    return replace(spec, bounds=facts.bounds.get(name, spec.bounds))


def _known_spec(name: str) -> MetricSpec | None:
    """Return direction, track, unit and bounds of one of our metrics; it is unknown which program scored the table."""
    if name not in metric_names():
        return None
    try:
        card = getattr(load_metric(name, {}, "import"), "card", None)
    except PerjouleError:
        return None
    if not isinstance(card, MetricSpec):
        return None
    return replace(
        card, name=name, weights_digest=IMPORTED, licence="unknown", commercial=None, weights="", temperature=None,
        advisory=False, description="Imported.", margin=None, scale="",
    )  # fmt: skip


def _environment(table: Path, frame: pl.DataFrame) -> dict[str, Any]:
    devices = sorted(frame["device"].drop_nulls().unique())
    comparability = {"device": devices or "not stated", "meter": IMPORTED}
    key = hashlib.sha256(json.dumps(comparability, sort_keys=True).encode()).hexdigest()[:16]
    return {
        "schema": SCHEMA,
        "perjoule": __version__,
        "suite": _name(table.stem),
        "imported_from": table.name,
        "sha256": hashlib.sha256(table.read_bytes()).hexdigest(),
        "meter": {"name": IMPORTED, "why": f"read from {table.name}; perjoule did not measure it"},
        "models": {},
        "gpu": [],
        "packages": {},
        "comparability": comparability,
        "comparability_key": key,
        "fingerprint": key,
    }


# -- notes -------------------------------------------------------------------------------------------------------------


def _note_provenance(trials: pl.DataFrame, notes: list[str]) -> None:
    metered = trials.filter(pl.col("energy_j").is_not_null())
    silent = metered.filter(pl.col("provenance") == "not stated")
    if len(silent):
        notes.append(
            f"W280: the provenance of {len(silent)} of {len(metered)} energies is not stated; add a column provenance "
            "(measured, estimated, simulated)"
        )
    mixed = metered.group_by("cell_id").agg(pl.col("provenance").unique().sort()).sort("cell_id")
    for row in mixed.filter(pl.col("provenance").list.len() > 1).iter_rows(named=True):
        notes.append(
            f"cell {row['cell_id']} mixes energies that are {', '.join(row['provenance'])}: together they count as "
            f"{weakest(row['provenance'])}"
        )


def _note_cell_values(points: pl.DataFrame, notes: list[str]) -> None:
    of_quality = points.filter(pl.col("quality_method").str.starts_with("W281"))
    for (metric,), part in of_quality.group_by("metric", maintain_order=True):
        notes.append(
            f"W281: {metric} is a single value for the whole cell in {_some(part['cell_id'])}: no interval, no gate"
        )
    of_energy = points.filter(pl.col("energy_method").str.starts_with("W281"))["cell_id"].unique(maintain_order=True)
    if len(of_energy):
        notes.append(f"W281: energy is a single value for the whole cell in {_some(of_energy)}: no interval, no gate")


def _some(cells: pl.Series) -> str:
    named = ", ".join(cells[:_SHOWN])
    return f"{named} and {len(cells) - _SHOWN} more" if len(cells) > _SHOWN else named
