from __future__ import annotations

import os
from pathlib import Path

import pytest

from perjoule.meters.processes import descendants, running_cpu_s

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class FakeProc:
    """A /proc with as much in it as is looked at: 100 has the children 101 and 102, 102 has 103, 200 is a stranger."""

    def __init__(self, root: Path, has_lists: bool) -> None:
        self.root, self.has_lists = root, has_lists
        for pid, parent, ticks in (
            (100, 1, (50, 5, 900, 90)),
            (101, 100, (10, 1, 0, 0)),
            (102, 100, (20, 2, 300, 30)),
            (103, 102, (4, 0, 0, 0)),
            (200, 1, (7000, 0, 0, 0)),
        ):
            self.add(pid, parent, ticks)

    def add(self, pid: int, parent: int, ticks: tuple[int, int, int, int]) -> None:
        task = self.root / str(pid) / "task" / str(pid)
        task.mkdir(parents=True)
        zeros = " 0" * 9
        times = " ".join(map(str, ticks))
        (self.root / str(pid) / "stat").write_text(f"{pid} (a (b) c) S {parent}{zeros} {times} 20 0 1 0\n")
        if self.has_lists:
            (task / "children").write_text("")
            above = self.root / str(parent) / "task" / str(parent) / "children"
            if above.exists():
                above.write_text(above.read_text() + f"{pid} ")


@pytest.mark.parametrize("has_lists", [True, False])
def test_the_tree_and_its_time_are_the_same_by_either_way(tmp_path: Path, has_lists: bool) -> None:
    proc = FakeProc(tmp_path, has_lists)
    (tmp_path / "meminfo").write_text("no process")
    assert sorted(descendants(100, proc.root)) == [101, 102, 103]
    assert descendants(103, proc.root) == []
    assert running_cpu_s(100, proc.root) == pytest.approx((11 + 352 + 4) * TICK_S)
    assert running_cpu_s(200, proc.root) == 0.0


def test_children_of_other_threads_are_found(tmp_path: Path) -> None:
    proc = FakeProc(tmp_path, has_lists=True)
    proc.add(104, 999, (1, 0, 0, 0))
    thread = proc.root / "100" / "task" / "105"
    thread.mkdir()
    (thread / "children").write_text("104 ")
    assert sorted(descendants(100, proc.root)) == [101, 102, 103, 104]


@pytest.mark.parametrize("has_lists", [True, False])
def test_a_process_that_ends_while_it_is_looked_at_is_left_out(tmp_path: Path, has_lists: bool) -> None:
    proc = FakeProc(tmp_path, has_lists)
    (proc.root / "101" / "stat").unlink()
    assert running_cpu_s(100, proc.root) == pytest.approx((352 + 4) * TICK_S)


def test_without_proc_there_is_no_tree(tmp_path: Path) -> None:
    assert descendants(1, tmp_path / "absent") == []
    assert running_cpu_s(1, tmp_path / "absent") == 0.0
