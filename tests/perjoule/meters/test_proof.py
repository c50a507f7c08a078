"""A proof passes honest boards and names the fault of others."""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path

import pytest
from tests.support.odd_boards import OddBoard, honest_board
from tests.support.powercap import CpuLoad, FakeSysfs
from typer.testing import CliRunner

from perjoule import meters
from perjoule.cli import app
from perjoule.commands import proof_load
from perjoule.errors import MeterError
from perjoule.meters import known, proving
from perjoule.meters.estimate import EstimateMeter, PowerModel
from perjoule.meters.lag import Lag
from perjoule.meters.nvml import open_nvml
from perjoule.meters.proof import Proof, ProofWindow, summary
from perjoule.meters.proving import _on_a_line, prove
from perjoule.meters.rapl import RaplMeter
from perjoule.testing import NvmlSimulator, SimulatedLoad, VirtualClock

pytestmark = pytest.mark.slow

FAULTS = {
    "phase": OddBoard(board=honest_board(counter_duty=0.25)),
    "period": OddBoard(board=honest_board(counter_period_s=0.02), slow_s=0.1),
    "sources": OddBoard(board=honest_board(counter_period_s=0.02), gain_at_work=1.12),
    "lag": OddBoard(board=honest_board(counter_lag_s=0.05)),
    "rest": OddBoard(board=honest_board(), foreign_w=80.0),
}


def proof_of(odd: OddBoard, folder: Path, seed: int = 1) -> Proof:
    with odd.opened(folder, seed) as (open_meter, load):
        return prove(open_meter, load, chance=random.Random(seed))


@pytest.mark.parametrize("period_s", [0.02, 0.1])
def test_an_honest_board_passes(tmp_path: Path, period_s: float) -> None:
    proof = proof_of(OddBoard(board=honest_board(counter_period_s=period_s)), tmp_path)
    assert proof.verdict == "pass", proof.checks
    assert {check.verdict for check in proof.checks} == {"pass"}
    assert proof.duration_s < 180


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_named(tmp_path: Path, name: str) -> None:
    proof = proof_of(FAULTS[name], tmp_path)
    assert proof.verdict == "fail"
    assert [check.verdict for check in proof.checks if check.name == name] == ["fail"], proof.checks


def test_a_bare_counter_is_worse_for_short_work_than_for_long(tmp_path: Path) -> None:
    short, long = proof_of(OddBoard(board=honest_board()), tmp_path).bare
    assert abs(short.largest_error) > abs(long.largest_error)
    assert short.mean_error < 0  # a bare counter misses energy that it has not shown yet


def test_a_known_lag_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERJOULE_STATE", str(tmp_path / "state"))
    first = proof_of(FAULTS["lag"], tmp_path)
    assert first.board is not None
    assert first.lag_s == pytest.approx(0.05, abs=0.005)
    known.remember(first.board, "lag", Lag(lag_s=first.lag_s, box_s=first.box_s or 0.0))
    assert proof_of(FAULTS["lag"], tmp_path).verdict == "pass"


def test_several_boards_are_refused(tmp_path: Path) -> None:
    with NvmlSimulator([honest_board(), honest_board()], tmp_path, virtual=True) as simulator:
        nvml = simulator.load()
        with pytest.raises(MeterError, match="one board"):
            prove(lambda: open_nvml("all", nvml=nvml, clock=simulator, environ={}), SimulatedLoad(simulator))


def test_the_result_is_remembered_per_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERJOULE_STATE", str(tmp_path / "state"))
    proof = proof_of(OddBoard(board=honest_board()), tmp_path)
    assert proof.board is not None
    assert known.recall(proof.board, "proof", Proof) is None
    file = known.remember(proof.board, "proof", proof)
    assert known.recall(proof.board, "proof", Proof) == proof
    assert proof.board in str(file)
    file.write_text("{")
    with pytest.raises(MeterError, match=r"proof\.json is damaged .* delete it"):
        known.recall(proof.board, "proof", Proof)


def test_the_digest_depends_on_the_result(tmp_path: Path) -> None:
    first = proof_of(OddBoard(board=honest_board()), tmp_path, seed=1)
    other = proof_of(OddBoard(board=honest_board()), tmp_path, seed=2)
    assert first.digest != other.digest
    assert first.digest == Proof(**json.loads(json.dumps(asdict(first)))).digest


