from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.meters.edges import bracket, expected_uncertainty_j, show
from perjoule.meters.rest import idle_power, idle_uncertainty_w, update_period
from perjoule.types import CounterLog, CounterPoll, CounterResponse, Edge, IdlePower, UpdatePeriod

IDLE = IdlePower(power_w=60.0, spread_w=0.5, lowest_w=59.0, highest_w=61.0, gap_count=11)
PERIOD = UpdatePeriod(median_s=0.1, shortest_s=0.1, longest_s=0.1, gap_count=11)
DOUBT_W = 4 * 0.5  # 3 sigma, and one more since sigma was learnt from eleven gaps only


def edge(at_s: float, energy_j: float, width_s: float = 0.0) -> Edge:
    return Edge(early_s=at_s - width_s / 2, late_s=at_s + width_s / 2, energy_j=energy_j)


def log(before: float, work_w: float, started: float, stopped: float, after: float, rest: float | None) -> CounterLog:
    """Exact edges every 0.1 s around a window of constant power on 60 W of idle."""

    def counter(t_s: float) -> float:
        return 60 * t_s + (work_w - 60) * min(max(t_s - started, 0), stopped - started)

    return CounterLog(
        before=edge(before, counter(before)),
        started_s=started,
        stopped_s=stopped,
        stop_j=counter(after - 0.1),
        after=edge(after, counter(after)),
        rest=None if rest is None else edge(rest, counter(rest)),
        polls=(),
        period=PERIOD,
        idle=IDLE,
        limit_w=None,
    )


def test_tails_are_removed_exactly_where_idle_is_known() -> None:
    result = bracket(log(10.0, 300.0, 10.01, 10.31, 10.4, 10.5))
    assert result.energy_j == pytest.approx(300.0 * 0.3, abs=1e-9)
    assert result.warnings == ()
    # 0.1 s of tails at the doubt about idle, and the quantisation: nothing else is uncertain with exact edges
    assert idle_uncertainty_w(IDLE) == pytest.approx(DOUBT_W)
    assert result.uncertainty_j == pytest.approx(0.1 * DOUBT_W + 0.002, abs=1e-9)


def test_a_plain_counter_difference_would_not_pass_here() -> None:
    """The tails are worth 5.4 J here, far outside of the bound: the test above can fail."""
    case = log(10.0, 300.0, 10.01, 10.31, 10.4, 10.5)
    assert case.after is not None
    plain_j = case.after.energy_j - case.before.energy_j
    bound_j = bracket(case).uncertainty_j
    assert bound_j is not None
    assert abs(plain_j - 90.0) > 25 * bound_j


def test_without_a_look_at_idle_afterwards_the_earlier_one_counts() -> None:
    result = bracket(log(10.0, 300.0, 10.0, 10.3, 10.4, None))
    assert result.energy_j == pytest.approx(90.0)


