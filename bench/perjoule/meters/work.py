"""Joules by counted work: each window's energy is that of the network calls in it, by a profile of the device.

The time that a window takes does not enter, so load of the machine, clocks and other processes do not change a joule.
See `perjoule.work.counter` for what is counted and `perjoule.work.profile` for what a profile cannot see.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from perjoule.errors import MeterError, install_command
from perjoule.meters.base import BaseMeter, Fault
from perjoule.meters.clock import Clock
from perjoule.meters.identity import MeteredDevice
from perjoule.types import COUNTED, EnergyReading
from perjoule.warnings import warning
from perjoule.work.counter import WorkCounter
from perjoule.work.profile import WorkProfile, read_profile, shipped_profiles

NOT_SEEN = "does not see kernels, clocks, memory pressure, or work outside networks of torch"


def require_torch() -> None:
    """Raise MeterError if torch, whose networks are counted, is missing."""
    if find_spec("torch") is None:
        raise MeterError(f"work: torch is missing, whose networks are counted; {install_command('torch')}")


def choose_profile(name: str = "") -> WorkProfile:
    """Return the profile `machine`, one that is part of perjoule, or a file's; without a name the one of the device.

    Raises:
        MeterError: torch is missing, there is no such profile, or none for this machine's GPU.
    """
    require_torch()
    if name == "machine":
        from perjoule.meters.machine_profile import machine_profile

        return machine_profile()
    shipped = shipped_profiles()
    if name in shipped:
        return shipped[name]
    if name:
        if Path(name).is_file():
            return read_profile(Path(name))
        raise MeterError(f"work: there is no profile {name!r}: {', '.join(shipped)}, machine, or a file")
    gpu = _torch_gpu()
    if gpu is None:
        return shipped["cpu"]
    found = [profile for profile in shipped.values() if profile.device == "cuda" and profile.device_model in gpu]
    if not found:
        raise MeterError(
            f"work: there is no profile for {gpu}; fit one to a measured run: perjoule calibrate --work RUN --out FILE"
        )
    return found[0]


def _torch_gpu() -> str | None:
    """Return the name of the GPU that torch uses by default, None without one."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


class WorkMeter(BaseMeter[WorkCounter]):
    """Meter that counts instead of measuring; every reading has provenance `estimated`."""

    counts_work = True

    def __init__(self, profile: WorkProfile, clock: Clock | None = None) -> None:
        """Count by a profile; see `choose_profile`."""
        self.profile = profile
        super().__init__(
            name=f"work:{profile.name}",
            why=f"counts the work of networks, without measurement; {profile.words}",
            boundary=profile.boundary,
            provenance="estimated",
            clock=clock,
        )

    @property
    def device(self) -> MeteredDevice:
        """The device that the profile describes, not the one that did the work."""
        return MeteredDevice(name=f"{self.profile.device_model} (profile)", digest=self.profile.digest)

    @property
    def method(self) -> str:
        """The profile."""
        return f"{COUNTED}, {self.profile.words}; {NOT_SEEN}"

    def learn_idle(self, seconds: float) -> float | None:
        """Return None: counted work has no rest."""
        return None

    def _begin(self) -> WorkCounter:
        return WorkCounter(count_new=True).__enter__()

    def _abandon(self, state: WorkCounter) -> None:
        state.__exit__(None, None, None)

    def _end(self, state: WorkCounter, started_s: float, stopped_s: float) -> EnergyReading:
        state.__exit__(None, None, None)
        work = state.work
        if work is None:
            raise Fault("W233", state.reason or "nothing was counted")
        try:
            bound_j = self.profile.uncertainty_j(work)
        except MeterError as error:
            raise Fault("W234", str(error)) from error
        said = []
        if work.unknown:
            said.append(warning("W235", f"operators without a formula: {', '.join(work.unknown)}"))
        if others := self.profile.other_dtypes(work):
            known = ", ".join(self.profile.dtypes)
            said.append(warning("W236", f"the work was done in {', '.join(others)}, the profile is for {known}"))
        return replace(self._reading(self.profile.energy_j(work), bound_j, started_s, stopped_s, said), work=work)
