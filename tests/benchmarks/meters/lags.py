"""How exactly the lag test recovers lag and box of a counter, and how many windows are inside their bound by then.

`python -m tests.benchmarks.meters.lags [BOARDS] [--windows N] [--prove]` tries simulated boards of random properties on
virtual time: periods of 20, 50 and 100 ms, lags of 0 to 100 ms, boxes of 0 to 1 s, noise, jitter, rise, fall and a
rest that settles. About 1 s of one core each, and 3 s with --prove, which measures the lag as `doctor --prove` does.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median

from perjoule.meters.base import BaseMeter
from perjoule.meters.counter import CounterMeter
from perjoule.meters.lag import LagTest, covering
from perjoule.meters.proving import prove
from perjoule.testing import SimulatedLoad
from tests.benchmarks.meters.proofs import random_board
from tests.benchmarks.meters.virtual import Tried
from tests.support.odd_boards import OddBoard

LAG_S, BOX_SHARE, BOX_S = 0.005, 0.1, 0.01  # a box is right within a tenth, or within twice LAG_S
LENGTHS_S = (0.05, 5.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A board, what the lag test said of it, and windows before and after the test."""

    lag_s: float
    box_s: float
    period_s: float
    test: LagTest
    test_s: float
    before: list[Tried]
    after: list[Tried]

    @property
    def right(self) -> bool:
        """Whether lag and box are right within `LAG_S` and `BOX_SHARE`."""
        if self.test.lag_s is None or self.test.box_s is None:
            return False
        box_error_s = abs(self.test.box_s - self.box_s)
        return abs(self.test.lag_s - self.lag_s) <= LAG_S and box_error_s <= max(BOX_SHARE * self.box_s, BOX_S)

    @property
    def inside(self) -> bool:
        """Whether lag and box are within the intervals of the test."""
        lags_s, boxes_s = self.test.lags_s, self.test.boxes_s
        return bool(
            lags_s and boxes_s and lags_s[0] <= self.lag_s <= lags_s[1] and boxes_s[0] <= self.box_s <= boxes_s[1]
        )

    @property
    def words(self) -> str:
        """A line."""
        return (
            f"period {1e3 * self.period_s:.0f}, lag {1e3 * self.lag_s:.1f}, box {1e3 * self.box_s:.1f} ms, "
            f"inside {self.inside}: {self.test}"
        )


def late_board(chance: random.Random) -> OddBoard:
    """Return an honest board whose counter lags and averages: a third only lags, a third averages over up to 0.1 s."""
    odd = random_board(chance, None)
    lag_s = chance.choice([0.0, chance.uniform(0, 0.1), chance.uniform(0, 0.1)])
    box_s = chance.choice([0.0, chance.uniform(0, 0.1), chance.uniform(0.1, 1.0)])
    return replace(odd, board=replace(odd.board, gain=1.0, counter_lag_s=lag_s, counter_box_s=box_s))


def measure(odd: OddBoard, folder: Path, seed: int, windows: int, proof: bool) -> Measured:
    """Try windows, measure the lag, and try windows again."""
    chance = random.Random(seed)
    with odd.opened(folder, seed) as (open_meter, load), open_meter() as meter:
        assert isinstance(meter, CounterMeter)
        before = [_window(meter, load, chance) for _ in range(windows)]
        load.simulator.sleep(3.0)
        begun_s = meter.clock.now()
        if proof:
            found = prove(open_meter, load, chance=random.Random(seed))
            test = LagTest(
                lag_s=found.lag_s, box_s=found.box_s, lags_s=found.lags_s, boxes_s=found.boxes_s, misfit=0.0, words=""
            )
        else:
            test = meter.try_lag(lambda seconds: load.run(max(round(seconds / load.piece_s), 1)))
        test_s = meter.clock.now() - begun_s
    with odd.opened(folder, seed + 1) as (open_meter, load), open_meter() as meter:
        assert isinstance(meter, CounterMeter)
        lag = covering(test.lag_s, test.box_s, test.boxes_s)
        meter.boards[0].following.set(None if lag is None else (lag.lag_s, lag.box_s))
        after = [_window(meter, load, chance) for _ in range(windows)]
    board = odd.board
    return Measured(
        lag_s=board.counter_lag_s,
        box_s=board.counter_box_s,
        period_s=board.counter_period_s,
        test=test,
        test_s=test_s,
        before=before,
        after=after,
    )


