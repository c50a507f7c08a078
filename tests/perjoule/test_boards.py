"""Runs on simulated boards: which board each trial was on, what may be pooled, and what may be shared."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import polars as pl
import pytest

from perjoule.errors import PerjouleError, RunError
from perjoule.forecast.measured import Windows
from perjoule.gating import gate
from perjoule.gating.baselines import save
from perjoule.meters.sensor import Sensor, store
from perjoule.running import pipeline, reporting
from perjoule.running.prepared import prepare
from perjoule.running.ray import RayPool, settle
from perjoule.running.ray_cluster import Cluster
from perjoule.runs.directory import Run, load_run
from perjoule.statistics.devices import devices_of, mixtures
from perjoule.testing import ConstantPower, NvmlSimulator, SimulatedBoard
from perjoule.testing import nvml_simulator as module
from perjoule.text import board_digest, without_uuids
from tests.perjoule.meters.test_descriptions import CODES, DESCRIPTIONS, UNREADABLE, failing
from tests.perjoule.test_cli import SUITE, call

pytestmark = [pytest.mark.slow, pytest.mark.skipif(module.compiler() is None, reason="no C compiler")]

A100 = SimulatedBoard(model="NVIDIA A100", wave=ConstantPower(100.0), limit_w=250.0, counter_period_s=0.02)
H100 = SimulatedBoard(model="NVIDIA H100", wave=ConstantPower(200.0), limit_w=700.0, counter_period_s=0.02)
TWIN = SimulatedBoard(model="NVIDIA A100", wave=ConstantPower(100.0), limit_w=250.0, counter_period_s=0.02)
CAPPED = SimulatedBoard(model="NVIDIA A100", wave=ConstantPower(100.0), limit_w=200.0, counter_period_s=0.02)
PROMPTS = "a large red circle on a white ground\na small blue star on a black ground\n"


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Four windows: two step counts, two prompts."""
    (tmp_path / "prompts.txt").write_text(PROMPTS)
    file = tmp_path / "suite.toml"
    short = SUITE.replace("[1, 3, 6]", "[1, 2]").replace('["scene", "lsnr", "cvvdp"]', '["scene"]')
    short = short.replace('[metrics.options.lsnr]\ndefinition = "b"\n', "")
    file.write_text(short.replace("seeds = [1, 2]", "seeds = [1]").replace("batch_size = 2", "batch_size = 1"))
    return file


Boards = Callable[..., NvmlSimulator]


