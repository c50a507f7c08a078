"""What may be measured, and what pytest-benchmark and others of its kind get of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.perjoule.pytest_energy.repository import Repository, edit, run

pytestmark = pytest.mark.slow


def records(repository: Repository, *arguments: str) -> dict[str, dict[str, Any]]:
    """What a session measured, by the name of the test."""
    only_joules = () if any(word.startswith("--benchmark") for word in arguments) else ("-pno:benchmark",)
    run(repository, "--benchmark", *only_joules, "--energy-report=out.json", *arguments)
    tests = json.loads((repository.path / "out.json").read_text())["tests"]
    return {test["nodeid"].partition("::")[2]: test for test in tests}


# -- what a call gives back ------------------------------------------------------------------------------------------


def test_coroutines_are_awaited_inside_the_window(repository: Repository) -> None:
    repository.makepyfile(
        test_theirs="""
        import asyncio
        from virtual import CLOCK

        class Later:
            def __await__(self):
                yield from asyncio.sleep(0).__await__()
                CLOCK.sleep(3.0)
                return "later"

        def test_coroutine(energy_benchmark):
            loops = set()

            async def work(seconds):
                await asyncio.sleep(0)
                CLOCK.sleep(seconds)
                loops.add(id(asyncio.get_running_loop()))
                return "done"

            assert energy_benchmark(work, 2.0) == "done"
            assert len(loops) == 1  # clients and locks that belong to a loop go on working

        def test_awaitable(energy_benchmark):
            assert energy_benchmark(Later) == "later"

        def test_in_pedantic(energy_benchmark):
            async def work():
                CLOCK.sleep(1.0)
            energy_benchmark.pedantic(work, rounds=2, iterations=3)
        """
    )
    tests = records(repository)
    means = {name: test["mean_j"] for name, test in tests.items()}
    assert means == pytest.approx(
        {"test_coroutine": 100.0, "test_awaitable": 150.0, "test_in_pedantic": 50.0}, abs=0.06
    )


def test_what_has_not_run_yet_is_refused(repository: Repository) -> None:
    repository.makepyfile(
        test_theirs="""
        import asyncio
        from concurrent.futures import ThreadPoolExecutor
        import pytest

        def generator():
            yield 1

        async def async_generator():
            yield 1

        async def coroutine():
            return 1

        MAKERS = {
            "a generator": generator, "an async generator": async_generator, "a map object": lambda: map(str, [1]),
            "a filter object": lambda: filter(None, [1]), "a zip object": lambda: zip([1]),
        }

        @pytest.mark.parametrize("name", MAKERS)
        @pytest.mark.parametrize("how", ["call", "pedantic"])
        def test_lazy(energy_benchmark, name, how):
            (energy_benchmark if how == "call" else energy_benchmark.pedantic)(MAKERS[name])

        def test_future(energy_benchmark):
            with ThreadPoolExecutor(1) as pool:
                energy_benchmark(pool.submit, sum, [1])

        def test_loop_runs(energy_benchmark):
            async def main():
                energy_benchmark(coroutine)
            asyncio.run(main())

        def test_ended(energy_benchmark):
            assert energy_benchmark(lambda: list(generator())) == [1]
        """
    )
    result = run(repository, "--benchmark", "-pno:benchmark", "-W", "error::RuntimeWarning")
    result.assert_outcomes(passed=1, failed=12)
    text = result.stdout.str()
    for name in ("a generator", "an async generator", "a map object", "a filter object", "a zip object", "a future"):
        assert f"the function returned {name}, so its work has not run inside the window" in text
    assert "an event loop is already running: make the test a plain `def`" in text
    assert "Traceback" not in text
    assert "fixture.py:" not in text  # one sentence each, no frames of ours


def test_an_error_inside_a_window_leaves_the_meter_to_the_next_test(repository: Repository) -> None:
    repository.makepyfile(
        test_theirs="""
        import pytest
        from virtual import CLOCK

        @pytest.mark.parametrize("how", ["call", "pedantic"])
        def test_breaks(energy_benchmark, how):
            calls = []
            def work():
                calls.append(CLOCK.sleep(1.0))
                if len(calls) == 4:
                    raise OSError("no more")
            with pytest.raises(OSError, match="no more"):
                (energy_benchmark if how == "call" else energy_benchmark.pedantic)(work)

        def test_joules(energy_benchmark):
            energy_benchmark(CLOCK.sleep, 2.0)
        """
    )
    for arguments in (["-pno:benchmark"], ["--benchmark-timer=virtual.seconds"]):
        result = run(repository, "--benchmark", *arguments)
        result.assert_outcomes(passed=3)
        result.stdout.fnmatch_lines(["*::test_joules*100*5×1*"])


# -- pedantic ----------------------------------------------------------------------------------------------------------


def test_pedantic_sets_up_and_tears_down_outside_the_windows(repository: Repository) -> None:
    repository.makepyfile(
        test_theirs="""
        from virtual import CLOCK

        def test_joules(energy_benchmark):
            log = []

            def setup():
                CLOCK.sleep(100.0)
                log.append("setup")
                return (len(log),), {"seconds": 2.0}

            def target(number, seconds):
                CLOCK.sleep(seconds)
                log.append(number)
                return number

            def teardown(number, seconds):
                CLOCK.sleep(100.0)
                log.append(-number)

            last = energy_benchmark.pedantic(target, setup=setup, teardown=teardown, rounds=3, warmup_rounds=1)
            assert log == ["setup", 1, -1, "setup", 4, -4, "setup", 7, -7, "setup", 10, -10]
            assert last == 10

        def test_counts(energy_benchmark):
            calls = []
            def target(*args, **kwargs):
                calls.append((args, kwargs))
                CLOCK.sleep(1.0)
            energy_benchmark.pedantic(target, (1,), {"b": 2}, rounds=2, iterations=3)
            assert calls == [((1,), {"b": 2})] * 6

        def test_once(energy_benchmark):
            energy_benchmark.pedantic(CLOCK.sleep, (4.0,), rounds=1)

        def test_as_many_as_the_session(energy_benchmark):
            energy_benchmark.pedantic(CLOCK.sleep, (1.0,))
        """
    )
    for more in ([], ["--benchmark-enable", "--benchmark-timer=virtual.seconds"]):
        found = records(repository, *more)
        shapes = {name: (len(test["energy_j"]), test["iterations"], test["mean_j"]) for name, test in found.items()}
        assert {name: (n, m, pytest.approx(j, abs=0.06)) for name, (n, m, j) in shapes.items()} == {
            "test_joules": (3, 1, 100.0),
            "test_counts": (2, 3, 50.0),
            "test_once": (1, 1, 200.0),
            "test_as_many_as_the_session": (5, 1, 50.0),
        }


def test_bad_settings_are_named(repository: Repository) -> None:
    repository.makepyfile(
        test_theirs="""
        import pytest

        @pytest.mark.parametrize("settings", [
            {"rounds": 0}, {"iterations": 0.5}, {"warmup_rounds": -1}, {"iterations": 2, "setup": print},
            {"args": (1,), "setup": lambda: ((2,), {})},
        ])
        def test_pedantic(energy_benchmark, settings):
            energy_benchmark.pedantic(id, **settings)

        @pytest.mark.energy(round=3)
        def test_typo(energy_benchmark):
            energy_benchmark(id, 1)

        @pytest.mark.energy(rounds=1)
        def test_one_round(energy_benchmark):
            energy_benchmark(id, 1)

        @pytest.mark.energy(window_s=-1)
        def test_window(energy_benchmark):
            energy_benchmark(id, 1)
        """
    )
    result = run(repository, "--benchmark", "-pno:benchmark", "--tb=line")
    result.assert_outcomes(failed=8)
    text = result.stdout.str()
    for words in (
        "pedantic(rounds=0): must be an integer >= 1",
        "pedantic(iterations=0.5): must be an integer >= 1",
        "pedantic(warmup_rounds=-1): must be an integer >= 0",
        "setup runs once per window, so with setup iterations must be 1",
        "args and kwargs are given, but setup returns arguments too",
        "@pytest.mark.energy(round): the arguments are rounds= and window_s=",
        "@pytest.mark.energy(rounds=1): must be 2 or more",
        "@pytest.mark.energy(window_s=-1): must be 0 or more seconds",
    ):
        assert words in text


# -- next to pytest-benchmark ------------------------------------------------------------------------------------------


def test_pytest_benchmark_gets_seconds_per_call(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    repository.makepyfile(
        test_theirs="""
        import os
        from virtual import CLOCK

        def test_joules(energy_benchmark):
            energy_benchmark(CLOCK.sleep, float(os.environ.get("SECONDS", "2")))
        """
    )
    timed = ("--benchmark", "--benchmark-timer=virtual.seconds")
    first = run(repository, *timed, "--benchmark-save=main", "--benchmark-json=one.json", "--energy-report=joules.json")
    first.assert_outcomes(passed=1)
    # windows of thousands of calls: the time of a call is what it was
    compare = (*timed, "--energy-window=0.01", "--benchmark-compare", "--benchmark-compare-fail=mean:5%")
    again = run(repository, *compare, "--benchmark-json=many.json")
    again.assert_outcomes(passed=1)
    assert again.ret == 0
    one, many = (json.loads((repository.path / f"{n}.json").read_text())["benchmarks"][0] for n in ("one", "many"))
    assert one["stats"]["mean"] == pytest.approx(2.0)
    assert many["stats"]["mean"] == pytest.approx(2.0)
    assert many["stats"]["iterations"] == many["extra_info"]["energy"]["iterations"] > one["stats"]["iterations"] == 1
    assert many["stats"]["rounds"] == 5
    monkeypatch.setenv("SECONDS", "2.2")
    slower = run(repository, *compare)
    assert slower.ret != 0
    slower.stderr.fnmatch_lines(["*Performance has regressed*"])


def test_a_profile_adds_no_round(repository: Repository) -> None:
    edit(repository, "def test_seconds(benchmark)", "def unused(benchmark)")
    timed = ("--benchmark-timer=virtual.seconds", "--benchmark-cprofile=tottime")
    test = records(repository, *timed, "--benchmark-cprofile-loops=2")["test_joules"]
    assert test["energy_j"] == pytest.approx([100.0] * 5, abs=0.06)


def test_skipped_benchmarks_are_skipped(repository: Repository) -> None:
    run(repository, "--benchmark", "--benchmark-skip").assert_outcomes(passed=1, skipped=2)


def test_without_pytest_benchmark_there_are_joules_only(repository: Repository) -> None:
    edit(repository, "def test_seconds(benchmark)", "def unused(benchmark)")
    result = run(repository, "-p", "no:benchmark", "--benchmark")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*::test_joules*100*5×1*"])


FOREIGN = """
import pytest

