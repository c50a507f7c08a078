"""`perjoule calibrate`."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from perjoule.commands.options import Averaging, Board, Json, print_record
from perjoule.errors import MeterError, UsageError


class Covers(StrEnum):
    """What the external meter covers."""

    board = "gpu-board"
    system = "system"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(calibrate)


def calibrate(
    external: Annotated[
        Path | None, typer.Argument(metavar="EXTERNAL", help="Log of the external meter.", show_default=False)
    ] = None,
    log: Annotated[
        Path | None,
        typer.Argument(metavar="LOG", help="Log of the board's own sensor, of the same time.", show_default=False),
    ] = None,
    reference: Annotated[Path | None, typer.Option(metavar="LOG", help="The same as EXTERNAL.")] = None,
    sensor_log: Annotated[Path | None, typer.Option("--sensor", metavar="LOG", help="The same as LOG.")] = None,
    external_column: Annotated[str | None, typer.Option(metavar="NAME", help="Power column of EXTERNAL.")] = None,
    column: Annotated[str | None, typer.Option(metavar="NAME", help="Power column of LOG.")] = None,
    board: Board = None,
    averaging: Averaging = None,
    covers: Annotated[
        Covers, typer.Option(help="What the external meter covers; a wall meter covers the system.")
    ] = Covers.board,
    store: Annotated[
        str | None,
        typer.Option(metavar="BOARD", help="Store the result for this board: its UUID, or its digest as in records."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Fit gain and offset of a power sensor.

    EXTERNAL is the log of a wall meter, PDU, BMC or power measurement device: any CSV with a column of times and one
    of power. The shift between the two clocks is fitted too. The power must have at least two levels, e.g. rests and
    work of a few seconds each.

    Nothing is corrected by itself: `--sensor stored` applies a stored result in measure, run and integrate.

    Example: perjoule calibrate wall.csv power.csv --covers system --store board-3f2a91c0d5e7
    """
    from perjoule.meters import calibration, sensor
    from perjoule.meters.logs import read_log

    left = [file for file in (external, log) if file is not None]
    reference = reference or (left.pop(0) if left else None)
    sensor_log = sensor_log or (left.pop(0) if left else None)
    if reference is None or sensor_log is None or left:
        raise UsageError("calibrate: give two logs, EXTERNAL and LOG, e.g. perjoule calibrate wall.csv power.csv")
    other = read_log(reference, column=external_column, for_what="calibrate")
    own = read_log(sensor_log, column=column, board=board, for_what="calibrate")
    try:
        done = calibration.calibrate(other, own, boundary=covers.value, averaging_s=averaging)
    except MeterError as error:
        raise MeterError(f"calibrate: {reference} and {sensor_log}: {error}") from error
    if store is not None:
        digest = sensor.digest_of(store)
        if done.board is not None and done.board.startswith("board-") and done.board != digest:
            raise UsageError(f"calibrate: --store {digest} is not the board of {sensor_log}, {done.board}")
        done = replace(done, board=digest, stored=str(sensor.store(done.sensor, digest)))
    print_record(done) if as_json else typer.echo(calibration.as_text(done))
