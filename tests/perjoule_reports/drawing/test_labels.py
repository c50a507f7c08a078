from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from perjoule_reports.drawing.labels import Board


def test_labels_keep_clear_of_each_other() -> None:
    board = Board(width=2.0, height=2.0)
    board.block([(1.0, 1.0)])
    places = [board.place((1.0, 1.0), 0.3, 0.12) for _ in range(12)]
    boxes = board.taken[1:]
    assert None in places
    assert len(boxes) == sum(p is not None for p in places) > 3
    for i, one in enumerate(boxes):
        assert all(v >= 0 for v in one[:2])
        for other in boxes[:i]:
            assert one[0] >= other[2] or other[0] >= one[2] or one[1] >= other[3] or other[1] >= one[3]


def test_a_label_keeps_out_of_the_ring_around_its_point() -> None:
    for blocked in range(8):  # each call has to take another side
        board = Board(width=3.0, height=3.0)
        for _ in range(blocked):
            board.place((1.5, 1.5), 0.1, 0.1, 0.2)
        left, bottom, right, top = (board.place((1.5, 1.5), 0.1, 0.1, 0.2), board.taken[-1])[1]
        nearest = (min(max(1.5, left), right) - 1.5, min(max(1.5, bottom), top) - 1.5)
        assert math.hypot(*nearest) >= 0.2 - 1e-9


def test_two_numbers_do_not_read_as_one() -> None:
    board = Board(width=3.0, height=0.4)
    assert board.place((1.0, 0.1), 0.1, 0.1) is not None
    assert board.place((1.12, 0.1), 0.1, 0.1) is not None
    texts = sorted((left + 0.05, right - 0.05, bottom) for left, bottom, right, _ in board.taken)
    assert len(texts) == 2
    assert texts[0][2] != texts[1][2] or texts[1][0] - texts[0][1] >= 0.1 - 1e-9


POINTS = st.lists(st.tuples(st.floats(0, 3), st.floats(0, 2)), min_size=2, max_size=12, unique=True)


@given(POINTS, st.floats(0.05, 0.6))
def test_a_label_is_next_to_no_other_point(points, width) -> None:
    board = Board(width=3.0, height=2.0)
    board.add_points(points)
    for at in points:
        spot = board.place(at, width, 0.12)
        if spot is None:
            continue
        left, bottom, right, top = board.taken[-1]
        for x, y in (((left + right) / 2, (bottom + top) / 2), at):
            x, y = (x, y) if (x, y) != at else (min(max(x, left), right), min(max(y, bottom), top))
            assert min(points, key=lambda p: math.dist(p, (x, y))) == at


def test_a_name_is_next_to_any_point_of_its_line() -> None:
    points = [(1.0, 1.0), (1.3, 1.0), (1.6, 1.0)]
    for own, fits in ((points, True), ((), False)):
        board = Board(width=3.0, height=2.0)
        board.add_points(points)
        assert (board.place(points[1], 1.2, 0.12, own=own) is not None) == fits