def _window(meter: BaseMeter, load: SimulatedLoad, chance: random.Random) -> Tried:  # type: ignore[type-arg]
    low, high = LENGTHS_S
    simulator = load.simulator
    simulator.sleep(chance.uniform(0.3, 2.0))
    with meter.window() as window:
        begun_s = simulator.now()
        load.run(max(round(low * (high / low) ** chance.random() / load.piece_s), 1))
        ended_s = simulator.now()
    return Tried(truth_j=simulator.energy_j(0, begun_s, ended_s), reading=window.reading)


def summary(boards: Sequence[Measured]) -> list[str]:
    """Lines of figures."""
    conclusive = [one for one in boards if one.test.lag_s is not None and one.test.box_s is not None]
    separated = [one for one in conclusive if one.test.separable]
    others = [one for one in conclusive if not one.test.separable]
    late_s = [abs((one.test.lag_s or 0) + (one.test.box_s or 0) / 2 - one.lag_s - one.box_s / 2) for one in conclusive]
    lines = [
        f"{len(boards)} boards: {len(conclusive)} conclusive, {len(separated)} with lag and box apart",
        f"lag within {1e3 * LAG_S:g} ms and box within {BOX_SHARE:.0%} or {1e3 * BOX_S:g} ms: "
        f"{sum(one.right for one in conclusive)} of all, "
        f"{sum(one.right for one in separated)} of {len(separated)} apart",
        f"inside their intervals: {sum(one.inside for one in conclusive)} of all, "
        f"{sum(one.inside for one in others)} of {len(others)} not apart",
        f"right, or not apart with the truth inside: "
        f"{sum(one.right for one in separated) + sum(one.inside for one in others)} of {len(boards)}",
        f"lag + box / 2 wrong by {1e3 * median(late_s):.2f} ms (median), {1e3 * max(late_s):.2f} ms (largest); "
        f"the test took {fmean(one.test_s for one in boards):.1f} s",
    ]
    for words, windows in (
        ("before", [window for one in boards for window in one.before]),
        ("after", [window for one in boards for window in one.after]),
    ):
        if windows:
            bounds = [window.reading.uncertainty_j or 0.0 for window in windows]
            lines.append(
                f"windows {words}: {sum(window.covered for window in windows)} of {len(windows)} inside "
                f"({fmean(window.covered for window in windows):.2%}), median bound {median(bounds):.2f} J"
            )
    return lines


def main() -> None:
    """Print what was wrong, and the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("boards", nargs="?", type=int, default=200)
    parser.add_argument("--windows", type=int, default=10, help="per board, before and after")
    parser.add_argument("--prove", action="store_true", help="measure the lag by a whole proof")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.boards):
            seed = 1000 * options.seed + number
            odd = late_board(random.Random(f"lag {seed}"))
            found.append(measure(odd, Path(folder), seed, options.windows, options.prove))
            one = found[-1]
            if not (one.right if one.test.separable else one.inside):
                print(f"{seed}: {one.words}", flush=True)
            for when, windows in (("before", one.before), ("after", one.after)):
                for window in windows:
                    if not window.covered:
                        bound_j = window.reading.uncertainty_j
                        print(f"{seed}: {when}, {window.error_j:+.2f} J of {window.truth_j:.1f} J, bound {bound_j}")
    print("\n".join(summary(found)))


if __name__ == "__main__":
    main()
