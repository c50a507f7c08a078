"""`perjoule integrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perjoule.commands.options import Averaging, Board, Json, SensorChoice, print_record, print_text
from perjoule.errors import MeterError, UsageError


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(integrate)


def integrate(
    log: Annotated[
        Path, typer.Argument(metavar="LOG", help="Log of nvidia-smi, DCGM, Zeus or codecarbon, or a table.")
    ],
    begin: Annotated[
        str | None, typer.Option("--from", metavar="S", help="Start: seconds of the log, or a wall-clock time.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="S", help="End, likewise.")] = None,
    column: Annotated[str | None, typer.Option(metavar="NAME", help="Power column, if there are several.")] = None,
    board: Board = None,
    interval: Annotated[
        float | None,
        typer.Option(min=0.001, max=3600, metavar="S", help="Time between rows of dcgmi dmon, which writes no times."),
    ] = None,
    averaging: Averaging = None,
    sensor: SensorChoice = None,
    sensor_gain: Annotated[
        float | None, typer.Option(metavar="G", help="Gain of the sensor, instead of --sensor; 1 by default.")
    ] = None,
    sensor_offset: Annotated[
        float | None, typer.Option(metavar="W", help="Offset of the sensor, instead of --sensor; 0 by default.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the log and the window (.png, .svg or .pdf).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compute the energy of a power log.

    The refresh period and the averaging time of the sensor are learnt from the log, and the readings are integrated
    after the sensor's delay. Times start at 0 with the first sample if the log has those of a clock.

    Exits with 4 if the log cannot be read, does not cover the window, or never changes.

    Example: perjoule integrate power.csv --from 2 --to 12 --board 0
    """
    from perjoule.meters import log_reading

    if sensor_gain is not None or sensor_offset is not None:
        if sensor is not None:
            raise UsageError("integrate: give either --sensor or --sensor-gain and --sensor-offset")
        sensor = f"{1.0 if sensor_gain is None else sensor_gain},{sensor_offset or 0.0}"
    done, read = log_reading.integrate_log(
        log, begin=begin, end=end, column=column, board=board, interval_s=interval, averaging_s=averaging, sensor=sensor
    )
    if plot is not None:
        log_reading.plot(done, read, plot)
    print_record(done) if as_json else print_text(log_reading.as_text(done))
    if done.energy_j is None:
        raise typer.Exit(MeterError.exit_code)
