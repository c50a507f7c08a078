"""`perjoule doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perjoule.commands import completing
from perjoule.commands.options import Json, MeterName, Models, Quiet, print_record, print_text, reporter
from perjoule.errors import EvidenceError, MeterError, UsageError


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(doctor)


def doctor(
    suite: Annotated[
        str | None,
        typer.Option(metavar="SUITE", help="Check what this suite needs instead.", autocompletion=completing.suites),
    ] = None,
    model: Models = None,
    prove: Annotated[
        bool, typer.Option("--prove", help="Check with repeated work whether the meter is consistent with itself.")
    ] = False,
    meter: MeterName = "auto",
    plot: Annotated[Path | None, typer.Option(help="With --prove: draw the windows, as PNG, SVG or PDF.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check what can be measured on this machine.

    Tries every meter and prints its uncertainty, or why it does not work. Takes a few seconds per meter, during which
    the machine should be idle. Exits with 4 if no meter works.

    With --suite it lists what the suite needs (packages, weights, licences, tokens, memory, disk) and exits with 4 if
    something is missing. Nothing is downloaded.

    With --prove it keeps the device of --meter busy for 2 to 3 minutes with equal pieces of work, and checks whether
    their joules add up. The result is remembered for this board, and later runs record it. Exits with 4 if a check
    fails. Nothing else should use the device.

    Example: perjoule doctor --prove --plot proof.png
    """
    from perjoule.meters import doctor

    if prove and suite is not None:
        raise UsageError("doctor: --prove checks a meter and --suite a suite; give one of them")
    if prove:
        _prove(meter, plot, as_json, quiet)
        return
    if plot is not None:
        raise UsageError("doctor: --plot draws the windows of --prove")

    if suite is not None:
        _examine_suite(suite, model or [], as_json)
        return
    diagnosis = doctor.examine(reporter(quiet).message)
    print_record(diagnosis) if as_json else print_text(doctor.as_text(diagnosis))
    if diagnosis.auto is None:
        raise typer.Exit(MeterError.exit_code)


def _examine_suite(name: str, models: list[str], as_json: bool) -> None:
    from perjoule.running import suite_doctor
    from perjoule.suite.reading import find_suite, load_suite
    from perjoule.weights.catalogue import with_models

    suite = with_models(load_suite(find_suite(name)), models)
    needs = suite_doctor.examine(suite, find_suite(name))
    print_record(needs) if as_json else print_text(suite_doctor.as_text(needs))
    if not needs.ready:
        raise typer.Exit(EvidenceError.exit_code)


def _prove(name: str, plot: Path | None, as_json: bool, quiet: bool) -> None:
    from perjoule.commands import proof_plot
    from perjoule.commands.proof_load import load_for
    from perjoule.files import figure_format
    from perjoule.meters import known, open_base_meter, proof
    from perjoule.meters.lag import covering
    from perjoule.meters.proving import prove as prove_meter

    if plot is not None:
        figure_format(plot)  # before the proof, which takes minutes
    with open_base_meter(name) as meter:
        if meter.counts_work:
            raise UsageError("doctor: counted work has no sensor to prove; choose another --meter")
        load, subject = load_for(meter), known.subject(meter)
        chosen = meter.name
    result = prove_meter(lambda: open_base_meter(chosen), load, say=reporter(quiet).message)
    file = known.remember(subject, "proof", result)
    lag = covering(result.lag_s, result.box_s, result.boxes_s)
    if lag is not None:
        known.remember(subject, "lag", lag)
    if plot is not None:
        proof_plot.draw(result, plot)
    print_record(result) if as_json else print_text(f"{proof.as_text(result)}\nremembered in {file}")
    if result.verdict == "fail":
        raise typer.Exit(EvidenceError.exit_code)