@pytest.fixture
def boards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Boards]:
    """Makes this process see simulated boards."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.chdir(tmp_path)
    made: list[NvmlSimulator] = []

    def see(*simulated: SimulatedBoard) -> NvmlSimulator:
        made.append(NvmlSimulator(simulated, tmp_path / "nvml"))
        made[-1].load()
        return made[-1]

    yield see
    for one in reversed(made):
        one.close()


@pytest.fixture
def run_suite(
    suite: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    """Runs the suite, without a report unless the test reads it."""

    def run(*arguments: str, out: str = "run", report: bool = False) -> tuple[int, str]:
        with monkeypatch.context() as patched:
            if not report:
                patched.setattr(reporting, "report", lambda *arguments: [])
            code, _, err = call("run", str(suite), "--out", str(suite.parent / out), *arguments, capsys=capsys)
        assert "Traceback" not in err
        return code, err

    return run


def half(run: Path) -> None:
    """Forget the last two trials, as if the run had been stopped before them."""
    for name in ("trials", "traces", "devices"):
        lines = (run / f"{name}.jsonl").read_text().splitlines(keepends=True)
        kept = {json.loads(line)["trial_id"] for line in (run / "trials.jsonl").read_text().splitlines()[:2]}
        (run / f"{name}.jsonl").write_text("".join(one for one in lines if json.loads(one)["trial_id"] in kept))


# -- what is recorded, and what is shared ----------------------------------------------------------------------------


def test_a_trial_names_its_board_and_no_file_names_a_uuid(
    boards: Boards, run_suite: Any, suite: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = boards(A100, H100)
    uuids = [board.uuid for board in simulator.boards]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(reversed(uuids)))
    code, err = run_suite("--meter", f"nvml:{uuids[1]}", report=True)
    assert code == 0, err
    run = load_run(suite.parent / "run")
    digest = board_digest(uuids[1])
    facts = run.trials.select("device", "device_digest", "power_limit_w").unique().rows()
    assert facts == [("NVIDIA H100", digest, 700.0)]
    assert {device.device for _, device in run.devices} == {digest}
    assert run.trials["load_before"].null_count() == run.trials["load_after"].null_count() == 0
    comparability = run.environment["comparability"]  # of the board that was measured, not of all in the host
    assert (comparability["device"], comparability["power_limit_w"]) == (["NVIDIA H100"], [700.0])
    assert [gpu["name"] for gpu in run.environment["gpu"]] == ["NVIDIA A100", "NVIDIA H100"]
    assert {(gpu["ecc"], gpu["persistence_mode"], gpu["max_sm_clock_mhz"]) for gpu in run.environment["gpu"]} == {
        (True, True, 1980)
    }
    assert run.environment["meter"]["name"] == f"nvml:{digest}"
    assert f"--meter nvml:{digest}" in " ".join(run.environment["command"])
    # the same board again, by the name that the record gives it
    assert run_suite("--meter", f"nvml:{digest}", out="again")[0] == 0
    for command in (["baseline", "save", "main", str(run.path)], ["frontier", str(run.path), "--json"],
                    ["gate", "--baseline", str(run.path), "--candidate", str(suite.parent / "again"), "--json"],
                    ["doctor", "--json"], ["measure", "--", "true"]):  # fmt: skip
        call(*command, capsys=capsys)
    files = [*run.path.rglob("*"), *(suite.parent / "again").rglob("*"), *Path(".perjoule").rglob("*")]
    contents = {file: file.read_bytes() for file in files if file.is_file()}
    assert {"environment.json", "report.html", "result.json", "devices.jsonl"} <= {file.name for file in contents}
    assert any(file.name == "main.json.gz" for file in contents)
    for file, content in contents.items():
        text = gzip.decompress(content) if file.suffix == ".gz" else content
        if file.suffix == ".parquet":
            text = pl.read_parquet(file).write_ndjson().encode()
        for uuid in uuids:
            assert uuid[4:].encode() not in text, file
            assert uuid.split("-", 2)[2].encode() not in text, file


def test_the_json_of_pytest_names_no_uuid(boards: Boards, suite: Path) -> None:
    simulator = boards(A100)
    uuid = simulator.boards[0].uuid
    (suite.parent / "test_it.py").write_text(
        "import time\ndef test_it(energy_benchmark):\n    energy_benchmark(time.sleep, 0.1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py", "--benchmark",
         "--energy-rounds", "2", "--energy-window", "0.1", "--energy-save", "main", "--energy-report", "energy.json",
         "--benchmark-json=b.json", "--energy-meter", f"nvml:{uuid}"],
        env=os.environ | simulator.environment() | {"PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=suite.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("energy.json", "b.json", ".perjoule/energy/main.json"):
        text = (suite.parent / name).read_text()
        assert board_digest(uuid) in text
        assert uuid[4:] not in text
    system = json.loads((suite.parent / "energy.json").read_text())["system"]
    assert system == {"device": ["NVIDIA A100"], "driver": "580", "meter": "nvml", "power_limit_w": [250.0]}


def test_texts_are_rid_of_uuids_whole_or_not() -> None:
    uuid = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
    assert without_uuids(f"on {uuid} (driver 1)") == f"on {board_digest(uuid)} (driver 1)"
    assert without_uuids("CUDA_VISIBLE_DEVICES='GPU-8932f9'") == "CUDA_VISIBLE_DEVICES='GPU-…'"
    assert "0ea2c1c8" not in without_uuids("MIG-0ea2c1c8-5e2c-5d5c-8e5b-9d1e3a2b4c5d names a MIG slice")
    assert without_uuids("a GPU-board, GPU-based, two GPU-hours") == "a GPU-board, GPU-based, two GPU-hours"
    assert board_digest(uuid) != board_digest(uuid[:-1] + "7")


def test_a_slice_that_auto_refuses_is_not_named_in_the_record(
    boards: Boards, run_suite: Any, suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boards(A100)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-0ea2c1c8-5e2c-5d5c-8e5b-9d1e3a2b4c5d")
    assert run_suite("--limit", "1")[0] == 0
    assert "MIG slice" in load_run(suite.parent / "run").environment["meter"]["why"]
    for file in (suite.parent / "run").rglob("*"):
        assert file.is_dir() or b"0ea2c1c8" not in file.read_bytes(), file


def test_a_run_of_an_earlier_version_still_loads(boards: Boards, run_suite: Any, suite: Path) -> None:
    boards(A100)
    assert run_suite()[0] == 0
    file = suite.parent / "run" / "trials.jsonl"
    fresh = ("device", "device_digest", "power_limit_w", "load_before", "load_after", "cores", "others_cores",
             "steal_share", "cpu_mhz_before", "cpu_mhz_after")  # fmt: skip
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert all(name in row for row in rows for name in fresh)
    file.write_text("".join(json.dumps({k: v for k, v in row.items() if k not in fresh}) + "\n" for row in rows))
    run = load_run(suite.parent / "run")
    assert run.trials["device"].null_count() == len(rows) == 4
    assert (mixtures(run.trials), devices_of(run.trials)) == ([], ())
    assert len(pipeline.score(run, [], SimpleReporter()).points) == 2
    assert mixtures(run.trials.drop(fresh)) == []  # a Parquet table keeps the columns that it was written with


class SimpleReporter:
    def message(self, text: str) -> None: ...

    def stage(self, *arguments: Any) -> Any:
        return nullcontext(SimpleNamespace(update=lambda *arguments: None))


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (H100, ["device was ['NVIDIA A100'] and is ['NVIDIA H100']"]),
        (CAPPED, ["power_limit_w was [250.0] and is [200.0]"]),
        (TWIN, []),
    ],
    ids=["another model", "another limit", "a twin"],
)
def test_resume_goes_on_only_on_a_board_of_the_same_kind(
    boards: Boards, run_suite: Any, suite: Path, monkeypatch: pytest.MonkeyPatch, there: SimulatedBoard, said: list[str]
) -> None:
    simulator = boards(A100, there)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert run_suite()[0] == 0
    half(suite.parent / "run")
    before = (suite.parent / "run" / "trials.jsonl").read_bytes()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", simulator.boards[1].uuid)
    code, err = run_suite("--resume")
    assert code == (4 if said else 0), err
    for words in said:
        assert words in err
    if said:
        assert (suite.parent / "run" / "trials.jsonl").read_bytes() == before
        return
    trials = load_run(suite.parent / "run").trials
    assert trials["device_digest"].n_unique() == 2
    assert trials.select("device", "power_limit_w").n_unique() == 1


class Remote:
    """A method of an actor."""

    def __init__(self, method: Callable[..., Any], visible: str) -> None:
        self._method, self._visible = method, visible

    def remote(self, *arguments: Any) -> Any:
        os.environ["CUDA_VISIBLE_DEVICES"] = self._visible  # as Ray sets it for the actor's process
        return self._method(*arguments)


class Group(SimpleNamespace):
    """A placement group of Ray: a reserved place."""

    def wait(self, timeout_seconds: float) -> bool:
        return not self.taken

    @property
    def bundle_specs(self) -> list[dict[str, float]]:
        return [self.bundle]


class NodeOfRay:
    """Ray on one node, its actors in this process; each sees one GPU. `taken` boards belong to other work."""

    def __init__(self, gpus: int, taken: int = 0, visible: Callable[[int], str] = str) -> None:
        self.started: list[Any] = []
        self.killed: list[Any] = []
        self.options: list[dict[str, Any]] = []
        self._gpus, self._taken, self._visible = gpus, taken, visible
        self._groups = 0

    def modules(self) -> dict[str, ModuleType]:
        names = ("ray", "ray.util", "ray.util.scheduling_strategies")
        modules: dict[str, Any] = {name: ModuleType(name) for name in names}
        ray, util, strategies = modules.values()
        ray.remote, ray.kill, ray.put, ray.nodes = self.remote, self.kill, lambda value: value, self.nodes
        util.placement_group, util.remove_placement_group = self.group, lambda group: None
        strategies.PlacementGroupSchedulingStrategy = SimpleNamespace
        return modules

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"GPU": float(self._gpus), "CPU": 1.0, "node:10.0.0.1": 1.0}}]

    def group(self, bundles: list[dict[str, float]], strategy: str) -> Group:
        self._groups += 1
        return Group(bundle=bundles[0], number=self._groups - 1, taken=self._groups <= self._taken)

    def remote(self, cls: type) -> Any:
        def options(scheduling_strategy: Any, **wanted: Any) -> Any:
            visible = self._visible(scheduling_strategy.placement_group.number)
            self.options.append(wanted)

            def start() -> Any:
                one = cls()
                self.started.append(one)
                return SimpleNamespace(open=Remote(one.open, visible), do=Remote(one.do, visible), bench=one)

            return SimpleNamespace(remote=start)

        return SimpleNamespace(options=options)

    def kill(self, actor: Any) -> None:
        self.killed.append(actor.bench)
        actor.bench._stack.close()


class HereLink:
    """The cluster's process is this one."""

    def __init__(self) -> None:
        self._cluster = Cluster()

    def call(self, method: str, *arguments: Any, limit_s: float | None = None) -> Future[Any]:
        answer: Future[Any] = Future()
        settle(answer, getattr(self._cluster, method)(*arguments))
        return answer


