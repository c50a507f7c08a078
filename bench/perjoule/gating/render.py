"""Renders a verdict for the terminal, as Markdown, JUnit XML and GitHub annotations. JSON is `Verdict.as_json`."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree as Xml

from perjoule.display import before_after, change, changes, number, quantity
from perjoule.gating.records import EXACT_MARGIN, Axis, Stop, Verdict
from perjoule.text import escape_markdown, one_line
from perjoule.text_table import text_table
from perjoule.types import Estimate, Interval

if TYPE_CHECKING:
    from perjoule.gating.comparing import RunComparison
    from perjoule.gating.looks import LookPlan, LookRow, Replay

_WORDS = {
    "pass": "PASS", "fail": "FAIL", "inconclusive": "INCONCLUSIVE", "invalid": "INVALID",
    "neutral": "NO BASELINE YET",
}  # fmt: skip
# GitHub truncates comments at 64 kB and shows ten annotations per kind and step
COMMENT_BYTES = 60_000
ANNOTATIONS = 10
_LISTED = 4
_SIDES = {"baseline": "first", "candidate": "second"}


def terminal(verdict: Verdict) -> str:
    """Return the verdict as at most twelve lines."""
    lines = [f"{_WORDS[verdict.verdict]}{_label(verdict.provenance)}"]
    if verdict.verdict == "neutral":
        return "\n".join([*lines, *(f"  {one_line(text)}" for text in (*verdict.reasons, *verdict.notes))])
    lines.append(f"  energy   {_axis(verdict.energy, percent=True, joules=_joules(verdict))}")
    lines.append(f"  quality  {one_line(verdict.metric)} {_axis(verdict.quality, percent=False)}")
    if verdict.total_energy_change is not None:
        lines.append(f"  in total {_exactly(verdict.total_energy_change)} joules")
    if verdict.stop is not None:
        lines.append(f"  {stopped(verdict.stop)}")
    if verdict.price is not None:
        lines.append(f"  price    {verdict.price.words}")
    shown = verdict.reasons[:_LISTED]
    lines += [f"  - {one_line(reason)}" for reason in shown]
    if len(verdict.reasons) > len(shown):
        lines.append(f"  - and {len(verdict.reasons) - len(shown)} more: see --json")
    lines += [f"  note: {one_line(note)}" for note in verdict.notes[: 2 if verdict.stop is None else 1]]
    return "\n".join(lines)


def stopped(stop: Stop) -> str:
    """Return where a sequential gate stopped, e.g. `look 2 of 6: 16 of 64 prompts, 1.2 kJ, 25 % of the plan`."""
    joules = "" if stop.energy_j is None else f", {quantity(stop.energy_j, 'J')}"
    return (
        f"look {stop.look} of {stop.looks}: {stop.prompts} of {stop.prompts_planned} prompts{joules}, "
        f"{100 * stop.share:.3g} % of the planned joules"
    )


def look_in_words(row: "LookRow", plan: "LookPlan") -> str:
    """Return a look as a line, e.g. `look 2 of 6: 16 prompts, energy +0.5 % [−0.9, +1.9], …: continue`."""
    joules = "" if row.energy_j is None else f", {quantity(row.energy_j, 'J')} ({row.share:.0%} of the plan)"
    reason = f" ({row.reason})" if row.reason else ""
    return (
        f"look {row.look} of {len(plan.prompts)}: {row.prompts} prompts, {intervals_of_look(row, plan)}{joules}: "
        f"{row.outcome}{reason}"
    )


def intervals_of_look(row: "LookRow", plan: "LookPlan") -> str:
    """Return the changes of a look with their limits, e.g. `energy +0.5 % [−0.9, +1.9], clip_text …`."""
    quality = change(row.quality, percent=False)
    return f"energy {change(row.energy, percent=True)}, {one_line(plan.metric)} {quality}"


def replayed(replay: "Replay", width: int | None = None) -> str:
    """Return all looks of a sequential gate as a table, with its verdict; `width` is that of a terminal."""
    head = ("look", "prompts", "level", "energy", one_line(replay.metric), "joules", "share", "outcome")
    rows = [
        (
            f"{row.look} of {replay.looks_planned}",
            str(row.prompts),
            f"{row.nominal_alpha:.2%}",
            change(row.energy, percent=True),
            change(row.quality, percent=False),
            "–" if row.energy_j is None else quantity(row.energy_j, "J"),
            f"{row.share:.0%}",
            row.outcome,
        )
        for row in replay.looks
    ]
    lines = [text_table([dict(zip(head, row, strict=True)) for row in rows], width)]
    lines += [f"differs: {one_line(difference)}" for difference in replay.differences]
    return "\n".join([*lines, "", terminal(replay.verdict)])


def compared(comparison: "RunComparison", width: int | None = None) -> str:
    """Return a comparison without a verdict as text; `width` is that of a terminal."""
    one = comparison
    energy, quality = one.change.energy, one.change.quality
    lines = []
    if energy is None or one.energy_j_per_image is None:
        lines.append("energy   withheld: the joules have different origins, see below")
    else:
        windows = " and ".join(map(str, one.n_windows))
        joules = _before_after(one.energy_j_per_image, len(one.cells)) + _label(one.provenance)
        lines.append(f"energy   {change(energy, percent=True)}, {joules}; {windows} windows")
    if quality is None:
        lines.append(f"quality  {one_line(one.metric)} withheld: its settings differ, see below")
    else:
        prompts = "1 prompt" if one.n_prompts == 1 else f"{one.n_prompts} prompts"
        lines.append(f"quality  {one_line(one.metric)} {change(quality, percent=False)}; {prompts}")
    if len(one.cells) > 1:
        columns = (
            [one_line(cell.cell_id) for cell in one.cells],
            _column([cell.energy for cell in one.cells], percent=True),
            _column([cell.quality for cell in one.cells], percent=False),
        )
        head = ("cell", "energy", one_line(one.metric))
        lines += ["", text_table([dict(zip(head, row, strict=True)) for row in zip(*columns, strict=True)], width)]
    lines += [""] if one.differences or one.missing or one.notes else []
    lines += [f"differs: {one_line(d.key)}: {one_line(repr(d.baseline))}, then {one_line(repr(d.candidate))}"
              for d in one.differences]  # fmt: skip
    lines += [f"missing in the {_SIDES[m.where]} run: {m.what} {one_line(m.name)}"
              f"{': ' if m.detail else ''}{one_line(m.detail)}" for m in one.missing]  # fmt: skip
    lines += [f"note: {one_line(note)}" for note in one.notes]
    return "\n".join(lines)


def _column(changes_of: Sequence[Estimate | None], *, percent: bool) -> list[str]:
    """Format the changes of cells; all of them are withheld or none is."""
    known = [estimate for estimate in changes_of if estimate is not None]
    return changes(known, percent=percent) if known else ["withheld"] * len(changes_of)


def _joules(verdict: Verdict) -> str:
    """Return e.g. `135 → 151 J per image, geometric mean of 5 cells`; empty without joules."""
    means = verdict.energy_j_per_image
    return "" if means is None else _before_after(means, len(verdict.cells))


def _before_after(means: tuple[float, float], cells: int) -> str:
    return before_after(means) + (f", geometric mean of {cells} cells" if cells > 1 else "")


def markdown(verdict: Verdict) -> str:
    """Return a comment for a pull request, below GitHub's limit: a table of the axes, the reasons, and the cells."""
    icon = {"pass": "✅", "fail": "❌", "inconclusive": "❔", "invalid": "⛔", "neutral": "⚪"}[verdict.verdict]
    head = f"### {icon} perjoule gate: {_WORDS[verdict.verdict]}{_label(verdict.provenance)}"
    if verdict.verdict == "neutral":
        texts = [escape_markdown(reason) for reason in verdict.reasons]
        texts += [f"- {escape_markdown(note)}" for note in verdict.notes]
        return _fit("\n".join([head, "", *texts]) + "\n")
    lines = [
        head,
        "",
        f"| axis | change [{100 * verdict.config.level:g} % interval] | margin | detectable | rests on | outcome |",
        "|---|---|---|---|---|---|",
        _row("energy per image", verdict.energy, percent=True),
        _row(verdict.metric, verdict.quality, percent=False),
        "",
    ]
    joules = _joules(verdict)
    lines += [f"- energy: {joules}"] if joules else []
    lines += [f"- {stopped(verdict.stop)}"] if verdict.stop is not None else []
    lines += [f"- {escape_markdown(reason)}" for reason in verdict.reasons]
    lines += [f"- note: {escape_markdown(note)}" for note in verdict.notes]
    if len(verdict.cells) > 1:
        lines += [
            "",
            "<details><summary>cells</summary>",
            "",
            "| cell | energy | quality | worse in |",
            "|---|---|---|---|",
        ]
        energies = changes((cell.energy for cell in verdict.cells), percent=True)
        qualities = changes((cell.quality for cell in verdict.cells), percent=False)
        for cell, energy, quality in zip(verdict.cells, energies, qualities, strict=True):
            lines.append(
                f"| {escape_markdown(cell.cell_id)} | {energy} | {quality} | {', '.join(cell.failed) or '–'} |"
            )
        lines += ["", "</details>"]
    return _fit("\n".join(lines) + "\n")


