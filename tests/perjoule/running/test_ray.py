"""A run on Ray: its parts alone, and a cluster of this machine for real, if the extra is installed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from perjoule.errors import DeviceLostError, PerjouleError
from perjoule.running import pipeline, ray
from perjoule.running.prepared import prepare
from perjoule.running.ray import ClusterLink, checked_address
from perjoule.running.ray_cluster import bundles_of
from perjoule.running.ray_worker import Refusal, RemoteBench
from perjoule.running.workers import WorkerLostError
from perjoule.runs.directory import load_run
from perjoule.runs.pictures import pixel_digest
from perjoule.testing import FakeGenerator, nvml_simulator
from tests.perjoule.test_cli import call
from tests.support import fake_cluster
from tests.support.ray_nodes import REST_W, WORK_W, board, cluster, command, simulated, suite_file
from tests.support.suites import suite_text

pytestmark = pytest.mark.slow

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="the extra perjoule[ray] is not installed")


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "prompts.txt").write_text("a large red circle on a white ground\na small blue star on a black ground\n")
    file = tmp_path / "suite.toml"
    file.write_text(suite_text({"steps": [1, 2], "guidance": 3.0}, protocol={"seeds": [1], "batch_size": 1}))
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
    with_lpips = suite.read_text().replace('["lsnr"]', '["lsnr", "lpips"]')
    suite.write_text(with_lpips + "\n[metrics.options.lpips]\nweights = 'gone.pth'\n")
    code, _, err = call(*sound, capsys=capsys)
    assert (code, "gone.pth" in err, "Ray is not installed" in err) == (2, True, False), err


def test_a_refusal_keeps_message_and_exit_code() -> None:
    error = Refusal(message="no joules here", exit_code=4).as_error()
    assert (str(error), error.exit_code) == ("no joules here", 4)


def test_what_a_worker_cannot_do_comes_back_in_words(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    remote = RemoteBench()
    answer = remote.open(prepare(str(suite)), "nvlm", (), offline=False)
    assert isinstance(answer, Refusal)
    assert "did you mean 'nvml'" in answer.message
    assert answer.exit_code == 2


# -- places and addresses ----------------------------------------------------------------------------------------------


def node(gpus: float = 0, cpus: float = 0, name: str = "a", alive: bool = True) -> dict[str, Any]:
    """A node as Ray describes it."""
    resources = {"GPU": gpus, "CPU": cpus, f"node:{name}": 1.0, "node:__internal_head__": 1.0, "memory": 1e9}
    return {"Alive": alive, "Resources": {name: amount for name, amount in resources.items() if amount}}


@pytest.mark.parametrize(
    ("nodes", "bundles", "kind"),
    [
        ([node(gpus=2, cpus=8)], [{"GPU": 1, "CPU": 4, "node:a": 0.001}] * 2, "GPU"),
        ([node(gpus=4, cpus=2)], [{"GPU": 1, "CPU": 0.5, "node:a": 0.001}] * 4, "GPU"),  # more boards than CPUs
        ([node(gpus=3, cpus=2)], [{"GPU": 1, "CPU": 0.666, "node:a": 0.001}] * 3, "GPU"),
        ([node(gpus=2, cpus=5)], [{"GPU": 1, "CPU": 2, "node:a": 0.001}] * 2, "GPU"),
        ([node(gpus=1)], [{"GPU": 1, "node:a": 0.001}], "GPU"),
        ([node(cpus=4), node(gpus=1, cpus=2, name="b")], [{"GPU": 1, "CPU": 2, "node:b": 0.001}], "GPU"),
        (
            [node(cpus=4), node(cpus=2, name="b")],
            [{"CPU": 4, "node:a": 0.001}, {"CPU": 2, "node:b": 0.001}],
            "node",
        ),
        ([node(), node(cpus=4, alive=False)], [], "node"),
        ([], [], "node"),
    ],
)
def test_each_board_has_a_worker_and_otherwise_each_node(nodes: Any, bundles: Any, kind: str) -> None:
    assert bundles_of(nodes) == (bundles, kind)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--executor", "ray", "--address", "127.0.0.1:1"), 2, ["no Ray cluster answers there: Connection refused"]),
        (("--executor", "ray", "--address", "nowhere"), 2, ["--address nowhere: write HOST:PORT"]),
        (("--executor", "ray", "--address", "10.0.0.1:99999"), 2, ["write HOST:PORT"]),
        (("--executor", "ray", "--address", "ray://10.0.0.1:10001"), 2, ["Ray Client is not supported", "HOST:PORT"]),
        (("--address", "auto"), 2, ["--address names a Ray cluster: add --executor ray"]),
    ],
)
def test_a_wrong_address_is_refused_before_anything_is_loaded(
    suite: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, words: list[str]
) -> None:
    out = suite.parent / "run"
    found, _, err = call("run", str(suite), "--out", str(out), *arguments, "-q", capsys=capsys)
    assert (found, out.exists()) == (code, False), err
    for one in words:
        assert one in err


def test_the_address_is_that_of_the_command_line_then_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert checked_address(None) is None  # whatever cluster may run here, nobody asked for it
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert checked_address(None) == "auto"
    assert checked_address("local") is None


@needs_ray
def test_boards_cannot_be_chosen_by_name(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ("run", str(suite), "--executor", "ray", "--address", "local", "--meter", "nvml:0", "-q")
    code, _, err = call(*run, capsys=capsys)
    assert (code, "--meter nvml measures the board that Ray gives each worker" in err) == (2, True), err


# -- the process that talks to Ray -------------------------------------------------------------------------------------


@pytest.fixture
def link_to(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ClusterLink]]:
    monkeypatch.setattr(ray, "serve", fake_cluster.serve)
    links: list[ClusterLink] = []

    def start(address: str) -> ClusterLink:
        links.append(ClusterLink(address))
        return links[-1]

    monkeypatch.setattr(ray, "LEAVING_S", -4.0)  # those that hang would be waited for
    yield start
    for one in links:
        one.close()
        assert not one._process.is_alive()


def test_calls_of_the_process_are_answered_until_it_ends(link_to: Callable[[str], ClusterLink]) -> None:
    link = link_to("raises")
    with pytest.raises(WorkerLostError, match=r"^ConnectionError: version mismatch: of Ray: no token$"):
        link.join(60)
    answers = [link.call("add", number, 1, limit_s=60) for number in range(3)]
    assert [answer.result(60) for answer in answers] == [1, 2, 3]
    with pytest.raises(PerjouleError, match="no joules here"):
        link.call("refuse").result(60)
    with pytest.raises(WorkerLostError, match="AttributeError"):
        link.call("no such method").result(60)
    for method in ("end", "add"):  # in it, and after it
        with pytest.raises(DeviceLostError, match="the cluster was lost: its process has ended"):
            link.call(method).result(60)


def test_a_cluster_that_hangs_is_not_waited_for(link_to: Callable[[str], ClusterLink]) -> None:
    with pytest.raises(WorkerLostError, match=r"no answer within 0\.2 s"):
        link_to("hangs").join(0.2)


def test_a_cluster_that_falls_silent_is_lost(
    link_to: Callable[[str], ClusterLink], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "SILENCE_S", 2.0)
    link = link_to("works")
    link.join(60)
    with pytest.raises(DeviceLostError, match="the cluster was lost: no answer for 2 s"):
        link.call("stop").result(60)


# -- a cluster for real ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(nvml_simulator.compiler() is None, reason="no C compiler")
@needs_ray
def test_a_run_on_two_boards_survives_the_death_of_a_worker_and_of_the_driver(tmp_path: Path) -> None:
    with simulated(tmp_path, [board(), board()], step_s=0.2) as environment, cluster(
        (environment, ["--num-cpus=1", "--num-gpus=2"])
    ) as (head,):  # fmt: skip
        file, out = suite_file(tmp_path, prompts=4), tmp_path / "run"
        run = command(file, out, "--address", head.address)

        def trials() -> int:
            journal = out / "trials.jsonl"
            return len(journal.read_bytes().splitlines()) if journal.exists() else 0

        def until(count: int, process: subprocess.Popen[str]) -> None:
            while trials() < count:
                assert process.poll() is None, process.communicate()
                time.sleep(0.02)

        first = subprocess.Popen(run, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        until(2, first)
        head.processes("ray::RemoteBench")[0].kill()
        until(4, first)
        first.kill()
        first.communicate()
        again = subprocess.run([*run, "--resume"], env=environment, text=True, capture_output=True, check=False)
    assert again.returncode == 0, again.stderr
    finished = load_run(out)
    plan = prepare(str(file)).plan
    assert finished.trials["trial_id"].to_list() == [assignment.trial_id for assignment in plan]
    assert finished.trials["failure"].null_count() == len(plan) == 8
    assert finished.trials["device_digest"].n_unique() == 2
    # each board draws WORK_W in windows of its own worker alone
    power_w = (finished.trials["energy_j"] / finished.trials["duration_s"]).to_list()
    assert all(REST_W < watts < 1.05 * WORK_W for watts in power_w)
    (attempt,) = map(json.loads, (out / "superseded.jsonl").read_text().splitlines())
    assert attempt["failure"].startswith("the worker was lost: ")
    drawn = FakeGenerator().generate([plan[0].prompts[0].text], plan[0].seeds, plan[0].cell.steps or 0).images[0]
    assert finished.trials["image_sha256"][0].to_list() == [pixel_digest(drawn)]