@pytest.fixture
def pool_on(boards: Boards, suite: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., RayPool]]:
    nodes: list[NodeOfRay] = []

    def open_pool(node: NodeOfRay, *simulated: SimulatedBoard, meter: str = "nvml") -> RayPool:
        boards(*simulated)
        nodes.append(node)
        for name, one in node.modules().items():
            monkeypatch.setitem(sys.modules, name, one)
        for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "PERJOULE_OFFLINE"):
            monkeypatch.setenv(name, "")  # workers set them
        return RayPool(HereLink(), prepare(str(suite)), meter, (), SAID.append)

    SAID.clear()
    yield open_pool
    for node in nodes:
        for one in node.started:
            one._stack.close()


SAID: list[str] = []


@pytest.mark.parametrize(("other", "refused"), [(H100, True), (TWIN, False)], ids=["another model", "a twin"])
def test_ray_refuses_boards_of_different_kinds_in_one_node(
    pool_on: Callable[..., RayPool], suite: Path, other: SimulatedBoard, refused: bool
) -> None:
    node = NodeOfRay(2)
    if refused:
        with pytest.raises(RunError, match=r"device is \['NVIDIA A100'\] on one and \['NVIDIA H100'\] on another: run"):
            pool_on(node, A100, other)
        return
    pool = pool_on(node, A100, other)
    assert pool.environment["comparability"]["device"] == ["NVIDIA A100"]
    assert len(set(pool.environment["workers"])) == 2
    assert [wanted["num_cpus"] for wanted in node.options] == [0.5, 0.5]  # boards may outnumber CPUs
    plan = prepare(str(suite)).plan
    trials = [worker.do(one).result().trial for worker, one in zip(pool.workers, plan[:2], strict=True)]
    assert [trial.reading.device for trial in trials] == ["NVIDIA A100"] * 2
    digests = [trial.reading.device_digest for trial in trials]
    assert len(set(digests)) == 2
    # the worker that replaces a lost one has its board
    again = pool.reopen(1).result()
    assert node.killed == node.started[1:2]
    assert again.do(plan[2]).result().trial.reading.device_digest == digests[1]


