"""The looks of a sequential gate: prompts are added block by block until there is a verdict.

A sequential run directory has, in addition to the files of every run:

    sequential.json   the plan: margins, the order of the prompts, prompts at each look; written before the first trial
    looks.jsonl       one row per look
    baseline/         the other side: a run of the same session, or a copy of the stored baseline

So every look can be computed again from files. A look is the gate's own decision, at the nominal level of that look
(`GateConfig.nominal`), over the first prompts of the plan. Blocks are windows in random order, because the order of a
prompt file may have a meaning, and consist of the same prompts on both sides.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import polars as pl
from pydantic import TypeAdapter

from perjoule.errors import RunError
from perjoule.files import append_line, mend, open_journal, read_json, read_json_lines, write_json
from perjoule.gating import baselines
from perjoule.gating.pairing import Pairs
from perjoule.gating.records import GateConfig, Look, Stop, Verdict
from perjoule.gating.resolving import unreachable
from perjoule.runs.directory import LOOKS, Run, is_run, load_run, located
from perjoule.statistics.designs import Design
from perjoule.statistics.resampling import Array
from perjoule.statistics.sequential import spent
from perjoule.types import Estimate, MetricSpec, Prompt, Suite
from perjoule.types.documents import document

PLAN, BASELINE = "sequential.json", "baseline"
# looks after these eighths of the prompts: of all schedules that were simulated, that with the fewest joules
EIGHTHS = (1, 2, 3, 4, 6, 8)
# metrics compute in float32 (eps 1.2e-7): scores that are computed again in other batches differ by a smaller share
SCORED_AGAIN = 1e-6
LEAST_UNITS = 3  # of the energy statistics at the first look
Decision = Literal["continue", "pass", "fail", "inconclusive", "invalid", "unresolvable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LookPlan:
    """What a sequential gate decided before its first trial.

    Attributes:
        config: Margins, error and mode; without a look.
        metric: Quality axis.
        design: How the error is divided over the looks.
        prompt_ids: Prompts in the order of measuring.
        prompts: Number of prompts at each look, increasing.
        baseline: The baseline as it was named.
        interleaved: Whether the baseline is measured in the same session.
    """

    config: GateConfig
    metric: str
    design: Design
    prompt_ids: tuple[str, ...]
    prompts: tuple[int, ...]
    baseline: str
    interleaved: bool

    def look(self, number: int) -> Look:
        """Return a look by its number, from 1."""
        shares = tuple(count / self.prompts[-1] for count in self.prompts)
        return Look(number=number, shares=shares, design=self.design)

    def until(self, number: int) -> frozenset[str]:
        """Return the prompts until a look."""
        return frozenset(self.prompt_ids[: self.prompts[number - 1]])

    def numbers(self) -> dict[str, int]:
        """Return the number of the first look that needs a prompt, by prompt."""
        return {
            prompt: next(number for number, count in enumerate(self.prompts, 1) if place < count)
            for place, prompt in enumerate(self.prompt_ids)
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LookRow:
    """A row of `looks.jsonl`.

    Attributes:
        look: Number of the look, from 1.
        prompts: Prompts until this look.
        nominal_alpha: One-sided level of this look.
        alpha_spent: One-sided error of each axis over all looks until this one; None in a confidence sequence.
        energy: Change of energy as a share, with the limits of this look.
        quality: Change of quality, with the limits of this look.
        energy_j: Energy until this look, of both sides if both were measured.
        share: Share of the planned joules.
        outcome: `continue`, or how the gate ended.
        reason: Why it ended, if not by a verdict.
    """

    look: int
    prompts: int
    nominal_alpha: float
    alpha_spent: float | None
    energy: Estimate
    quality: Estimate
    energy_j: float | None
    share: float
    outcome: Decision
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class PartOfRun(Run):
    """A run as if only some of its prompts had been measured."""

    whole: Run
    kept: frozenset[str]

    @cached_property
    def suite(self) -> Suite:
        """The suite of the whole run."""
        return self.whole.suite

    @cached_property
    def environment(self) -> dict[str, Any]:
        """System under test."""
        return self.whole.environment

    @cached_property
    def metrics(self) -> dict[str, MetricSpec]:
        """Specs of the scored metrics."""
        return self.whole.metrics

    @property
    def common_errors(self) -> Mapping[str, Mapping[str, Array]]:
        """Errors that all prompts have in common."""
        return self.whole.common_errors

    @cached_property
    def trials(self) -> pl.DataFrame:
        """Trials whose prompts are all in this part."""
        others = pl.col("prompt_ids").list.set_difference(sorted(self.kept)).list.len()
        return self.whole.trials.filter(others == 0)

    @cached_property
    def prompt_set(self) -> tuple[Prompt, ...]:
        """Prompts of this part, in the order of the plan."""
        return tuple(prompt for prompt in self.whole.prompt_set if prompt.prompt_id in self.kept)

    @cached_property
    def images(self) -> pl.DataFrame:
        """Images of this part."""
        return self.whole.images.filter(pl.col("prompt_id").is_in(self.kept))

    @cached_property
    def scores(self) -> pl.DataFrame:
        """Scores of this part."""
        return self.whole.scores.filter(pl.col("prompt_id").is_in(self.kept))


def part_of(run: Run, kept: frozenset[str]) -> Run:
    """Return the part of a run with these prompts."""
    return PartOfRun(path=run.path, whole=run, kept=kept)


def measuring_order(prompt_ids: Sequence[str], per_window: int, seed: int) -> tuple[str, ...]:
    """Return prompts in the order of measuring: whole windows in random order, and those that fill none last."""
    full = len(prompt_ids) - len(prompt_ids) % per_window
    windows = [prompt_ids[start : start + per_window] for start in range(0, full, per_window)]
    random.Random(f"{seed}/looks").shuffle(windows)
    return tuple(prompt for window in (*windows, prompt_ids[full:]) for prompt in window)


def prompts_at_looks(count: int, per_window: int) -> tuple[int, ...]:
    """Return the number of prompts at each look: whole windows nearest above `EIGHTHS`, and all prompts at the end.

    Args:
        count: Planned prompts.
        per_window: Images per window; a look has at least `LEAST_UNITS` windows of each seed.
    """
    units = math.ceil(count / per_window)
    at = (max(LEAST_UNITS, math.ceil(units * eighth / 8)) for eighth in EIGHTHS)
    return tuple(sorted({min(unit * per_window, count) for unit in at}))


def judge_look(plan: LookPlan, number: int, baseline: Run, candidate: Run) -> tuple[Verdict, LookRow]:
    """Return the verdict of a look and its row; both runs must have the prompts until it."""
    from perjoule.gating import verdict_and_pairs

    kept = plan.until(number)
    before, after = part_of(baseline, kept), part_of(candidate, kept)
    config = replace(plan.config, look=plan.look(number))
    verdict, pairs = verdict_and_pairs(before, after, plan.metric, config)
    stop = stop_at(plan, number, before, after)
    verdict = replace(verdict, stop=stop)
    outcome, reason = _decision(plan, number, verdict, pairs)
    if reason:
        verdict = replace(verdict, reasons=(reason, *verdict.reasons))
    sequence = plan.design == "confidence-sequence"
    row = LookRow(
        look=number,
        prompts=len(kept),
        nominal_alpha=config.nominal(),
        alpha_spent=None if sequence else spent(plan.design, stop.share, config.alpha),
        energy=verdict.energy.change,
        quality=verdict.quality.change,
        energy_j=stop.energy_j,
        share=stop.share,
        outcome=outcome,
        reason=reason,
    )
    return verdict, row


def stop_at(plan: LookPlan, number: int, baseline: Run, candidate: Run) -> Stop:
    """Return where the gate stands after a look, from the parts of both runs until it."""
    prompts, planned = plan.prompts[number - 1], plan.prompts[-1]
    return Stop(
        look=number,
        looks=len(plan.prompts),
        prompts=prompts,
        prompts_planned=planned,
        energy_j=_joules(candidate, *((baseline,) if plan.interleaved else ())),
        share=prompts / planned,
    )


def _joules(*runs: Run) -> float | None:
    sums = [float(run.windows["energy_j"].drop_nulls().to_numpy().sum()) for run in runs]
    return sum(sums) if all(run.windows["energy_j"].count() for run in runs) else None


def _decision(plan: LookPlan, number: int, verdict: Verdict, pairs: Pairs | None) -> tuple[Decision, str]:
    """Return whether the gate goes on after a look, and the reason if it ends without a verdict."""
    last = number == len(plan.prompts)
    if verdict.verdict in ("pass", "fail"):
        return verdict.verdict, ""
    if verdict.verdict == "invalid":
        # what is missing or incomparable stays so, but few disturbed windows may become few enough
        return ("invalid" if last or verdict.missing or verdict.incomparable else "continue"), ""
    if last:
        return "inconclusive", ""
    high, low, margin = verdict.energy.change.high, verdict.energy.change.low, verdict.energy.margin
    unknown = plan.config.mode == "stored" and plan.config.session_sd is None and verdict.net_benefit_j is None
    if unknown and low is not None and high is not None and margin is not None and low > margin and low < high:
        return "inconclusive", "more prompts would not decide: energy cannot fail against a baseline of another session"
    final = replace(plan.config, look=plan.look(len(plan.prompts)))
    problem = unreachable(verdict, pairs, final, plan.prompts[-1]) if pairs is not None else None
    return ("unresolvable", problem) if problem else ("continue", "")


def write_plan(plan: LookPlan, folder: Path) -> None:
    """Store the plan of a sequential run."""
    write_json(folder / PLAN, document(plan))


def read_plan(folder: Path) -> LookPlan | None:
    """Return the plan of a sequential run; None if the run is not sequential. Raises RunError if it is damaged."""
    file = folder / PLAN
    if not file.is_file():
        return None
    with located(file):
        content = dict(read_json(file))
        if content.pop("schema") != 1:
            raise RunError(f"{file}: this version of perjoule reads schema 1: use a later version")
        plan: LookPlan = TypeAdapter(LookPlan).validate_python(content)
        increasing = all(a < b for a, b in pairwise((0, *plan.prompts)))
        if not plan.prompts or not increasing or plan.prompts[-1] > len(plan.prompt_ids):
            raise ValueError(f"prompts = {list(plan.prompts)[:9]}, but there are {len(plan.prompt_ids)} prompt_ids")
    return plan


def append_row(folder: Path, row: LookRow) -> None:
    """Store a look; it is on disk when this returns."""
    with open_journal(folder / LOOKS) as file:
        append_line(file, asdict(row))


def read_rows(folder: Path, *, repair: bool = False) -> list[LookRow]:
    """Return the stored looks; `repair` cuts off an incomplete last row. Raises RunError if a row is damaged."""
    file = folder / LOOKS
    if not file.is_file():
        return []
    with located(file):
        rows = mend(file) if repair else read_json_lines(file)
        looks = TypeAdapter(list[LookRow]).validate_python(rows)
        if [row.look for row in looks] != list(range(1, len(looks) + 1)):
            raise ValueError("the looks are not numbered 1, 2, 3, …")
    return looks


def has_baseline(folder: Path) -> bool:
    """Return whether a sequential run directory contains its baseline, which a start that was cut off lacks."""
    inside = folder / BASELINE
    return is_run(inside) or any(inside.glob("*/*/*.json.gz"))


def open_baseline(folder: Path, stack: ExitStack) -> Run:
    """Open the baseline inside a sequential run directory."""
    inside = folder / BASELINE
    if inside.is_symlink():
        raise RunError(f"{inside} is a symbolic link: replace it by the folder itself")
    if is_run(inside):
        return load_run(inside)
    return baselines.load(BASELINE, Path(stack.enter_context(TemporaryDirectory())), root=inside)


def last_look(run: Run) -> tuple[LookPlan, int] | None:
    """Return the plan of a sequential run and its last look whose prompts are all measured; None without either."""
    plan = read_plan(run.path)
    if plan is None or isinstance(run, PartOfRun):
        return None
    measured = set(run.windows["prompt_ids"].explode().drop_nulls())
    numbers = [number for number in range(1, len(plan.prompts) + 1) if plan.until(number) <= measured]
    return (plan, numbers[-1]) if numbers else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """All looks of a sequential run, computed again from its files.

    Attributes:
        run: The run directory.
        metric: Quality axis.
        design: How the error is divided over the looks.
        looks_planned: Planned looks.
        prompts_planned: Planned prompts.
        looks: The looks, computed again.
        differences: Stored looks that differ from these.
        verdict: Verdict of the last look.
    """

    run: str
    metric: str
    design: Design
    looks_planned: int
    prompts_planned: int
    looks: tuple[LookRow, ...]
    differences: tuple[str, ...]
    verdict: Verdict


def replay(folder: Path) -> Replay:
    """Compute every stored look of a sequential run again.

    Raises:
        RunError: If the run is not sequential, or has no look yet.
    """
    run = load_run(folder)
    plan, stored = read_plan(folder), read_rows(folder)
    if plan is None or not stored:
        what = "is not the run of a sequential gate" if plan is None else "has no look yet"
        raise RunError(f"{folder} {what}: give a directory that `perjoule gate --sequential` wrote")
    if len(stored) > len(plan.prompts):
        raise RunError(f"{folder / LOOKS}: {len(stored)} looks, but {len(plan.prompts)} were planned: restore it")
    with ExitStack() as stack:
        baseline = open_baseline(folder, stack)
        judged = [judge_look(plan, row.look, baseline, run) for row in stored]
        tolerance = SCORED_AGAIN * _typical_score(plan.metric, baseline, run)
    rows = tuple(row for _, row in judged)
    return Replay(
        run=str(folder),
        metric=plan.metric,
        design=plan.design,
        looks_planned=len(plan.prompts),
        prompts_planned=plan.prompts[-1],
        looks=rows,
        differences=tuple(_differences(stored, rows, tolerance)),
        verdict=judged[-1][0],
    )


def _typical_score(metric: str, *runs: Run) -> float:
    """Return the mean absolute score of a metric; 0 without scores."""
    values = pl.concat([run.scores.filter(pl.col("metric") == metric)["value"] for run in runs])
    mean = values.filter(values.is_finite().fill_null(False)).abs().mean()
    return mean if isinstance(mean, float) else 0.0


def _differences(stored: Sequence[LookRow], again: Sequence[LookRow], tolerance: float) -> Iterable[str]:
    """Yield what differs; `tolerance` is that of quality, joules are sums of stored numbers."""
    for old, new in zip(stored, again, strict=True):
        for key in ("prompts", "outcome"):
            if getattr(old, key) != getattr(new, key):
                yield f"look {old.look}: {key} is {getattr(old, key)} in {LOOKS} and {getattr(new, key)} computed again"
        for key, tolerated in (("energy", 1e-12), ("quality", tolerance)):
            before, after = getattr(old, key).value, getattr(new, key).value
            if (before is None) != (after is None) or (
                before is not None and not math.isclose(before, after, rel_tol=1e-9, abs_tol=tolerated)
            ):
                yield f"look {old.look}: the change of {key} is {before} in {LOOKS} and {after} computed again"