@given(
    period_s=st.sampled_from([0.01, 0.02, 0.05, 0.1, 0.2]),
    phase=st.floats(0, 1),
    window_s=st.floats(0.05, 5.0),
    idle_w=st.floats(15, 90),
    levels_w=st.lists(st.floats(100, 390), min_size=1, max_size=6),
    poll_s=st.floats(1e-5, 1e-3),
    seed=st.integers(0, 2**16),
)
def test_the_bound_holds_for_any_load(
    period_s: float,
    phase: float,
    window_s: float,
    idle_w: float,
    levels_w: list[float],
    poll_s: float,
    seed: int,
) -> None:
    chance = random.Random(seed)
    noise_w = 1.0

    def counter(t_s: float) -> float:
        """Whole mJ at time `t_s`, with work from 20 s on in equal stretches of the given powers."""
        total = idle_w * t_s + noise_w * math.sin(9.0 * t_s) / 9.0
        for i, level_w in enumerate(levels_w):
            begin = 20.0 + i * window_s / len(levels_w)
            total += (level_w - idle_w) * min(max(t_s - begin, 0.0), window_s / len(levels_w))
        return math.floor(total * 1000) / 1000

    def seen(t_s: float) -> Edge:
        late = chance.uniform(0, poll_s)
        return Edge(early_s=t_s - (poll_s - late), late_s=t_s + late, energy_j=counter(t_s))

    grid = [20.0 - phase * poll_s - (12 - i) * period_s for i in range(13)]  # the last one just before the work
    edges = [seen(t_s) for t_s in grid]
    stopped_s = 20.0 + window_s
    first_after = grid[-1] + math.ceil((stopped_s - grid[-1]) / period_s) * period_s
    started_s = 20.0
    result = bracket(
        CounterLog(
            before=edges[-1],
            started_s=started_s,
            stopped_s=stopped_s,
            stop_j=counter(max(first_after - period_s, grid[-1])),
            after=seen(first_after),
            rest=seen(first_after + period_s),
            polls=(),
            period=update_period(edges),
            idle=idle_power(edges, [idle_w - noise_w, idle_w + noise_w]),
            limit_w=400.0,
        )
    )
    truth_j = (
        sum(levels_w) * window_s / len(levels_w)
        + noise_w * (math.sin(9.0 * stopped_s) - math.sin(9.0 * started_s)) / 9.0
    )
    assert result.energy_j is not None
    assert result.uncertainty_j is not None
    assert abs(result.energy_j - truth_j) <= result.uncertainty_j
    assert result.uncertainty_j < 0.5 * period_s * max(levels_w) + 1.0  # and is not bought by being huge


def changed(case: CounterLog, **energies_j: float) -> CounterLog:
    edges = {"before": case.before, "after": case.after, "rest": case.rest}
    new = {name: replace(edges[name], energy_j=value) for name, value in energies_j.items()}
    return replace(case, limit_w=400.0, **new)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("energies_j", "code"),
    [
        ({"after": 600.0 + 400.0, "rest": 600.0 + 406.0}, "W212"),  # 400 J in 0.4 s at a limit of 400 W
        ({"after": 600.0 + 10.0, "rest": 600.0 + 16.0}, "W213"),  # 25 W over a window, 60 W at rest
    ],
)
def test_impossible_counters_give_no_number(energies_j: dict[str, float], code: str) -> None:
    case = replace(log(10.0, 300.0, 10.0, 10.3, 10.4, 10.5), stop_j=601.0)
    assert bracket(case).energy_j is not None
    result = bracket(changed(case, **energies_j))
    assert result.energy_j is None
    assert result.uncertainty_j is None
    assert [said[:5] for said in result.warnings] == [f"{code}:"]


def test_a_step_in_idle_power_is_told_and_widens_the_bound() -> None:
    case = log(10.0, 300.0, 10.0, 10.3, 10.4, 10.5)
    assert case.rest is not None
    steady = bracket(case)
    stepped = bracket(changed(case, rest=case.rest.energy_j + 1.0))  # 10 W more for 0.1 s
    assert [said[:4] for said in stepped.warnings] == ["W208"]
    assert steady.uncertainty_j is not None
    assert stepped.uncertainty_j is not None
    assert stepped.uncertainty_j > steady.uncertainty_j + 0.1 * 4


def looks(case: CounterLog, at_s: list[float], **fields: float | None) -> tuple[CounterPoll, ...]:
    """What a healthy counter of 60 W, 300 W while the window is open, shows at those times."""
    started_s, stopped_s = case.started_s, case.stopped_s

    def shown_j(t_s: float) -> float:
        edge_s = math.floor(round(t_s * 10, 6)) / 10
        return 60 * edge_s + 240 * min(max(edge_s - started_s, 0), stopped_s - started_s)

    return tuple(
        CounterPoll(t_s=t_s, energy_j=shown_j(t_s), power_w=300.0 if started_s < t_s < stopped_s else 60.0)
        for t_s in at_s
    )


LOOKED_S = [10.05 + 0.05 * i for i in range(38)]  # to 11.9 s


def working_case() -> CounterLog:
    """300 W from 10.0 to 12.0 s."""
    case = log(10.0, 300.0, 10.0, 12.0, 12.1, 12.2)
    return replace(case, polls=looks(case, LOOKED_S), limit_w=400.0)


