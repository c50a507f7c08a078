from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from perjoule.meters.conditions import ConditionsRecorder, foreign_count
from perjoule.testing import VirtualClock
from perjoule.types import Conditions


@dataclass
class Board:
    """A board that tells everything, and counts what it was asked."""

    clock: VirtualClock
    temperature: int | None = 50
    limit: float | None = 400.0
    clocks: list[int] = field(default_factory=lambda: [1980])
    throttle: int = 0x1  # idle, which disturbs nothing
    memory: list[int] = field(default_factory=lambda: [10])
    pids: list[int] | None = field(default_factory=list)
    asked: dict[str, list[float]] = field(default_factory=dict)

    def _note(self, name: str) -> None:
        self.asked.setdefault(name, []).append(self.clock.now())

    def temperature_c(self) -> int | None:
        return self.temperature

    def limit_w(self) -> float | None:
        return self.limit

    def sm_clock_mhz(self) -> int | None:
        self._note("clock")
        return self.clocks.pop(0) if len(self.clocks) > 1 else self.clocks[0]

    def throttle_reasons(self) -> int | None:
        self._note("throttle")
        return self.throttle

    def memory_bytes(self) -> int | None:
        return self.memory.pop(0) if len(self.memory) > 1 else self.memory[0]

    def utilisation(self) -> float | None:
        return 0.5

    def compute_pids(self) -> list[int] | None:
        self._note("pids")
        return self.pids


@pytest.fixture
def board() -> Board:
    return Board(clock=VirtualClock())


def window(board: Board, seconds: float, recorder: ConditionsRecorder | None = None) -> tuple[Conditions, list[str]]:
    recorder = recorder or ConditionsRecorder("GPU-1", board, board.clock)
    recorder.begin()
    for _ in range(int(seconds * 20)):
        board.clock.advance(0.05)
        recorder.look()
    conditions, warnings = recorder.end()
    return conditions, [said[:4] for said in warnings]


def test_a_quiet_board_has_nothing_to_say(board: Board) -> None:
    conditions, codes = window(board, 3.0)
    assert codes == []
    assert conditions.temperature_c == (50, 50)
    assert conditions.power_limit_w == (400.0, 400.0)
    assert conditions.sm_clock_mhz == (1980, 1980)
    assert conditions.throttle_reasons == 0
    assert conditions.foreign_processes == 0
    assert conditions.utilisation == 0.5


def test_the_board_is_asked_at_most_once_a_second_and_for_processes_only_outside(board: Board) -> None:
    window(board, 5.0)
    asked_s = board.asked["throttle"]
    assert 5 <= len(asked_s) <= 6
    assert min(b - a for a, b in pairwise(asked_s)) >= 1.0
    assert [t_s for t_s in board.asked["pids"] if 0.0 < t_s < 5.0 - 1e-6] == []


def test_the_list_of_processes_is_shared_by_windows_that_follow_each_other_fast(board: Board) -> None:
    recorder = ConditionsRecorder("GPU-1", board, board.clock)
    for _ in range(40):
        window(board, 0.1, recorder)
    assert len(board.asked["pids"]) <= 5  # 4 s of windows


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        ({"pids": [4_000_001]}, "W260"),
        ({"throttle": 0x4 | 0x20}, "W261"),
        ({"throttle": 0x40}, "W261"),
        ({"throttle": 0x80}, "W261"),
    ],
)
def test_disturbances_are_told(board: Board, spoil: dict[str, object], code: str) -> None:
    for name, value in spoil.items():
        setattr(board, name, value)
    assert window(board, 3.0)[1] == [code]


def test_power_cap_and_changing_clocks_are_conditions_of_any_loaded_board(board: Board) -> None:
    board.throttle, board.clocks = 0x4 | 0x1, [345, 1980, 1410]
    conditions, codes = window(board, 3.0)
    assert codes == []
    assert (conditions.throttle_reasons, conditions.sm_clock_mhz) == (0x4, (345, 1980))


def test_the_power_cap_is_not_named_as_the_reason_of_a_slowdown(board: Board) -> None:
    board.throttle = 0x4 | 0x20
    recorder = ConditionsRecorder("GPU-1", board, board.clock)
    recorder.begin()
    recorder.look()
    assert recorder.end()[1] == ("W261: the board was slowed down: thermal slowdown",)


def test_a_changed_limit_is_told(board: Board) -> None:
    recorder = ConditionsRecorder("GPU-1", board, board.clock)
    recorder.begin()
    board.limit = 300.0
    conditions, warnings = recorder.end()
    assert conditions.power_limit_w == (400.0, 300.0)
    assert [said[:4] for said in warnings] == ["W263"]


def test_peak_memory_is_the_highest_that_was_seen(board: Board) -> None:
    board.memory = [10, 70, 30]
    assert window(board, 3.0)[0].peak_memory_bytes == 70
    board.memory = [25]
    assert window(board, 0.01)[0].peak_memory_bytes == 25  # too short for a look, asked at the end


def test_what_a_board_does_not_tell_stays_absent(board: Board) -> None:
    board.temperature = board.limit = board.pids = None
    conditions, codes = window(board, 0.01)
    assert conditions.temperature_c == (None, None)
    assert conditions.foreign_processes is None
    assert conditions.sm_clock_mhz is None
    assert conditions.throttle_reasons is None
    assert codes == []


@pytest.mark.parametrize(
    ("pids", "own", "context", "count"),
    [
        ([], {1}, False, 0),
        ([1], {1}, True, 0),
        ([1, 7], {1}, True, 1),
        ([7], {1}, False, 1),
        ([7], {1}, True, 0),  # in a container, our own process has another number
        ([7, 8], {1}, True, 1),
        ([1, 2], {1, 2}, True, 0),  # a child of ours
    ],
)
def test_whose_processes_are_on_the_board(pids: list[int], own: set[int], context: bool, count: int) -> None:
    assert foreign_count(pids, own, context) == count
