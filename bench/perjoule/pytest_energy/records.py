"""Energy of a test, as stored in baselines and reports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from perjoule.types import COUNTED, EnergyReading, weakest

Outcome = Literal["pass", "fail", "inconclusive", "invalid", "new"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The rounds of a test: joules per call of each window.

    Attributes:
        nodeid: pytest's name of the test.
        energy_j: J per call, one number per round; None if a window has no energy.
        uncertainty_j: The meter's bound per call, for each round.
        duration_s: Seconds per call, for each round.
        iterations: Calls inside each window.
        warnings: Warnings of all windows, without duplicates.
        call: Description of one call, if the test's name does not contain it.
    """

    nodeid: str
    energy_j: tuple[float | None, ...]
    uncertainty_j: tuple[float | None, ...]
    duration_s: tuple[float, ...]
    iterations: int
    boundary: str
    provenance: str
    method: str
    warnings: tuple[str, ...] = ()
    call: str = ""

    @classmethod
    def of(cls, nodeid: str, readings: Sequence[EnergyReading], iterations: int, call: str = "") -> Measured:
        """Create the record from the windows' readings."""
        first = readings[0]
        return cls(
            nodeid=nodeid,
            energy_j=tuple(None if r.energy_j is None else r.energy_j / iterations for r in readings),
            uncertainty_j=tuple(None if r.uncertainty_j is None else r.uncertainty_j / iterations for r in readings),
            duration_s=tuple(r.duration_s / iterations for r in readings),
            iterations=iterations,
            boundary=first.boundary,
            provenance=weakest(r.provenance for r in readings) or first.provenance,
            method=first.method,
            warnings=tuple(dict.fromkeys(w for r in readings for w in r.warnings)),
            call=call,
        )

    @property
    def known(self) -> list[float]:
        """Energies of the rounds that have joules."""
        return [e for e in self.energy_j if e is not None and e > 0]

    @property
    def counted(self) -> bool:
        """Whether the joules are counted work, which does not differ between sessions."""
        return self.method.startswith(COUNTED)

    @property
    def mean_j(self) -> float | None:
        """Mean J per call, or None."""
        return math.fsum(self.known) / len(self.known) if self.known else None

    def as_json(self) -> dict[str, Any]:
        """Return the record for JSON."""
        return {**asdict(self), "mean_j": self.mean_j}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A test compared with its baseline. `change`, `low`, `high`, `mde`: shares of energy; None without a verdict."""

    outcome: Outcome
    reason: str
    change: float | None = None
    low: float | None = None
    high: float | None = None
    mde: float | None = None


def judge(now: Measured, before: Measured, margin: float, session_sd: float, alpha: float = 0.05) -> Judgement:
    """Test whether the energy is within the margin of the baseline, by Welch's t on ln E, with `session_sd` added.

    Counted work has no `session_sd`. `alpha` is one-sided.
    """
    for name, expected, actual in (
        ("boundary", before.boundary, now.boundary),
        ("provenance", before.provenance, now.provenance),
        ("the call", before.call, now.call),
    ):
        if expected != actual:
            return Judgement(outcome="invalid", reason=f"{name} differs: baseline {expected!r}, now {actual!r}")
    if len(now.known) < 2 or len(before.known) < 2 or len(now.known) < len(now.energy_j):
        why = "; ".join(now.warnings[:2]) or "windows without joules"
        return Judgement(outcome="invalid", reason=f"{len(now.known)} of {len(now.energy_j)} rounds have joules: {why}")
    from perjoule.gating.disturbances import disturbance

    for side, measured in (("now", now), ("baseline", before)):
        disturbed = disturbance(measured.warnings)
        if disturbed is not None:
            return Judgement(outcome="invalid", reason=f"{side}: a round is not valid for a verdict: {disturbed}")
    from scipy.special import ndtri, stdtrit

    from perjoule.statistics.detectable import minimal_detectable_effect

    logs = [[math.log(e) for e in side.known] for side in (now, before)]
    means = [math.fsum(side) / len(side) for side in logs]
    parts = [
        math.fsum((x - m) ** 2 for x in side) / (len(side) - 1) / len(side) for side, m in zip(logs, means, strict=True)
    ]
    inside = sum(parts)
    freedom = 1e9 if not inside else inside**2 / sum(p**2 / (len(s) - 1) for p, s in zip(parts, logs, strict=True))
    d = means[0] - means[1]
    se_sessions = 0.0 if now.counted and before.counted else math.sqrt(2) * session_sd
    half = math.hypot(float(stdtrit(freedom, 1 - alpha)) * math.sqrt(inside), float(ndtri(1 - alpha)) * se_sessions)
    mde = math.expm1(minimal_detectable_effect(math.hypot(math.sqrt(inside), se_sessions), alpha))
    limit = math.log1p(margin)
    numbers = {"change": math.expm1(d), "low": math.expm1(d - half), "high": math.expm1(d + half), "mde": mde}
    text = f"{numbers['change']:+.1%} [{numbers['low']:+.1%}, {numbers['high']:+.1%}] against a margin of {margin:.1%}"
    if d - half > limit:
        return Judgement(outcome="fail", reason=f"energy {text}", **numbers)
    if d + half <= limit:
        return Judgement(outcome="pass", reason=f"energy {text}", **numbers)
    return Judgement(outcome="inconclusive", reason=f"energy {text}; minimal detectable effect {mde:.1%}", **numbers)