def test_a_reset_keeps_what_was_counted_on_both_sides() -> None:
    case = working_case()
    assert case.after is not None
    assert case.rest is not None
    fallen = replace(
        case,
        polls=tuple(
            replace(poll, energy_j=(poll.energy_j or 0) - 850.0) if poll.t_s > 11.0 else poll for poll in case.polls
        ),
        stop_j=(case.stop_j or 0) - 850.0,
        after=replace(case.after, energy_j=case.after.energy_j - 850.0),
        rest=replace(case.rest, energy_j=case.rest.energy_j - 850.0),
    )
    result = bracket(fallen)
    assert [said[:4] for said in result.warnings] == ["W210"]
    assert result.energy_j is not None
    assert result.uncertainty_j is not None
    assert abs(result.energy_j - 600.0) <= result.uncertainty_j < 0.25 * 600.0
    # a plain difference of the ends would have been -226 J
    assert abs(result.energy_j - 600.0) <= 30.1


def test_a_counter_that_stands_still_is_filled_in_from_the_power_reading() -> None:
    case = working_case()
    stuck = replace(
        case,
        polls=tuple(replace(poll, energy_j=min(poll.energy_j or 0, 900.0)) for poll in case.polls),
        stop_j=900.0,
        after=None,
        rest=None,
        lost="W211: the counter stayed",
    )
    result = bracket(stuck)
    assert result.warnings[0].startswith("W211: the counter stopped changing 1.0")
    assert result.energy_j is not None
    assert result.uncertainty_j is not None
    assert abs(result.energy_j - 600.0) <= result.uncertainty_j
    assert abs(result.energy_j - 600.0) < 30.0

    without = bracket(replace(stuck, polls=tuple(replace(poll, power_w=None) for poll in stuck.polls)))
    assert without.energy_j is None
    assert without.partial_s == pytest.approx(1.0, abs=0.11)
    assert without.partial_energy_j == pytest.approx(300.0 * (without.partial_s or 0), abs=30.0)


def test_a_source_that_vanishes_leaves_what_was_counted_until_then() -> None:
    case = working_case()
    lost = replace(
        case,
        polls=tuple(replace(poll, energy_j=None, power_w=None) if poll.t_s > 11.0 else poll for poll in case.polls),
        stop_j=None,
        after=None,
        rest=None,
        lost="W220: lost",
    )
    result = bracket(lost)
    assert result.energy_j is None
    assert result.uncertainty_j is None
    assert result.warnings == ("W220: lost",)
    assert result.partial_s == pytest.approx(1.0, abs=0.051)
    # within one update period at full power
    assert result.partial_energy_j == pytest.approx(300.0, abs=0.1 * 300)


def test_a_reset_after_the_window_is_only_a_missing_look_at_rest() -> None:
    case = log(10.0, 300.0, 10.0, 10.3, 10.4, 10.5)
    result = bracket(changed(case, rest=3.0))
    assert result.energy_j == pytest.approx(90.0)


def test_a_device_that_never_rests_gets_the_share_of_its_last_period() -> None:
    """180 W on average, swinging between 60 and 300 W: the tail is not idle power, and the bound knows."""
    busy = IdlePower(power_w=180.0, spread_w=40.0, lowest_w=60.0, highest_w=300.0, gap_count=11)
    case = CounterLog(
        before=edge(0.0, 0.0),
        started_s=0.0,
        stopped_s=1.06,
        stop_j=180.0,
        after=edge(1.1, 198.0),
        rest=edge(1.2, 216.0),
        polls=(),
        period=PERIOD,
        idle=busy,
        limit_w=400.0,
    )
    result = bracket(case)
    assert result.energy_j == pytest.approx(198.0 - 18.0 * 0.4)
    assert result.uncertainty_j is not None
    # at least what a step in the closing period can do: up to 240 W x 0.04 s x 0.06 / 0.1
    assert 240 * 0.04 * 0.6 <= result.uncertainty_j < 20


