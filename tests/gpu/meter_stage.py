"""Is the meter right on this board? `python -m tests.gpu.meter_stage OUT.jsonl SECONDS`

Without a reference instrument two things are known about energy. Equal kernels cost equal energy, so windows of known
amounts of work lie on a line through 0. And energy is additive: a train of equal bursts in one window gives the mean
burst with an error that is divided by their number, and a window equals the windows it consists of plus the rest
between them. Gain and offset of the sensor remain unknown.

The experiments run in the order of their worth, and each fails alone.
"""

from __future__ import annotations

import random
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from perjoule.meters import open_base_meter
from perjoule.meters.counter import CounterMeter
from tests.gpu.board import AVERAGE_POWER, ENERGY, INSTANT_POWER, Board, after
from tests.gpu.records import Deadline, Record, RecordFile, now
from tests.gpu.work import SIMULATED, Work, open_work, start, units_for

_NVML_FACTS: tuple[tuple[Any, ...], ...] = (
    ("nvmlDeviceGetName",),
    ("nvmlDeviceGetEnforcedPowerLimit",),
    ("nvmlDeviceGetPowerManagementDefaultLimit",),
    ("nvmlDeviceGetPowerManagementLimitConstraints",),
    ("nvmlDeviceGetPersistenceMode",),
    ("nvmlDeviceGetMigMode",),
    ("nvmlDeviceGetVirtualizationMode",),
    ("nvmlDeviceGetComputeMode",),
    ("nvmlDeviceGetAccountingMode",),
    ("nvmlDeviceGetEccMode",),
    ("nvmlDeviceGetVbiosVersion",),
    ("nvmlDeviceGetGspFirmwareVersion",),
    ("nvmlDeviceGetMaxClockInfo", 1),
    ("nvmlDeviceGetPowerUsage",),
    ("nvmlDeviceGetTotalEnergyConsumption",),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """How much of each experiment; `windows`: (work, seconds, number)."""

    watch_s: float = 2.5
    context_s: float = 4.0
    steps: int = 14
    windows: tuple[tuple[str, float, int], ...] = (
        *(("copy", 0.05, 16), ("copy", 0.1, 10), ("copy", 0.2, 16), ("copy", 0.5, 8), ("copy", 1.0, 8)),
        *(("copy", 2.0, 3), ("copy", 5.0, 1), ("matmul", 0.05, 8), ("matmul", 0.2, 8), ("matmul", 1.0, 4)),
    )
    train_s: tuple[float, ...] = (0.05, 0.2)
    train_bursts: int = 20
    own_windows: int = 8
    sums: int = 6
    source_s: float = 2.5
    cooling_s: float = 8.0


SHORT = Amounts(
    watch_s=1.0, context_s=0.6, steps=4, windows=(("copy", 0.05, 3), ("copy", 0.2, 3), ("copy", 1.0, 2)),
    train_s=(0.05,), train_bursts=4, own_windows=2, sums=1, source_s=0.8, cooling_s=1.0,
)  # fmt: skip


@dataclass(kw_only=True)
class Session:
    """What the experiments share."""

    board: Board
    log: RecordFile
    deadline: Deadline
    amounts: Amounts
    chance: random.Random = field(default_factory=lambda: random.Random(20261128))
    work: dict[str, Work] = field(default_factory=dict)
    meter: Any = None


# -- the counter, without perjoule ---------------------------------------------------------------------------------


def facts(session: Session) -> None:
    """What NVML answers and refuses."""
    board = session.board
    processes, memory = board.ask("nvmlDeviceGetComputeRunningProcesses"), board.ask("nvmlDeviceGetMemoryInfo")
    fields = [(number, scope) for number in (ENERGY, AVERAGE_POWER, INSTANT_POWER) for scope in range(4)]
    session.log.write(
        "facts",
        driver=board.ask_driver("nvmlSystemGetDriverVersion"),
        nvml=board.ask_driver("nvmlSystemGetNVMLVersion"),
        answers={name: board.ask(name, *arguments) for name, *arguments in _NVML_FACTS},
        processes=processes if isinstance(processes, dict) else len(processes),
        memory_bytes=memory if isinstance(memory, dict) else memory.used,
        fields={f"{number}/{scope}": board.field_code(number, scope) for number, scope in fields},
        state=board.state(),
    )


def costs(session: Session) -> None:
    """How long a call takes; list of processes and sample buffer are the slow ones on real drivers."""
    board = session.board
    calls: dict[str, Callable[[], object]] = {
        "counter": board.counter_mj,
        "instant power": lambda: board.power_w(INSTANT_POWER),
        "average power": lambda: board.power_w(AVERAGE_POWER),
        "power usage": board.usage_w,
        "processes": lambda: board.ask("nvmlDeviceGetComputeRunningProcesses"),
        "utilisation": lambda: board.ask("nvmlDeviceGetUtilizationRates"),
        "memory": lambda: board.ask("nvmlDeviceGetMemoryInfo"),
        "SM clock": lambda: board.ask("nvmlDeviceGetClockInfo", 1),
    }
    session.log.write("costs", seconds={name: _cost(call) for name, call in calls.items()})
    samples = board.ask("nvmlDeviceGetSamples", 0, 0)
    if isinstance(samples, dict):
        session.log.write("sample buffer", **samples)
        return
    times_us = [sample.timeStamp for sample in samples[1]]
    gaps_us = [later - earlier for earlier, later in pairwise(times_us)]
    session.log.write("sample buffer", entries=len(times_us), gap_us=statistics.median(gaps_us) if gaps_us else None)


def _cost(call: Callable[[], object]) -> dict[str, float]:
    seconds = []
    for _ in range(60):
        begin_s = now()
        call()
        seconds.append(now() - begin_s)
    return {"median": statistics.median(seconds), "longest": max(seconds)}


def bare(session: Session) -> None:
    """The counter before there is a CUDA context: period, dependence on polling, power at rest."""
    board, log, watch_s = session.board, session.log, session.amounts.watch_s
    log.write("updates", when="bare, polled every 0.5 ms", updates=board.updates_for(watch_s))
    log.write("updates", when="bare, polled every 7 ms", updates=board.updates_for(watch_s / 2, pause_s=0.007))
    answers = []
    for pause_s in (0.03, 0.25, 0.5, 0.37):  # an old first answer means that the counter is refreshed by asking
        time.sleep(pause_s)
        answers.append([(now(), board.counter_mj()) for _ in range(2)])
    log.write("after a pause", answers=answers)
    log.write("rest", when="bare", state=board.state(), rows=_rest_rows(board, watch_s))


def context(session: Session) -> None:
    """Open the work, and with it a CUDA context; then rest, which decides what idle power means."""
    session.work = session.work or open_work()
    copy = session.work["copy"]
    session.log.write("work", unit_s={name: work.unit_s for name, work in session.work.items()}, simulated=SIMULATED)
    session.log.write(
        "rest", when="with a CUDA context", rows=_rest_rows(session.board, session.amounts.context_s),
        state=session.board.state(),
    )  # fmt: skip
    copy.run(units_for(copy, 0.5))


def _rest_rows(board: Board, seconds: float) -> list[tuple[Any, ...]]:
    """(seconds, counter in mJ, instant W, SM clock) while the board is left alone."""
    begin_s, rows, done = now(), [], after(seconds)
    while not done():
        clock = board.ask("nvmlDeviceGetClockInfo", 1)
        rows.append((now() - begin_s, board.counter_mj(), board.power_w(INSTANT_POWER), clock))
        time.sleep(0.01)
    return rows


def steps(session: Session) -> None:
    """Work on and off at random phases, with all updates of the counter: shows its lag and averaging time."""
    board, work, chance = session.board, session.work["copy"], session.chance
    updates, at_work = board.updates_for(0.6), []
    for _ in range(session.amounts.steps):
        units = units_for(work, chance.uniform(0.25, 0.5))
        begin_s = now()
        updates += board.updates(start(work, units))
        at_work.append((begin_s, now()))
        updates += board.updates_for(chance.uniform(0.45, 0.7))
    updates += board.updates_for(1.5)
    session.log.write("steps", work=work.name, at_work=at_work, updates=updates)


# -- windows -------------------------------------------------------------------------------------------------------


def _open() -> CounterMeter:
    meter = open_base_meter("nvml")
    if not isinstance(meter, CounterMeter):
        raise RuntimeError(f"the board has no usable energy counter: {meter.why}")
    return meter


def open_perjoule(session: Session) -> None:
    """Open the meter, with a CUDA context, and learn idle power."""
    meter = session.meter = _open()
    meter.learn_idle(1.0 if session.amounts is SHORT else 2.0)
    session.log.write(
        "meter", name=meter.name, why=meter.why, method=meter.method, idle=meter.idle, period=meter.period,
        boards=[str(board) for board in meter.describe()], notes=list(meter.notes),
    )  # fmt: skip


def windows(session: Session) -> None:
    """Known amounts of work in random order, in windows of perjoule, and with the simple methods of other tools."""
    zeus, chance = _open_zeus(session.log), session.chance
    todo = [(name, seconds) for name, seconds, count in session.amounts.windows for _ in range(count)]
    chance.shuffle(todo)
    period_s = session.meter.period.median_s
    for name, seconds in todo:
        if session.amounts is not SHORT and session.deadline.left_s < 60 + 3 * seconds:
            session.log.write("cut", experiment="windows")
            return
        work = session.work[name]
        units = units_for(work, seconds + chance.uniform(0, period_s))
        session.log.write("window", work=name, seconds=seconds, **_window(session.meter, work, units))
        if seconds < 5:
            others = _with_other_tools(session.board, work, units, zeus, chance)
            session.log.write("other tools", work=name, seconds=seconds, **others)


def _window(meter: Any, work: Work, units: int) -> Record:
    entered_s = now()
    with meter.window(label=work.name, sync=work.wait) as window:
        begin_s = now()
        work.run(units)
        end_s = now()
    left_s, reading = now(), window.reading
    device = reading.devices[0] if reading.devices else None
    conditions = getattr(device, "conditions", None)
    return {
        "units": units,
        "energy_j": reading.energy_j,
        "bound_j": reading.uncertainty_j,
        "net_j": reading.net_energy_j,
        "duration_s": reading.duration_s,
        "work_s": end_s - begin_s,
        "waits_s": (begin_s - entered_s, left_s - end_s),
        "warnings": list(reading.warnings),
        "power_ratio": getattr(device, "power_ratio", None),
        "conditions": None if conditions is None else str(conditions),
        "true_j": work.true_j(begin_s, end_s),
    }


def _open_zeus(log: RecordFile) -> Any:
    try:
        from zeus.monitor import ZeusMonitor

        return ZeusMonitor(gpu_indices=[0])
    except Exception as error:  # it is optional, and fails in ways of its own
        log.write("zeus", absent=f"{type(error).__name__}: {error}"[:300])
        return None


def _with_other_tools(board: Board, work: Work, units: int, zeus: Any, chance: random.Random) -> Record:
    """The same work by the difference of two counter values, polling at 10 Hz and Zeus, at a random phase."""
    time.sleep(0.1 + chance.uniform(0, 0.1))
    polls: list[float] = []
    done = threading.Event()

    def poll() -> None:
        while not done.wait(0.1):
            power_w = board.usage_w()
            if power_w is not None:
                polls.append(power_w)

    first_w = board.usage_w()
    thread = threading.Thread(target=poll)
    thread.start()
    if zeus is not None:
        zeus.begin_window("window", sync_execution=False)
    begin_s, before_mj = now(), board.counter_mj()
    work.run(units)
    after_mj, end_s = board.counter_mj(), now()
    zeus_j = None if zeus is None else sum(zeus.end_window("window", sync_execution=False).gpu_energy.values())
    done.set()
    thread.join()
    known = [*([first_w] if first_w is not None else []), *polls]
    return {
        "units": units,
        "counter_j": (after_mj - before_mj) / 1000,
        "zeus_j": zeus_j,
        "polling_j": statistics.fmean(known) * (end_s - begin_s) if known else None,
        "true_j": work.true_j(begin_s, end_s),
    }


def trains(session: Session) -> None:
    """Many equal bursts in one window, then the same bursts in windows of their own."""
    meter, work, chance, amounts = session.meter, session.work["copy"], session.chance, session.amounts
    for seconds in amounts.train_s:
        units, rest_s = units_for(work, seconds), 0.0
        with meter.window(label="train", sync=work.wait) as window:
            for _ in range(amounts.train_bursts):
                work.run(units)
                paused_s = now()
                time.sleep(chance.uniform(0.25, 0.35))
                rest_s += now() - paused_s
        updates = session.board.updates_for(max(1.0, 8 * meter.period.median_s))
        first, last = updates[0], updates[-1]
        reading = window.reading
        session.log.write(
            "train", seconds=seconds, units=units, bursts=amounts.train_bursts, rest_s=rest_s,
            rest_w=(last.energy_mj - first.energy_mj) / 1000 / (last.late_s - first.late_s),
            energy_j=reading.energy_j, bound_j=reading.uncertainty_j, warnings=list(reading.warnings),
        )  # fmt: skip
        for _ in range(amounts.own_windows):
            session.log.write("burst", seconds=seconds, **_window(meter, work, units))


def sums(session: Session) -> None:
    """E[a, c] = E[a, b] + E[b, c] + rest in between, with two meters on one board."""
    work, chance = session.work["copy"], session.chance
    with _open() as inner:
        inner.learn_idle(1.0)
        for _ in range(session.amounts.sums):
            with session.meter.window(label="whole", sync=work.wait) as whole:
                begin_s = now()
                parts = [_window(inner, work, units_for(work, chance.uniform(0.2, 0.5))) for _ in range(2)]
                end_s = now()
            reading = whole.reading
            session.log.write(
                "sum", whole_j=reading.energy_j, whole_bound_j=reading.uncertainty_j, parts=parts,
                rest_s=end_s - begin_s - sum(part["duration_s"] for part in parts), idle_w=inner.idle_power_w,
                warnings=list(reading.warnings),
            )  # fmt: skip


def phase(session: Session) -> None:
    """perjoule's own test whether the counter sees all of the time; takes about 12 s."""
    work = session.work["copy"]
    session.log.write("phase", result=session.meter.try_phase(lambda seconds: work.run(units_for(work, seconds))))


# -- power readings ------------------------------------------------------------------------------------------------


def sources(session: Session) -> None:
    """Counter, instant, average and usage next to each other: rest, each kind of work, rest."""
    board, seconds, rows = session.board, session.amounts.source_s, []
    marks: list[tuple[str, float]] = []

    def watch(name: str, done: Callable[[], bool]) -> None:
        marks.append((name, now()))
        while not done():
            powers = (board.power_w(INSTANT_POWER), board.power_w(AVERAGE_POWER), board.usage_w())
            rows.append((now(), board.counter_mj(), *powers))
            time.sleep(0.005)

    watch("rest", after(seconds / 2))
    for name, work in session.work.items():
        watch(name, start(work, units_for(work, seconds)))
    watch("rest", after(seconds))
    marks.append(("end", now()))
    session.log.write("sources", marks=marks, rows=rows)


def cooling(session: Session) -> None:
    """Rest after heavy work, and how fast it returns to what it was."""
    work, seconds = session.work["matmul"], session.amounts.cooling_s
    work.run(units_for(work, seconds / 4))
    rows = _rest_rows(session.board, min(seconds, max(session.deadline.left_s - 2, 0.5)))
    session.log.write("rest", when="after heavy work", rows=rows, state=session.board.state())


# in the order of their worth, with the seconds that must be left for each
EXPERIMENTS: tuple[tuple[Callable[[Session], None], float], ...] = (
    *((facts, 0), (costs, 2), (bare, 8), (context, 10), (steps, 25), (open_perjoule, 10), (windows, 60)),
    *((trains, 45), (sums, 30), (phase, 25), (sources, 14), (cooling, 6)),
)


def main(path: str, seconds: str, amounts: Amounts | None = None) -> int:
    """Do the experiments; return 1 if one failed."""
    chosen = amounts or (SHORT if SIMULATED else Amounts())
    work = open_work() if SIMULATED else {}  # before NVML is opened; on a GPU it would create a CUDA context too early
    log, deadline = RecordFile(Path(path)), Deadline(float(seconds))
    session = Session(board=Board(), log=log, deadline=deadline, amounts=chosen, work=work)
    failed = 0
    for experiment, least_s in EXPERIMENTS:
        name = experiment.__name__
        if session.deadline.left_s < (1 if chosen is SHORT else least_s):
            session.log.write("skipped", experiment=name, why=f"{session.deadline.left_s:.0f} s were left")
            continue
        if chosen is SHORT and experiment is phase:
            session.log.write("skipped", experiment=name, why="takes 12 s, too long for a rehearsal")
            continue
        try:
            experiment(session)
        except Exception as error:
            failed = 1
            session.log.write("failed", experiment=name, error=f"{type(error).__name__}: {error}"[:500])
            print(f"{name} failed: {type(error).__name__}: {error}", file=sys.stderr)
    if session.meter is not None:
        session.meter.close()
    session.log.write("end", left_s=session.deadline.left_s)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
