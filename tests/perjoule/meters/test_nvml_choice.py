from __future__ import annotations

import pytest

from perjoule.errors import MeterError
from perjoule.meters.nvml_device import Board, choose_boards

BOARDS = [
    Board(index=0, uuid="GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", model="Fake A"),
    Board(index=1, uuid="GPU-8944aaaa-1111-2222-3333-444444444444", model="Fake A"),
    Board(index=2, uuid="GPU-c0ffee00-1111-2222-3333-444444444444", model="Fake B"),
]


@pytest.mark.parametrize(
    ("selector", "visible", "index"),
    [
        ("", None, 0),
        ("", "1", 1),
        ("", " 2 ,0", 2),
        ("", "1,-1", 1),
        ("", "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", 0),
        ("", "GPU-8944", 1),
        ("", "gpu-C0FFEE,GPU-8944", 2),
        ("GPU-c0", None, 2),
        ("c0ffee", "0", 2),  # what is asked for by name counts more than the environment
        ("GPU-8932F937", "", 0),
    ],
)
def test_the_board_that_cuda_uses(selector: str, visible: str | None, index: int) -> None:
    assert choose_boards(BOARDS, selector, visible).boards[0].index == index


@pytest.mark.parametrize(
    ("selector", "visible", "message"),
    [
        ("", "", "hides every GPU"),
        ("", "-1", "names board -1"),
        ("", "3", "names board 3"),
        ("", "MIG-0123", "MIG slice"),
        ("", "MIG-GPU-8932f937/1/0", "MIG slice"),
        ("MIG-0123", None, "MIG slice"),
        ("", "GPU-89", "several boards"),
        ("", "GPU-dead", "does not match any board"),
        ("dead", None, "does not match any board"),
    ],
)
def test_never_board_0_by_default(selector: str, visible: str | None, message: str) -> None:
    with pytest.raises(MeterError, match=message):
        choose_boards(BOARDS, selector, visible)


def test_order_is_doubted_only_among_unequal_boards() -> None:
    assert "CUDA_DEVICE_ORDER" in choose_boards(BOARDS, "", "1").note
    assert "CUDA_DEVICE_ORDER" not in choose_boards(BOARDS, "", "1", "PCI_BUS_ID").note
    assert "CUDA_DEVICE_ORDER" not in choose_boards(BOARDS[:2], "", "1").note


def test_other_visible_boards_are_told() -> None:
    assert "1 more visible" in choose_boards(BOARDS, "", "0,1").note
