"""Fakes with a known truth, shipped so that users can test their own suites and gates without hardware."""

from __future__ import annotations

from perjoule.testing.generator import FakeFactory, FakeGenerator
from perjoule.testing.meter import ConstantPower, PowerWave, SquareWave, SyntheticMeter, VirtualClock

__all__ = [
    "ConstantPower",
    "FakeFactory",
    "FakeGenerator",
    "PowerWave",
    "SquareWave",
    "SyntheticMeter",
    "VirtualClock",
]
