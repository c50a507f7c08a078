"""What the commands print: summaries as records, and the same as text."""

from __future__ import annotations

import csv
import io
import math
import shlex
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from perjoule.commands.options import print_record, print_text
from perjoule.commands.race_text import race_notes, raced
from perjoule.commands.records import MetricRow, MetricScores, RunRow, Scores, SuiteRow, VariantRow
from perjoule.errors import PerjouleError, RunError, first_line
from perjoule.meters import MeterInfo
from perjoule.prompts.catalogue import PromptSetRow
from perjoule.runs.directory import Run, is_run, load_run
from perjoule.runs.race_record import Race
from perjoule.runs.result import stored_result
from perjoule.runs.trial_counts import TrialCounts, quick_counts, trial_counts
from perjoule.statistics.frontier import read_frontier
from perjoule.statistics.grid import CELL_VALUE
from perjoule.statistics.points import known_points
from perjoule.statistics.price import price_of
from perjoule.statistics.records import Comparison, Frontier, Point
from perjoule.statistics.sensor_errors import mean_power_w, sentence
from perjoule.suite.reading import find_suite, load_suite, suite_names
from perjoule.suite.timesteps import sampler_of
from perjoule.text import escape_markdown, one_line, spreadsheet_cell
from perjoule.text_table import Row, cell_text, text_table
from perjoule.types import Estimate, Judges, Variant, weakest
from perjoule.types.price import Price
from perjoule.warnings import warning
from perjoule.weights.catalogue import facts_of, repositories, weights_name

