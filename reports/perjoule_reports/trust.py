"""What tells a reader how far to believe the run: badges, warnings, failures, the system, the method."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import polars as pl

from perjoule.suite import images_per_window
from perjoule_reports import format as fmt
from perjoule_reports import pairing
from perjoule_reports.evidence import Evidence, rows_of
from perjoule_reports.records import Badge, Cell, Column, RunData, Table, Tone

_TONES: dict[str | None, Tone] = {"measured": "calm", "estimated": "loud", "simulated": "alarm"}
PROVENANCE_WORDS = {
    "measured": "joules read from a meter",
    "estimated": "joules worked out from a power model, not read from a meter",
    "simulated": "joules from a simulated meter: not energy",
}


def badges(run: RunData, evidence: Evidence) -> tuple[Badge, ...]:
    """Provenance, boundary, sample, meter and interval method, in that order."""
    meter = run.environment.get("meter") or {}
    meter = meter if isinstance(meter, Mapping) else {"name": meter}
    words = PROVENANCE_WORDS.get(evidence.provenance or "", "no cell has a reading")
    boundary = ", ".join(evidence.boundaries) or "none"
    methods = "; ".join(evidence.interval_methods)
    return (
        Badge(
            label="energy",
            value=(evidence.provenance or "not measured").upper(),
            tone=_TONES.get(evidence.provenance, "loud"),
            hint=words,
        ),
        Badge(label="boundary", value=fmt.clean(boundary), hint="what the joules cover"),
        Badge(
            label="sample",
            value=f"{fmt.plural(evidence.prompt_count, 'prompt')} × {fmt.plural(evidence.seed_count, 'seed')}",
        ),
        Badge(label="meter", value=fmt.clean(meter.get("name", "not recorded")), hint=fmt.clean(meter.get("why", ""))),
        Badge(
            label="intervals",
            value="95 % paired bootstrap" if "paired bootstrap" in methods else methods or "method not recorded",
            hint=methods,
        ),
    )


def warnings_table(run: RunData) -> Table | None:
    """Count the warnings of all trials by code, with the first sentence that came with each."""
    count: Counter[str] = Counter()
    sentence: dict[str, str] = {}
    for row in rows_of(run.trials, "warnings"):
        for warning in row["warnings"] or []:
            code, _, words = fmt.clean(warning).partition(":")
            count[code] += 1
            sentence.setdefault(code, words.strip())
    if not count:
        return None
    rows = [(Cell(text=code), _count(count[code]), Cell(text=sentence[code] or "no sentence recorded"))
            for code in sorted(count)]  # fmt: skip
    columns = (Column(title="code"), Column(title="trials", numeric=True), Column(title="what it says"))
    return Table(caption="Warnings of the meter and the protocol", columns=columns, rows=tuple(rows))


def oddities(evidence: Evidence) -> tuple[str, ...]:
    """Say where a ladder's energy falls by more than a tenth although the steps rise: something disturbed a window."""
    said = []
    for variant in evidence.variants():
        ladder = [a for a in evidence.arms if a.variant == variant and a.energy.value and a.steps is not None]
        for one, two in pairwise(ladder):
            if (two.steps or 0) > (one.steps or 0) and (two.energy.value or 0) < 0.9 * (one.energy.value or 0):
                mark = "" if evidence.provenance == "measured" else f" ({evidence.provenance})"
                said.append(
                    f"{variant}: {fmt.step_count(one.steps)} cost {fmt.quantity(one.energy.value, 'J')} per image and "
                    f"{fmt.step_count(two.steps)} only {fmt.quantity(two.energy.value, 'J')}{mark}. More steps cannot "
                    "cost less, so a window was disturbed: measure again on a quiet machine."
                )
    return tuple(said)


def failures_table(run: RunData) -> Table | None:
    """Count failed trials by cell and reason."""
    count: Counter[tuple[str, str]] = Counter()
    for row in rows_of(run.trials, "cell_id", "failure"):
        if row["failure"]:
            count[str(row["cell_id"]), fmt.shorten(fmt.clean(row["failure"]), 240)] += 1
    if not count:
        return None
    rows = [(Cell(text=fmt.clean(cell)), _count(n), Cell(text=why)) for (cell, why), n in sorted(count.items())]
    columns = (Column(title="cell"), Column(title="trials", numeric=True), Column(title="reason"))
    return Table(caption="Trials that failed", columns=columns, rows=tuple(rows))


def unscored_table(run: RunData) -> Table | None:
    """Count images without a score by metric and reason."""
    needed = ("metric", "value", "reason_unscored")
    if not set(needed) <= set(run.scores.columns):
        return None
    absent = run.scores.filter(pl.col("value").is_null() | ~pl.col("value").is_finite())
    count: Counter[tuple[str, str]] = Counter()
    for metric, reason in absent.select("metric", "reason_unscored").iter_rows():
        count[fmt.clean(metric), fmt.shorten(fmt.clean(reason or "no reason recorded"), 240)] += 1
    if not count:
        return None
    rows = [(Cell(text=metric), _count(n), Cell(text=why)) for (metric, why), n in sorted(count.items())]
    columns = (Column(title="metric"), Column(title="images", numeric=True), Column(title="reason"))
    return Table(caption="Images without a score", columns=columns, rows=tuple(rows))


