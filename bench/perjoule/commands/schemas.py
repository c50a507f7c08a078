"""The JSON Schemas of suites and of all that is printed with --json, made from the types of the records."""

from __future__ import annotations

from typing import Any

from perjoule import registry
from perjoule.commands.forge import Posted
from perjoule.commands.records import Failure, Files, Imported, MergedRun, Scaffold, Scores, WarningCode
from perjoule.commands.tables import FrontierOfRun, Listing
from perjoule.forecast import Forecast
from perjoule.gating.baselines import Baselines
from perjoule.gating.comparing import RunComparison
from perjoule.gating.looks import Replay
from perjoule.gating.recommend import Recommendation
from perjoule.gating.records import Verdict
from perjoule.gating.trends import HistoryLog
from perjoule.meters.calibration import Calibration
from perjoule.meters.doctor import Diagnosis
from perjoule.meters.log_reading import LogEnergy
from perjoule.meters.measure import Measurement
from perjoule.meters.proof import Proof
from perjoule.people.creating import NewStudy
from perjoule.people.folder import Merged
from perjoule.people.metric import ScaleOfRun
from perjoule.people.planning import AnswersNeeded
from perjoule.running.suite_doctor import SuiteNeeds
from perjoule.statistics.work_profile import WorkCalibration
from perjoule.suite.reading import json_schema
from perjoule.types.documents import SCHEMA, schema_of

_RECORDS = {
    "frontier": FrontierOfRun, "compare": RunComparison, "gate": Verdict, "gate-looks": Replay,
    "comment": Posted, "recommend": Recommendation,
    "doctor": Diagnosis, "doctor-prove": Proof, "doctor-suite": SuiteNeeds, "measure": Measurement,
    "integrate": LogEnergy, "calibrate": Calibration, "calibrate-work": WorkCalibration, "plan": Forecast,
    "score": Scores, "import": Imported, "merge": MergedRun, "report": Files, "init": Scaffold, "baseline": Baselines,
    "baseline-log": HistoryLog, "explain": WarningCode, "error": Failure,
    "study-new": NewStudy, "study-plan": AnswersNeeded, "study-add": Merged,
    "study-scale": ScaleOfRun, "list": Listing,
}  # fmt: skip


def schemas() -> dict[str, Any]:
    """JSON Schemas by document."""
    own = {name: schema_of(record) for name, record in _RECORDS.items()}
    own["list"]["required"] = ["schema"]
    others = {name: point.load()() for name, point in registry.registered("schemas").items()}
    return {"schema": SCHEMA, "suite": json_schema(), **own, **others}
