"""Finds out by trial what can be measured on this machine, with which error, and what prevents the rest."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from perjoule.errors import MeterError
from perjoule.meters import list_meters, open_base_meter
from perjoule.meters.base import BoardFacts
from perjoule.meters.context import create_context
from perjoule.text import provenance_words

TRIAL_LENGTHS_S = (0.2, 1.0)
IDLE_S = 1.0
CONTEXT_SHARE = 0.02  # of the power at rest: a smaller difference is noise


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialWindow:
    """A test window on the machine at rest."""

    length_s: float
    energy_j: float | None
    uncertainty_j: float | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterCheck:
    """Diagnosis of a meter.

    Attributes:
        name: Name that opens it.
        works: Whether it opened. None if it was not tried (`replay:FILE` needs a file).
        why: What it reads, or why it does not work.
        boundary: The part of the system that its joules cover.
        provenance: How the joules are obtained.
        method: Description of the source.
        idle_power_w: Power of the device at rest.
        context_idle_power_w: The same with a CUDA context, which all work on a GPU has; None without CUDA.
        rest_to_rest_j: Bound for any work between rests; None if it is not known beforehand.
        windows: Test windows at rest.
        boards: Facts about the boards.
    """

    name: str
    works: bool | None
    why: str
    boundary: str | None = None
    provenance: str | None = None
    method: str | None = None
    idle_power_w: float | None = None
    context_idle_power_w: float | None = None
    rest_to_rest_j: float | None = None
    windows: tuple[TrialWindow, ...] = ()
    boards: tuple[BoardFacts, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All meters of the machine; `auto` is the one that `--meter auto` opens (None if none works), `why` the reason."""

    auto: str | None
    why: str
    meters: tuple[MeterCheck, ...]


def examine(say: Callable[[str], None] = lambda text: None) -> Diagnosis:
    """Open every meter in turn, measure idle power, and try windows; takes a few seconds per meter.

    Args:
        say: Called with a line of text before each meter.
    """
    say("trying auto")
    best = check("auto")
    checks: list[MeterCheck] = []
    for info in list_meters():
        if info.name == best.name:
            checks.append(best)
        elif not info.available or info.name.startswith("replay"):
            checks.append(MeterCheck(name=info.name, works=None if info.available else False, why=info.why))
        else:
            say(f"trying {info.name}")
            checks.append(check(info.name))
    return Diagnosis(auto=best.name if best.works else None, why=best.why, meters=tuple(checks))


def check(name: str) -> MeterCheck:
    """Open one meter and try it; if it does not work, `why` contains the reason."""
    try:
        with open_base_meter(name) as meter:
            if meter.counts_work:  # the machine at rest shows nothing
                return MeterCheck(
                    name=meter.name,
                    works=True,
                    why=meter.why,
                    boundary=meter.boundary,
                    provenance=meter.provenance,
                    method=meter.method,
                )
            idle_power_w = meter.learn_idle(IDLE_S)
            with_context_w = None
            if meter.name.startswith("nvml") and create_context(load=True):
                with_context_w = meter.learn_idle(IDLE_S)
            readings = []
            for length_s in TRIAL_LENGTHS_S:
                with meter.window(label="doctor") as window:
                    time.sleep(length_s)
                readings.append(window.reading)
            return MeterCheck(
                name=meter.name,
                works=True,
                why=meter.why,
                boundary=readings[0].boundary,
                provenance=readings[0].provenance,
                method=readings[0].method,
                idle_power_w=idle_power_w,
                context_idle_power_w=with_context_w,
                rest_to_rest_j=meter.expected_uncertainty_j(),
                windows=tuple(
                    TrialWindow(
                        length_s=reading.duration_s,
                        energy_j=reading.energy_j,
                        uncertainty_j=reading.uncertainty_j,
                        warnings=reading.warnings,
                    )
                    for reading in readings
                ),
                boards=meter.describe(),
            )
    except MeterError as error:
        return MeterCheck(name=name, works=False, why=str(error))


def as_text(diagnosis: Diagnosis) -> str:
    """Return the diagnosis as text: first the choice of `auto`, then each meter."""
    if diagnosis.auto is None:
        lines = [f"nothing works here: {diagnosis.why}"]
    else:
        lines = [f"auto uses {diagnosis.auto}: {diagnosis.why}"]
        counting = [one.name for one in diagnosis.meters if one.works and one.name.startswith("work")]
        if diagnosis.auto == "estimate" and counting:
            lines.append(f"perjoule run uses {counting[0]} instead, which sees the networks of its own process")
    for one in diagnosis.meters:
        lines += ["", _head(one)]
        if one.works:
            lines += [f"  {line}" for line in _findings(one)]
    if not any(one.works and one.provenance == "measured" for one in diagnosis.meters):
        lines += ["", "Nothing can be measured here. Estimates are always marked as such."]
    return "\n".join(lines)


def _head(one: MeterCheck) -> str:
    if one.works is None:
        return f"{one.name}: {one.why}"
    if not one.works:
        return f"{one.name} does not work\n  {one.why}"
    brand = provenance_words(one.provenance)
    return f"{one.name} works  [{one.boundary}, {brand}]"


def _findings(one: MeterCheck) -> list[str]:
    lines = [one.method or ""]
    if one.idle_power_w is not None:
        bare_w, context_w = one.idle_power_w, one.context_idle_power_w
        differ = context_w is not None and abs(context_w - bare_w) > CONTEXT_SHARE * bare_w
        lines.append(f"at rest {bare_w:.4g} W" + (f", {context_w:.4g} W with a CUDA context" if differ else ""))
    for window in one.windows:
        if window.energy_j is None or window.uncertainty_j is None:
            lines.append(f"{window.length_s:.2f} s at rest: no bounded number")
        else:
            share = window.uncertainty_j / window.energy_j
            lines.append(
                f"{window.length_s:.2f} s at rest: {window.energy_j:.4g} J ± {window.uncertainty_j:.2g} J ({share:.1%})"
            )
    if one.rest_to_rest_j is not None:
        lines.append(
            f"work between rests: ± {one.rest_to_rest_j:.2g} J at worst, for any duration; i.e. 1 % from "
            f"{100 * one.rest_to_rest_j:.3g} J up"
        )
    for board in one.boards:
        found = board.conditions
        facts = [board.model, f"driver {board.driver}", f"power reading: {board.power or 'none'}"]
        if board.reading_s is not None:
            facts.append(f"a reading takes {1000 * board.reading_s:.2g} ms")
        if board.limit_w is not None:
            facts.append(f"limit {board.limit_w:g} W")
        if found.peak_memory_bytes is not None:
            facts.append(f"{found.peak_memory_bytes / 2**30:.2f} GiB in use")
        if found.foreign_processes:
            facts.append(f"{found.foreign_processes} other compute processes")
        lines.append(", ".join(facts))
        lines += [f"not reported by the board: {reason}" for reason in board.absent]
    return lines + list(dict.fromkeys(said for window in one.windows for said in window.warnings))
