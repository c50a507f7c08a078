"""Descendants of a process and their CPU time, on Linux; on other systems there are no descendants."""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")


def descendants(pid: int | None = None, proc: Path = PROC) -> list[int]:
    """Return the ids of the descendants of `pid` (by default this process), including zombies.

    The kernel lists a thread's children if it was built with CONFIG_PROC_CHILDREN; if not, the parents of all processes
    are read, which takes about 20 us per process.
    """
    top = os.getpid() if pid is None else pid
    children = _by_parent(proc) if _children_of(top, proc) is None else None
    found: list[int] = []
    todo = [top]
    while todo:
        one = todo.pop()
        below = (_children_of(one, proc) or []) if children is None else children.get(one, [])
        found += below
        todo += below
    return found


def running_cpu_s(pid: int | None = None, proc: Path = PROC) -> float:
    """Return CPU seconds, user and system, of all descendants and their ended children, each in ticks of 10 ms."""
    ticks = 0
    for one in descendants(pid, proc):
        fields = _stat(one, proc)
        if fields is not None:
            ticks += sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime
    return ticks / os.sysconf("SC_CLK_TCK") if ticks else 0.0


def _children_of(pid: int, proc: Path) -> list[int] | None:
    """Return direct children from the kernel's list; None if there is no list, or the process has ended."""
    try:
        threads = list((proc / str(pid) / "task").iterdir())
    except OSError:
        return None
    found: list[int] = []
    missing = 0
    for thread in threads:
        try:
            found += [int(word) for word in (thread / "children").read_bytes().split()]
        except OSError:  # there is no list, or the thread has ended
            missing += 1
    return None if missing == len(threads) else found


def _by_parent(proc: Path) -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    pids = [int(path.name) for path in proc.iterdir() if path.name.isdigit()] if proc.is_dir() else []
    for pid in pids:
        fields = _stat(pid, proc)
        if fields is not None:
            children.setdefault(int(fields[1]), []).append(pid)
    return children


def _stat(pid: int, proc: Path) -> list[bytes] | None:
    """Return the fields of /proc/PID/stat from the third on (state, parent, …); None if the process has ended.

    The second field is the program's name in parentheses, which may contain spaces and parentheses.
    """
    try:
        return (proc / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