class Fixture:
    def __init__(self):
        self.extra_info, self.calls = {{}}, []

    @property
    def __class__(self):  # pytest-codspeed's fixture does this
        from pytest_benchmark.fixture import BenchmarkFixture
        return BenchmarkFixture

    def __call__(self, target, *args, **kwargs):
        self.calls.append("call")
        return target(*args, **kwargs)

    def pedantic(self, target, args=(), kwargs=None, setup=None, teardown=None, rounds=1):
        self.calls.append("pedantic")
        args, kwargs = setup() if setup else (args, kwargs or {{}})
        result = target(*args, **kwargs)
        if teardown:
            teardown(*args, **kwargs)
        return result

@pytest.fixture
def benchmark():
    return {value}
"""


@pytest.mark.parametrize(
    ("value", "arguments"),
    # pytest-benchmark itself refuses a fixture of this name that is not a benchmark
    [("Fixture()", []), ("'data set B'", ["-p", "no:benchmark"])],
)
def test_a_foreign_benchmark_fixture_does_not_disturb(repository: Repository, value: str, arguments: list[str]) -> None:
    conftest = repository.path / "conftest.py"
    conftest.write_text(conftest.read_text() + FOREIGN.format(value=value))
    repository.makepyfile(
        test_theirs="""
        from virtual import CLOCK

        def test_joules(energy_benchmark, benchmark):
            done = []
            energy_benchmark(lambda seconds: done.append(CLOCK.sleep(seconds)), 2.0)
            if hasattr(benchmark, "calls"):
                assert benchmark.calls == ["call"]
                assert len(done) == 2 + 5 + 1  # warm-up, windows, and what the other one does
                assert round(benchmark.extra_info["energy_j"]) == 100

        def test_pedantic(energy_benchmark, benchmark):
            energy_benchmark.pedantic(CLOCK.sleep, setup=lambda: ((1.0,), {}), rounds=2)
            assert getattr(benchmark, "calls", ["pedantic"]) == ["pedantic"]
        """
    )
    result = run(repository, "--benchmark", *arguments)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*::test_joules*100*5×1*", "*::test_pedantic*50*2×1*"])


def test_a_test_that_only_imports_torch_gets_no_cuda_context() -> None:
    from perjoule.pytest_energy import fixture

    class Cuda:
        started = waited = False

        @classmethod
        def is_initialized(cls) -> bool:
            return cls.started

        @classmethod
        def synchronize(cls) -> None:
            cls.waited = cls.started = True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.cuda", Cuda)
        fixture._synchronize()
        assert not Cuda.waited
        Cuda.started = True
        fixture._synchronize()
        assert Cuda.waited
