from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule_reports.drawing.scales import energy_scale, quality_scale

CROWDED = [0.86, 0.95, 0.985, 0.993, 0.996, 0.997, 0.9973, 1.0]
SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=30)


def scale(values, *, higher=True, bound=1.0):
    return quality_scale(values, values, higher=higher, bound=bound)


def test_values_near_the_bound_get_room():
    stretched, linear = scale(CROWDED), scale(CROWDED, bound=None)
    assert stretched.bound == 1.0
    # the four best cells: half of them lay in a tenth of the axis
    gap = [one.place(0.9973) - one.place(0.993) for one in (stretched, linear)]
    assert gap[0] > 4 * gap[1]
    assert gap[0] > 0.1


def test_equal_distances_multiply_what_is_missing():
    one = scale([1 - 10**-k for k in (0.5, 1, 2, 3, 3, 3)])
    steps = [one.place(1 - 10.0**-b) - one.place(1 - 10.0**-a) for a, b in ((1, 1.5), (1.5, 2))]
    assert steps[0] == pytest.approx(steps[1], rel=0.01)


def test_values_that_are_all_near_the_bound_get_room():
    values = [0.959, 0.97, 0.979, 0.985, 0.988, 0.991, 0.994, 0.996, 0.998, 0.999]
    stretched, linear = scale(values), scale(values, bound=None)
    assert stretched.bound == 1.0
    assert stretched.place(0.999) - stretched.place(0.996) > 3 * (linear.place(0.999) - linear.place(0.996))
    lower = scale([1 - v for v in values], higher=False, bound=0.0)
    assert lower.bound is None  # a tenth of a bound of zero says nothing
    assert scale([0.93, 0.94, 0.95, 0.96, 0.97]).bound is None  # what is missing differs by little


@given(SHARES, st.booleans())
def test_no_axis_goes_beyond_the_best_possible_value(values, higher):
    one = scale(values, higher=higher, bound=float(higher))
    for value in (one.low, one.high, *(value for value, _ in one.candidates)):
        assert value <= 1.0 if higher else value >= 0.0


def test_a_value_beyond_the_bound_is_shown():
    assert scale([0.5, 0.7, 1.2]).high == pytest.approx(1.2)


@pytest.mark.parametrize(
    ("values", "bound"),
    [
        ([0.2, 0.4, 0.6, 0.8, 0.9], 1.0),  # spread
        ([1.0] * 6, 1.0),  # nothing but the bound
        ([0.5, 0.999, 1.0], 1.0),  # too few cells to speak of most
        (CROWDED, None),
        ([7.2, 8.3, 8.6, 8.9, 9.1, 9.4, 9.7, 10.0], 10.0),
    ],
)
def test_other_axes_stay_linear(values, bound):
    assert scale(values, bound=bound).bound is None


@given(SHARES, st.booleans(), st.sampled_from([None, 0.0, 1.0]))
def test_better_is_higher_and_every_value_is_inside(values, higher, bound):
    one = scale(values, higher=higher, bound=bound if bound == float(higher) else None)
    places = [one.place(v) for v in sorted(values, reverse=not higher)]
    assert all(0 <= p <= 1 for p in places)
    assert all(a <= b + 1e-9 for a, b in itertools.pairwise(places))
    inside = np.linspace(min(one.low, one.high), max(one.low, one.high), 9)
    assert one.backward(one.forward(inside)) == pytest.approx(inside, abs=1e-6)


@given(SHARES, st.sampled_from([None, 1.0]), st.floats(0.05, 0.3))
def test_ticks_are_inside_and_apart(values, bound, least):
    one = scale(values, bound=bound)
    places = [one.place(value) for value, _ in one.ticks(least)]
    assert all(0 <= p <= 1 for p in places)
    assert all(b - a >= least - 1e-9 for a, b in itertools.pairwise(sorted(places)))
    assert len({text for _, text in one.ticks(least)}) == len(places)


def test_the_bound_is_a_tick_and_ticks_say_their_value():
    ticks = scale(CROWDED).ticks(0.08)
    assert ticks[-1] == (1.0, "1")
    assert len(ticks) > 4
    assert all(float(text) == pytest.approx(value) for value, text in ticks)


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=20))
def test_joules_have_octaves_or_round_numbers(joules):
    one = energy_scale(joules)
    assert all(0 <= one.place(j) <= 1 for j in joules)
    ticks = one.ticks(0.02)
    if len(ticks) > 2 and max(joules) / min(joules) > 16:
        ratios = [b / a for (a, _), (b, _) in itertools.pairwise(ticks)]
        assert all(np.log2(r) == pytest.approx(round(np.log2(r)), abs=1e-4) for r in ratios)


def test_the_script_gets_every_candidate_with_its_place():
    one = energy_scale([1.0, 2.0, 20.0])
    fine = dict(candidate.split("@") for candidate in one.fine().split(" "))
    assert {"1", "2", "4", "8", "16", "5", "10"} <= set(fine)
    assert float(fine["4"]) == pytest.approx(one.place(4.0), abs=1e-3)
