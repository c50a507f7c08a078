"""Counters that fail inside a window, on exact logs: what is counted, filled in, extrapolated, and bounded."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from perjoule.meters.edges import bracket, power_ratio
from perjoule.meters.part_time import part_time_uncertainty_j
from perjoule.types import CounterLog, CounterPoll, Edge, IdlePower, UpdatePeriod

PERIOD_S, WORK_W, IDLE_W, LIMIT_W = 0.1, 300.0, 60.0, 400.0
STARTED_S, STOPPED_S = 0.5, 2.55
MOST_W = 1.1 * LIMIT_W  # boards exceed their limit by at most a tenth
FULL_RANGE_W = MOST_W  # what sensors saw, widened on both sides, reaches from nothing to this


def shown_j(t_s: float) -> float:
    """The counter at `t_s`: refreshed every 0.1 s, 1000 J at the start of the window, 300 W in it, 60 W after it."""
    at_s = math.floor(round(t_s / PERIOD_S, 6)) * PERIOD_S
    return 1000 + WORK_W * (min(at_s, STOPPED_S) - STARTED_S) + IDLE_W * max(at_s - STOPPED_S, 0.0)


def edge(at_s: float, width_s: float = 0.0) -> Edge:
    return Edge(early_s=at_s - width_s / 2, late_s=at_s + width_s / 2, energy_j=shown_j(at_s))


# half a period after each refresh, so that the counter is late by half a period throughout
LOOKED_S = [0.55 + 0.1 * i for i in range(20)]


def case(**changes: Any) -> CounterLog:
    """300 W for 2.05 s, 615 J, with a look at counter and power in each period."""
    healthy = CounterLog(
        before=edge(STARTED_S),
        started_s=STARTED_S,
        stopped_s=STOPPED_S,
        stop_j=shown_j(STOPPED_S),
        after=edge(2.6),
        rest=edge(2.7),
        polls=tuple(CounterPoll(t_s=t_s, energy_j=shown_j(t_s), power_w=WORK_W) for t_s in LOOKED_S),
        period=UpdatePeriod(median_s=PERIOD_S, shortest_s=PERIOD_S, longest_s=PERIOD_S, gap_count=11),
        idle=IdlePower(power_w=IDLE_W, spread_w=0.5, lowest_w=59.0, highest_w=61.0, gap_count=11),
        limit_w=LIMIT_W,
    )
    return replace(healthy, **changes)


def polls(energy_j: Any, power_w: Any = lambda poll: poll.power_w) -> tuple[CounterPoll, ...]:
    """The polls with other values, each computed from the healthy one."""
    return tuple(replace(poll, energy_j=energy_j(poll), power_w=power_w(poll)) for poll in case().polls)


def bound_j(hole_s: float, transitions: int) -> float:
    """Half of the range of power for as long as the counter is blind, and a period at most power a transition."""
    return 0.002 + FULL_RANGE_W / 2 * hole_s + transitions * MOST_W * PERIOD_S


class TestResets:
    def fallen(self, *at_s: float) -> CounterLog:
        """The counter falls by 700 J at these moments."""

        def lost_j(t_s: float) -> float:
            return 700.0 * sum(t_s > moment for moment in at_s)

        ends = {name: replace(e, energy_j=e.energy_j - lost_j(9)) for name, e in (("after", edge(2.6)),)}
        polled = polls(lambda poll: poll.energy_j - lost_j(poll.t_s))
        return case(polls=polled, stop_j=shown_j(STOPPED_S) - lost_j(9), rest=None, **ends)

    def test_the_power_reading_fills_the_gap(self) -> None:
        found = bracket(self.fallen(1.1))
        assert found.energy_j == pytest.approx(615.0)
        assert found.uncertainty_j == pytest.approx(bound_j(0.1, transitions=2))
        (said,) = found.warnings
        assert said.startswith("W210: the counter went from 1150.000 J to 480.000 J")

    def test_each_reset_is_a_gap_of_its_own(self) -> None:
        found = bracket(self.fallen(1.1, 1.9))
        assert found.energy_j == pytest.approx(615.0)
        assert found.uncertainty_j == pytest.approx(bound_j(0.2, transitions=3))
        assert [said[:5] for said in found.warnings] == ["W210:"] * 2

    def test_a_gap_is_filled_with_the_power_around_it(self) -> None:
        log = self.fallen(1.1)
        # readings within a period of the gap, and no others
        near = tuple(replace(p, power_w=200.0) if 0.9 < p.t_s < 1.3 else p for p in log.polls)
        assert bracket(replace(log, polls=near)).energy_j == pytest.approx(615.0 - 0.1 * 100.0)
        blind = tuple(replace(p, power_w=None) if 0.9 < p.t_s < 1.3 else p for p in log.polls)
        # none there: the middle of the range of power
        assert bracket(replace(log, polls=blind)).energy_j == pytest.approx(615.0 + 0.1 * (MOST_W / 2 - WORK_W))


class TestStops:
    def stopped(self, at_s: float, **changes: Any) -> CounterLog:
        """The counter stays at its value of that time."""
        return case(
            polls=polls(lambda poll: min(poll.energy_j, shown_j(at_s))),
            stop_j=shown_j(at_s),
            after=None,
            rest=None,
            lost="W211: the counter stayed",
            **changes,
        )

    @pytest.mark.parametrize("at_s", [1.2, 2.4], ids=["in the window", "noticed after it"])
    def test_the_power_reading_takes_over(self, at_s: float) -> None:
        """Half a period is missing: what was drawn between the last refresh that was seen and the look that saw it."""
        found = bracket(self.stopped(at_s))
        since_s = at_s + 0.05
        assert found.energy_j == pytest.approx(shown_j(at_s) - 1000 + WORK_W * (STOPPED_S - since_s))
        assert found.uncertainty_j == pytest.approx(bound_j(STOPPED_S - since_s, transitions=2))

    def test_it_is_reported_once_and_with_the_time(self) -> None:
        (said,) = bracket(self.stopped(1.2)).warnings
        assert said.startswith("W211: the counter stopped changing 0.750 s after the start")

    def test_another_failure_is_reported_as_well(self) -> None:
        codes = [said[:5] for said in bracket(replace(self.stopped(1.2), lost="W220: gone")).warnings]
        assert codes == ["W211:", "W220:"]

    def test_three_periods_without_a_change_are_a_stop_and_two_are_none(self) -> None:
        late = case(polls=polls(lambda p: min(p.energy_j, shown_j(1.2)) if p.t_s < 1.5 else p.energy_j))
        assert bracket(late).energy_j == pytest.approx(615.0)
        later = case(polls=polls(lambda p: min(p.energy_j, shown_j(1.2)) if p.t_s < 1.7 else p.energy_j))
        assert [said[:5] for said in bracket(later).warnings] == ["W211:"]


class TestDisappears:
    def gone(self, at_s: float, **changes: Any) -> CounterLog:
        """Neither counter nor power reading from then on."""
        none = polls(
            lambda p: p.energy_j if p.t_s < at_s else None, lambda p: p.power_w if p.t_s < at_s else None
        )  # fmt: skip
        return case(**{"polls": none, "stop_j": None, "after": None, "rest": None, "lost": "W220: gone"} | changes)

    def test_what_was_counted_is_extrapolated_to_the_last_reading(self) -> None:
        found = bracket(self.gone(1.0))
        assert (found.energy_j, found.uncertainty_j, found.warnings) == (None, None, ("W220: gone",))
        # the last look was at 0.95 s; the refresh that it saw was between 0.85 s and then
        assert found.partial_s == pytest.approx(0.45)
        assert found.partial_energy_j == pytest.approx(shown_j(0.95) - 1000 + WORK_W * 0.05)

    def test_without_a_power_reading_it_is_extrapolated_by_the_readings_around_it(self) -> None:
        log = self.gone(1.0)
        last = [replace(p, power_w=None) if p.t_s > 0.9 else p for p in log.polls]
        before = [replace(p, power_w=200.0) if p.t_s > 0.8 and p.power_w else p for p in last]
        assert bracket(replace(log, polls=tuple(before))).partial_energy_j == pytest.approx(
            shown_j(0.95) - 1000 + 200.0 * 0.05
        )

    def test_a_counter_that_never_changed_is_extrapolated_from_the_first_look(self) -> None:
        found = bracket(self.gone(0.6))
        assert found.partial_energy_j == pytest.approx(WORK_W * 0.05)
        assert found.partial_s == pytest.approx(0.05)

    def test_before_the_first_reading_nothing_is_known(self) -> None:
        found = bracket(self.gone(0.0))
        assert (found.partial_energy_j, found.partial_s) == (None, None)

    @pytest.mark.parametrize(("heard_until_s", "is_filled"), [(2.3, True), (2.2, False)])
    def test_power_readings_to_the_last_three_periods_are_enough(self, heard_until_s: float, is_filled: bool) -> None:
        heard = polls(
            lambda p: p.energy_j if p.t_s < 1.0 else None, lambda p: WORK_W if p.t_s < heard_until_s else None
        )  # fmt: skip
        found = bracket(self.gone(1.0, polls=heard))
        assert (found.energy_j is not None) == is_filled
        if is_filled:
            assert found.energy_j == pytest.approx(shown_j(0.95) - 1000 + WORK_W * (STOPPED_S - 0.95))

    def test_a_counter_that_was_read_to_the_end_is_only_late_by_half_a_period(self) -> None:
        found = bracket(case(after=None, rest=None, lost="W220: gone"))
        assert found.energy_j == pytest.approx(615.0)
        assert found.uncertainty_j == pytest.approx(bound_j(0.0, transitions=1))


def test_a_suspended_process_has_no_energy() -> None:
    found = bracket(case(lost="W251: suspended"))
    assert (found.energy_j, found.uncertainty_j, found.warnings) == (None, None, ("W251: suspended",))


@pytest.mark.parametrize(("width_s", "code"), [(0.0, ["W212:"]), (0.05, [])])
def test_the_limit_holds_for_as_long_as_the_edges_may_be_apart(width_s: float, code: list[str]) -> None:
    """500 J in 1.1 s is 455 W, above 1.1 x 400 W; with edges of 0.05 s each it may have been 1.2 s."""
    log = case(
        polls=(),
        before=edge(STARTED_S, width_s),
        stopped_s=1.55,
        after=replace(edge(1.6, width_s), energy_j=1500.0),
        rest=None,
        stop_j=1460.0,
    )
    assert [said[:5] for said in bracket(log).warnings] == code


def test_what_a_part_time_counter_may_have_missed_is_in_every_bound() -> None:
    missed_j = part_time_uncertainty_j(
        duration_s=STOPPED_S - STARTED_S, period_s=PERIOD_S, seen_share=0.25, range_w=FULL_RANGE_W
    )
    assert missed_j > 1.0
    for log in (case(), case(after=None, rest=None, lost="W220: gone")):
        whole, part = bracket(log), bracket(replace(log, seen_share=0.25))
        assert part.energy_j == whole.energy_j
        assert (part.uncertainty_j or 0) - (whole.uncertainty_j or 0) == pytest.approx(missed_j)


@pytest.mark.parametrize(("rest_w", "highest_w"), [(60.0, (618.0 - 0.05 * 59.0) / 2.05), (500.0, 500.0)])
def test_without_power_readings_the_counter_shows_the_range_of_power(rest_w: float, highest_w: float) -> None:
    """The mean of the work if it rested around it, and the rest after it; the double of that range may be unseen."""
    log = case(polls=(), limit_w=None, rest=replace(edge(2.7), energy_j=1618.0 + 0.1 * rest_w))
    missed_j = part_time_uncertainty_j(
        duration_s=STOPPED_S - STARTED_S,
        period_s=PERIOD_S,
        seen_share=0.25,
        range_w=highest_w + 2 * (highest_w - 59.0),
    )
    whole, part = bracket(log), bracket(replace(log, seen_share=0.25))
    assert (part.uncertainty_j or 0) - (whole.uncertainty_j or 0) == pytest.approx(missed_j)


class TestPowerRatio:
    def ramp(self, count: int, share: float = 0.9) -> tuple[CounterPoll, ...]:
        """Power rises by 50 W/s, read at uneven times; the counter counts a share of its integral."""
        times = [0.1 * i + 0.01 * (i % 3) for i in range(count)]
        return tuple(
            CounterPoll(t_s=t, energy_j=1000 + share * (100 * t + 25 * t * t), power_w=100 + 50 * t) for t in times
        )

    def test_it_is_the_share_that_the_counter_counts(self) -> None:
        assert power_ratio(case(polls=self.ramp(10))) == pytest.approx(0.9)
        assert power_ratio(case(polls=self.ramp(30, share=1.3))) == pytest.approx(1.3)
        assert power_ratio(case(polls=self.ramp(10, share=0.0))) == 0.0

    def test_it_needs_ten_readings_of_both(self) -> None:
        assert power_ratio(case(polls=self.ramp(9))) is None
        halves = (CounterPoll(t_s=9.0, energy_j=5.0, power_w=None), CounterPoll(t_s=9.1, energy_j=None, power_w=5.0))
        assert power_ratio(case(polls=self.ramp(9) + halves)) is None
        assert power_ratio(case(polls=self.ramp(12) + halves)) == pytest.approx(0.9)

    def test_no_power_and_a_falling_counter_have_no_ratio(self) -> None:
        assert power_ratio(case(polls=self.ramp(12, share=-0.5))) is None
        dark = tuple(replace(poll, power_w=0.0) for poll in self.ramp(12))
        assert power_ratio(case(polls=dark)) is None