def system_tables(environment: Mapping[str, Any]) -> tuple[Table, Table | None]:
    """The system under test: the short list, and packages with everything else that was recorded."""
    first = ("gpu", "cpu", "cpu_count", "ram_bytes", "os", "python", "meter", "perjoule", "commit", "created_utc",
             "fingerprint", "comparability_key")  # fmt: skip
    short = [row for key in first if key in environment for row in _flatten(key, environment[key])]
    rest = [
        r
        for key in sorted(set(environment) - {*first, "models", "weights", "command"})
        for r in _flatten(key, environment[key])
    ]
    columns = (Column(title="item"), Column(title="value"))

    def table(caption: str, rows: list[tuple[str, str]]) -> Table:
        cells = tuple((Cell(text=key), Cell(text=value)) for key, value in rows)
        return Table(caption=caption, columns=columns, rows=cells)

    return table("System under test", short), table("Packages and the rest", rest) if rest else None


def method(run: RunData, evidence: Evidence) -> tuple[str, ...]:
    """The formulas and parameters that this run was made and summed up with, a paragraph each."""
    protocol, metrics = evidence.suite.protocol, evidence.suite.metrics
    bound = "not limited" if protocol.max_uncertainty is None else fmt.percent(protocol.max_uncertainty)
    primary = evidence.primary
    sources = sorted({fmt.clean(r["method"]) for r in rows_of(run.trials, "method") if r["method"]})
    said = [
        "Energy per image = Σ energy of the windows ÷ Σ images made in them. A window holds "
        f"{fmt.plural(images_per_window(evidence.suite), 'image')} in pipeline calls of at most "
        f"{protocol.batch_size} (unless a variant says otherwise), repeated at least "
        f"{fmt.plural(protocol.iterations, 'time')}; energy is "
        "gross, idle power is not subtracted. 1 J/image = 0.2778 Wh per 1000 images.",
        f"Protocol: {fmt.plural(protocol.blocks, 'pass')} over all cells, each in its own shuffled order (order seed "
        f"{protocol.order_seed}); {fmt.plural(protocol.warmup_iterations, 'warm-up call')} before the first window of "
        f"a model; {fmt.number(protocol.cooldown_s)} s of rest before each window; idle power learnt over "
        f"{fmt.number(protocol.idle_s)} s; uncertainty asked of a window: {bound}.",
        "The images that were scored are the images that were metered. Scoring lies outside every energy window.",
        f"Quality of a cell = mean over prompts of the mean over seeds ({', '.join(map(str, protocol.seeds))}). "
        f"The frontier's axis is {metrics.primary}; a cell is on the frontier if no other cell is at least as good in "
        "both energy and quality and better in one.",
        "A full-reference metric compares with the longest run of the same family, prompt and seed, so its values are "
        "never compared between families.",
    ]
    if primary is not None and primary.description:
        said.append(f"{primary.name}: {primary.description}")
    said.append(
        "Intervals: " + ("; ".join(evidence.interval_methods) or "the run does not say how they were made") + "."
    )
    said.append(
        f"The headline compares each cheaper cell with the longest run by {pairing.METHOD}; its saving divides the two "
        "energy intervals end against end, which is never narrower than a paired interval. Intervals cover the choice "
        "of prompts. They do not cover other machines, other sessions, or a constant error of the meter."
    )
    said += [f"Source of the joules: {source}." for source in sources[:4]]
    return tuple(said)


def _count(n: int) -> Cell:
    return Cell(text=str(n), sort=n)


def _flatten(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name in value:
            yield from _flatten(f"{key} · {name}", value[name])
    elif isinstance(value, list) and any(isinstance(v, Mapping) for v in value):
        for i, item in enumerate(value):
            yield from _flatten(key if len(value) == 1 else f"{key} {i}", item)
    else:
        yield fmt.clean(key.replace("_bytes", "").replace("_", " ")), _text(key, value)


def _text(key: str, value: Any) -> str:
    if value is None or value == [] or value == "":
        return "not recorded"
    if key.endswith("_bytes") and (size := fmt.finite(value)) is not None:
        return fmt.memory(size)
    if isinstance(value, bool | int | float | str):
        return fmt.clean(value)
    return fmt.clean(json.dumps(value, ensure_ascii=False, sort_keys=True))


def digests_table(run: RunData, prompt_digest: str) -> Table:
    """What was run, by digest: code, models, prompts, metric weights, images."""
    environment = run.environment
    rows = [("schema", str(environment.get("schema", run.suite.schema))),
            ("commit", fmt.clean(environment.get("commit") or "not recorded")),
            ("prompt set, SHA-256", prompt_digest)]  # fmt: skip
    models = environment.get("models") or {}
    rows += [(f"model {fmt.clean(name)}", fmt.clean(models[name])) for name in sorted(models)]
    rows += [(f"metric {name}, weights", fmt.clean(run.metrics[name].weights_digest)) for name in sorted(run.metrics)]
    rows.append(("images", str(run.images.height)))
    columns = (Column(title="what"), Column(title="digest"))
    return Table(
        caption="Digests", columns=columns, rows=tuple((Cell(text=key), Cell(text=value)) for key, value in rows)
    )
