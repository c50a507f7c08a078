"""Checks before the gate computes any number: is there evidence, and may the two runs be compared?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any

import polars as pl

from perjoule.errors import RunError
from perjoule.gating.disturbances import TOLERATED_SHARE, disturbances
from perjoule.gating.records import Difference, Findings, GateConfig, Missing
from perjoule.gating.steps import VARIANTS
from perjoule.runs.columns import FINISHED
from perjoule.runs.directory import Run
from perjoule.statistics.devices import devices_of, mixtures
from perjoule.statistics.grid import ENERGY, read_grid
from perjoule.text import one_line, provenance_note
from perjoule.types import Suite, Variant
from perjoule.warnings import is_marked, warning

# every key of a variant must agree, except its name, by which runs are matched, its label for readers, and its rungs,
# which are cells
_NOT_COMPARED = ("name", "label", "steps", "levels")
_VARIANT_KEYS = tuple(field.name for field in fields(Variant) if field.name not in _NOT_COMPARED)
_PROTOCOL_KEYS = ("batch_size", "images_per_window", "iterations")
_METRIC_KEYS = ("weights_digest", "direction", "track", "unit")
_TRIAL_KEYS = ("boundary", "provenance")
_LISTED = 5
_QUOTED, _CHARACTERS = 2, 60  # prompts whose text is given, and how much of it


def check(baseline: Run, candidate: Run, metric: str, config: GateConfig) -> Findings:
    """Return what is missing, invalid or different, as text, and notes that do not prevent a verdict."""
    empty = [
        f"the {name} has no finished trial: {run.path}"
        for name, run in (("baseline", baseline), ("candidate", candidate))
        if run.windows.is_empty()
    ]
    if not metric:
        empty = [f"the baseline has no quality scores, and a gate compares energy and quality: {baseline.path}"]
    empty += [
        f"the {name} is a race that dropped {len(run.race.dropped)} cells, and a gate compares the same prompts of "
        f"every cell: measure it without --race ({run.path})"
        for name, run in (("baseline", baseline), ("candidate", candidate))
        if run.race is not None and run.race.dropped
    ]
    if empty:
        return Findings(invalid=tuple(empty))
    images = _images(baseline), _images(candidate)
    missing = [*_missing_cells(baseline, candidate), *_missing_prompts(baseline, candidate, *images)]
    for name, run, drawn in zip(("baseline", "candidate"), (baseline, candidate), images, strict=True):
        missing += _missing_scores(name, run, drawn, metric)
    invalid: list[str] = []
    for name, run in (("baseline", baseline), ("candidate", candidate)):
        invalid += _invalid(name, run)
        invalid += _cell_values(name, run, metric)
        missing += _missing_energy(name, run)
    return Findings(
        missing=tuple(missing),
        incomparable=tuple(_differences(baseline, candidate, metric, set(config.change))),
        invalid=tuple(invalid),
        notes=tuple(_notes(baseline, candidate, metric, images)),
    )


def provenances(*runs: Run) -> tuple[str, ...]:
    """Return all provenances of the joules of runs, `not stated` for windows without one."""
    kinds = [run.windows.filter(pl.col("energy_j").is_not_null())["provenance"].unique() for run in runs]
    return tuple(sorted(set(pl.concat(kinds).fill_null("not stated"))))


def _cells(run: Run) -> set[str]:
    return set(run.trials["cell_id"].unique())


def _missing_cells(baseline: Run, candidate: Run) -> Iterable[Missing]:
    new = sorted(_cells(candidate) - _cells(baseline))
    hint = f"the candidate has {', '.join(new[:_LISTED])} instead: renamed?" if new else ""
    for cell in sorted(_cells(baseline) - _cells(candidate)):
        yield Missing(what="cell", name=cell, where="candidate", detail=hint)


def _missing_prompts(baseline: Run, candidate: Run, before: pl.DataFrame, after: pl.DataFrame) -> Iterable[Missing]:
    """Yield the images that only the baseline has, by cell."""
    shared = _cells(baseline) & _cells(candidate)
    lacking = before.filter(pl.col("cell_id").is_in(list(shared))).join(
        after, on=["cell_id", "prompt_id", "seed"], how="anti", nulls_equal=True
    )
    for (cell,), part in sorted(lacking.group_by("cell_id"), key=lambda item: str(item[0])):
        prompts = sorted(part["prompt_id"].unique())
        some = ", ".join(prompts[:_LISTED]) + (" …" if len(prompts) > _LISTED else "")
        yield Missing(
            what="prompt",
            name=some,
            where="candidate",
            detail=f"cell {cell}: {_count(len(part), 'image')} of {_count(len(prompts), 'prompt')} "
            f"{'is' if len(part) == 1 else 'are'} in the baseline only{_texts(baseline, prompts)}",
        )


def _count(number: int, one: str, several: str = "") -> str:
    """Return a number with its noun, e.g. `1 image`, `2 images`."""
    return f"{number} {one if number == 1 else several or f'{one}s'}"


def _texts(run: Run, prompts: Collection[str]) -> str:
    """Return the beginnings of prompts in quotes, e.g. `: "a red circle", "a star" and 3 more`; empty if unknown."""
    texts = [run.prompts[prompt] for prompt in prompts if run.prompts.get(prompt)]
    if not texts:
        return ""
    lines = [one_line(text) for text in texts[:_QUOTED]]
    shown = [f'"{line[:_CHARACTERS]}{"…" if len(line) > _CHARACTERS else ""}"' for line in lines]
    more = f" and {len(prompts) - _QUOTED} more" if len(prompts) > _QUOTED else ""
    return f": {', '.join(shown)}{more}"


def _images(run: Run) -> pl.DataFrame:
    return (
        run.windows.select("cell_id", "prompt_ids", "seeds")
        .explode("prompt_ids", "seeds")
        .rename({"prompt_ids": "prompt_id", "seeds": "seed"})
        .unique()
    )


def _new_images(candidate: Run, before: pl.DataFrame, after: pl.DataFrame) -> Iterable[str]:
    """Yield notes about images that only the candidate has, in cells of both runs."""
    keys = ["cell_id", "prompt_id"]
    new = after.join(before, on=[*keys, "seed"], how="anti", nulls_equal=True).join(before, on="cell_id", how="semi")
    prompts = sorted(new.join(before, on=keys, how="anti")["prompt_id"].unique())
    if prompts:
        verb = "is" if len(prompts) == 1 else "are"
        yield (
            f"{_count(len(prompts), 'new prompt')} {verb} not judged until there is a baseline with "
            f"{'it' if len(prompts) == 1 else 'them'}{_texts(candidate, prompts)}"
        )
    seeds = new.join(before, on=keys, how="semi")
    if len(seeds):
        seeds_of = _count(len(seeds), "image has a seed", "images have seeds")
        yield f"candidate: {seeds_of} that the baseline lacks; the means of the same prompts include them"


def _missing_scores(name: str, run: Run, images: pl.DataFrame, metric: str) -> Iterable[Missing]:
    scores = run.scores.filter(pl.col("metric") == metric)
    if metric not in run.metrics or scores.is_empty():
        known = ", ".join(sorted(run.metrics)) or "none"
        yield Missing(what="metric", name=metric, where=name, detail=f"scored metrics: {known}")
        return
    bad = scores.filter(~pl.col("value").is_finite().fill_null(False))
    # observers see one image per cell and prompt
    keys = ["cell_id", "prompt_id"] + (["seed"] if run.metrics[metric].track != "preference" else [])
    unscored = images.join(scores, on=keys, how="anti", nulls_equal=True)
    if len(bad) or len(unscored):
        reasons = bad["reason_unscored"].drop_nulls().value_counts(sort=True).head(1)["reason_unscored"].to_list()
        why = f"; most frequent reason: {reasons[0]}" if reasons else ""
        yield Missing(
            what="score",
            name=metric,
            where=name,
            detail=f"{_count(len(bad) + len(unscored), 'image has', 'images have')} no score{why}",
        )


def _missing_energy(name: str, run: Run) -> Iterable[Missing]:
    failed = run.trials.filter(~FINISHED)
    if len(failed):
        row = failed.row(0, named=True)
        yield Missing(
            what="trial",
            name=row["trial_id"],
            where=name,
            detail=f"{_count(len(failed), 'trial')} failed: {row['failure']}",
        )
    without_joules = run.windows.filter(~pl.col("energy_j").is_finite().fill_null(False))
    if len(without_joules):
        texts = without_joules["warnings"].to_list()[0]
        why = f": {'; '.join(texts)}" if texts else ""
        yield Missing(
            what="energy",
            name=str(without_joules["trial_id"][0]),
            where=name,
            detail=f"{_count(len(without_joules), 'window has', 'windows have')} no joules{why}",
        )


def _cell_values(name: str, run: Run, metric: str) -> Iterable[str]:
    """Yield values that an imported table states once per cell: without their variation there is no verdict on them."""
    if not run.is_imported:
        return
    try:
        grid = read_grid(run, [metric] if metric in run.metrics else [])
    except RunError:  # joules that are not positive: reported by `_invalid`
        return
    for what, is_cell_value in ((metric, grid.is_cell_value(metric)), ("energy", grid.is_cell_value(ENERGY))):
        cells = [cell for cell, is_value in zip(grid.cells, is_cell_value, strict=True) if is_value]
        if cells:
            listed = ", ".join(cells[:_LISTED]) + (f" and {len(cells) - _LISTED} more" if len(cells) > _LISTED else "")
            yield (
                f"{name}: W281: the table states one value of {what} per cell, so its variation is unknown and there "
                f"is no verdict on it ({listed}); import the values of single images"
            )


def _invalid(name: str, run: Run) -> Iterable[str]:
    good = run.windows
    for mixture in mixtures(run.trials)[:_LISTED]:
        yield f"{name}: {warning('W265', str(mixture))}"
    negative = good.filter(pl.col("energy_j") <= 0)
    if len(negative):
        number = _count(len(negative), "window has", "windows have")
        yield f"{name}: {number} zero or negative joules, e.g. {negative['trial_id'][0]}"
    marked = _disturbed(good)
    if len(marked) > TOLERATED_SHARE * len(good):
        yield f"{name}: {len(marked)} of {len(good)} windows are not valid for a verdict, e.g. {marked[0]}"


def _disturbed(trials: pl.DataFrame) -> list[str]:
    """Return the `disturbance` of every window that has one."""
    return disturbances(trials["warnings"]).drop_nulls().to_list()


def _differences(baseline: Run, candidate: Run, metric: str, change: set[str]) -> Iterable[Difference]:
    return _differing(_pairs(baseline, candidate, metric), change)


def _differing(pairs: Iterable[tuple[str, Any, Any]], change: Collection[str]) -> Iterable[Difference]:
    for key, old, new in sorted(pairs):
        if old != new and not _is_under_test(key, set(change)):
            yield Difference(key=key, baseline=old, candidate=new)


def _is_under_test(key: str, change: set[str]) -> bool:
    """Return whether a key may differ; `variants` are all settings of variants, and with them the weights."""
    if VARIANTS in change and (key == "models" or key.startswith(f"{VARIANTS}.")):
        return True
    return bool({key, key.rsplit(".", 1)[-1]} & change)


def _pairs(baseline: Run, candidate: Run, metric: str) -> Iterable[tuple[str, Any, Any]]:
    yield from _setting_pairs((baseline.suite, candidate.suite), (baseline.environment, candidate.environment), metric)
    for column in _TRIAL_KEYS:
        old, new = (sorted(run.windows[column].drop_nulls().unique()) for run in (baseline, candidate))
        yield column, old, new
    old, new = (sorted(devices_of(run.trials)) for run in (baseline, candidate))
    if old and new:  # runs of earlier versions do not record it
        yield "trials.device", old, new
    specs = baseline.metrics.get(metric), candidate.metrics.get(metric)
    if specs[0] is not None and specs[1] is not None:
        for key in _METRIC_KEYS:
            yield f"metrics.{metric}.{key}", getattr(specs[0], key), getattr(specs[1], key)


def _setting_pairs(
    suites: tuple[Suite, Suite], environments: tuple[Mapping[str, Any], Mapping[str, Any]], metric: str
) -> Iterable[tuple[str, Any, Any]]:
    a, b = (environment.get("comparability") or {} for environment in environments)
    for key in {*a, *b}:
        yield key, a.get(key), b.get(key)
    old, new = (suite.metrics.options.get(metric, {}) for suite in suites)
    yield f"metrics.{metric}.options", old, new
    for key in _PROTOCOL_KEYS:
        yield f"protocol.{key}", getattr(suites[0].protocol, key), getattr(suites[1].protocol, key)
    variants = [{v.name: asdict(v) for v in suite.variants} for suite in suites]
    for name in variants[0].keys() & variants[1].keys():
        for key in _VARIANT_KEYS:
            yield f"variants.{name}.{key}", variants[0][name].get(key), variants[1][name].get(key)


def differing_settings(
    suites: tuple[Suite, Suite],
    environments: tuple[Mapping[str, Any], Mapping[str, Any]],
    metric: str,
    change: Collection[str],
) -> list[Difference]:
    """Return what would make two runs incomparable, as far as it is known before anything is measured.

    Args:
        suites: Suites of baseline and candidate.
        environments: Their systems under test.
        metric: Quality axis.
        change: Keys that may differ.
    """
    return list(_differing(_setting_pairs(suites, environments, metric), change))


def _notes(baseline: Run, candidate: Run, metric: str, images: tuple[pl.DataFrame, pl.DataFrame]) -> Iterable[str]:
    spec = baseline.metrics.get(metric)
    if spec is not None and spec.advisory:
        yield f"{metric} is advisory: it describes images but does not say how good they are"
    new = sorted(_cells(candidate) - _cells(baseline))
    if new:
        yield f"cells that only the candidate has are not judged: {', '.join(new[:_LISTED])}"
    yield from _new_images(candidate, *images)
    for name, run in (("baseline", baseline), ("candidate", candidate)):
        good = run.windows
        smaller = sorted(good.filter(is_marked("W266"))["cell_id"].unique())
        if smaller:
            listed = ", ".join(smaller[:_LISTED]) + (" …" if len(smaller) > _LISTED else "")
            sentence = f"windows that did not fit into memory were drawn with smaller batches, as other cells: {listed}"
            yield f"{name}: {warning('W266', sentence)}"
        marked = _disturbed(good)
        if marked:  # few enough to be included; otherwise the verdict is invalid
            yield f"{name}: {len(marked)} of {len(good)} windows were disturbed but are included, e.g. {marked[0]}"
    note = provenance_note(provenances(baseline, candidate))
    if note:
        yield note
