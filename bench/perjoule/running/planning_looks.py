"""Plans the looks of a sequential gate before anything is measured; a resumed gate must have the same plan."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from perjoule.errors import EvidenceError, UsageError
from perjoule.gating.looks import LookPlan, measuring_order, prompts_at_looks
from perjoule.gating.margins import require_fixed
from perjoule.gating.records import GateConfig
from perjoule.gating.steps import STEPS, renamed_cells
from perjoule.protocols import QualityMetric, judges_images
from perjoule.running.prepared import Prepared
from perjoule.runs.columns import FINISHED
from perjoule.runs.directory import Run
from perjoule.statistics.designs import Design
from perjoule.suite.reading import cells_of, images_per_window


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRequest:
    """What a sequential gate is asked for.

    Attributes:
        baseline: The baseline as it was named.
        config: Margins, error and mode.
        metric: Quality axis; the baseline suite's primary metric by default.
        design: How the error is divided over the looks.
        meter_name: Name as for `open_meter`.
        command: Command line, stored in the run and in messages.
    """

    baseline: str
    config: GateConfig
    metric: str | None
    design: Design
    meter_name: str
    command: tuple[str, ...]


def look_plan(candidate: Prepared, baseline: Run | Prepared, request: GateRequest) -> LookPlan:
    """Return the looks. Raises UsageError or EvidenceError if the baseline does not fit the suite."""
    metric = request.metric or baseline.suite.metrics.primary
    metric_of(candidate, metric, request.config)
    cells = _cells_as_baseline(candidate, baseline, request.config.change)
    ids = [prompt.prompt_id for prompt in candidate.prompts]
    if isinstance(baseline, Prepared):
        metric_of(baseline, metric, request.config)
        lacking = {cell.cell_id for cell in cells_of(baseline.suite)} - cells
        common = set(ids)
        if ids != [prompt.prompt_id for prompt in baseline.prompts]:
            raise EvidenceError(
                f"the suites have different prompts ({len(baseline.prompts)} and {len(ids)}): use the same prompt set "
                "on both sides"
            )
    else:
        lacking = set(baseline.windows["cell_id"]) - cells
        common = _measured_everywhere(baseline)
    if lacking:
        steps = not lacking - _cells_as_baseline(candidate, baseline, (STEPS,))
        under_test = ", or if its step count is the change under test, add --change steps" if steps else ""
        raise EvidenceError(
            f"the baseline {request.baseline} has cells that {candidate.source} does not plan: "
            f"{', '.join(sorted(lacking)[:5])}: use the suite that the baseline was measured with{under_test}"
        )
    size = images_per_window(candidate.suite)
    order = measuring_order(ids, size, candidate.suite.protocol.order_seed)
    windows = (order[start : start + size] for start in range(0, len(order), size))
    kept = tuple(prompt for window in windows if common.issuperset(window) for prompt in window)
    if not kept:
        raise EvidenceError(
            f"the baseline {request.baseline} has no window of prompts in common with {candidate.source}: use the "
            "prompts that the baseline was measured with"
        )
    return LookPlan(
        config=request.config,
        metric=metric,
        design=request.design,
        prompt_ids=kept,
        prompts=prompts_at_looks(len(kept), size),
        baseline=request.baseline,
        interleaved=isinstance(baseline, Prepared),
    )


def _cells_as_baseline(candidate: Prepared, baseline: Run | Prepared, change: tuple[str, ...]) -> set[str]:
    """Return the candidate's cells, by the names that they have in the baseline."""
    names = renamed_cells(baseline.suite, candidate.suite, change)
    return {names.get(cell.cell_id, cell.cell_id) for cell in cells_of(candidate.suite)}


def metric_of(prepared: Prepared, name: str, config: GateConfig) -> QualityMetric:
    """Return the loaded metric of the quality axis; raises UsageError if the suite lacks it or it has no margin."""
    metric = next((one for one in prepared.metrics if one.spec.name == name), None)
    if metric is None or not judges_images(metric):
        known = ", ".join(one.spec.name for one in prepared.metrics if judges_images(one))
        raise UsageError(f"gate: {prepared.source} has no metric {name!r}: choose one of {known}, or add it")
    stated = prepared.suite.metrics.margins.get(name)
    if config.joules_per_quality is not None or config.margin_quality is not None:
        return metric
    require_fixed(name, stated, sequential=True, usual=metric.spec.margin, file=str(prepared.source))
    if metric.spec.margin is None and stated is None:
        raise UsageError(f"gate: metric {name!r} declares no margin: give --margin-quality")
    return metric


def _measured_everywhere(run: Run) -> set[str]:
    """Return the prompts that a run has finished windows of in every cell."""
    pairs = run.trials.filter(FINISHED).select("cell_id", "prompt_ids").explode("prompt_ids").unique()
    counts = pairs["prompt_ids"].value_counts()
    cells = pairs["cell_id"].n_unique()
    return {prompt for prompt, count in counts.iter_rows() if count == cells}


def require_same_plan(begun: Run, stored: LookPlan | None, plan: LookPlan) -> None:
    """Raise UsageError if the run that is resumed began with another plan; names what differs."""
    out = begun.path
    if stored is None:
        if begun.trials.is_empty():  # it was cut off before its first trial
            return
        raise UsageError(f"{out} is not the run of a sequential gate: choose another --out")
    for key in ("metric", "design", "prompt_ids", "prompts", "interleaved"):
        old, new = getattr(stored, key), getattr(plan, key)
        if old != new:
            shown = "" if key.startswith("prompt") else f": {old} and {new}"
            raise UsageError(f"{out} cannot be resumed: {key} differs from the beginning{shown}: use the same command")
    old, new = asdict(stored.config), asdict(plan.config)
    if differing := [f"{key}: {_given(old[key])} and {_given(new[key])}" for key in old if old[key] != new[key]]:
        raise UsageError(
            f"{out} cannot be resumed: {'; '.join(differing)}: use the same command, because a gate must not change "
            "while it looks"
        )


def _given(value: object) -> str:
    """Return an option of a gate as text."""
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return "not given" if value is None else str(value)
