"""Options of a report, and the writers that are called with them.

A writer `(run, out, request) -> list[Path]` is registered under the entry point group `perjoule.reports`. It writes the
report to `out`, an HTML file or a folder, and returns the files, the page first. One of an index
`(folder, out, on_problem) -> list[Path]` calls `on_problem` with a sentence for each run that it cannot show.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from perjoule import registry
from perjoule.gating.records import GateConfig
from perjoule.runs.directory import Run


@dataclass(frozen=True, kw_only=True)
class ReportRequest:
    """Options of a report.

    Attributes:
        baseline: A run to gate against; without it the report has no verdict.
        gate: Configuration of the gate.
        co2_country: ISO 3166-1 alpha-3 code of a country, to estimate grams of CO2 from its electricity; without it
            there is no estimate.
        address: The run as arguments of a command, e.g. `demo --study votes`, for commands that the page suggests:
            names without folders, because pages are passed on.
    """

    baseline: Run | None = None
    gate: GateConfig = field(default_factory=GateConfig)
    co2_country: str | None = None
    address: str = ""


def report(run: Run, out: Path, request: ReportRequest | None = None) -> list[Path]:
    """Render the run with every registered report writer; returns the files written."""
    files: list[Path] = []
    for point in registry.registered("reports").values():
        files += point.load()(run, out, request or ReportRequest())
    return files


def index(folder: Path, out: Path) -> tuple[list[Path], list[str]]:
    """Render the page of a folder of runs with every registered index writer.

    Returns:
        The files written, and a sentence for each run that is not in the index.
    """
    files: list[Path] = []
    problems: list[str] = []
    for point in registry.registered("indexes").values():
        files += point.load()(folder, out, problems.append)
    return files, list(dict.fromkeys(problems))
