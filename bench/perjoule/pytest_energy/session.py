"""Records of a pytest session: reads a baseline, judges tests, writes a baseline and a report."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from perjoule.display import number
from perjoule.errors import PerjouleError, RunError, UsageError
from perjoule.files import read_json, write_json, write_text
from perjoule.meters import require_meter
from perjoule.opening import require_no_links
from perjoule.protocols import EnergyMeter
from perjoule.pytest_energy.looking import ALPHA, Look, looks
from perjoule.pytest_energy.records import Judgement, Measured, judge
from perjoule.shares import share
from perjoule.text import is_name, one_line, provenance_note
from perjoule.text_table import text_table
from perjoule.types import weakest
from perjoule.warnings import has_code

FOLDER = Path(".perjoule") / "energy"
SCHEMA = 1
_DISTURBING = ("W232", "W251", "W264")


class EnergyWarning(pytest.PytestWarning):
    """Warning about an inconclusive energy gate."""


@dataclass(slots=True, kw_only=True)
class EnergySession:
    """Measurements and judgements so far."""

    root: Path
    args: tuple[str, ...]
    save_as: str | None
    baseline_name: str | None
    gating: bool
    margin: float
    session_sd: float
    report: Path | None
    rounds: int
    window_s: float
    max_joules: float | None = None
    sequential: bool = False
    spent_j: float = 0.0
    baseline: dict[str, Measured] = field(default_factory=dict)
    baseline_system: dict[str, Any] = field(default_factory=dict)
    system: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, Measured] = field(default_factory=dict)
    judged: dict[str, Judgement] = field(default_factory=dict)
    deselected: set[str] = field(default_factory=set)
    missing: list[str] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unsaved: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, config: pytest.Config) -> EnergySession:
        """Read the options and the baseline.

        Raises:
            pytest.UsageError: If an option is invalid or the baseline does not exist.
        """
        option = config.getoption
        try:
            session = cls(
                root=config.rootpath,
                args=tuple(str(a) for a in config.args),
                save_as=option("--energy-save"),
                baseline_name=option("--energy-baseline"),
                gating=option("--energy-gate"),
                margin=share(option("--energy-margin"), "--energy-margin"),
                session_sd=share(option("--energy-session-sd"), "--energy-session-sd"),
                report=Path(option("--energy-report")) if option("--energy-report") else None,
                rounds=option("--energy-rounds"),
                window_s=option("--energy-window"),
                max_joules=option("--energy-max-joules"),
                sequential=option("--energy-sequential"),
            )
            for name in (session.save_as, session.baseline_name):
                if name is not None and not is_name(name):
                    raise UsageError(f"energy baseline {name!r}: use letters, digits, '.', '_' and '-', at most 64")
            if session.report is not None and session.report.suffix not in (".json", ".md", ".html"):
                raise UsageError(f"--energy-report {session.report}: must end in .json, .md or .html")
            require_meter(option("--energy-meter"))
            if session.save_as is not None or session.baseline_name is not None:
                require_no_links(session.root / FOLDER, session.root)
            session._load_baseline()
        except PerjouleError as error:
            raise pytest.UsageError(str(error)) from None
        return session

    def learn_system(self, meter: EnergyMeter) -> None:
        """Record the measured system, once."""
        if not self.system:
            from perjoule.runs.environment import system_of

            self.system = system_of(meter)

    def looks(self, nodeid: str, rounds: int) -> tuple[Look, ...]:
        """Return when the gate looks at a test of at most `rounds` rounds; empty if all rounds are measured."""
        return looks(rounds) if self.sequential and nodeid in self.baseline else ()

    def add(self, measured: Measured, look: Look | None = None, planned: int = 0) -> Judgement | None:
        """Store a test's rounds; with a baseline, judge them, at the level of the last look if there were looks."""
        self.measured[measured.nodeid] = measured
        self.spent_j += math.fsum(measured.known) * measured.iterations
        if self.baseline_name is None:
            return None
        judgement = self.judgement(measured, look)
        if look is not None:
            done = (
                f"decided after {look.rounds}" if judgement.outcome != "inconclusive" else f"open after {look.rounds}"
            )
            judgement = replace(judgement, reason=f"{judgement.reason}; {done} of {planned} rounds")
        self.judged[measured.nodeid] = judgement
        return judgement

    def judgement(self, measured: Measured, look: Look | None = None) -> Judgement:
        """Compare a test's rounds with the baseline."""
        before = self.baseline.get(measured.nodeid)
        differing = [k for k in self.system if self.baseline_system.get(k) != self.system[k]]
        if before is None:
            return Judgement(outcome="new", reason=f"not in baseline {self.baseline_name!r}")
        if differing:
            texts = [f"{k}: baseline {self.baseline_system.get(k)!r}, now {self.system[k]!r}" for k in differing]
            return Judgement(outcome="invalid", reason=f"incomparable: {'; '.join(texts)}")
        return judge(measured, before, self.margin, self.session_sd, ALPHA if look is None else look.alpha)

    def merge(self, other: Mapping[str, Any]) -> None:
        """Add what a worker of pytest-xdist measured; see `as_output`."""
        self.system = self.system or dict(other["system"])
        for measured in _records(other["tests"]):
            self.measured[measured.nodeid] = measured
        self.judged |= {nodeid: Judgement(**judgement) for nodeid, judgement in other["judged"].items()}
        self.deselected |= set(other["deselected"])

    def as_output(self) -> dict[str, Any]:
        """Return what a worker of pytest-xdist sends: texts, numbers, lists and dictionaries."""
        output = self._record() | {
            "judged": {nodeid: asdict(judgement) for nodeid, judgement in self.judged.items()},
            "deselected": sorted(self.deselected),
        }
        sent: dict[str, Any] = json.loads(json.dumps(output))
        return sent

    @property
    def over_budget(self) -> str | None:
        """Return the reason why the session must stop, or None. Warm-up calls are not counted."""
        if self.max_joules is None or self.spent_j <= self.max_joules:
            return None
        return f"--energy-max-joules {self.max_joules:g}: the windows so far used {self.spent_j:.4g} J"

    def finish(self, exitstatus: int) -> bool:
        """Write the requested files.

        Returns:
            False if evidence for a test of the baseline is missing, or a file could not be written.
        """
        if self.gating:
            self.missing = [n for n in self.baseline if n not in self.measured and self._expected(n)]
        if self.save_as is not None and self.measured:
            if exitstatus == 0:
                self._keep(self.root / FOLDER / f"{self.save_as}.json", self._record())
            else:
                self.problems.append(f"baseline {self.save_as!r} was not saved, because the session did not pass")
        if self.report is not None:
            self._keep(self.report, self._render(self.report.suffix))
        return not self.problems and not (self.gating and (self.missing or not self.measured))

    def print_summary(self, terminal: Any) -> None:
        """Print a table, a line per written file, and a line per missing test."""
        terminal.section("energy", sep="-")
        rows = self._rows()
        if rows:
            head, *tests = rows
            table = [dict(zip(head, row, strict=True)) for row in tests]
            width = shutil.get_terminal_size().columns if terminal.isatty else None
            for line in text_table(table, width).splitlines():
                terminal.write_line(line)
        else:
            terminal.write_line("no energy test ran")
        note = provenance_note(m.provenance for m in self.measured.values())
        if note:
            terminal.write_line(f"{note[0].upper()}{note[1:]}: {self._method()}")
        for disturbance in self._disturbances():
            terminal.write_line(f"WARNING {disturbance}")
        for nodeid in self.missing:
            terminal.write_line(f"ERROR {nodeid}: in baseline {self.baseline_name!r}, but did not run; was it renamed?")
        if self.gating and not self.measured:
            terminal.write_line("ERROR --energy-gate: no energy test ran, so the gate cannot pass")
        counts = {o: sum(j.outcome == o for j in self.judged.values()) for o in ("fail", "invalid", "inconclusive")}
        if any(counts.values()):
            terminal.write_line(", ".join(f"{n} {name}" for name, n in counts.items() if n))
        if self.over_budget:
            terminal.write_line(f"ERROR {self.over_budget}; the tests after that did not run")
        for problem in self.problems:
            terminal.write_line(f"ERROR {problem}")
        for path in self.written:
            terminal.write_line(f"wrote {path}")
        for text in self.unsaved:
            terminal.write_line(text)

    def _disturbances(self) -> list[str]:
        """Return the first sentence of each code about missing or disturbed joules, with its number of tests."""
        lines = []
        for code in _DISTURBING:
            sentences = [next((w for w in m.warnings if has_code(w, code)), None) for m in self.measured.values()]
            disturbed = [sentence for sentence in sentences if sentence is not None]
            if disturbed:
                lines.append(f"{disturbed[0]} ({len(disturbed)} of {len(sentences)} tests)")
        return lines

    def _method(self) -> str:
        return next(iter(self.measured.values())).method

    def _expected(self, nodeid: str) -> bool:
        """Return whether this session includes a test: it was not deselected and is inside the given paths."""
        if nodeid in self.deselected:
            return False
        file = (self.root / nodeid.split("::")[0]).resolve()
        for arg in self.args:
            path, _, rest = arg.partition("::")
            base = (Path.cwd() / path).resolve()
            if rest:
                name = nodeid.partition("::")[2]
                if base == file and (name == rest or name.startswith((f"{rest}::", f"{rest}["))):
                    return True
            elif base == file or base in file.parents:
                return True
        return False

    def _load_baseline(self) -> None:
        if self.baseline_name is None:
            return
        path = self.root / FOLDER / f"{self.baseline_name}.json"
        if not path.is_file():
            names = sorted(p.stem for p in path.parent.glob("*.json"))
            raise UsageError(
                f"--energy-baseline {self.baseline_name}: {path} does not exist; "
                f"saved baselines: {', '.join(names) or 'none'}; create it with --energy-save {self.baseline_name}"
            )
        again = f"create it again with --energy-save {self.baseline_name}"
        try:
            record = read_json(path)
        except RunError as error:
            raise RunError(str(error), remedy=f"restore the file from git, or {again}") from None
        schema = record.get("schema") if isinstance(record, dict) else None
        if schema != SCHEMA:
            raise UsageError(f"{path}: schema = {schema!r}: this version of perjoule reads {SCHEMA}: {again}")
        try:
            self.baseline_system = dict(record["system"])
            self.baseline = {m.nodeid: m for m in _records(record["tests"])}
        except (KeyError, TypeError, ValueError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise RunError(f"{path}: not an energy baseline: {what}; {again}") from None

    def _keep(self, path: Path, content: dict[str, Any] | str) -> None:
        """Write a file. If that fails, write it to a temporary folder, or else to the terminal."""
        try:
            _write(path, content)
            self.written.append(path)
            return
        except OSError as error:
            why = f"{path}: cannot be written: {error.strerror or error}"
        try:
            spare = Path(tempfile.mkdtemp(prefix="perjoule-energy-")) / path.name
            _write(spare, content)
            self.problems.append(f"{why}; it was saved in {spare}")
        except OSError:
            self.problems.append(f"{why}, not even in a temporary folder; its content follows")
            self.unsaved.append(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False))

    def _record(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "system": self.system,
            "tests": [self.measured[n].as_json() for n in sorted(self.measured)],
        }

    def _render(self, suffix: str) -> dict[str, Any] | str:
        from perjoule.pytest_energy.page import Results, render_page

        results = Results(measured=self.measured, judged=self.judged, baseline=self.baseline, missing=self.missing,
                          baseline_name=self.baseline_name, margin=self.margin, is_gate=self.gating)  # fmt: skip
        if suffix == ".json":
            judged = {n: asdict(j) for n, j in self.judged.items()}
            before = {n: self.baseline[n].mean_j for n in judged if n in self.baseline}
            return self._record() | {
                "outcome": results.outcome or None,
                "baseline": self.baseline_name,
                "baseline_j": before,
                "judged": judged,
                "missing": self.missing,
            }
        beware = self._beware()
        if suffix == ".md":
            rows = self._rows()
            head, *body = ["| " + " | ".join(map(_markdown, row)) + " |" for row in rows] or [""]
            table = [head, "|" + "---|" * len(rows[0]), *body, ""] if rows else []
            told = dict.fromkeys(filter(None, (results.outcome.upper(), results.headline(), results.counts())))
            reasons = [f"{nodeid}: {j.reason}" for nodeid, j in self.judged.items() if j.outcome not in ("pass", "new")]
            lines = [*(line for text in told for line in (_markdown(text), "")), *table,
                     *(f"- {_markdown(line)}" for line in (*reasons, *beware))]  # fmt: skip
            return "\n".join(lines) + "\n"
        measured = list(self.measured.values())
        return render_page(
            results,
            provenance=weakest(m.provenance for m in measured if m.known),
            facts=[
                *(("boundary", boundary) for boundary in sorted({m.boundary for m in measured})),
                *((name, value) for name, value in self.system.items() if isinstance(value, str) and value),
            ],
            beware=beware,
        )

    def _beware(self) -> list[str]:
        """Return what to consider before using the numbers."""
        note = provenance_note(m.provenance for m in self.measured.values())
        return [
            *(f"missing: {nodeid} is in baseline {self.baseline_name!r} but did not run" for nodeid in self.missing),
            *([f"{note[0].upper()}{note[1:]}: {self._method()}."] if note else []),
            *self._disturbances(),
        ]

    def _rows(self) -> list[list[str]]:
        if not self.measured:
            return []
        judged = bool(self.judged)
        head = ["test", "J/call", "± meter", "scatter", "s/call", "W", "rounds", "energy is"]
        rows = [head + (["change", "verdict"] if judged else [])]
        for nodeid, m in self.measured.items():
            rows.append([*_columns(nodeid, m), *(_verdict(self.judged.get(nodeid)) if judged else [])])
        return rows