def annotations(verdict: Verdict, problems: Sequence[str] = ()) -> str:
    """Return GitHub workflow commands, to be printed on stdout; `problems` are the errors that end the gate instead."""
    if verdict.verdict == "pass":
        return f"::notice title=perjoule gate::{_command(terminal(verdict).splitlines()[0])}"
    kind = {"inconclusive": "warning", "neutral": "notice"}.get(verdict.verdict, "error")
    if problems:
        kind = "error"
    reasons = problems or verdict.reasons or ("no reason given",)
    head = f"::{kind} title=perjoule gate {_WORDS[verdict.verdict]}::"
    return "\n".join(head + _command(reason) for reason in reasons[:ANNOTATIONS])


def junit(verdict: Verdict) -> str:
    """Return JUnit XML with one test case per axis, whose numbers are properties."""
    axes = (("energy", verdict.energy), ("quality", verdict.quality))
    broken = verdict.verdict == "invalid"
    priced = verdict.net_benefit_j is not None
    failures = 0 if broken or priced else sum(axis.outcome == "fail" for _, axis in axes)
    suite = Xml.Element("testsuite", name="perjoule gate")
    properties = Xml.SubElement(suite, "properties")
    for name, text in (
        ("verdict", verdict.verdict),
        ("metric", verdict.metric),
        ("provenance", _kinds(verdict.provenance)),
    ):
        Xml.SubElement(properties, "property", name=name, value=one_line(text))
    cell_failure = not broken and not priced and verdict.verdict == "fail" and not failures
    if verdict.net_benefit_j is not None:
        _price_case(suite, verdict)
    for name, axis in axes:
        case = Xml.SubElement(suite, "testcase", classname="perjoule.gate", name=name)
        numbers = Xml.SubElement(case, "properties")
        for key, value in (
            ("change", axis.change.value),
            ("low", axis.change.low),
            ("high", axis.change.high),
            ("margin", axis.margin),
            ("mde", axis.mde),
            ("n", axis.change.n),
            ("n_prompts", axis.n_prompts),
            ("n_windows_baseline", axis.n_windows_baseline),
            ("n_windows_candidate", axis.n_windows_candidate),
        ):
            Xml.SubElement(numbers, "property", name=key, value="" if value is None else repr(value))
        Xml.SubElement(numbers, "property", name="margin_origin", value=one_line(axis.margin_origin))
        text = "\n".join(one_line(reason) for reason in verdict.reasons)
        if broken:
            Xml.SubElement(case, "error", message="invalid or incomparable evidence").text = text
        elif priced:
            continue  # the net benefit decides, not the axes
        elif axis.outcome == "fail" or (cell_failure and name == "energy"):
            Xml.SubElement(case, "failure", message=f"{name} is worse than the margin").text = text
        elif axis.outcome in ("inconclusive", "neutral"):
            Xml.SubElement(case, "skipped", message=_WORDS[axis.outcome].lower())
    for name, kind in (("tests", "testcase"), ("errors", "error"), ("failures", "failure"), ("skipped", "skipped")):
        suite.set(name, str(sum(1 for _ in suite.iter(kind))))
    Xml.indent(suite)
    return Xml.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _price_case(suite: Xml.Element, verdict: Verdict) -> None:
    """Add the test case of a verdict by a price of quality."""
    case = Xml.SubElement(suite, "testcase", classname="perjoule.gate", name="net benefit")
    text = "\n".join(one_line(reason) for reason in verdict.reasons)
    if verdict.verdict == "fail":
        Xml.SubElement(case, "failure", message="the net benefit is negative").text = text
    elif verdict.verdict == "inconclusive":
        Xml.SubElement(case, "skipped", message="inconclusive")


