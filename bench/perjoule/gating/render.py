"""Renders a verdict for the terminal, as Markdown, JUnit XML and GitHub annotations. JSON is `Verdict.as_json`."""

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING
from xml.etree import ElementTree as Xml

from perjoule.display import quantity
from perjoule.gating.records import EXACT_MARGIN, Axis, Stop, Verdict
from perjoule.text import escape_markdown, one_line
from perjoule.types import Estimate

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
    lines.append(f"  energy   {_axis(verdict.energy, percent=True)}")
    lines.append(f"  quality  {one_line(verdict.metric)} {_axis(verdict.quality, percent=False)}")
    if verdict.total_energy_change is not None:
        lines.append(f"  in total {verdict.total_energy_change:+.2%} joules")
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
    """Return a look as a line, e.g. `look 2 of 6: 16 prompts, energy +0.5% [-0.9%, +1.9%], …: continue`."""
    joules = "" if row.energy_j is None else f", {quantity(row.energy_j, 'J')} ({row.share:.0%} of the plan)"
    reason = f" ({row.reason})" if row.reason else ""
    return (
        f"look {row.look} of {len(plan.prompts)}: {row.prompts} prompts, {intervals_of_look(row, plan)}{joules}: "
        f"{row.outcome}{reason}"
    )


def intervals_of_look(row: "LookRow", plan: "LookPlan") -> str:
    """Return the changes of a look with their limits, e.g. `energy +0.5% [-0.9%, +1.9%], clip_text …`."""
    return f"energy {_change(row.energy, _percent)}, {one_line(plan.metric)} {_change(row.quality, _number)}"


def replayed(replay: "Replay") -> str:
    """Return all looks of a sequential gate as a table, with its verdict."""
    head = ("look", "prompts", "level", "energy", one_line(replay.metric), "joules", "share", "outcome")
    rows = [
        (
            f"{row.look} of {replay.looks_planned}",
            str(row.prompts),
            f"{row.nominal_alpha:.2%}",
            _change(row.energy, _percent),
            _change(row.quality, _number),
            "–" if row.energy_j is None else quantity(row.energy_j, "J"),
            f"{row.share:.0%}",
            row.outcome,
        )
        for row in replay.looks
    ]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in (head, *rows)]
    lines += [f"differs: {one_line(difference)}" for difference in replay.differences]
    return "\n".join([*lines, "", terminal(replay.verdict)])


def compared(comparison: "RunComparison") -> str:
    """Return a comparison without a verdict as text."""
    one = comparison
    energy, quality = one.change.energy, one.change.quality
    lines = []
    if energy is None or one.energy_j_per_image is None:
        lines.append("energy   withheld: the joules have different origins, see below")
    else:
        before, after = (quantity(joules, "J") for joules in one.energy_j_per_image)
        windows = " and ".join(map(str, one.n_windows))
        joules = f"{before} to {after}{_label(one.provenance)}"
        lines.append(f"energy   {_change(energy, _percent)} per image, {joules}; {windows} windows")
    if quality is None:
        lines.append(f"quality  {one_line(one.metric)} withheld: its settings differ, see below")
    else:
        prompts = "1 prompt" if one.n_prompts == 1 else f"{one.n_prompts} prompts"
        lines.append(f"quality  {one_line(one.metric)} {_change(quality, _number)}; {prompts}")
    if len(one.cells) > 1:
        rows = [
            (one_line(cell.cell_id), *(
                "withheld" if change is None else _change(change, text)
                for change, text in ((cell.energy, _percent), (cell.quality, _number))
            ))
            for cell in one.cells
        ]  # fmt: skip
        table = [("cell", "energy", one_line(one.metric)), *rows]
        widths = [max(len(row[i]) for row in table) for i in range(3)]
        lines += ["", *("  ".join(map(str.ljust, row, widths)).rstrip() for row in table)]
    lines += [""] if one.differences or one.missing or one.notes else []
    lines += [f"differs: {one_line(d.key)}: {one_line(repr(d.baseline))}, then {one_line(repr(d.candidate))}"
              for d in one.differences]  # fmt: skip
    lines += [f"missing in the {_SIDES[m.where]} run: {m.what} {one_line(m.name)}"
              f"{': ' if m.detail else ''}{one_line(m.detail)}" for m in one.missing]  # fmt: skip
    lines += [f"note: {one_line(note)}" for note in one.notes]
    return "\n".join(lines)