def _records(rows: Any) -> list[Measured]:
    """Return the tests of a baseline; raises ValueError if a row is invalid. Unknown keys are ignored."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(list[Measured]).validate_python(rows)
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in first["loc"])
        raise ValueError(f"tests{place}: {first['msg'].lower()}") from None


def _write(path: Path, content: dict[str, Any] | str) -> None:
    if isinstance(content, str):
        write_text(path, content)
    else:
        write_json(path, content)


def _markdown(text: str) -> str:
    return one_line(text).replace("|", "\\|").replace("<", "&lt;")


def _columns(nodeid: str, m: Measured) -> list[str]:
    mean = m.mean_j
    seconds = sum(m.duration_s) / len(m.duration_s)
    if mean is None:
        return [nodeid, "-", "-", "-", f"{seconds:.4g}", "-", str(len(m.energy_j)), "not measured"]
    bounds = [u for u in m.uncertainty_j if u is not None]
    spread = (sum((e - mean) ** 2 for e in m.known) / max(1, len(m.known) - 1)) ** 0.5
    return [
        nodeid,
        f"{mean:.4g}",
        f"{sum(bounds) / len(bounds):.2g}" if bounds else "-",
        f"{spread / mean:.1%}" if len(m.known) > 1 else "-",
        f"{seconds:.4g}",
        number(mean / seconds) if seconds else "-",
        f"{len(m.known)}×{m.iterations}",
        m.provenance,
    ]


def _verdict(judgement: Judgement | None) -> list[str]:
    if judgement is None:
        return ["-", "-"]
    return ["-" if judgement.change is None else f"{judgement.change:+.1%}", judgement.outcome.upper()]
