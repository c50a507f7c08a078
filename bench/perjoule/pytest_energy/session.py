"""The records of a pytest session: baseline in, judgements, baseline and report out."""

from __future__ import annotations

import html
import json
import math
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from perjoule.commands.options import share
from perjoule.errors import PerjouleError, UsageError
from perjoule.files import read_json, write_json
from perjoule.protocols import EnergyMeter
from perjoule.pytest_energy.records import Judgement, Measured, judge
from perjoule.text import provenance_note

FOLDER = Path(".perjoule") / "energy"
SCHEMA = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class EnergyWarning(pytest.PytestWarning):
    """An energy gate that could not tell."""


@dataclass(slots=True, kw_only=True)
class EnergySession:
    """What was measured and judged so far."""

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
    spent_j: float = 0.0
    baseline: dict[str, Measured] = field(default_factory=dict)
    baseline_system: dict[str, Any] = field(default_factory=dict)
    system: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, Measured] = field(default_factory=dict)
    judged: dict[str, Judgement] = field(default_factory=dict)
    deselected: set[str] = field(default_factory=set)
    missing: list[str] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)

    @classmethod
    def open(cls, config: pytest.Config) -> EnergySession:
        """Read the options and the baseline.

        Raises:
            pytest.UsageError: If an option cannot be used or there is no such baseline.
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
            )
            for name in (session.save_as, session.baseline_name):
                if name is not None and not _NAME.fullmatch(name):
                    raise UsageError(f"energy baseline {name!r}: letters, digits, '.', '_' and '-', at most 64")
            if session.report is not None and session.report.suffix not in (".json", ".md", ".html"):
                raise UsageError(f"--energy-report {session.report}: .json, .md or .html")
            session._load_baseline()
        except PerjouleError as error:
            raise pytest.UsageError(str(error)) from None
        return session

    def learn_system(self, meter: EnergyMeter) -> None:
        """Note what the joules are of; once is enough."""
        if not self.system:
            from perjoule.environment import _cpu_name, nvidia_gpus

            gpus = nvidia_gpus()
            self.system = {
                "device": [gpu["name"] for gpu in gpus] or _cpu_name(),
                "driver": gpus[0]["driver"].split(".")[0] if gpus else "",
                "power_limit_w": [gpu["power_limit_w"] for gpu in gpus],
                "meter": meter.name.split(":")[0],
            }

    def add(self, measured: Measured) -> Judgement | None:
        """Keep a test's rounds; with a baseline, judge them."""
        self.measured[measured.nodeid] = measured
        self.spent_j += math.fsum(measured.known) * measured.iterations
        if self.baseline_name is None:
            return None
        before = self.baseline.get(measured.nodeid)
        differing = [k for k in self.system if self.baseline_system.get(k) != self.system[k]]
        if before is None:
            found = Judgement(outcome="new", reason=f"not in baseline {self.baseline_name!r}")
        elif differing:
            texts = [f"{k}: baseline {self.baseline_system.get(k)!r}, now {self.system[k]!r}" for k in differing]
            found = Judgement(outcome="invalid", reason=f"incomparable: {'; '.join(texts)}")
        else:
            found = judge(measured, before, self.margin, self.session_sd)
        self.judged[measured.nodeid] = found
        return found

    @property
    def over_budget(self) -> str | None:
        """Why the session must stop, or None. Warm-up calls are outside the windows and not counted."""
        if self.max_joules is None or self.spent_j <= self.max_joules:
            return None
        return f"--energy-max-joules {self.max_joules:g}: the windows so far have spent {self.spent_j:.4g} J"

    def finish(self, exitstatus: int) -> bool:
        """Write what was asked for. -> False if a gate has no evidence for a test of its baseline."""
        if self.gating:
            self.missing = [n for n in self.baseline if n not in self.measured and self._expected(n)]
        if self.save_as is not None and self.measured and exitstatus == 0:
            self._save(self.save_as)
        if self.report is not None:
            self.report.parent.mkdir(parents=True, exist_ok=True)
            self.report.write_text(self._render(self.report.suffix), encoding="utf-8")
            self.written.append(self.report)
        return not (self.gating and (self.missing or not self.measured))

    def print_summary(self, terminal: Any) -> None:
        """A table, a line per file written, a line per test that is missing."""
        terminal.section("energy", sep="-")
        rows = self._rows()
        if rows:
            widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
            for row in rows:
                terminal.write_line("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())
        else:
            terminal.write_line("no energy test ran")
        note = provenance_note(m.provenance for m in self.measured.values())
        if note:
            terminal.write_line(f"{note[0].upper()}{note[1:]}: {self._method()}")
        for nodeid in self.missing:
            terminal.write_line(f"ERROR {nodeid}: in baseline {self.baseline_name!r}, but it did not run: renamed?")
        if self.gating and not self.measured:
            terminal.write_line("ERROR --energy-gate: no energy test ran, so nothing can pass")
        counts = {o: sum(j.outcome == o for j in self.judged.values()) for o in ("fail", "invalid", "inconclusive")}
        if any(counts.values()):
            terminal.write_line(", ".join(f"{n} {name}" for name, n in counts.items() if n))
        if self.over_budget:
            terminal.write_line(f"ERROR {self.over_budget}; the tests after that did not run")
        for path in self.written:
            terminal.write_line(f"wrote {path}")

    def _method(self) -> str:
        return next(iter(self.measured.values())).method

    def _expected(self, nodeid: str) -> bool:
        """Would this session have run it? Not if it was deselected, or lies outside the paths that were given."""
        if nodeid in self.deselected:
            return False
        file = (self.root / nodeid.split("::")[0]).resolve()
        for arg in self.args:
            path, _, rest = arg.partition("::")
            base = (Path.cwd() / path).resolve()
            if rest:
                if nodeid.split("::", 1)[-1].startswith(rest) and base == file:
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
                f"kept are: {', '.join(names) or 'none'}; make it with --energy-save {self.baseline_name}"
            )
        record = read_json(path)
        if record.get("schema") != SCHEMA:
            raise UsageError(f"{path}: schema = {record.get('schema')!r}: this version of perjoule reads {SCHEMA}")
        self.baseline_system = record["system"]
        for row in record["tests"]:
            row.pop("mean_j", None)
            kept: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
            self.baseline[row["nodeid"]] = Measured(**kept)

    def _save(self, name: str) -> None:
        path = self.root / FOLDER / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, self._record())
        self.written.append(path)

    def _record(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "system": self.system,
            "tests": [self.measured[n].as_json() for n in sorted(self.measured)],
        }

    def _render(self, suffix: str) -> str:
        if suffix == ".json":
            judged = {n: asdict(j) for n, j in self.judged.items()}
            record = self._record() | {"baseline": self.baseline_name, "judged": judged, "missing": self.missing}
            return json.dumps(record, indent=2, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n"
        rows = self._rows() or [["no energy test ran"]]
        missing = [f"missing: {nodeid}" for nodeid in self.missing]
        if suffix == ".md":
            lines = [[cell.replace("|", "\\|").replace("<", "&lt;") for cell in row] for row in rows]
            head, *body = ["| " + " | ".join(row) + " |" for row in lines]
            return "\n".join([head, "|" + "---|" * len(rows[0]), *body, "", *missing]) + "\n"
        cells = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
        body_html = "".join(f"<tr>{row}</tr>\n" for row in cells) + "".join(
            f"<tr><td>{html.escape(m)}</td></tr>\n" for m in missing
        )
        return (
            '<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Energy of tests</title>\n'
            "<style>body{font:15px system-ui;margin:2em}td{padding:.2em 1em;border-bottom:1px solid #ccc}</style>\n"
            f"<h1>Energy of tests</h1>\n<table>\n{body_html}</table>\n</html>\n"
        )

    def _rows(self) -> list[list[str]]:
        if not self.measured:
            return []
        judged = bool(self.judged)
        head = ["test", "J/call", "± meter", "scatter", "s/call", "W", "rounds", "energy is"]
        rows = [head + (["change", "verdict"] if judged else [])]
        for nodeid, m in self.measured.items():
            rows.append([*_cells(nodeid, m), *(_verdict(self.judged.get(nodeid)) if judged else [])])
        return rows


def _cells(nodeid: str, m: Measured) -> list[str]:
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
        f"{spread / mean:.1%}",
        f"{seconds:.4g}",
        f"{mean / seconds:.3g}" if seconds else "-",
        f"{len(m.known)}×{m.iterations}",
        m.provenance,
    ]


def _verdict(judgement: Judgement | None) -> list[str]:
    if judgement is None:
        return ["-", "-"]
    return ["-" if judgement.change is None else f"{judgement.change:+.1%}", judgement.outcome.upper()]