def test_period_and_idle_are_those_of_the_edges() -> None:
    edges = [edge(t_s, 60 * t_s) for t_s in (0.0, 0.1, 0.2, 0.33, 0.4)]
    period = update_period(edges)
    assert period.median_s == pytest.approx(0.1)
    assert period.shortest_s == pytest.approx(0.07)
    assert period.longest_s == pytest.approx(0.13)
    assert period.gap_count == 4
    idle = idle_power(edges, [55.0, 71.0])
    assert idle.power_w == pytest.approx(60.0)
    assert idle.spread_w == pytest.approx(0.0, abs=1e-9)
    assert (idle.lowest_w, idle.highest_w) == (55.0, 71.0)


@pytest.mark.parametrize("learn", [update_period, idle_power])
def test_one_edge_teaches_nothing(learn: object) -> None:
    with pytest.raises(ValueError, match="two edges"):
        learn([edge(0.0, 1.0)])  # type: ignore[operator]


def test_with_a_single_gap_idle_is_not_trusted() -> None:
    assert idle_uncertainty_w(idle_power([edge(0.0, 0.0), edge(0.1, 6.0)])) >= 60.0


# -- falls, lags, and rests after work ---------------------------------------------------------------------------------

SLOW = CounterResponse(lag_s=None, box_s=None, reach_s=0.11, averages=True, most_fall_s=0.01)


def real(
    *,
    rest_w: float = 60.0,
    fall_s: float = 0.0,
    lag_s: float = 0.0,
    stopped: float = 10.333,
    box_s: float = 0.0,
    **fields: Any,
) -> tuple[CounterLog, float]:
    """A log of 300 W from 10 s on, on a board that falls to `rest_w` evenly within `fall_s`; and the true energy."""

    def total_j(t_s: float) -> float:
        fall = min(max(t_s - stopped, 0.0), fall_s)
        high_j = fall - fall**2 / (2 * fall_s) if fall_s else 0.0
        after_s = max(t_s - stopped, 0.0)
        work_j = 240 * min(max(t_s - 10.0, 0), stopped - 10.0) + (300 - rest_w) * high_j
        return 60 * t_s + work_j + (rest_w - 60) * after_s

    def counter(t_s: float) -> float:
        panels = 500 if box_s else 1
        return sum(total_j(t_s - lag_s - box_s * (i + 0.5) / panels) for i in range(panels)) / panels

    first = math.floor(stopped * 10) / 10 + 0.1
    later = [edge(first + 0.1 * i, counter(first + 0.1 * i)) for i in range(16)]
    case = CounterLog(
        before=edge(10.0, counter(10.0)),
        started_s=10.0,
        stopped_s=stopped,
        stop_j=counter(first - 0.1),
        after=later[0],
        rest=later[1],
        later=tuple(later[2:]),
        polls=(),
        period=PERIOD,
        idle=IDLE,
        limit_w=None,
    )
    return replace(case, **fields), total_j(stopped) - total_j(10.0)


@pytest.mark.parametrize("fall_s", [0.0, 0.003, 0.01])
@pytest.mark.parametrize("stopped", [10.301, 10.333, 10.395])
def test_a_fall_of_up_to_ten_milliseconds_is_within_the_bound(fall_s: float, stopped: float) -> None:
    case, truth_j = real(fall_s=fall_s, stopped=stopped, response=replace(SLOW, averages=False))
    result = bracket(case)
    assert result.energy_j is not None
    assert result.uncertainty_j is not None
    assert abs(result.energy_j - truth_j) <= result.uncertainty_j
    assert result.uncertainty_j <= 240 * 0.01 + 1.0
    ideal = bracket(replace(case, response=CounterResponse()))
    assert ideal.uncertainty_j is not None
    if fall_s == 0.01 and stopped == 10.333:  # a meter that knows no fall is wrong here
        assert abs((ideal.energy_j or 0.0) - truth_j) > ideal.uncertainty_j


