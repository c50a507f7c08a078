from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from perjoule.statistics.frontier import frontier
from perjoule.statistics.multiplicity import benjamini_hochberg, holm, p_differs_from_zero
from tests.support.tables_of_runs import imported, table


def test_holm_steps_down_until_one_is_kept() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == {"a", "d"}
    assert holm({"a": 0.05}) == {"a"}
    # the least of n is compared with a share of 1/n, the next with 1/(n − 1), the last with the whole
    assert holm({"a": 0.049, "b": 0.024, "c": 0.016, "d": 0.012}) == {"a", "b", "c", "d"}
    assert holm({}) == set()


def test_holm_takes_a_level_for_each_number_of_tests() -> None:
    tests = {"a": 0.01, "b": 0.03, "c": 0.5}
    assert holm(tests, lambda n: 0.05 / n) == holm(tests) == {"a"}
    assert holm(tests, {3: 0.02, 2: 0.04, 1: 0.05}.__getitem__) == {"a", "b"}
    assert holm(tests, lambda n: 0.009) == set()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_bonferroni_and_no_correction(p_values: list[float]) -> None:
    tests = dict(enumerate(p_values))
    rejected = holm(tests)
    assert {k for k, p in tests.items() if p <= 0.05 / len(tests)} <= rejected
    assert rejected <= {k for k, p in tests.items() if p <= 0.05}


def test_p_value_counts_the_rows_beyond_zero() -> None:
    rows = np.concatenate([np.full(95, -1.0), np.full(4, 1.0)])
    assert p_differs_from_zero(rows) == pytest.approx(2 * 5 / 100)
    assert p_differs_from_zero(-rows) == pytest.approx(2 * 5 / 100)
    assert p_differs_from_zero(np.full(99, np.nan)) == 1.0
    assert p_differs_from_zero(np.empty(0)) == 1.0


def test_what_is_resolved_alone_may_not_be_among_many(tmp_path: Path) -> None:
    same = tuple((f"same{i}", 1.0) for i in range(4))
    run = imported(table(prompts=16, variants=(("ladder", 1.0), ("quick", 0.6), *same)), tmp_path)
    found = {r["test"]: r for r in frontier(run, resamples=500)["comparisons"]}
    assert found["quick"]["resolved_holm"]
    assert found["quick"]["bd_energy_p"] == pytest.approx(2 / 501)
    assert not any(found[name]["resolved_holm"] for name, _ in same)
    # 2/101 is more than 0.05 over the five arms: so few draws cannot carry so many tests
    few = {r["test"]: r for r in frontier(run, resamples=100)["comparisons"]}
    assert few["quick"]["resolved"]
    assert not few["quick"]["resolved_holm"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_false_discovery_rates_are_those_of_scipy(p: list[float]) -> None:
    found = benjamini_hochberg(dict(enumerate(p)))
    assert list(found) == list(range(len(p)))
    np.testing.assert_allclose(list(found.values()), false_discovery_control(p), rtol=1e-12)
    assert benjamini_hochberg({}) == {}
