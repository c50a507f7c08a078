"""Gain and offset of a board's power sensor: true power = gain * reading + offset.

External meters showed gains of 0.87 to 1.15 and offsets of -9 to +21 W on single boards (arXiv 2312.02741). Nothing is
corrected unless it is requested: `--sensor stored`, `--sensor GAIN,OFFSET[,W]`, or a meter's name that ends in
`@stored` or `@GAIN,OFFSET[,W]`, where W is the uncertainty of the corrected power. `perjoule calibrate` stores what it
found per board, under the digest of the board's UUID.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path

from perjoule.errors import MeterError, UsageError
from perjoule.meters.known import file_of, recall, remember
from perjoule.text import board_digest
from perjoule.types import Boundary, EnergyReading

NOT_IN_BOUND = "sensor gain and offset (about 5 %, up to 20 W) not in the bound"
_DIGEST = re.compile(r"board-[0-9a-f]{12}")
_UUID = re.compile(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_SUFFIX = re.compile(r"@(stored|[-+.\deE]+(,[-+.\deE]+){1,2})$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensor:
    """A correction of a board's power: gain * reading + offset_w.

    Attributes:
        gain: Factor.
        offset_w: Watts at a reading of 0.
        gain_uncertainty: Half width of the gain's 95 % interval.
        level_uncertainty_w: Half width of the 95 % interval of the corrected power at a reading of `centre_w`.
        centre_w: Mean reading of the calibration.
        boundary: What the external meter covered, e.g. `system` for a wall meter; None: that of the meter.
        origin: Where gain and offset come from.
    """

    gain: float
    offset_w: float
    gain_uncertainty: float = 0.0
    level_uncertainty_w: float = 0.0
    centre_w: float = 0.0
    boundary: Boundary | None = None
    origin: str = "as stated"

    def power_w(self, reading_w: float) -> float:
        """Return the corrected power."""
        return self.gain * reading_w + self.offset_w

    def uncertainty_w(self, reading_w: float) -> float:
        """Return the uncertainty of the corrected power that comes from the calibration."""
        return self.level_uncertainty_w + self.gain_uncertainty * abs(reading_w - self.centre_w)

    @property
    def words(self) -> str:
        """Description for `method`."""
        return f"corrected for the sensor's gain {self.gain:.4g} and offset {self.offset_w:+.3g} W ({self.origin})"

    def corrected(self, reading: EnergyReading) -> EnergyReading:
        """Return the reading with corrected energy, bound, idle power and trace; board rows keep the raw counts."""
        duration_s, energy_j = reading.duration_s, reading.energy_j
        bound_j = reading.uncertainty_j
        if energy_j is not None and bound_j is not None and duration_s > 0:
            bound_j = self.gain * bound_j + self.uncertainty_w(energy_j / duration_s) * duration_s
        trace = reading.trace
        return replace(
            reading,
            energy_j=None if energy_j is None else self.gain * energy_j + self.offset_w * duration_s,
            uncertainty_j=bound_j,
            idle_power_w=None if reading.idle_power_w is None else self.power_w(reading.idle_power_w),
            partial_energy_j=None
            if reading.partial_energy_j is None or reading.partial_s is None
            else self.gain * reading.partial_energy_j + self.offset_w * reading.partial_s,
            trace=trace and replace(trace, power_w=tuple(self.power_w(w) for w in trace.power_w)),
            boundary=self.boundary or reading.boundary,
            method=f"{reading.method.replace('; ' + NOT_IN_BOUND, '')}; {self.words}",
        )


def split_name(name: str) -> tuple[str, str | None]:
    """Return a meter's name without its sensor, and the sensor: `nvml@stored` is `nvml` and `stored`."""
    found = _SUFFIX.search(name)
    return (name[: found.start()], found[1]) if found else (name, None)


def with_sensor(name: str, sensor: str | None) -> str:
    """Return a meter's name with a sensor. Raises UsageError if the sensor is malformed."""
    if sensor is None:
        return name
    if sensor != "stored":
        stated(sensor)
    return f"{name}@{sensor.replace(' ', '')}"


def stated(text: str) -> Sensor:
    """Return the sensor of `GAIN,OFFSET` or `GAIN,OFFSET,W`. Raises UsageError."""
    try:
        gain, offset_w, *rest = (float(word) for word in text.split(","))
        (uncertainty_w,) = rest or [0.0]
    except ValueError:
        gain = offset_w = uncertainty_w = float("nan")
    if not (isfinite(offset_w) and 0.5 <= gain <= 2.0 and 0 <= uncertainty_w < float("inf")):
        raise UsageError(
            f"--sensor {text!r}: write stored, GAIN,OFFSET or GAIN,OFFSET,W with a gain of 0.5 to 2, an offset in W "
            "and the uncertainty W of the corrected power, e.g. 1.05,-0.1,0.5"
        )
    if not rest:
        return Sensor(gain=gain, offset_w=offset_w, origin="as stated; the uncertainty of both is not in the bound")
    return Sensor(
        gain=gain, offset_w=offset_w, level_uncertainty_w=uncertainty_w, origin=f"as stated, ± {uncertainty_w:g} W"
    )


def chosen(text: str, digest: str | None) -> Sensor:
    """Return the sensor that was requested for a board. Raises MeterError if none is stored for it."""
    if text != "stored":
        return stated(text)
    if digest is None:
        raise MeterError("--sensor stored: the source does not say which board it reads; give GAIN,OFFSET,W instead")
    if " + " in digest:
        raise MeterError(
            "--sensor stored: there are several boards, whose joules are added; measure one, or none of it"
        )
    found = stored(digest)
    if found is None:
        raise MeterError(
            f"--sensor stored: there is no calibration of {digest}; run perjoule calibrate with --store {digest} first"
        )
    return found


def digest_of(board: str) -> str:
    """Return the digest of a board from its whole UUID, or from the digest itself. Raises UsageError."""
    if _DIGEST.fullmatch(board):
        return board
    if _UUID.fullmatch(board):
        return board_digest(board)
    raise UsageError(f"{board!r} is not a board: give its whole UUID (`nvidia-smi -L`) or its digest, board-…")


def store(sensor: Sensor, digest: str) -> Path:
    """Store a board's calibration; an earlier one is replaced. Raises MeterError if it cannot be written."""
    return remember(digest, "sensor", sensor)


def stored(digest: str) -> Sensor | None:
    """Return a board's calibration, None if there is none. Raises MeterError if the file is damaged."""
    sensor = recall(digest, "sensor", Sensor)
    if sensor is not None and not all(
        isfinite(number) for number in asdict(sensor).values() if isinstance(number, float)
    ):
        raise MeterError(f"{file_of(digest, 'sensor')} contains a number that is not finite; repeat perjoule calibrate")
    return sensor
