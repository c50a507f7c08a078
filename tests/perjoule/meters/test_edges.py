from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.meters.edges import Edge, EdgeLog, IdlePower, bracket, idle_power, update_period

IDLE = IdlePower(power_w=60.0, spread_w=0.5)


def edge(at_s: float, energy_j: float, width_s: float = 0.0) -> Edge:
    return Edge(early_s=at_s - width_s / 2, late_s=at_s + width_s / 2, energy_j=energy_j)


def log(before: float, work_w: float, started: float, stopped: float, after: float, rest: float | None) -> EdgeLog:
    """Exact edges around a window of constant power on 60 W of idle."""

    def counter(t_s: float) -> float:
        return 60 * t_s + (work_w - 60) * min(max(t_s - started, 0), stopped - started)

    return EdgeLog(
        before=edge(before, counter(before)),
        started_s=started,
        stopped_s=stopped,
        after=edge(after, counter(after)),
        rest=None if rest is None else edge(rest, counter(rest)),
    )


def test_tails_are_removed_exactly_where_idle_is_known() -> None:
    result = bracket(log(10.0, 300.0, 10.01, 10.31, 10.4, 10.5), IDLE)
    assert result.energy_j == pytest.approx(300.0 * 0.3, abs=1e-9)
    assert result.warnings == ()
    # 0.1 s of tails at 3 sigma of idle, and the quantisation: nothing else is uncertain with exact edges
    assert result.uncertainty_j == pytest.approx(0.1 * 1.5 + 0.002, abs=1e-9)


def test_a_plain_counter_difference_would_not_pass_here() -> None:
    """The tails are worth 5.4 J here, far outside of the bound: the test above can fail."""
    case = log(10.0, 300.0, 10.01, 10.31, 10.4, 10.5)
    plain_j = case.after.energy_j - case.before.energy_j
    bound_j = bracket(case, IDLE).uncertainty_j
    assert bound_j is not None
    assert abs(plain_j - 90.0) > 30 * bound_j


def test_without_a_look_at_idle_afterwards_the_earlier_one_counts() -> None:
    result = bracket(log(10.0, 300.0, 10.0, 10.3, 10.4, None), IDLE)
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
        EdgeLog(
            before=edges[-1],
            started_s=started_s,
            stopped_s=stopped_s,
            after=seen(first_after),
            rest=seen(first_after + period_s),
        ),
        idle_power(edges),
        limit_w=400.0,
    )
    truth_j = (
        sum(levels_w) * window_s / len(levels_w)
        + noise_w * (math.sin(9.0 * stopped_s) - math.sin(9.0 * started_s)) / 9.0
    )
    assert result.energy_j is not None
    assert result.uncertainty_j is not None
    assert abs(result.energy_j - truth_j) <= result.uncertainty_j
    assert result.uncertainty_j < 0.5 * period_s * max(levels_w) + 1.0  # and is not bought by being huge


def changed(case: EdgeLog, **energies_j: float) -> EdgeLog:
    from dataclasses import replace

    edges = {"before": case.before, "after": case.after, "rest": case.rest}
    new = {name: replace(edges[name], energy_j=value) for name, value in energies_j.items()}  # type: ignore[type-var]
    return replace(case, **new)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("energies_j", "code"),
    [
        ({"after": 3.0}, "W210"),  # reset inside the window
        ({"rest": 3.0}, "W210"),  # reset right after it
        ({"after": 600.0 + 400.0, "rest": 600.0 + 406.0}, "W212"),  # 400 J in 0.4 s at a limit of 400 W
        ({"after": 600.0 + 10.0, "rest": 600.0 + 16.0}, "W213"),  # 25 W over a window, 60 W at rest
    ],
)
def test_impossible_counters_give_no_number(energies_j: dict[str, float], code: str) -> None:
    case = log(10.0, 300.0, 10.0, 10.3, 10.4, 10.5)
    assert bracket(case, IDLE, limit_w=400.0).energy_j is not None
    result = bracket(changed(case, **energies_j), IDLE, limit_w=400.0)
    assert result.energy_j is None
    assert result.uncertainty_j is None
    assert [said[:5] for said in result.warnings] == [f"{code}:"]


def test_a_step_in_idle_power_is_told_and_widens_the_bound() -> None:
    case = log(10.0, 300.0, 10.0, 10.3, 10.4, 10.5)
    assert case.rest is not None
    steady = bracket(case, IDLE)
    stepped = bracket(changed(case, rest=case.rest.energy_j + 1.0), IDLE)  # 10 W more for 0.1 s
    assert [said[:4] for said in stepped.warnings] == ["W208"]
    assert steady.uncertainty_j is not None
    assert stepped.uncertainty_j is not None
    assert stepped.uncertainty_j > steady.uncertainty_j + 0.1 * 8


def test_period_and_idle_are_those_of_the_edges() -> None:
    edges = [edge(t_s, 60 * t_s) for t_s in (0.0, 0.1, 0.2, 0.33, 0.4)]
    period = update_period(edges)
    assert period.median_s == pytest.approx(0.1)
    assert period.longest_s == pytest.approx(0.13)
    assert period.gap_count == 4
    idle = idle_power(edges)
    assert idle.power_w == pytest.approx(60.0)
    assert idle.spread_w == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("learn", [update_period, idle_power])
def test_one_edge_teaches_nothing(learn: object) -> None:
    with pytest.raises(ValueError, match="two edges"):
        learn([edge(0.0, 1.0)])  # type: ignore[operator]


def test_with_a_single_gap_idle_is_not_trusted() -> None:
    assert idle_power([edge(0.0, 0.0), edge(0.1, 6.0)]).uncertainty_w >= 60.0