def test_a_window_shows_the_limits_of_its_fall() -> None:
    for stopped, fall_s in ((10.398, 0.006), (10.301, 0.006), (10.35, 0.0)):
        case, _ = real(fall_s=fall_s, stopped=stopped, response=SLOW)
        found = show(case)
        assert found is not None
        equal_s = fall_s / 2  # of an even fall, in seconds of the power at work
        assert found.least_s <= equal_s <= found.most_s + found.doubt_s
    assert show(replace(case, idle=replace(IDLE, spread_w=20.0))) is None  # no rest, nothing shown


@pytest.mark.parametrize("lag_s", [0.0, 0.03, 0.07, 0.1])
def test_an_unknown_lag_is_waited_for(lag_s: float) -> None:
    for stopped in (10.301, 10.333, 10.395):
        case, truth_j = real(lag_s=lag_s, stopped=stopped, response=SLOW)
        result = bracket(case)
        assert result.energy_j == pytest.approx(truth_j, abs=0.3)
        assert abs((result.energy_j or 0.0) - truth_j) <= (result.uncertainty_j or 0.0)


def test_a_measured_lag_and_box_are_removed_exactly() -> None:
    case, truth_j = real(lag_s=0.03, box_s=0.4, rest_w=75.0, response=CounterResponse(lag_s=0.03, box_s=0.4))
    result = bracket(case)
    assert result.energy_j == pytest.approx(truth_j, abs=0.05)
    assert [said[:4] for said in result.warnings] == ["W208"]


def test_work_that_a_second_of_averaging_may_still_owe_is_within_the_bound() -> None:
    short, truth_j = real(box_s=1.0, stopped=10.1001, response=SLOW)
    result = bracket(replace(short, later=short.later[:2]))
    assert abs((result.energy_j or 0.0) - truth_j) <= (result.uncertainty_j or 0.0)
    assert "W218" in [said[:4] for said in result.warnings]
    prompt, _ = real(stopped=10.333, response=SLOW)
    assert bracket(prompt).warnings == ()  # the window itself excludes the average


def test_the_usual_change_of_idle_power_is_not_told_again() -> None:
    first, _ = real(rest_w=85.0)
    assert [said[:4] for said in bracket(first).warnings] == ["W208"]
    usual = IdlePower(power_w=84.0, spread_w=0.5, lowest_w=83.0, highest_w=85.0, gap_count=5)
    assert bracket(replace(first, rest_after=usual)).warnings == ()
    other, _ = real(rest_w=100.0)
    assert [said[:4] for said in bracket(replace(other, rest_after=usual)).warnings] == ["W208"]


def test_a_change_that_does_not_move_net_energy_is_not_told() -> None:
    warm, _ = real(rest_w=85.0)
    strong = replace(warm, polls=(CounterPoll(t_s=10.2, energy_j=None, power_w=2000.0),))
    assert bracket(strong).warnings == ()


@pytest.mark.parametrize(
    ("changes", "doubt_w"),
    [
        ({"spread_w": 2.0, "gap_count": 11}, (3 + 10 / 10) * 2.0),
        ({"spread_w": 2.0, "gap_count": 5}, (3 + 10 / 4) * 2.0),
        ({"spread_w": 2.0, "gap_count": 1}, (3 + 10 / 1) * 2.0),
        ({"lowest_w": 50.0, "highest_w": 75.0}, 0.8 * 25.0),  # a single rest varies nearly as power does
        ({}, 0.02 * 60.0),  # no measurement of a second is better than this a minute later
    ],
)
def test_doubt_about_a_rest_is_the_largest_of_its_reasons(changes: dict[str, float], doubt_w: float) -> None:
    steady = IdlePower(power_w=60.0, spread_w=0.1, lowest_w=59.5, highest_w=60.5, gap_count=11)
    assert idle_uncertainty_w(replace(steady, **changes)) == pytest.approx(doubt_w)  # type: ignore[arg-type]
    period = replace(PERIOD, longest_s=0.12)
    found_j = expected_uncertainty_j(period, replace(steady, **changes))  # type: ignore[arg-type]
    # a period at that doubt, an edge of 0.7 ms at rest, and two readings to a whole mJ
    assert found_j == pytest.approx(0.12 * doubt_w + 0.0007 * 60.0 + 0.002)
