"""The result of `perjoule integrate`: the energy of a stretch of a power log, as a record, as text and as a plot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from perjoule.display import bounded, duration, quantity
from perjoule.errors import MeterError, UsageError
from perjoule.files import figure_format, replacing
from perjoule.meters.log_energy import learn_response, require_alive, window_energy
from perjoule.meters.logs import PowerLog, read_log
from perjoule.meters.sensor import NOT_IN_BOUND, Sensor, chosen
from perjoule.text import provenance_words
from perjoule.types import Boundary, EnergyReading, Provenance


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEnergy:
    """The energy between two times of a power log.

    Attributes:
        log: The file.
        column: The power column that was integrated.
        board: Digest of the board's UUID, or its index; None if the log does not say.
        from_s: Start of the window, in s of the log's time; 0 is the first sample if the times are those of a clock.
        to_s: End of the window.
        duration_s: Length of the window.
        energy_j: Energy; None if it is unknown (`warnings` give the reason).
        uncertainty_j: Bound on its error.
        mean_power_w: Energy over duration.
        boundary: The part of the system that the energy covers.
        provenance: How the power was obtained.
        method: Source, refresh period, averaging time, and correction of the sensor.
        period_s: The sensor's refresh period, learnt from the log.
        averaging_s: The sensor's averaging time; 0 for an instant sensor.
        samples: Number of samples inside the window.
        gain: Gain that was applied; None without a correction.
        offset_w: Offset that was applied, in W.
        warnings: Coded sentences.
        notes: What was left out or assumed when the log was read.
    """

    log: Path
    column: str
    board: str | None
    from_s: float
    to_s: float
    duration_s: float
    energy_j: float | None
    uncertainty_j: float | None
    mean_power_w: float | None
    boundary: Boundary
    provenance: Provenance
    method: str
    period_s: float
    averaging_s: float
    samples: int
    gain: float | None
    offset_w: float | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def integrate_log(
    file: Path,
    *,
    begin: str | None = None,
    end: str | None = None,
    column: str | None = None,
    board: str | None = None,
    interval_s: float | None = None,
    averaging_s: float | None = None,
    sensor: str | None = None,
) -> tuple[LogEnergy, PowerLog]:
    """Integrate a log; also return the log.

    Args:
        file: The log.
        begin: Seconds of the log's time, or a wall-clock time; its start by default.
        end: The same for the end.
        column: Power column.
        board: Index or UUID of the board.
        interval_s: Time between two rows of a log without times.
        averaging_s: Averaging time of the sensor, if it is known.
        sensor: `stored` or `GAIN,OFFSET[,W]`.

    Raises:
        UsageError: The window is empty or not a time.
        MeterError: The log cannot be used, is frozen, or does not cover the window.
    """
    log = read_log(file, column=column, board=board, interval_s=interval_s, for_what="integrate")
    try:
        require_alive(log)
    except MeterError as error:
        raise MeterError(f"integrate: {file}: {error}") from error
    correction = chosen(sensor, log.board) if sensor else None
    first_s, last_s = log.good[0][0], log.good[-1][0]
    from_s, to_s = _time_s(log, begin, "--from", first_s), _time_s(log, end, "--to", last_s)
    if not from_s < to_s:
        raise UsageError(f"integrate: --from {from_s:g} is not before --to {to_s:g}")
    if from_s < first_s or to_s > last_s:
        raise MeterError(
            f"integrate: {file} covers {first_s:.3f} to {last_s:.3f} s, not {from_s:.3f} to {to_s:.3f} s; choose "
            "--from and --to within it"
        )
    response = learn_response(log, averaging_s)
    result = window_energy(log, response, from_s, to_s)
    timing = response.timing
    reading = EnergyReading(
        energy_j=result.energy_j,
        uncertainty_j=result.uncertainty_j,
        duration_s=to_s - from_s,
        boundary=log.boundary,
        provenance=log.provenance,
        method=f"{log.source}, {log.column}, period {timing.period_s:.3f} s, {response.words}; {NOT_IN_BOUND}",
        warnings=result.warnings,
    )
    if correction is not None:
        reading = correction.corrected(reading)
    return _record(file, log, reading, from_s, to_s, timing.period_s, timing.averaging_s, correction), log


def _time_s(log: PowerLog, text: str | None, option: str, otherwise_s: float) -> float:
    if text is None:
        return otherwise_s
    try:
        time_s = log.time_s(text)
    except ValueError:
        time_s = float("nan")
    if time_s != time_s or abs(time_s) == float("inf"):
        wall = " or a wall-clock time" if log.begins_utc_s is not None else ""
        raise UsageError(f"integrate: {option} {text!r} is not a time: give seconds of the log{wall}")
    return time_s


def _record(
    file: Path, log: PowerLog, reading: EnergyReading, from_s: float, to_s: float, period_s: float,
    averaging_s: float, sensor: Sensor | None,
) -> LogEnergy:  # fmt: skip
    return LogEnergy(
        log=file,
        column=log.column,
        board=log.board,
        from_s=from_s,
        to_s=to_s,
        duration_s=to_s - from_s,
        energy_j=reading.energy_j,
        uncertainty_j=reading.uncertainty_j,
        mean_power_w=None if reading.energy_j is None else reading.energy_j / (to_s - from_s),
        boundary=reading.boundary,
        provenance=reading.provenance,
        method=reading.method,
        period_s=period_s,
        averaging_s=averaging_s,
        samples=sum(from_s <= t_s <= to_s for t_s, _ in log.good),
        gain=sensor.gain if sensor else None,
        offset_w=sensor.offset_w if sensor else None,
        warnings=reading.warnings,
        notes=log.notes,
    )


def as_text(one: LogEnergy) -> str:
    """Return the result as text, energy first."""
    joules = "no energy (see the warnings)" if one.energy_j is None else bounded(one.energy_j, one.uncertainty_j, "J")
    lines = [f"{joules} in {duration(one.duration_s)}  [{one.boundary}, {provenance_words(one.provenance)}]"]
    if one.mean_power_w is not None:
        lines.append(
            f"  {quantity(one.mean_power_w, 'W', 4)} on average, {one.samples} samples from {one.from_s:.3f} s"
        )
    return "\n".join([*lines, f"  by {one.method}", *(f"  {said}" for said in (*one.warnings, *one.notes))])


def plot(one: LogEnergy, log: PowerLog, file: Path) -> None:
    """Draw the log and the window as PNG, SVG or PDF, by the name of the file. Raises UsageError for other names."""
    kind = figure_format(file)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*log.good, strict=True), drawstyle="steps-post", linewidth=1)
    axes.axvspan(one.from_s, one.to_s, alpha=0.2)
    axes.set(xlabel="time in s", ylabel=f"{one.column} in W", title=as_text(one).partition("  [")[0])
    with replacing(file) as stream:
        figure.savefig(stream, format=kind)
