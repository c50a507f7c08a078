"""Result of `perjoule doctor --prove`: the checks that `proving` makes of a meter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CheckVerdict = Literal["pass", "fail", "unsure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check of a proof.

    Attributes:
        name: Name of the check.
        verdict: Its result; `unsure` if the readings are too uncertain, or if the check does not apply to the meter.
        words: What was seen, with figures and limits.
    """

    name: str
    verdict: CheckVerdict
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofWindow:
    """A window over `pieces` pieces of work; energy and bound in J are None if the meter gave none."""

    pieces: int
    duration_s: float
    energy_j: float | None
    uncertainty_j: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BareCounter:
    """Error of a bare counter (two readings, subtracted) over short work of known mean energy, as shares of it."""

    duration_s: float
    windows: int
    mean_error: float
    largest_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Whether a meter is consistent with itself.

    Attributes:
        verdict: `fail` if a check failed, `unsure` if one was inconclusive, else `pass`.
        digest: Digest of the other fields, which runs record.
        meter: Name of the meter.
        method: Its source and method.
        provenance: How its joules are obtained.
        device: Model of the measured device.
        board: Digest of the board; None if the meter does not read boards.
        load: The work.
        created_utc: When it was done.
        duration_s: How long it took.
        lag_s: Measured lag of the counter; None if it was not measured.
        box_s: Time over which the counter averages power; None likewise.
        lags_s: Interval that contains the lag; None likewise.
        boxes_s: Interval that contains the box; None likewise.
        rest_w: Power at rest.
        work_w: Power of the work, from a long window.
        checks: The checks, in the order in which they were made.
        windows: The windows of the line, for a plot.
        bare: Error of a bare counter, for comparison.
    """

    verdict: CheckVerdict
    digest: str
    meter: str
    method: str
    provenance: str
    device: str | None
    board: str | None
    load: str
    created_utc: str
    duration_s: float
    lag_s: float | None
    box_s: float | None
    lags_s: tuple[float, float] | None = None
    boxes_s: tuple[float, float] | None = None
    rest_w: float
    work_w: float
    checks: tuple[Check, ...]
    windows: tuple[ProofWindow, ...]
    bare: tuple[BareCounter, ...]


def summary(proof: Proof) -> str:
    """Return the result in a few words, e.g. `fail: phase, linearity`."""
    doubts = [check.name for check in proof.checks if check.verdict in ("fail", "unsure")]
    count = sum(check.verdict == "pass" for check in proof.checks)
    return f"{proof.verdict}: {', '.join(doubts)}" if doubts else f"pass: {count} checks"


def as_text(proof: Proof) -> str:
    """Return the proof as text: the verdict, a line per check, and the bare counter for comparison."""
    what = {"pass": "is consistent with itself", "fail": "is NOT consistent with itself"}
    lines = [
        f"{proof.meter} {what.get(proof.verdict, 'could not be checked completely')}  [{proof.provenance}]",
        f"  {proof.method}",
        f"  work: {proof.load}, {proof.work_w:.4g} W; rest: {proof.rest_w:.4g} W; {proof.duration_s:.0f} s",
        "",
        *(f"{check.verdict.upper():9}  {check.name:10}  {check.words}" for check in proof.checks),
    ]
    if proof.bare:
        lines += ["", "for comparison, two plain readings of the counter:"]
    lines += [
        f"  {1e3 * row.duration_s:.0f} ms of work: {row.mean_error:+.1%} on average, {row.largest_error:+.1%} at worst "
        f"({row.windows} windows)"
        for row in proof.bare
    ]
    return "\n".join([*lines, "", "A gain or an offset that all readings share is not seen: perjoule calibrate."])
