"""Evidence of how far the run can be trusted: badges, warnings, failures, the system."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from perjoule.prompts.findings import sentences
from perjoule.runs.columns import FINISHED
from perjoule.runs.environment_record import MeterRecord, ProofRecord
from perjoule.runs.resume_hint import recorded_command, resume_command
from perjoule.runs.trial_counts import trial_counts
from perjoule.statistics.bd import MIN_OVERLAP
from perjoule.warnings import WARNINGS, code_of, read_warning
from perjoule_reports import format as fmt
from perjoule_reports.analysis import Analysis
from perjoule_reports.evidence import MOST_METRICS, Evidence
from perjoule_reports.records import Badge, Cell, Column, RunData, Table, Tone

_MOST_REASONS = 40


def badges(run: RunData, evidence: Evidence) -> tuple[Badge, ...]:
    """Provenance, boundary, sample, meter and interval method, in that order."""
    meter = run.system.meter or MeterRecord()
    boundary = ", ".join(evidence.boundaries) or ("not stated" if evidence.provenance and evidence.imported else "none")
    methods = "; ".join(evidence.interval_methods)
    done, planned = len(run.trials), run.planned_trials or 0
    unfinished = (
        Badge(label="run", value=f"INCOMPLETE, {done} of {planned} trials", tone="loud",
              hint="fewer trials than the suite plans")
        if planned and done < planned else None
    )  # fmt: skip
    outcome = trial_counts(run)
    failed = (
        Badge(label="failures", value=f"{outcome.failed} OF {outcome.done} TRIALS FAILED", tone="alarm",
              hint="; ".join(fmt.clean(failure.reason) for failure in outcome.failures[:3]))
        if outcome.failed else None
    )  # fmt: skip
    flat = (
        Badge(label="images", value=f"OF ONE COLOUR in {outcome.one_colour} of {outcome.done} trials", tone="alarm",
              hint="W270: they show nothing; look at the images")
        if outcome.one_colour else None
    )  # fmt: skip
    unmetered = disturbances(run).get("W232")
    shown = (
        # other provenances have the band at the top of the page
        Badge(label="energy", value="MEASURED", tone="calm", hint=fmt.PROVENANCE_WORDS["measured"])
        if evidence.provenance == "measured"
        else None,
        unfinished,
        failed,
        flat,
        None
        if unmetered is None
        else Badge(label="not in the joules", value="THE GPU", tone="alarm", hint=fmt.clean(unmetered.sentence)),
        Badge(label="boundary", value=fmt.clean(boundary), hint="what the joules cover"),
        Badge(
            label="sample",
            value=counted(evidence),
        ),
        Badge(label="meter", value=fmt.clean(meter.name or "not recorded"), hint=fmt.clean(meter.why or "")),
        _proof_badge(meter.proof),
        Badge(
            label="intervals",
            value=_interval_kinds(evidence, methods),
            hint=methods,
        ),
        Badge(
            label="comparable with",
            value=fmt.shorten(fmt.clean(run.system.comparability_key or "key not recorded"), 20),
            hint="runs with the same comparability key",
        ),
    )
    return tuple(badge for badge in shown if badge is not None)


def _proof_badge(proof: ProofRecord | None) -> Badge | None:
    """Return the result of the meter's proof; None for a run without that entry or without a proof."""
    if proof is None or proof.verdict is None:
        return None
    hint = (
        f"perjoule doctor --prove, {proof.created_utc or 'date not recorded'}, digest {proof.digest or 'not recorded'}"
    )
    tone: Tone = "plain" if proof.verdict == "pass" else "loud" if proof.verdict == "unsure" else "alarm"
    return Badge(label="meter proof", value=fmt.clean(proof.why or proof.verdict), tone=tone, hint=fmt.clean(hint))


def _interval_kinds(evidence: Evidence, methods: str) -> str:
    if evidence.imported and not evidence.has_intervals:
        return "none"
    kinds = [kind for kind in ("paired bootstrap", "Student's t") if kind in methods]
    return f"95 % {', '.join(kinds)}" if kinds else methods or "method not recorded"


def counted(evidence: Evidence) -> str:
    """Return e.g. `12 prompts × 2 seeds`, as far as an imported table states them."""
    prompts, seeds = evidence.prompt_count, evidence.seed_count
    if not evidence.imported or (prompts and seeds):
        return f"{fmt.plural(prompts, 'prompt')} × {fmt.plural(seeds, 'seed')}"
    return f"{fmt.plural(prompts, 'prompt')}, seeds not stated" if prompts else "prompts not stated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbance:
    """A warning code of a run: how many trials have it, and the sentence of the first."""

    trials: int
    sentence: str


def disturbances(run: RunData) -> dict[str, Disturbance]:
    """Return the warnings of all trials by code, in the order of the codes."""
    firsts = (
        run.trials.select(warning=pl.col("warnings").explode())
        .drop_nulls()
        .group_by(code_of(pl.col("warning")).alias("code"))
        .agg(pl.len(), pl.col("warning").first())
        .sort("code")
    )
    return {
        str(code): Disturbance(trials=int(n), sentence=read_warning(str(text)).sentence)
        for code, n, text in firsts.iter_rows()
    }


def warnings_table(run: RunData) -> Table | None:
    """Return a table of warnings by code: count, sentence of the first, consequence and remedy."""
    by_code = disturbances(run)
    if not by_code:
        return None
    rows = []
    for code, disturbance in by_code.items():
        code, known = fmt.clean(code), WARNINGS.get(fmt.clean(code))
        rows.append((
            Cell(text=fmt.shorten(code, 60)),
            _count(disturbance.trials),
            Cell(text=fmt.shorten(fmt.clean(disturbance.sentence) or "no sentence recorded", 300)),
            Cell(text=known.consequence if known else fmt.ABSENT),
            Cell(text=known.remedy if known else fmt.ABSENT),
        ))  # fmt: skip
    columns = (
        Column(title="code"),
        Column(title="trials", numeric=True),
        Column(title="what it says"),
        Column(title="what follows"),
        Column(title="what to do"),
    )
    caption = "Warnings" if run.is_imported else "Warnings of the meter and the protocol"
    return Table(caption=caption, columns=columns, rows=tuple(rows))


