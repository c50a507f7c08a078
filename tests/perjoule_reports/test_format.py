from __future__ import annotations

import math

import pytest

from perjoule.types import Interval
from perjoule_reports import format as fmt


@pytest.mark.parametrize(
    ("value", "text"),
    [(3100.0, "3.10 kJ"), (0.00421, "4.21 mJ"), (12.0, "12.0 J"), (0.0, "0 J"), (None, "–"), (5.2e6, "5.20 MJ")],
)
def test_quantities_get_a_prefix(value, text):
    assert fmt.quantity(value, "J") == text


def test_a_column_has_one_unit():
    assert fmt.scale([900.0, 4000.0, 90_000.0, None], "J") == fmt.Scale(factor=1000.0, unit="kJ")
    assert fmt.scale([0.12, 0.91, 1.76], "J").unit == "J"
    assert fmt.scale([0.12, 0.5, 0.91], "J").unit == "mJ"
    assert fmt.scale([], "J").unit == "J"


@pytest.mark.parametrize(
    ("value", "low", "high", "texts"),
    [
        (0.97234, 0.951, 0.9842, ("0.972", "[0.951, 0.984]")),
        (0.965, 0.9608, 0.9699, ("0.965", "[0.961, 0.970]")),
        (82.46, 81.9, 83.04, ("82.5", "[81.9, 83.0]")),
        (-0.003, -0.011, 0.005, ("\u22120.003", "[\u22120.011, 0.005]")),
        (1.0, None, None, ("1.00", "")),
        (None, None, None, ("–", "")),
        (0.99, 0.99, 0.99, ("0.990", "[0.990, 0.990]")),
    ],
)
def test_the_interval_decides_the_digits(value, low, high, texts):
    assert fmt.interval(Interval(value=value, low=low, high=high)) == texts


@pytest.mark.parametrize("absent", [None, math.nan, math.inf, "3", b"x", object()])
def test_what_is_no_number_is_absent(absent):
    assert fmt.finite(absent) is None


def test_small_words():
    assert fmt.plural(1, "prompt") == "1 prompt"
    assert fmt.plural(3, "pass") == "3 passes"
    assert fmt.step_count(1) == "1 step"
    assert fmt.step_count(13.37) == "13.4 steps"
    assert fmt.percent(0.4949) == "49 %"
    assert fmt.percent(0.00421) == "0.42 %"
    assert fmt.memory(16 * 2**30) == "16.0 GiB"
    assert fmt.clean("a\u202eb\x00c\n d") == "ab\ufffdc d"
    assert fmt.shorten("abcdef", 4) == "abc…"


def test_a_column_has_one_number_of_decimals() -> None:
    values = [Interval(value=0.86, low=0.81, high=0.91), Interval(value=19.1, low=16.8, high=21.6), Interval()]
    decimals = fmt.decimals_of(values)
    texts = [fmt.interval(value, decimals=decimals)[0] for value in values[:2]]
    assert len({len(text.partition(".")[2]) for text in texts}) == 1
    assert fmt.decimals_of([Interval()]) is None
    # the smallest number is still one
    small = [Interval(value=v) for v in (0.02, 100.0, 2000.0)]
    assert fmt.interval(small[0], decimals=fmt.decimals_of(small))[0] == "0.020"


def test_an_end_that_was_not_found_is_open() -> None:
    value = Interval(value=-7.43, low=-46.0, high=None)
    assert fmt.interval(value) == ("−7", "[−46, open]")
    assert fmt.interval(Interval(value=7.43, low=math.nan, high=46.0), signed=True) == ("+7", "[open, +46]")
    assert fmt.interval(Interval(value=7.43, low=-math.inf, high=math.inf)) == ("7.43", "")
    assert fmt.decimals_of([value]) == 1  # enough to show 7 with two digits


@pytest.mark.parametrize(
    ("low", "high", "clear"),
    [(0.1, 0.2, True), (0.1, None, True), (None, -0.1, True), (-0.1, None, False), (None, None, False), (0, 1, False)],
)
def test_an_interval_excludes_zero_with_one_end(low: float | None, high: float | None, clear: bool) -> None:
    assert fmt.excludes_zero(Interval(value=0.15, low=low, high=high)) is clear


def test_exactly_no_difference_is_said_in_words() -> None:
    assert fmt.difference(Interval(value=0.0, low=0.0, high=0.0)) == ("no difference", "")
    assert fmt.difference(Interval(value=0.0, low=-0.1, high=0.1))[0] == "0.00"
    assert fmt.difference(Interval(value=0.02, low=0.01, high=0.03))[0] == "+0.020"


def test_a_time_is_short_and_other_text_stays() -> None:
    assert fmt.moment("2026-01-02T03:04:05+00:00") == "2026-01-02 03:04 UTC"
    assert fmt.moment("some day") == "some day"