def windows(bias_j: float = 0.0, slope_w: float = 300.0) -> list[ProofWindow]:
    lengths = [0.025 * pieces for pieces in (1, 2, 4, 8, 16, 32, 64) for _ in range(4)]
    return [ProofWindow(pieces=1, duration_s=s, energy_j=slope_w * s + bias_j, uncertainty_j=0.3) for s in lengths]


@pytest.mark.parametrize(("bias_j", "verdict"), [(0.0, "pass"), (1.0, "pass"), (-15.0, "fail"), (15.0, "fail")])
def test_a_line_must_go_through_0(bias_j: float, verdict: str) -> None:
    assert _on_a_line(windows(bias_j), 300.0, 60.0, bounded=True)[0] == verdict


def test_without_bounds_a_crooked_line_is_unsure() -> None:
    assert _on_a_line(windows(-15.0), 300.0, 60.0, bounded=False)[0] == "unsure"


def rapl(sysfs: FakeSysfs) -> CpuLoad:
    """Add a package that rests at 15 W, and return work of 80 W for it."""
    sysfs.add("intel-rapl:0", "package-0", 15.0)
    return CpuLoad(sysfs, 80.0)


def verdicts(proof: Proof) -> dict[str, str]:
    return {check.name: check.verdict for check in proof.checks}


APPLY_TO_BOARDS = ("sources", "period", "lag", "phase")


class SlowDomain(FakeSysfs):
    """A counter that shows energy only every fifth time while the package works."""

    def _write(self, folder: str) -> None:
        self.count = getattr(self, "count", 0) + 1
        if self.power_w[folder] < 20 or self.count % 20 == 0:
            super()._write(folder)


def test_a_package_whose_counter_slows_down_at_work_fails(tmp_path: Path) -> None:
    sysfs = SlowDomain(tmp_path, VirtualClock())
    load = rapl(sysfs)
    proof = prove(lambda: RaplMeter(sysfs.root, sysfs.clock), load, chance=random.Random(1), seconds=60.0)
    assert proof.verdict == "fail"
    assert "fail" in {verdicts(proof)[name] for name in ("linearity", "short", "additivity")}


def test_an_estimate_is_unsure_where_its_bound_exceeds_its_energy(tmp_path: Path) -> None:
    model = PowerModel(cpu_model="x", tdp_w=65.0, generic_tdp=False, cpu_count=8, ram_w=6.0, version="3")
    clock, busy_s = VirtualClock(), [0.0]

    class Core:
        name, piece_s = "one busy core", 0.005

        def run(self, pieces: int) -> None:
            clock.advance(pieces * self.piece_s)
            busy_s[0] += pieces * self.piece_s

    proof = prove(lambda: EstimateMeter(model, clock, lambda: busy_s[0]), Core(), chance=random.Random(1), seconds=60.0)
    seen = verdicts(proof)
    assert proof.verdict == "unsure"
    assert (seen["rest"], seen["linearity"], seen["validity"]) == ("pass", "pass", "pass")
    assert (seen["short"], seen["additivity"]) == ("unsure", "unsure")
    assert all("has no sensor" in check.words for check in proof.checks if check.name in APPLY_TO_BOARDS)
    assert all("exceeds the energy" in check.words for check in proof.checks if check.name in ("short", "additivity"))


def test_the_verb_proves_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERJOULE_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(proving, "SPLITS", (12, 12))
    sysfs = FakeSysfs(tmp_path / "powercap", VirtualClock())
    load = rapl(sysfs)
    monkeypatch.setattr(meters, "open_base_meter", lambda name: RaplMeter(sysfs.root, sysfs.clock))
    monkeypatch.setattr(proof_load, "cpu_load", lambda: load)
    done = CliRunner().invoke(app, ["doctor", "--prove", "--meter", "rapl", "--json", "--quiet"])
    assert done.exit_code == 0, done.output
    with RaplMeter(sysfs.root, sysfs.clock) as meter:
        proof = known.recall(known.subject(meter), "proof", Proof)
    assert proof is not None
    assert proof.digest == json.loads(done.stdout)["digest"]
    assert summary(proof) == "unsure: sources, period, lag, phase"
    seen = verdicts(proof)
    assert {verdict for name, verdict in seen.items() if name not in APPLY_TO_BOARDS} == {"pass"}
    assert all("does not apply to rapl: " in check.words for check in proof.checks if check.name in APPLY_TO_BOARDS)
    assert (proof.meter, proof.provenance, proof.lag_s) == ("rapl", "measured", None)
    assert proof.work_w == pytest.approx(80.0, rel=0.01)
    assert proof.rest_w == pytest.approx(15.0, rel=0.03)
