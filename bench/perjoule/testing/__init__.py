"""Fakes with known true values, so that users can test their own suites and gates without hardware."""

from __future__ import annotations

from perjoule.testing.generator import FakeFactory, FakeGenerator
from perjoule.testing.hub import Faults, HubMirror, Request
from perjoule.testing.load import SimulatedLoad
from perjoule.testing.meter import (
    ConstantPower,
    LateWave,
    PowerWave,
    SquareWave,
    SyntheticMeter,
    VirtualClock,
    WorkBetweenRests,
)
from perjoule.testing.nvml_simulator import Bursts, Call, NvmlSimulator, SimulatedBoard, StepLog

__all__ = [
    "Bursts",
    "Call",
    "ConstantPower",
    "FakeFactory",
    "FakeGenerator",
    "Faults",
    "HubMirror",
    "LateWave",
    "NvmlSimulator",
    "PowerWave",
    "Request",
    "SimulatedBoard",
    "SimulatedLoad",
    "SquareWave",
    "StepLog",
    "SyntheticMeter",
    "VirtualClock",
    "WorkBetweenRests",
]