def test_ray_uses_the_boards_that_are_free(pool_on: Callable[..., RayPool]) -> None:
    pool = pool_on(NodeOfRay(3, taken=2), A100, H100, TWIN)
    assert len(pool.workers) == 1
    assert SAID == ["warning: 1 of 3 GPUs are free, and the run uses only these"]


def test_ray_uses_no_more_boards_than_there_are_windows(pool_on: Callable[..., RayPool]) -> None:
    assert len(pool_on(NodeOfRay(3), A100, TWIN, H100).workers) == 2
    assert SAID[0].startswith("note: 2 of 3 GPUs are used, because a cell has 2 windows")


def test_ray_says_so_if_all_boards_are_in_use(pool_on: Callable[..., RayPool]) -> None:
    with pytest.raises(RunError, match=r"all 2 GPUs of the cluster are in use: wait .* `ray status`"):
        pool_on(NodeOfRay(2, taken=2), A100, TWIN)


@pytest.mark.parametrize("meter", ["nvml", "estimate"])
def test_ray_refuses_two_workers_that_measure_one_device(pool_on: Callable[..., RayPool], meter: str) -> None:
    """A node that hides no board from its workers, or two nodes on one machine: each would measure the other's work."""
    if meter == "nvml":  # the lock of the board says so first
        with pytest.raises(PerjouleError, match="NVIDIA A100 is being measured by process"):
            pool_on(NodeOfRay(2, visible=lambda number: "0"), A100, TWIN)
        return
    with pytest.raises(RunError, match="two workers would measure the same device, estimate"):
        pool_on(NodeOfRay(2), A100, TWIN, meter=meter)


