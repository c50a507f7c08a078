"""Names what changed between two runs: the counted work per image, network by network.

Joules say that an image became more expensive; calls and FLOPs say why, e.g. one more evaluation of the denoiser, or a
text encoder that is called twice. Runs of every meter record this work (see `perjoule.work.counter`), so measured
joules are explained as well, if all networks of both runs could be counted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

import polars as pl

from perjoule.gating.records import Counts, Verdict, WorkChange
from perjoule.runs.directory import Run

# the last digits of means over windows may differ
_SAME = 1e-9
_LISTED = 4
# the work of each window is a line of JSON: a gate of millions of windows would wait for it
_MOST_WINDOWS = 50_000
# the role of a network in a pipeline, by the name of its class in diffusers and transformers
_ROLES = (
    ("text encoder", re.compile(r"Text|T5|Gemma|Llama|Qwen")),
    ("denoiser", re.compile(r"UNet|Transformer2D|DiT")),
    ("decoder", re.compile(r"Decoder|Autoencoder")),
)


def work_changes(baseline: Run, candidate: Run) -> tuple[WorkChange, ...]:
    """Return the counted work per image that differs, by cell and network, the largest change of FLOPs first.

    Windows are compared that both runs have, with the same prompts and seeds. Cells in which work was not counted in
    all of them, e.g. in imported runs, are left out. Runs of more than 50,000 windows have none.
    """
    if baseline.is_imported or candidate.is_imported or len(candidate.windows) > _MOST_WINDOWS:
        return ()
    before, after = (_windows(run) for run in (baseline, candidate))
    both = before.join(after, on=["cell_id", "block", "drawn"], suffix="_candidate", maintain_order="left")
    changes: list[WorkChange] = []
    for (cell,), windows in sorted(both.group_by("cell_id"), key=lambda group: str(group[0])):
        old = _per_image(baseline, windows, "")
        new = _per_image(candidate, windows, "_candidate")
        if old is not None and new is not None:
            changes += _differing(str(cell), old, new)
    return tuple(sorted(changes, key=lambda change: -abs(change.candidate.flops - change.baseline.flops)))


def _windows(run: Run) -> pl.DataFrame:
    """Return the windows with what they drew as text, because lists are no keys of a join."""
    prompts = pl.col("prompt_ids").list.join("\x1f")
    seeds = pl.col("seeds").cast(pl.List(pl.String)).list.join("\x1f")
    drawn = pl.concat_str(prompts, seeds, separator="\x1e")
    return run.windows.select("trial_id", "cell_id", "block", "images", "nfe_per_image", drawn=drawn)


def _per_image(run: Run, windows: pl.DataFrame, side: str) -> Mapping[str, Counts] | None:
    """Return the counts per image by network, over all these windows; None if one of them was not counted."""
    works = [run.works.get(trial) for trial in windows[f"trial_id{side}"]]
    if any(work is None for work in works):
        return None
    images = int(windows[f"images{side}"].sum())
    totals: dict[str, list[float]] = {}
    for work in works:
        for part in work.parts if work is not None else ():
            sums = totals.setdefault(part.name, [0.0] * 4)
            for i, count in enumerate((part.calls, part.flops, part.bytes_moved, part.operators)):
                sums[i] += count / images
    weighted = windows.select((pl.col(f"nfe_per_image{side}") * pl.col(f"images{side}")).sum() / images)
    evaluations = weighted.item()
    return {
        name: Counts(
            calls=calls,
            flops=flops,
            bytes_moved=moved,
            operators=operators,
            evaluations=evaluations if role_of(name) == "denoiser" else None,
        )
        for name, (calls, flops, moved, operators) in totals.items()
    }


def _differing(cell: str, old: Mapping[str, Counts], new: Mapping[str, Counts]) -> Iterable[WorkChange]:
    nothing = Counts(calls=0, flops=0, bytes_moved=0, operators=0, evaluations=None)
    for name in sorted({*old, *new}):
        before, after = old.get(name, nothing), new.get(name, nothing)
        if not _same(before, after):
            yield WorkChange(cell_id=cell, network=name, role=role_of(name), baseline=before, candidate=after)


def _same(a: Counts, b: Counts) -> bool:
    return all(
        math.isclose(x, y, rel_tol=_SAME, abs_tol=_SAME)
        for x, y in (
            (a.calls, b.calls), (a.flops, b.flops), (a.bytes_moved, b.bytes_moved), (a.operators, b.operators),
        )
    )  # fmt: skip


def role_of(network: str) -> str:
    """Return the role of a network, by its class: `text encoder`, `denoiser`, `decoder`; empty if unknown."""
    return next((role for role, pattern in _ROLES if pattern.search(network)), "")


def explained(verdict: Verdict, baseline: Run, candidate: Run) -> Verdict:
    """Return the verdict with the changes of counted work: among its reasons if energy is not passed, else as notes."""
    changes = work_changes(baseline, candidate)
    texts = sentences(changes)
    if verdict.energy.outcome == "pass":
        return replace(verdict, work_changes=changes, notes=(*texts, *verdict.notes))
    return replace(verdict, work_changes=changes, reasons=(*verdict.reasons, *texts))


def sentences(changes: Sequence[WorkChange]) -> tuple[str, ...]:
    """Return the changes as text, the same change of several cells as one sentence."""
    ordered = sorted(enumerate(changes), key=lambda item: (_sentence(item[1]), item[0]))
    groups = [list(group) for _, group in groupby(ordered, key=lambda item: _sentence(item[1]))]
    groups.sort(key=lambda group: group[0][0])
    texts = []
    for group in groups[:_LISTED]:
        cells = [change.cell_id for _, change in group]
        where = cells[0] if len(cells) == 1 else f"{len(cells)} cells"
        texts.append(f"{where}: {_sentence(group[0][1])}")
    if len(groups) > _LISTED:
        texts.append(f"and {len(groups) - _LISTED} more changes of counted work: see --json")
    return tuple(texts)


def _sentence(change: WorkChange) -> str:
    """Return e.g. `denoiser evaluations per image 12 → 13 (UNet2DConditionModel: GFLOP per image 14.3 → 15.5)`."""
    before, after = change.baseline, change.candidate
    name = change.network
    if change.role:
        name = f"{change.role} {name}"
    if not before.calls:
        return f"{name} is new: {_calls(after)} and {after.flops / 1e9:.4g} GFLOP per image"
    if not after.calls:
        return f"{name} is not called any more; before: {_calls(before)} and {before.flops / 1e9:.4g} GFLOP per image"
    parts = []
    if before.evaluations is not None and after.evaluations is not None and before.evaluations != after.evaluations:
        parts.append(f"evaluations per image {before.evaluations:.4g} → {after.evaluations:.4g}")
    if not math.isclose(before.calls, after.calls, rel_tol=_SAME):
        parts.append(f"calls per image {before.calls:.4g} → {after.calls:.4g}")
    if not math.isclose(before.flops, after.flops, rel_tol=_SAME):
        parts.append(f"GFLOP per image {before.flops / 1e9:.4g} → {after.flops / 1e9:.4g}")
    if not parts:
        parts.append(f"MB moved per image {before.bytes_moved / 1e6:.4g} → {after.bytes_moved / 1e6:.4g}")
        parts.append(f"operators per image {before.operators:.4g} → {after.operators:.4g}")
    return f"{name}: {', '.join(parts)}"


def _calls(counts: Counts) -> str:
    return "1 call" if counts.calls == 1 else f"{counts.calls:.4g} calls"