_BEST = 3
# columns that a narrow terminal leaves out, the first ones first
LEAST = (
    "headline", "W", "NFE", "TFLOP/image", "GFLOP/image", "FLOP/image", "p10", "s/image", ("J low", "J high"),
    ("low", "high"), "energy is", "Holm", "gain at equal J", "BD-energy", "because", "sha256", "pinned", "revision",
    "weights", "scheduler", "guidance", "gated", "licence", "failed", "path", "bytes", "key", "commit", "unscored",
    "reasons", "role", "commercial",
)  # fmt: skip
WORK_UNITS = (("TFLOP", 1e12), ("GFLOP", 1e9), ("FLOP", 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierOfRun(Frontier):
    """What `run`, `frontier` and `baseline show` print: the frontier, the trials that it rests on, and who judged.

    `price` is what measuring took, None for an imported run; `race` is None if all cells were to get all prompts.
    """

    trials: TrialCounts
    judges: Judges | None
    price: Price | None
    race: Race | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What `list` prints: one of these keys."""

    suites: tuple[SuiteRow, ...] = ()
    variants: tuple[VariantRow, ...] = ()
    prompts: tuple[PromptSetRow, ...] = ()
    metrics: tuple[MetricRow, ...] = ()
    meters: tuple[MeterInfo, ...] = ()
    runs: tuple[RunRow, ...] = ()


def score_summary(run: Run) -> Scores:
    """Count the images that each metric could score, with the reasons for those that it could not."""
    metrics = []
    for (metric,), part in run.scores.group_by("metric", maintain_order=True):
        reasons = part["reason_unscored"].drop_nulls().value_counts(sort=True).head(3).rows()
        metrics.append(
            MetricScores(
                metric=str(metric),
                scored=int(part["value"].is_not_null().sum()),
                unscored=part["value"].null_count(),
                mean=part["value"].mean(),  # type: ignore[arg-type]
                reasons=tuple(f"{reason} ({count})" for reason, count in reasons),
            )
        )
    return Scores(run=str(run.path), metrics=tuple(metrics), sets=tuple(run.set_scores))


def score_text(scores: Scores, width: int | None = None) -> str:
    """Return the scores as text; `width` is that of a terminal."""
    text = text_table([{**asdict(row), "reasons": "; ".join(row.reasons)} for row in scores.metrics], width, LEAST)
    if not scores.sets:
        return text
    sets = [
        {"metric": row.metric, "cell": row.cell_id, "value": row.value, "images": row.image_count}
        for row in scores.sets
    ]
    return f"{text}\n\nADVISORY, of sets of images: decides nothing, see docs/metrics.md\n{text_table(sets, width)}"


def print_frontier(run: Run, metric: str | None, fmt: str, width: int | None = None) -> None:
    """Print the operating points of one metric; `width` is that of a terminal."""
    frontier = read_frontier(run, metric)
    asked = run.judges if frontier.track == "preference" else None
    if fmt == "json":
        parts = {field.name: getattr(frontier, field.name) for field in fields(frontier)}
        print_record(FrontierOfRun(**parts, trials=trial_counts(run), judges=asked, price=price_of(run), race=run.race))
        return
    work = WORK_UNITS[-1] if fmt == "csv" else work_unit(point.flops_per_image for point in frontier.points)
    rows = [_frontier_row(point, frontier.metric, run.is_imported, work) for point in frontier.points]
    if run.race is not None:
        rows = [raced(row, point) for row, point in zip(rows, frontier.points, strict=True)]
    if fmt == "csv":
        out = io.StringIO()
        writer = csv.writer(out)
        for line in [list(rows[0]), *(row.values() for row in rows)] if rows else []:
            writer.writerow(map(spreadsheet_cell, line))
        sys.stdout.write(out.getvalue())
        return
    print_text(_markdown(rows) if fmt == "md" else text_table(rows, width, LEAST))
    compared = [_comparison_row(record) for record in frontier.comparisons]
    if compared:
        print_text("\n" + (_markdown(compared) if fmt == "md" else text_table(compared, width, LEAST)))
    notes = [
        asked.sentence if asked else None,
        _provenance_note(frontier.points, run.is_imported),
        *_cell_value_notes(frontier),
        *race_notes(run),
        *sensitivities(frontier.points, frontier.comparisons),
    ]
    for note in filter(None, notes):
        print_text(f"\n{note}")


def print_outcome(run: Run, link: str, width: int | None = None) -> None:
    """Print what a run found: the headline of its report, its three best cells, and the link of the report.

    The best are the recommended cell, and those that are most likely to be on the frontier.
    """
    frontier, result = read_frontier(run, None), stored_result(run.path)
    recommended = result.choices.chosen if result.choices is not None else None
    ranked = sorted(
        (point for point in frontier.points if point.role != "control"),
        key=lambda point: (point.cell_id != recommended, not point.on_frontier, -(point.p_on_frontier or 0.0)),
    )
    best = sorted(ranked[:_BEST], key=lambda point: point.energy_j_per_image.value or math.inf)
    rows = [
        {
            "cell": point.cell_id,
            "J/image": point.energy_j_per_image.value,
            "energy is": point.provenance or "not measured",
            **({frontier.metric: point.quality.value} if frontier.metric else {}),
            "on the frontier": None if point.p_on_frontier is None else f"{point.p_on_frontier:.0%}",
            "": "recommended" if point.cell_id == recommended else "",
        }
        for point in best
    ]
    more = len(frontier.points) - len(best)
    parts = [one_line(result.headline), text_table(rows, width)]
    parts[-1] += f"\n{more} more cells: perjoule frontier {shlex.quote(str(run.path))}" if more else ""
    parts.append(f"report: {link}")
    print_text("\n\n".join(filter(None, parts)))


def sensitivities(points: Iterable[Point], comparisons: Iterable[Comparison]) -> list[str | None]:
    """Sensitivity of each saving to the sensor's gain and offset, where the arms draw different power."""
    cells: dict[str, list[tuple[float | None, float | None, str | None]]] = {}
    for point in points:
        cells.setdefault(point.variant, []).append(
            (point.energy_j_per_image.value, point.duration_s_per_image, point.provenance)
        )
    powers_w = {variant: mean_power_w(of_variant) for variant, of_variant in cells.items()}
    return [sentence(one.test, one.anchor, one.iso_quality_saving.value, powers_w) for one in comparisons]


def work_unit(flops: Iterable[float | None]) -> tuple[str, float] | None:
    """Return the unit of a column of floating-point operations, with its factor; None if no number is known."""
    most = max((one for one in flops if one is not None), default=None)
    return next((unit for unit in WORK_UNITS if most >= unit[1]), WORK_UNITS[-1]) if most is not None else None


def work_column(flops: float | None, unit: tuple[str, float] | None) -> Row:
    """Return the column of floating-point operations per image; nothing without a unit."""
    return {f"{unit[0]}/image": None if flops is None else flops / unit[1]} if unit is not None else {}


def _frontier_row(point: Point, metric: str | None, imported: bool, work: tuple[str, float] | None) -> Row:
    energy, quality = point.energy_j_per_image, point.quality
    absent = "not in the table" if imported else "not measured"
    row = {
        "cell": point.cell_id,
        "steps": point.steps_mean,
        "NFE": point.nfe_mean,
        **work_column(point.flops_per_image, work),
        "J/image": energy.value,
        "J low": energy.low,
        "J high": energy.high,
        "energy is": point.provenance or absent,
        "s/image": point.duration_s_per_image,
        "W": mean_power_w([(energy.value, point.duration_s_per_image, point.provenance)]),
    }
    if metric is None:
        return row
    return row | {
        metric: quality.value,
        "low": quality.low,
        "high": quality.high,
        "p10": point.quality_p10.value,
        "frontier": "*" if point.on_frontier else "",
        "P(frontier)": point.p_on_frontier,
    }


def _comparison_row(record: Comparison) -> Row:
    bd = _span(record.bd_energy, percent=True)
    return {
        "arm": record.test,
        "against": record.anchor,
        "saving": _span(record.iso_quality_saving, percent=True),
        "at quality": record.at_quality,
        "gain at equal J": _span(record.iso_energy_gain, percent=False),
        "BD-energy": bd if record.resolved or bd is None else f"({bd})",
        "Holm": "yes" if record.resolved_holm else "no",
        "because": record.reason or "",
    }


def _span(estimate: Estimate, *, percent: bool) -> str | None:
    if estimate.value is None:
        return None
    kind = ".1%" if percent else ".3g"
    if estimate.low is None and estimate.high is None:
        return f"{estimate.value:{kind}}"
    ends = ["open" if end is None else f"{end:{kind}}" for end in (estimate.low, estimate.high)]
    return f"{estimate.value:{kind}} [{', '.join(ends)}]"


def _provenance_note(points: Iterable[Point], imported: bool) -> str:
    kinds: set[str | None] = {point.provenance for point in points}
    if imported:  # where a table has no joules there is nothing to quote
        kinds.discard(None)
    words = {"not stated": "PROVENANCE NOT STATED (W280)", None: "NOT MEASURED"}
    named = ", ".join(sorted(words.get(kind, str(kind).upper()) for kind in kinds - {"measured"}))
    return f"Energy: {named}. Do not quote it as measured." if named else ""


def _cell_value_notes(frontier: Frontier) -> list[str]:
    """Which numbers an imported table gives once for a whole cell."""
    notes = []
    for name, key in ((frontier.metric, "quality"), ("energy", "energy_j_per_image")):
        cells = [point.cell_id for point in frontier.points if getattr(point, key).method == CELL_VALUE]
        if cells:
            more = f" and {len(cells) - 5} more" if len(cells) > 5 else ""
            sentence = f"{name} is one value for the whole cell in {', '.join(cells[:5])}{more}: no interval."
            notes.append(warning("W281", sentence))
    return notes


def listing(what: str, folder: Path) -> Listing:
    """Return the rows of `perjoule list WHAT`; `folder` contains the runs."""
    if what == "runs":
        return Listing(runs=tuple(_run_rows(folder)))
    if what == "suites":
        return Listing(suites=tuple(_suite_row(name) for name in suite_names()))
    if what == "variants":
        return Listing(variants=tuple(row for name in suite_names() for row in _variant_rows(name)))
    if what == "prompts":
        from perjoule.prompts import prompt_sets

        return Listing(prompts=tuple(prompt_sets()))
    if what == "metrics":
        from perjoule.quality import metric_rows

        return Listing(metrics=tuple(MetricRow(**row) for row in metric_rows()))
    from perjoule.meters import list_meters

    return Listing(meters=tuple(list_meters()))


def _run_rows(folder: Path) -> list[RunRow]:
    """Return the runs directly below a folder, the oldest first, and those that cannot be read last."""
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder: name the folder of your runs, e.g. perjoule list runs results")
    rows = [_run_row(child) for child in sorted(folder.iterdir()) if is_run(child)]
    return sorted(rows, key=lambda row: (row.problem is not None, row.created or "", row.run))


def _run_row(folder: Path) -> RunRow:
    facts: Row = dict.fromkeys(field.name for field in fields(RunRow))
    try:
        run, result = load_run(folder), stored_result(folder)
        done, failed, planned = quick_counts(run)
        facts |= {
            "suite": run.suite.name,
            "created": run.system.created_utc,
            "done": done,
            "failed": failed,
            "planned": planned,
            "metric": run.suite.metrics.primary or None,
            "provenance": _provenance(run),
            "verdict": None if result.verdict in ("", "no-gate") else result.verdict,
            "headline": result.headline or None,
        }
    except (PerjouleError, OSError, ValueError) as error:
        facts["problem"] = first_line(error)
    return RunRow(**{**facts, "run": str(folder)})


def _provenance(run: Run) -> str | None:
    """Return the provenance of a run's joules; None if they cannot be averaged, e.g. windows of two devices."""
    try:
        return weakest(row.provenance for row in known_points(run) if row.energy_j_per_image is not None)
    except RunError:
        if run.has_points:  # the table is damaged
            raise
        return None


def _suite_row(name: str) -> SuiteRow:
    suite = load_suite(find_suite(name))
    cells = sum(len(v.steps) + len(v.levels) for v in suite.variants)
    return SuiteRow(suite=name, variants=len(suite.variants), cells=cells, title=suite.title)


def _variant_rows(name: str) -> list[VariantRow]:
    return [
        VariantRow(
            suite=name,
            variant=v.name,
            role=v.role,
            model=v.model,
            scheduler=sampler_of(v)[0] or "the model's own",
            guidance=v.guidance,
            steps=" ".join(map(str, v.steps)) or v.policy,
            **_terms(v),
        )
        for v in load_suite(find_suite(name)).variants
    ]


def _terms(variant: Variant) -> Row:
    """Under which terms the weights come: of all repositories that the variant takes files from."""
    models = repositories(variant)
    known = [facts for model in models if (facts := facts_of(model)) is not None]
    allowed = {facts.commercial for facts in known}
    own = all(model.startswith("builtin:") for model in models)
    return {
        "licence": " + ".join(dict.fromkeys(f.licence for f in known)) or ("Apache-2.0" if own else "unknown"),
        "commercial": next((x for x in ("no", "conditional", "yes") if x in allowed), "yes" if own else "unknown"),
        "gated": any(facts.gated for facts in known),
        "revision": " + ".join(f.revision[:12] if f.revision else "main" for f in known) or None,
        "weights": weights_name(variant),
    }


def _markdown(rows: list[Row]) -> str:
    if not rows:
        return "nothing"
    lines = ["| " + " | ".join(map(escape_markdown, rows[0])) + " |", "|" + " --- |" * len(rows[0])]
    lines += ["| " + " | ".join(escape_markdown(cell_text(value)) for value in row.values()) + " |" for row in rows]
    return "\n".join(lines)