def partial(run: RunData) -> tuple[str, ...]:
    """Return a sentence if the run contains fewer trials than its suite plans."""
    done, planned = len(run.trials), run.planned_trials or 0
    if not planned or done >= planned:
        return ()
    command = recorded_command(run.environment)
    again = resume_command(Path("RUN"), command, budget=False)
    if command[1:2] == ["gate"]:  # its options may name files of the one who made the run
        again = "its own command and --resume"
    return (
        f"The run is incomplete: {done} of {fmt.plural(planned, 'planned trial')}. It is still running, or was "
        f"stopped; continue it with {fmt.clean(again)}.",
    )


def prompts(run: RunData) -> tuple[str, ...]:
    """Return sentences about prompts that a text encoder cut, and negative prompts that had no effect."""
    record = run.environment.get("prompt_findings")
    return tuple(fmt.clean(sentence) for sentence in sentences(record)) if isinstance(record, list) else ()


def more_metrics(evidence: Evidence) -> tuple[str, ...]:
    """Return a sentence if the run has more metrics than a report shows."""
    if not evidence.more_metrics:
        return ()
    count = len(evidence.axes) + evidence.more_metrics
    return (
        f"The report shows {len(evidence.axes)} of {fmt.plural(count, 'metric')}: the primary one, then those of the "
        "suite, then the others by name. `perjoule frontier RUN --metric NAME` shows any of them.",
    )


def curves(evidence: Evidence, analysis: Analysis) -> tuple[str, ...]:
    """Return sentences about curves that hardly overlap, cross or turn back."""
    low: list[str] = []
    crossing: list[str] = []
    beaten: list[str] = []
    for record in analysis.comparisons:
        name, reason = evidence.label_of(record.test), record.reason or ""
        if "overlap" in reason:
            low.append(f"{name} ({100 * record.overlap:.0f} %)")
        if "cross" in reason:
            crossing.append(f"{name}: {fmt.clean(reason)}.")
        if record.bd is not None:
            beaten += map(evidence.words_of, (*record.bd.dropped.test, *record.bd.dropped.anchor))
    sentences = list(crossing)
    if low:
        sentences.append(
            f"The overlap with the ladder is too small for a BD-energy ({MIN_OVERLAP:.0%} needed): {', '.join(low)}."
        )
    if beaten:
        cells = ", ".join(dict.fromkeys(beaten))
        sentences.append(
            f"Left out of the curves, because a cheaper cell of the same arm is as good: {fmt.shorten(cells, 400)}."
        )
    return tuple(sentences)


def failures_table(run: RunData) -> Table | None:
    """Count failed trials by cell and reason."""
    counts = run.trials.filter(~FINISHED).group_by("cell_id", "failure").len()
    columns = (Column(title="cell"), Column(title="trials", numeric=True), Column(title="reason"))
    return _counted("Trials that failed", columns, counts)


def unscored_table(run: RunData) -> Table | None:
    """Count images without a score by metric and reason."""
    absent = run.scores.filter(pl.col("value").is_null() | ~pl.col("value").is_finite())
    counts = absent.group_by("metric", pl.col("reason_unscored").fill_null("no reason recorded")).len()
    columns = (Column(title="metric"), Column(title="images", numeric=True), Column(title="reason"))
    return _counted("Images without a score", columns, counts)


def _counted(caption: str, columns: tuple[Column, ...], counts: pl.DataFrame) -> Table | None:
    """Return rows of (name, reason, count) as a table; equal reasons are counted together."""
    count: Counter[tuple[str, str]] = Counter()
    for name, reason, n in counts.iter_rows():
        count[fmt.shorten(fmt.clean(name), 120), fmt.shorten(fmt.clean(reason), 240)] += n
    if not count:
        return None
    most = sorted(count.items())[:_MOST_REASONS]
    more = f" (the first {_MOST_REASONS} of {len(count)} kinds)" if len(count) > _MOST_REASONS else ""
    rows = [(Cell(text=name), _count(n), Cell(text=why)) for (name, why), n in most]
    return Table(caption=caption + more, columns=columns, rows=tuple(rows))


def system_tables(environment: Mapping[str, Any]) -> tuple[Table, Table | None]:
    """Return the system under test in two tables: the main facts, and packages with everything else recorded."""
    environment = {k: v for k, v in environment.items() if k not in ("prompt_findings", "suite_folder", "not_loaded")}
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

    return table("System under test", short), table("Packages and other facts", rest) if rest else None


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
    """Return the digests of what was run: code, models, prompts, metric weights, images."""
    rows = [
        ("schema", str(run.suite.schema)),
        ("commit", fmt.clean(run.system.commit or "not recorded")),
        ("prompt set, SHA-256", prompt_digest),
    ]
    models = run.system.models or {}
    rows += [(f"model {fmt.clean(name)}", fmt.clean(models[name])) for name in sorted(models)]
    rows += [
        (f"metric {name}, weights", fmt.clean(run.metrics[name].weights_digest))
        for name in sorted(run.metrics)[:MOST_METRICS]
    ]
    rows.append(("images", str(run.images.height)))
    columns = (Column(title="what"), Column(title="digest"))
    return Table(
        caption="Digests", columns=columns, rows=tuple((Cell(text=key), Cell(text=value)) for key, value in rows)
    )