def mixed_run(run: Path, changes: dict[str, Any]) -> Run:
    """Windows of two boards in one cell, as merging by hand makes it."""
    rows = [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]
    [row for row in rows if row["cell_id"] == "tiny-001"][-1].update(changes)
    (run / "trials.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_run(run)


@pytest.mark.parametrize(
    ("changes", "key", "values"),
    [
        ({"device": "NVIDIA H100"}, "device", "'NVIDIA A100'|'NVIDIA H100'"),
        ({"power_limit_w": 200.0}, "power_limit_w", "250.0|200.0"),
    ],
)
def test_nothing_pools_the_windows_of_different_boards(
    boards: Boards, run_suite: Any, suite: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], key: str,
    values: str,
) -> None:  # fmt: skip
    boards(A100)
    assert run_suite()[0] == 0
    assert run_suite(out="base")[0] == 0
    run = mixed_run(suite.parent / "run", changes)
    path, one, other = str(run.path), *values.split("|")
    found = mixtures(run.trials)
    assert [(mixture.cell_id, mixture.key) for mixture in found] == [("tiny-001", key)]
    for refused in (lambda: Windows.of(run), lambda: save(run, "main", suite.parent / "kept")):
        with pytest.raises(RunError, match="W265"):
            refused()
    for command in (["frontier", path], ["score", path], ["plan", str(suite), "--from", path],
                    ["recommend", path, "--max-joules", "1e9"], ["baseline", "save", "main", path]):  # fmt: skip
        code, _, err = call(*command, capsys=capsys)
        assert code == 4, (command, err)
        assert f"W265: cell tiny-001 holds windows of different devices: {key} is {one}" in err
        assert other in err
    verdict = gate(load_run(suite.parent / "base"), run)
    assert verdict.verdict == "invalid"
    assert any(
        f"candidate: W265: cell tiny-001 holds windows of different devices: {key}" in why for why in verdict.reasons
    )
    assert call("report", path, capsys=capsys)[0] == 0
    result = json.loads((run.path / "result.json").read_text())
    assert any(line.startswith("W265: cell tiny-001") for line in result["beware"])
    energy = {cell["cell_id"]: cell["energy_j_per_image"]["value"] for cell in result["cells"]}
    assert energy["tiny-001"] is None
    assert energy["tiny-002"] is not None


def test_cells_of_different_boards_are_said_to_be(boards: Boards, run_suite: Any, suite: Path, capsys: Any) -> None:
    boards(A100)
    assert run_suite()[0] == 0
    file = suite.parent / "run" / "trials.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        if row["cell_id"] == "tiny-002":
            row["device"], row["power_limit_w"] = "NVIDIA H100", 700.0
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(RunError, match="no line can be drawn through them"):
        Windows.of(load_run(file.parent))
    assert call("report", str(file.parent), capsys=capsys)[0] == 0
    beware = json.loads((file.parent / "result.json").read_text())["beware"]
    (said,) = (line for line in beware if "W265" in line)
    assert said.startswith("The cells were measured on different devices")
    assert {"NVIDIA A100 at 250 W", "NVIDIA H100 at 700 W"} == set(said.partition(": ")[2].rstrip(".").split(", "))


# -- a GPU that is not in the joules ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("visible", "said"),
    [(None, "2 x NVIDIA A100, NVIDIA H100"), ("2", "NVIDIA H100"), ("", ""), ("-1", "")],
)
def test_a_gpu_that_the_meter_does_not_see_is_told_everywhere(
    boards: Boards, run_suite: Any, suite: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, said: str
) -> None:
    boards(A100, TWIN, H100)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    code, err = run_suite("--meter", "estimate", "--limit", "1", report=True)
    assert code == 0, err
    run = load_run(suite.parent / "run")
    warned = run.trials["warnings"].list.eval(pl.element().str.starts_with("W232")).list.any()
    assert warned.to_list() == [bool(said)] * 2
    html = (run.path / "report.html").read_text()
    result = json.loads((run.path / "result.json").read_text())
    assert any("The GPU's energy is missing" in line for line in result["beware"]) == bool(said)
    assert ("THE GPU" in html) == bool(said)
    assert ("visible_gpus" in run.environment["comparability"]) == bool(said)
    if said:
        words = f"W232: the joules are those of the CPU (estimate) and do not include {said}"
        assert f"warning: {words}" in err
        assert words in str(run.trials["warnings"].to_list())


