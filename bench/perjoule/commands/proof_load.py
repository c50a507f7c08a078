"""Chooses the work of a proof by what the meter measures."""

from __future__ import annotations

import os
from typing import Any

from perjoule.errors import MeterError
from perjoule.meters.base import BaseMeter
from perjoule.meters.loads import cpu_load, cuda_load
from perjoule.meters.proving import Load
from perjoule.testing import NvmlSimulator, SimulatedLoad
from perjoule.testing.nvml_simulator import VARIABLE


def load_for(meter: BaseMeter[Any]) -> Load:
    """Return work for the device of a meter: of the GPU, of the simulated board, or of the CPU.

    Raises:
        MeterError: The meter replays a log, or torch cannot use the GPU.
    """
    if meter.name.startswith("replay"):
        raise MeterError(f"{meter.name} replays a log: no work can be measured with it")
    if not meter.facts:
        return cpu_load()
    if VARIABLE in os.environ:
        simulator = NvmlSimulator.attach()
        return SimulatedLoad(simulator, rest_w=simulator.power_w(0, simulator.now()))
    return cuda_load(meter.facts[0].digest)
