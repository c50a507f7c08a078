"""The basic types of perjoule as frozen records, without I/O, torch or other heavy imports.

All numbers are in SI units, with the unit in the name. A missing number is None with a reason in another field, not 0.
"""

from perjoule.types.energy import (
    PROVENANCES,
    Boundary,
    Conditions,
    CounterLog,
    CounterPoll,
    CounterResponse,
    DeviceEnergy,
    Edge,
    EnergyReading,
    IdlePower,
    MachineLoad,
    PowerTrace,
    Provenance,
    UpdatePeriod,
    weakest,
)
from perjoule.types.prompts import Examination, Prompt, PromptCut, PromptFindings, PromptSelection, Sampling
from perjoule.types.scores import Direction, Estimate, Interval, MetricSpec, Score, SetScore, Track
from perjoule.types.suites import Cache, Denoiser, Lora, Metrics, PromptSource, Protocol, Role, Runtime, Suite, Variant
from perjoule.types.trials import Assignment, Cell, Trial
from perjoule.types.work import COUNTED, Work, WorkPart

__all__ = [
    "COUNTED",
    "PROVENANCES",
    "Assignment",
    "Boundary",
    "Cache",
    "Cell",
    "Conditions",
    "CounterLog",
    "CounterPoll",
    "CounterResponse",
    "Denoiser",
    "DeviceEnergy",
    "Direction",
    "Edge",
    "EnergyReading",
    "Estimate",
    "Examination",
    "IdlePower",
    "Interval",
    "Lora",
    "MachineLoad",
    "MetricSpec",
    "Metrics",
    "PowerTrace",
    "Prompt",
    "PromptCut",
    "PromptFindings",
    "PromptSelection",
    "PromptSource",
    "Protocol",
    "Provenance",
    "Role",
    "Runtime",
    "Sampling",
    "Score",
    "SetScore",
    "Suite",
    "Track",
    "Trial",
    "UpdatePeriod",
    "Variant",
    "Work",
    "WorkPart",
    "weakest",
]
