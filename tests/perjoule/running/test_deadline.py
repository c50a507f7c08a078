"""A trial that hangs fails after `protocol.timeout_s`; if it never returns, it is recorded and the process ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from perjoule.errors import SuiteError
from perjoule.protocols import Generation
from perjoule.running.deadline import Deadline, TrialTimeoutError
from perjoule.running.execute import execute
from perjoule.running.trial import GeneratorCache
from perjoule.runs.directory import load_run
from perjoule.suite.schedule import make_plan
from perjoule.testing import FakeFactory, FakeGenerator, SyntheticMeter, VirtualClock
from tests.perjoule.running.test_execute import PROMPTS, fresh, make_suite

# a call that signals do not interrupt, as of a driver: it waits again after each
NEVER = """
import ctypes
from perjoule.running.deadline import Deadline
libc = ctypes.CDLL(None)
lock = ctypes.create_string_buffer(64)
libc.pthread_mutex_lock(lock)
with Deadline(0.2, lambda reason: print("recorded:", reason, flush=True), grace_s=0.2).running():
    libc.pthread_mutex_lock(lock)
print("went on")
"""


def test_work_in_time_is_not_touched() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with Deadline(60.0).running():
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is before


def test_work_that_hangs_is_interrupted_even_if_it_catches_errors() -> None:
    caught = []

    def stubborn() -> None:
        while True:
            try:
                time.sleep(60)
            except Exception as error:
                caught.append(error)
                if len(caught) == 2:
                    raise

    limit = Deadline(0.05)
    with pytest.raises(TrialTimeoutError, match=r"longer than protocol\.timeout_s = 0\.05 s"), limit.running():
        stubborn()
    with pytest.raises(TrialTimeoutError), limit.running():
        pytest.fail("the time is over")
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_other_threads_are_not_interrupted_but_work_as_before() -> None:
    done = []

    def work() -> None:
        with Deadline(0.01, grace_s=60.0).running():
            time.sleep(0.05)
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


def test_a_call_that_never_returns_ends_the_process_after_its_trial_is_recorded() -> None:
    ended = subprocess.run([sys.executable, "-c", NEVER], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 4
    assert ended.stdout == "recorded: the trial took longer than protocol.timeout_s = 0.2 s and does not return\n"
    assert "continue with --resume" in ended.stderr


class Hanging(FakeGenerator):
    """Hangs for one prompt, as a data loader or a lock would."""

    def generate(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> Generation:
        if "a dog" in prompts:
            time.sleep(600)
        return super().generate(prompts, seeds, steps)


def test_a_trial_that_hangs_fails_with_the_reason_and_the_others_go_on(tmp_path: Path) -> None:
    suite = make_suite(batch_size=1, seeds=(1,), timeout_s=0.2)
    suite = replace(suite, variants=(replace(suite.variants[0], steps=(1,)),))
    clock = VirtualClock()
    execute(
        make_plan(suite, PROMPTS),
        protocol=suite.protocol,
        meter=SyntheticMeter(10.0, clock),
        generators=GeneratorCache(FakeFactory(Hanging(clock=clock)), lambda variant: variant.name),
        writer=fresh(tmp_path / "run", suite),
        on_progress=lambda _: None,
    )
    trials = load_run(tmp_path / "run").trials
    reasons = dict(zip(trials["prompts"].list.first(), trials["failure"], strict=True))
    assert reasons == {
        "a cat": None,
        "a dog": "TrialTimeoutError: the trial took longer than protocol.timeout_s = 0.2 s",
        "a fox": None,
    }


@pytest.mark.parametrize("value", ["0.0", "-1.0", "inf", "nan"])
def test_a_time_limit_is_a_positive_number(value: str) -> None:
    import tomllib

    from perjoule.suite.reading import parse_suite
    from tests.support.suites import suite_text

    table = tomllib.loads(suite_text({"steps": [1]}, protocol={"seeds": [1]}).replace(
        "seeds = [1]", f"seeds = [1]\ntimeout_s = {value}"
    ))  # fmt: skip
    with pytest.raises(SuiteError, match=r"protocol\.timeout_s"):
        parse_suite(table, where="mine.toml")
