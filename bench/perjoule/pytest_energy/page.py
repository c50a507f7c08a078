"""The page of `--energy-report`: one HTML file without a script, in the style of the report of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from markupsafe import Markup

from perjoule.display import ABSENT, number, quantity, scale
from perjoule.pytest_energy.records import Judgement, Measured
from perjoule.text import content_digest, page_templates, provenance_title

_STAMPS = {  # word, sign and tone, the most serious first
    "fail": ("FAIL", "✗", "alarm"),
    "invalid": ("INVALID", "⊘", "alarm"),
    "inconclusive": ("INCONCLUSIVE", "?", "loud"),
    "pass": ("PASS", "✓", "calm"),
}
_OUTCOMES = {
    "pass": "within the margin",
    "fail": "above the margin",
    "inconclusive": "inconclusive",
    "invalid": "without a valid comparison",
    "new": "not in the baseline",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry of the table: text, what is below it, and the tone of a verdict."""

    text: str
    detail: str = ""
    tone: str = ""
    numeric: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What a session measured, and how it compares with `baseline_name`; `missing` tests of it did not run.

    `is_gate` is True if a verdict was asked for, which nothing measured cannot pass.
    """

    measured: Mapping[str, Measured]
    judged: Mapping[str, Judgement]
    baseline: Mapping[str, Measured]
    baseline_name: str | None
    missing: Sequence[str]
    margin: float
    is_gate: bool = False

    @property
    def outcome(self) -> str:
        """The most serious outcome; empty if nothing was compared."""
        lacks = bool(self.missing) or (self.is_gate and not self.measured)
        outcomes = {judgement.outcome for judgement in self.judged.values()} | ({"invalid"} if lacks else set())
        return next((outcome for outcome in _STAMPS if outcome in outcomes), "")

    def headline(self) -> str:
        """Return the session in a sentence: the largest excess with its joules, else the joules."""
        if not self.measured:
            return "No energy test ran."
        failed = {n: j for n, j in self.judged.items() if j.outcome == "fail"}
        if failed:
            worst = max(failed, key=lambda nodeid: failed[nodeid].change or 0.0)
            more = f"; {len(failed) - 1} more failed" if len(failed) > 1 else ""
            return f"{worst} {self._excess(worst, failed[worst])}{more}."
        if self.judged:
            return self.counts()
        means = sorted(mean for m in self.measured.values() if (mean := m.mean_j) is not None)
        tests = f"{len(self.measured)} {'test' if len(self.measured) == 1 else 'tests'}"
        if not means:
            return f"The energy of {tests} could not be measured."
        span = dict.fromkeys(quantity(mean, "J") for mean in (means[0], means[-1]))
        return f"{tests}: {' to '.join(span)} per call."

    def _excess(self, nodeid: str, judgement: Judgement) -> str:
        if judgement.change is None:
            return f"failed: {judgement.reason}"
        joules, more, allowed = self._joules(nodeid).text, percent(judgement.change), percent(self.margin)
        return f"costs {more[1:]} more energy, {joules} per call; {allowed[1:]} more was allowed"

    def counts(self) -> str:
        """Return the numbers of tests by outcome, in a sentence; empty without a comparison."""
        counts: Counter[str] = Counter(judgement.outcome for judgement in self.judged.values())
        parts = [f"{counts[outcome]} {words}" for outcome, words in _OUTCOMES.items() if counts[outcome]]
        return f"Compared with baseline {self.baseline_name!r}: {', '.join(parts)}." if parts else ""

    def table(self) -> tuple[list[str], list[list[Entry]]]:
        """Return the heads and the rows of the table; verdicts and changes come first, so that phones show them."""
        head = ["test", *(["verdict", "change"] if self.judged else []), "energy per call", "± meter", "scatter",
                "time per call", "power", "rounds", "joules are"]  # fmt: skip
        return head, [self._row(nodeid, m) for nodeid, m in self.measured.items()] if self.measured else []

    def _row(self, nodeid: str, m: Measured) -> list[Entry]:
        mean, seconds = m.mean_j, sum(m.duration_s) / len(m.duration_s)
        bounds = [u for u in m.uncertainty_j if u is not None]
        scatter = (sum((e - (mean or 0)) ** 2 for e in m.known) / max(1, len(m.known) - 1)) ** 0.5
        known = mean is not None
        return [
            Entry(text=nodeid),
            *(self._verdict(nodeid) if self.judged else ()),
            self._joules(nodeid),
            _numeric(quantity(sum(bounds) / len(bounds), "J", 2) if known and bounds else ABSENT),
            _numeric(f"{100 * scatter / mean:.1f} %" if mean and len(m.known) > 1 else ABSENT),
            _numeric(quantity(seconds, "s")),
            _numeric(quantity(mean / seconds, "W") if mean is not None and seconds else ABSENT),
            _numeric(f"{len(m.known) if known else len(m.energy_j)} × {m.iterations}"),
            Entry(text=m.provenance if known else "not measured"),
        ]

    def _verdict(self, nodeid: str) -> list[Entry]:
        judgement = self.judged.get(nodeid)
        if judgement is None:
            return [Entry(text=ABSENT), _numeric(ABSENT)]
        word, _, tone = _STAMPS.get(judgement.outcome, (judgement.outcome.upper(), "", ""))
        if judgement.change is None or judgement.low is None or judgement.high is None:
            return [Entry(text=word, detail=judgement.reason, tone=tone), _numeric(ABSENT)]
        ends = f"[{percent(judgement.low)}, {percent(judgement.high)}]"
        note = judgement.reason.partition("; ")[2]
        return [Entry(text=word, detail=note, tone=tone),
                Entry(text=percent(judgement.change), detail=ends, numeric=True)]  # fmt: skip

    def _joules(self, nodeid: str) -> Entry:
        """Return the joules per call, after those of the baseline if there are any."""
        before = self.baseline.get(nodeid)
        joules = [side.mean_j for side in (before, self.measured[nodeid]) if side is not None]
        known = [mean for mean in joules if mean is not None]
        if not known or joules[-1] is None:
            return _numeric(ABSENT)
        unit = scale(known, "J")
        return _numeric(f"{' → '.join(number(mean / unit.factor) for mean in known)} {unit.unit}")


def percent(share: float) -> str:
    """Format a change with its sign, e.g. `−19.6 %`."""
    return f"{100 * share:+.1f} %".replace("-", "\N{MINUS SIGN}")


def _numeric(text: str) -> Entry:
    return Entry(text=text, numeric=True)


def render_page(
    results: Results, *, provenance: str | None, facts: Sequence[tuple[str, str]], beware: Sequence[str]
) -> str:
    """Render the page.

    Args:
        results: The tests.
        provenance: The weakest provenance of their joules; None without joules.
        facts: Names and values of what the joules are.
        beware: What to consider.
    """
    css = template("energy.css")
    environment = page_templates(template)
    head, rows = results.table()
    headline, counts = results.headline(), results.counts()
    return environment.get_template("energy.html.j2").render(
        policy=f"default-src 'none'; style-src {content_digest(css)}; base-uri 'none'; form-action 'none'",
        css=Markup(css),
        headline=headline,
        support=counts if counts != headline else "",
        stamp=_STAMPS.get(results.outcome),
        provenance=provenance,
        provenance_title=provenance_title(provenance or ""),
        facts=facts,
        beware=beware,
        head=head,
        rows=rows,
    )


@cache
def template(name: str) -> str:
    """Return a file of the folder `templates`."""
    return (files("perjoule.pytest_energy") / "templates" / name).read_text(encoding="utf-8")
