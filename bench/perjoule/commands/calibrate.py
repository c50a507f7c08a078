"""`perjoule calibrate`."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from perjoule.commands import completing
from perjoule.commands.options import Averaging, Board, Json, print_record, print_text, terminal_width
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
    work: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Instead of a sensor: fit a profile of counted work to this measured run.",
            autocompletion=completing.runs,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the profile of --work, for --meter work:FILE.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fit a power sensor, or counted work.

    Prints gain and offset of a sensor, or a profile of counted work.

    EXTERNAL is the log of a wall meter, PDU, BMC or power measurement device: any CSV with a column of times and one
    of power. The shift between the two clocks is fitted too. The power must have at least two levels, e.g. rests and
    work of a few seconds each.

    Nothing is corrected by itself: `--sensor stored` applies a stored result in measure, run and integrate.

    --work RUN fits the joules per operation, byte, operator and call of networks to the windows of a run, and prints
    the error for work that was left out of the fit. The run needs at least four different amounts of work, e.g. step
    counts or models.

    Example: perjoule calibrate wall.csv power.csv --covers system --store board-3f2a91c0d5e7

    Example: perjoule calibrate --work runs/mine --out mine.json
    """
    if work is not None:
        others = (external, log, reference, sensor_log, external_column, column, board, averaging, store)
        if any(one is not None for one in others):
            raise UsageError("calibrate: --work RUN takes only --out and --json: give it, or EXTERNAL and LOG")
        _calibrate_work(work, out, as_json)
        return
    if out is not None:
        raise UsageError("calibrate: --out needs --work RUN; --store BOARD stores the result of a sensor")
    from perjoule.meters import calibration, sensor
    from perjoule.meters.logs import read_log

    left = [file for file in (external, log) if file is not None]
    reference = reference or (left.pop(0) if left else None)
    sensor_log = sensor_log or (left.pop(0) if left else None)
    if reference is None or sensor_log is None or left:
        raise UsageError(
            "calibrate: give two logs, EXTERNAL and LOG, e.g. perjoule calibrate wall.csv power.csv; or --work RUN"
        )
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
    print_record(done) if as_json else print_text(calibration.as_text(done))


def _calibrate_work(folder: Path, out: Path | None, as_json: bool) -> None:
    from perjoule.commands.calibrate_text import as_text
    from perjoule.runs.directory import load_run
    from perjoule.statistics.work_profile import calibrate_work
    from perjoule.work.profile import write_profile

    done = calibrate_work(load_run(folder))
    if out is not None:
        write_profile(done.profile, out)
        done = replace(done, file=str(out))
    print_record(done) if as_json else print_text(as_text(done, terminal_width()))
