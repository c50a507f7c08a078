from __future__ import annotations

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
