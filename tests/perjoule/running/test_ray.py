"""A Ray cluster on this machine, for real; without the extra only its absence is tested."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from importlib.util import find_spec
from pathlib import Path

import pytest

from perjoule.running import pipeline
from perjoule.running.prepared import prepare
from perjoule.running.ray import RayWorker, Refusal, RemoteBench
from perjoule.running.workers import Parcel
from perjoule.runs.directory import load_run
from perjoule.types import Assignment
from tests.perjoule.test_cli import SUITE, call, hashes

pytestmark = pytest.mark.slow

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="the extra perjoule[ray] is not installed")


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "prompts.txt").write_text("a large red circle on a white ground\na small blue star on a black ground\n")
    file = tmp_path / "suite.toml"
    short = SUITE.replace("[1, 3, 6]", "[1, 2]").replace('["scene", "lsnr", "cvvdp"]', '["scene", "lsnr"]')
    file.write_text(short.replace("seeds = [1, 2]", "seeds = [1]").replace("batch_size = 2", "batch_size = 1"))
    return file


def test_without_the_extra_it_says_what_to_install(
    suite: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    out = suite.parent / "run"
    code, _, err = call("run", str(suite), "--out", str(out), "--executor", "ray", "-q", capsys=capsys)
    assert (code, "pip install 'perjoule[ray]'" in err, out.exists()) == (2, True, False)


def test_metrics_are_rehearsed_in_another_process(
    suite: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their CUDA context would be a foreign process on a board that a worker measures."""

    def here(*_: object) -> None:
        pytest.fail("a metric was tried in the process that stays")

    monkeypatch.setattr(pipeline, "rehearse", here)
    monkeypatch.setattr("perjoule.running.scoring.rehearse", here)
    monkeypatch.setitem(sys.modules, "ray", None)
    sound = ("run", str(suite), "--out", str(suite.parent / "run"), "--executor", "ray", "-q")
    code, _, err = call(*sound, capsys=capsys)
    assert (code, "pip install 'perjoule[ray]'" in err) == (2, True)
    with_lpips = suite.read_text().replace('["scene", "lsnr"]', '["scene", "lsnr", "lpips"]')
    suite.write_text(with_lpips + "\n[metrics.options.lpips]\nweights = 'gone.pth'\n")
    code, _, err = call(*sound, capsys=capsys)
    assert (code, "gone.pth" in err, "Ray is not installed" in err) == (2, True, False), err


def test_a_refusal_keeps_message_and_exit_code() -> None:
    error = Refusal(message="no joules here", exit_code=4).as_error()
    assert (str(error), error.exit_code) == ("no joules here", 4)


def test_what_a_worker_cannot_do_comes_back_in_words(suite: Path) -> None:
    remote = RemoteBench()
    answer = remote.open(prepare(str(suite)), "nvlm", ())
    assert isinstance(answer, Refusal)
    assert "did you mean 'nvml'" in answer.message
    assert answer.exit_code == 2


@pytest.fixture
def ray_forgotten() -> Iterator[None]:
    """Takes back what `ray.init` changes in the process and `ray.shutdown` leaves there."""
    handler, debugger = signal.getsignal(signal.SIGTERM), os.environ.get("PYTHONBREAKPOINT")
    yield
    signal.signal(signal.SIGTERM, handler)
    if debugger is None:
        os.environ.pop("PYTHONBREAKPOINT", None)
    else:
        os.environ["PYTHONBREAKPOINT"] = debugger


@needs_ray
@pytest.mark.usefixtures("ray_forgotten")
def test_a_run_on_a_cluster_that_loses_a_worker(
    suite: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    folder = suite.parent
    do, started = RayWorker.do, []

    def kill_the_second(self: RayWorker, assignment: Assignment) -> Future[Parcel]:
        started.append(assignment.trial_id)
        future = do(self, assignment)
        if len(started) == 2:
            ray.kill(self.actor)
        return future

    monkeypatch.setattr(RayWorker, "do", kill_the_second)
    run = folder / "ray"
    code, _, err = call("run", str(suite), "--out", str(run), "--executor", "ray", "-q", capsys=capsys)
    assert code == 0, err
    assert len(started) == 5  # four trials, one of them twice
    assert started[1] == started[2]
    assert not ray.is_initialized()
    assert call("run", str(suite), "--out", str(folder / "local"), "-q", capsys=capsys)[0] == 0
    there, here = load_run(run), load_run(folder / "local")
    assert hashes(run) == hashes(folder / "local")
    assert there.trials["trial_id"].to_list() == here.trials["trial_id"].to_list()
    assert there.trials["failure"].null_count() == 4
    assert there.environment["comparability_key"] == here.environment["comparability_key"]
