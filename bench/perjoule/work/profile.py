"""Profiles: the joules of counted work on one device.

    E = j_per_flop * FLOPs + j_per_byte * bytes + j_per_operator * operators + j_per_call * calls

The same work has the same joules on every machine and day. What a profile cannot see: faster or slower kernels, clocks,
temperature, memory pressure, and everything outside the networks of torch.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from importlib.resources import files
from math import hypot
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Interval

from perjoule.errors import MeterError, RunError
from perjoule.files import read_json, write_json
from perjoule.types import Boundary, Work

Number = Annotated[float, Interval(ge=0, le=1e6)]

DTYPE_FACTOR = 4.0  # matrix units compute float16 up to this much faster than float32, or slower without them


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkProfile:
    """Joules of counted work.

    Attributes:
        name: Name after `work:`.
        device: Kind of the device, `cpu` or `cuda`.
        device_model: Its model.
        dtypes: Data types for which it was fitted.
        j_per_flop: Joules per floating-point operation,
        j_per_byte: per byte of operands and results,
        j_per_operator: per operator,
        j_per_call: and per call of a network.
        level_error: Relative uncertainty of all joules together; it cancels between cells of one profile.
        shape_error: Relative uncertainty between kinds of work, 95 %.
        boundary: What the joules cover, as in a reading.
        origin: Where the coefficients come from.
    """

    name: str
    device: str
    device_model: str
    dtypes: tuple[str, ...]
    j_per_flop: Number
    j_per_byte: Number = 0.0
    j_per_operator: Number = 0.0
    j_per_call: Number = 0.0
    level_error: Number
    shape_error: Number
    boundary: Boundary = "estimate"
    origin: str

    def energy_j(self, work: Work) -> float:
        """Return the joules of counted work."""
        return (
            self.j_per_flop * work.flops
            + self.j_per_byte * work.bytes_moved
            + self.j_per_operator * work.operators
            + self.j_per_call * work.calls
        )

    def uncertainty_j(self, work: Work) -> float:
        """Return the bound on their error. Raises MeterError if the work was done on another kind of device."""
        others = sorted(set(work.devices) - {self.device, "meta"})
        if others:
            raise MeterError(
                f"the profile {self.name!r} is for {self.device}, the work was done on {', '.join(others)}",
                remedy="choose another with --meter work:NAME, or fit one: perjoule calibrate --work RUN",
            )
        energy_j = self.energy_j(work)
        if work.unknown:
            return energy_j
        share = hypot(self.level_error, self.shape_error)
        if self.other_dtypes(work):
            share = DTYPE_FACTOR * (1 + share) - 1
        return share * energy_j

    def other_dtypes(self, work: Work) -> tuple[str, ...]:
        """Return data types in which the work was done and for which the profile was not fitted."""
        return tuple(sorted(set(work.dtypes) - set(self.dtypes)))

    @property
    def digest(self) -> str:
        """A digest of everything that the joules depend on; two runs are comparable if it is the same."""
        numbers = (self.device, self.dtypes, self.j_per_flop, self.j_per_byte, self.j_per_operator, self.j_per_call)
        return f"profile-{sha256(repr(numbers).encode()).hexdigest()[:12]}"

    @property
    def words(self) -> str:
        """Description for `method`."""
        return (
            f"profile {self.name!r} ({self.device_model}, {', '.join(self.dtypes)}; {self.origin}; between kinds of "
            f"work ± {self.shape_error:.0%}, level ± {self.level_error:.0%})"
        )


def shipped_profiles() -> dict[str, WorkProfile]:
    """Return the profiles that are part of perjoule, by name."""
    text = files("perjoule.work").joinpath("profiles.toml").read_text("utf-8")
    return {name: checked({"name": name} | row, "profiles.toml") for name, row in tomllib.loads(text).items()}


def read_profile(file: Path) -> WorkProfile:
    """Read a profile that `perjoule calibrate --work` wrote. Raises MeterError."""
    try:
        row = read_json(file, follow=True)
    except RunError as error:
        raise MeterError(f"{file} is not a profile of counted work: {error}") from error
    return replace(checked(row, str(file)), name=str(file))


def write_profile(profile: WorkProfile, file: Path) -> None:
    """Write a profile, for `--meter work:FILE`."""
    write_json(file, asdict(profile))


def checked(row: Any, where: str) -> WorkProfile:
    """Return the profile of a table of its fields. Raises MeterError, with the place, if it is not one."""
    from pydantic import TypeAdapter, ValidationError  # imported here, because it takes longer than opening a meter

    try:
        return TypeAdapter(WorkProfile).validate_python(row)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise MeterError(f"{where} is not a profile of counted work: {key}: {first['msg']}") from error