def _axis(axis: Axis, *, percent: bool, joules: str = "") -> str:
    if axis.change.value is None:
        return f"no number; margin {_margin(axis, percent=percent)}, minimal detectable effect unknown"
    return (
        f"{change(axis.change, percent=percent)}{joules and f', {joules}'}: {axis.outcome}, {axis.label}; "
        f"margin {_margin(axis, percent=percent)}, minimal detectable effect {_size(axis.mde, percent=percent)}; "
        f"{axis.sample}"
    )


def _margin(axis: Axis, *, percent: bool) -> str:
    """Return the margin and its origin, e.g. `5 % (default)`."""
    if axis.margin is None:
        return "none"
    shown = 0.0 if percent and axis.margin <= EXACT_MARGIN else axis.margin  # of counted work, for last digits of sums
    text = f"{100 * shown:.4g} %" if percent else f"{shown:.4g}"
    return f"{text} ({one_line(axis.margin_origin)})"


def _row(name: str, axis: Axis, *, percent: bool) -> str:
    margin = escape_markdown(_margin(axis, percent=percent))
    sample = "–" if axis.change.value is None else axis.sample
    outcome = f"{axis.outcome}, {axis.label}"
    moved, effect = change(axis.change, percent=percent), _size(axis.mde, percent=percent)
    columns = (escape_markdown(name), moved, margin, effect, sample, outcome)
    return "| " + " | ".join(columns) + " |"


def _label(provenance: Collection[str]) -> str:
    """Return the provenance of joules in brackets; empty if they were measured."""
    if set(provenance) <= {"measured"}:
        return ""
    kinds = _kinds(provenance)
    return f" (provenance of the joules: {kinds})" if "not stated" in provenance else f" ({kinds} joules)"


def _kinds(provenance: Collection[str]) -> str:
    return " and ".join(kind.upper() for kind in provenance)


def _size(value: float | None, *, percent: bool) -> str:
    """Return the size of a detectable effect, e.g. `0.79 %`."""
    return number(value, 2) if not percent or value is None else f"{number(100 * value, 2)} %"


def _exactly(share: float) -> str:
    """Return a change without an interval, e.g. `+12.5 %`."""
    return change(Interval(value=share if abs(share) > EXACT_MARGIN else 0.0), percent=True)


def _command(text: str) -> str:
    return one_line(text).replace("%", "%25")


def _fit(text: str) -> str:
    raw = text.encode()
    if len(raw) <= COMMENT_BYTES:
        return text
    return raw[:COMMENT_BYTES].decode(errors="ignore").rsplit("\n", 1)[0] + "\n\n… cut: see gate.json\n"