# -- boards that tell little -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_a_run_does_without_every_description(
    boards: Boards, run_suite: Any, suite: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    nvml = boards(A100).load()
    for name in DESCRIPTIONS:
        monkeypatch.setattr(nvml, name, failing(nvml, code))
    status, err = run_suite("--meter", "nvml", "--limit", "1", report=code == CODES["NOT_SUPPORTED"])
    assert status == 0, err
    run = load_run(suite.parent / "run")
    assert run.trials["energy_j"].null_count() == 0
    assert run.trials.select("device", "device_digest", "power_limit_w").unique().rows() == [
        ("unknown", "index-0", None)
    ]
    (gpu,) = run.environment["gpu"]
    assert gpu["digest"] == "index-0"
    assert [gpu[key] for key in ("name", "driver", "memory_bytes", "power_limit_w")] == [None] * 4


def test_a_run_on_a_board_whose_name_is_not_utf_8(boards: Boards, run_suite: Any, suite: Path) -> None:
    boards(SimulatedBoard(model=UNREADABLE, wave=ConstantPower(100.0), counter_period_s=0.02))
    assert run_suite("--limit", "1", report=True)[0] == 0
    assert load_run(suite.parent / "run").trials["device"].unique().to_list() == ["Tarjeta gr�fica"]


# -- gain and offset of the sensor -----------------------------------------------------------------------------------


def corrected(run: Run, gain: float, offset_w: float) -> list[tuple[float, float]]:
    """Energy of each trial, and what the counts of its board come to with that gain and offset."""
    counted = {trial_id: board.energy_j for trial_id, board in run.devices}
    return [
        (row["energy_j"], gain * counted[row["trial_id"]] + offset_w * row["duration_s"])
        for row in run.trials.iter_rows(named=True)
    ]


@pytest.mark.parametrize("choice", ["0.9,20", "stored"])
def test_a_run_is_corrected_for_its_sensor(
    boards: Boards, run_suite: Any, suite: Path, choice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERJOULE_STATE", str(tmp_path / "state"))
    uuid = boards(A100).boards[0].uuid
    stored = Sensor(gain=0.9, offset_w=20.0, level_uncertainty_w=2.0, boundary="system", origin="calibrated")
    store(stored, board_digest(uuid))
    code, err = run_suite("--meter", "nvml", "--sensor", choice)
    assert code == 0, err
    run = load_run(suite.parent / "run")
    assert run.trials.height == 4
    for energy_j, expected_j in corrected(run, 0.9, 20.0):
        assert energy_j == pytest.approx(expected_j, rel=1e-9)
    # the board draws 100 W throughout, so that 0.9 * 100 W + 20 W is what each second costs
    watts = (run.trials["energy_j"] / run.trials["duration_s"]).to_list()
    assert watts == pytest.approx([110.0] * 4, rel=0.03)
    assert run.trials["net_energy_j"].to_list() == pytest.approx([0.0] * 4, abs=0.5 * 4)
    bounds = zip(run.trials["uncertainty_j"], run.trials["duration_s"], run.devices, strict=True)
    level_w = 2.0 if choice == "stored" else 0.0
    for bound_j, duration_s, (_, board) in bounds:
        assert bound_j == pytest.approx(0.9 * board.uncertainty_j + level_w * duration_s, rel=1e-9)
    (method,) = run.trials["method"].unique()
    origin = "calibrated" if choice == "stored" else "as stated; the uncertainty of both is not in the bound"
    assert method.endswith(f"; corrected for the sensor's gain 0.9 and offset +20 W ({origin})")
    assert set(run.trials["provenance"]) == {"measured"}
    assert set(run.trials["boundary"]) == {"system" if choice == "stored" else "gpu-board"}
    power_w = pl.read_parquet(suite.parent / "run" / "power.parquet")["power_w"]
    assert power_w.mean() == pytest.approx(110.0, rel=0.01)


def test_a_sensor_that_is_not_stored_stops_a_run_before_it_begins(
    boards: Boards, run_suite: Any, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERJOULE_STATE", str(tmp_path / "state"))
    digest = board_digest(boards(A100).boards[0].uuid)
    code, err = run_suite("--meter", "nvml", "--sensor", "stored")
    assert code == 4
    assert f"there is no calibration of {digest}" in err
    assert not (suite.parent / "run").exists()
