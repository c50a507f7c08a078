from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.errors import MeterError
from perjoule.types import Work, WorkPart
from perjoule.work.fitting import fit_work


def work(flops: float, moved: float = 0.0, operators: int = 0, calls: int = 1) -> Work:
    part = WorkPart(name="Net", calls=calls, flops=int(flops), bytes_moved=int(moved), operators=operators)
    return Work(parts=(part,), devices=("cpu",), dtypes=("float32",))


def some_work(count: int, seed: int = 0) -> list[Work]:
    chance = np.random.default_rng(seed)
    return [
        work(10 ** chance.uniform(8, 11), 10 ** chance.uniform(6, 9), *map(int, chance.integers(1, (900, 40))))
        for _ in range(count)
    ]


@given(
    truth=st.tuples(st.floats(1e-12, 1e-9), st.floats(0, 1e-8), st.floats(0, 1e-3), st.floats(0, 0.1)),
    seed=st.integers(0, 1000),
)
def test_energies_that_follow_the_model_give_its_coefficients_back(
    truth: tuple[float, float, float, float], seed: int
) -> None:
    works = some_work(12, seed)
    energies = [np.dot(truth, (w.flops, w.bytes_moved, w.operators, w.calls)) for w in works]
    fit = fit_work(works, energies)
    again = [np.dot(fit.coefficients, (w.flops, w.bytes_moved, w.operators, w.calls)) for w in works]
    assert again == pytest.approx(energies, rel=1e-5)
    assert fit.worst < 1e-5
    assert fit.r_squared > 1 - 1e-6


def test_held_out_errors_are_those_of_new_shapes() -> None:
    chance = np.random.default_rng(1)
    works = some_work(60)
    noisy = [(1e-11 * w.flops + 1e-9 * w.bytes_moved) * (1 + 0.05 * chance.standard_normal()) for w in works]
    fit = fit_work(works, noisy)
    assert fit.held_out == pytest.approx(1.96 * 0.05, rel=0.3)


def test_repeats_of_one_shape_are_left_out_together() -> None:
    # every point of a shape is 20 % off in the same direction: only a fit without all of them shows it
    chance = np.random.default_rng(2)
    shapes = some_work(12)
    off = {id(w): 1 + 0.2 * chance.choice([-1, 1]) for w in shapes}
    works = [w for w in shapes for _ in range(5)]
    fit = fit_work(works, [1e-11 * w.flops * off[id(w)] for w in works])
    assert fit.held_out > 0.2


def test_coefficients_are_never_negative() -> None:
    works = [work(1e9 * n, 1e6 * (10 - n), n, 1) for n in range(1, 9)]
    assert min(fit_work(works, [float(n) for n in range(1, 9)]).coefficients) >= 0


def test_too_little_work_is_refused() -> None:
    with pytest.raises(MeterError, match="at least 4 different amounts of work, there are 2"):
        fit_work([work(1e9), work(2e9), work(1e9), work(2e9)], [1.0, 2.0, 1.0, 2.0])