def _change(change: Estimate, text: Callable[[float | None], str]) -> str:
    """Return a change with its interval, e.g. `+12.00% [+10.00%, +14.00%]`."""
    if change.low is None or change.high is None:
        return text(change.value)
    if change.value == change.low == change.high == 0:
        return "no difference"
    return f"{text(change.value)} [{text(change.low)}, {text(change.high)}]"


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
        f"| axis | change | {verdict.config.level:.0%} interval | margin | detectable | rests on | outcome |",
        "|---|---|---|---|---|---|---|",
        _row("energy per image", verdict.energy, percent=True),
        _row(verdict.metric, verdict.quality, percent=False),
        "",
    ]
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
        for cell in verdict.cells:
            energy, quality = _percent(cell.energy.value), _number(cell.quality.value)
            lines.append(
                f"| {escape_markdown(cell.cell_id)} | {energy} | {quality} | {', '.join(cell.failed) or '–'} |"
            )
        lines += ["", "</details>"]
    return _fit("\n".join(lines) + "\n")


def annotations(verdict: Verdict) -> str:
    """Return GitHub workflow commands, to be printed on stdout."""
    if verdict.verdict == "pass":
        return f"::notice title=perjoule gate::{_command(terminal(verdict).splitlines()[0])}"
    kind = {"inconclusive": "warning", "neutral": "notice"}.get(verdict.verdict, "error")
    reasons = verdict.reasons or ("no reason given",)
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


def _axis(axis: Axis, *, percent: bool) -> str:
    text = _percent if percent else _number
    if axis.change.value is None:
        return f"no number; margin {_margin(axis, percent=percent)}, minimal detectable effect unknown"
    change = f"{text(axis.change.value)} [{text(axis.change.low)}, {text(axis.change.high)}]"
    return (
        f"{change}: {axis.outcome}, {axis.label}; margin {_margin(axis, percent=percent)}, "
        f"minimal detectable effect {text(axis.mde)}; {axis.sample}"
    )


def _margin(axis: Axis, *, percent: bool) -> str:
    """Return the margin and its origin, e.g. `5 % (default)`."""
    if axis.margin is None:
        return "none"
    shown = 0.0 if percent and axis.margin <= EXACT_MARGIN else axis.margin  # of counted work, for last digits of sums
    text = f"{100 * shown:.4g} %" if percent else f"{shown:.4g}"
    return f"{text} ({one_line(axis.margin_origin)})"


def _row(name: str, axis: Axis, *, percent: bool) -> str:
    text = _percent if percent else _number
    interval = "–" if axis.change.value is None else f"{text(axis.change.low)} to {text(axis.change.high)}"
    margin = escape_markdown(_margin(axis, percent=percent))
    sample = "–" if axis.change.value is None else axis.sample
    outcome = f"{axis.outcome}, {axis.label}"
    columns = (escape_markdown(name), text(axis.change.value), interval, margin, text(axis.mde), sample, outcome)
    return "| " + " | ".join(columns) + " |"


def _label(provenance: Collection[str]) -> str:
    """Return the provenance of joules in brackets; empty if they were measured."""
    if set(provenance) <= {"measured"}:
        return ""
    kinds = _kinds(provenance)
    return f" (provenance of the joules: {kinds})" if "not stated" in provenance else f" ({kinds} joules)"


def _kinds(provenance: Collection[str]) -> str:
    return " and ".join(kind.upper() for kind in provenance)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2%}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:+.4g}"


def _command(text: str) -> str:
    return one_line(text).replace("%", "%25")


def _fit(text: str) -> str:
    raw = text.encode()
    if len(raw) <= COMMENT_BYTES:
        return text
    return raw[:COMMENT_BYTES].decode(errors="ignore").rsplit("\n", 1)[0] + "\n\n… cut: see gate.json\n"
