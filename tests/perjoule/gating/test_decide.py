from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import numpy as np
import polars as pl
import pytest
from scipy import stats

from perjoule.errors import UsageError
from perjoule.gating import GateConfig, gate
from perjoule.gating.pairing import pair_runs
from perjoule.runs.directory import Run
from tests.perjoule.test_cli import call
from tests.support.gating import HUNDRED, WIDE
from tests.support.tables_of_runs import imported, table, with_margin


class TestPrice:
    """`--joules-per-quality`: the net benefit decides, in both directions and in every output."""

    @pytest.fixture
    def traded(self, tmp_path: Path) -> tuple[Run, Run]:
        base = with_margin(imported(table(**HUNDRED), tmp_path, "base"))
        return base, with_margin(imported(table(**HUNDRED, seed=1, factor=1.1, shift=0.2), tmp_path, "candidate"))

    def test_the_margins_alone_fail(self, traded: tuple[Run, Run]) -> None:
        assert gate(*traded).verdict == "fail"

    @pytest.mark.parametrize(
        ("price", "verdict"), [(100.0, "pass"), (1.0, "fail"), (5.5, "inconclusive"), (5.8, "inconclusive")]
    )
    def test_the_price_decides(
        self, traded: tuple[Run, Run], price: float, verdict: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        base, candidate = (str(run.path) for run in traded)
        junit = tmp_path / "j.xml"
        code, out, _ = call(
            "gate", "--baseline", base, "--candidate", candidate, "--joules-per-quality", str(price), "--json",
            "--junit", str(junit), capsys=capsys,
        )  # fmt: skip
        record = json.loads(out)
        assert (code, record["verdict"]) == ({"pass": 0, "fail": 1, "inconclusive": 3}[verdict], verdict)
        # 0.2 at the price, less a tenth of the mean of 5 and 17 J
        assert record["net_benefit_j"]["value"] == pytest.approx(0.2 * price - 1.1, abs=0.01 * price + 0.1)
        assert any("this price decides" in reason for reason in record["reasons"])
        suite = Xml.parse(junit).getroot()
        assert suite.get("failures") == str(int(verdict == "fail"))
        assert suite.get("skipped") == str(int(verdict == "inconclusive"))
        assert (suite.get("tests"), suite.get("errors")) == ("3", "0")

    def test_the_other_way_round(self, traded: tuple[Run, Run]) -> None:
        """Less energy, less quality: worth it at a low price of quality only."""
        back = (traded[1], traded[0])
        assert gate(*back, config=GateConfig(joules_per_quality=1.0)).verdict == "pass"
        assert gate(*back, config=GateConfig(joules_per_quality=100.0)).verdict == "fail"

    def test_no_margin_stands_in_the_way(self, traded: tuple[Run, Run]) -> None:
        """Margins below their detectable effect are an error only where margins decide."""
        priced = GateConfig(joules_per_quality=100.0, margin_quality=1e-6, margin_energy=1e-6)
        assert gate(*traded, config=priced).verdict == "pass"

    def test_open_margins_do_not_stand_in_the_way_either(self, pair: tuple[Run, Run]) -> None:
        narrow = GateConfig(margin_quality=1e-6, margin_energy=1e-6)
        with pytest.raises(UsageError, match="below the minimal detectable effect"):
            gate(*pair, config=narrow)
        assert gate(*pair, config=replace(narrow, joules_per_quality=100.0)).verdict == "inconclusive"

    def test_another_session_counts_here_too(self, traded: tuple[Run, Run]) -> None:
        priced = GateConfig(joules_per_quality=1.0)
        unknown = gate(*traded, config=replace(priced, mode="stored"))
        assert unknown.verdict == "inconclusive"
        assert "another session" in " ".join(unknown.reasons)
        paired = gate(*traded, config=priced).net_benefit_j
        known = gate(*traded, config=replace(priced, mode="stored", session_sd=0.03)).net_benefit_j
        assert paired is not None
        assert known is not None
        width = [(b.high or 0) - (b.low or 0) for b in (paired, known)]
        # 3 % of some 11 J in each of two sessions, at 5 % a side
        assert width[1] > width[0] + 0.5
        assert gate(*traded, config=replace(priced, mode="stored", session_sd=0.001)).verdict == "fail"


class TestSmallSamples:
    """Below the minimal detectable effect only an open verdict is an error."""

    @staticmethod
    def scattered(folder: Path, name: str, **changes: Any) -> Run:
        """Twelve prompts whose joules scatter by a tenth: margins of 5 % cannot be resolved."""
        seed = changes.pop("seed", 0)
        frame = table(**HUNDRED | {"prompts": 12} | changes, seed=seed)
        chance = np.random.default_rng(seed + 7)
        noise = pl.Series(np.exp(0.12 * chance.normal(size=len(frame))))
        return with_margin(imported(frame.with_columns(energy_j=pl.col("energy_j") * noise), folder, name))

    def decided(
        self, folder: Path, capsys: pytest.CaptureFixture[str], *more: str, **changes: Any
    ) -> tuple[int, dict[str, Any], str]:
        base = self.scattered(folder, "base")
        candidate = self.scattered(folder, "candidate", seed=1, **changes)
        code, out, err = call(
            "gate", "--baseline", str(base.path), "--candidate", str(candidate.path), "--json", *more, capsys=capsys
        )
        return code, json.loads(out) if out else {}, err

    def test_an_open_one_is_refused_with_both_counts(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        code, _, err = self.decided(tmp_path, capsys)
        assert code == 2
        assert "the margin on energy (0.05) is below the minimal detectable effect" in err
        assert "12 prompts; 24 rows in the baseline, 24 in the candidate" in err

    @pytest.mark.parametrize(("factor", "code", "outcome"), [(0.28, 0, "pass"), (1.72, 1, "fail")])
    def test_a_change_far_outside_the_margin_stands(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], factor: float, code: int, outcome: str
    ) -> None:
        found, record, _ = self.decided(tmp_path, capsys, factor=factor)
        assert (found, record["verdict"], record["energy"]["outcome"]) == (code, outcome, outcome)
        assert record["energy"]["mde"] > record["energy"]["margin"]
        assert record["energy"]["change"]["value"] == pytest.approx(factor - 1, abs=0.15)

    def test_a_run_that_fails_by_quality_fails(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        found, record, _ = self.decided(tmp_path, capsys, shift=-0.5)
        assert (found, record["energy"]["outcome"]) == (1, "inconclusive")

    def test_a_stored_baseline_that_cannot_fail_is_inconclusive(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        found, record, _ = self.decided(tmp_path, capsys, "--mode", "stored", factor=1.72)
        assert (found, record["verdict"]) == (3, "inconclusive")
        assert "another session" in record["reasons"][0]


@pytest.mark.parametrize("changes", [{"factor": 1.2}, {"shift": -0.5}])
def test_a_single_cell_fails_by_the_axes(tmp_path: Path, changes: dict[str, Any]) -> None:
    """There are no cells to fail by themselves."""
    one = HUNDRED | {"ladder": (4,)}
    base = imported(table(**one), tmp_path, "base")
    found = gate(
        base, imported(table(**one, seed=1, **changes), tmp_path, "candidate"), config=GateConfig(margin_quality=0.1)
    )
    assert (found.verdict, found.exit_code, len(found.cells)) == ("fail", 1, 1)


@pytest.mark.parametrize("prompts", [12, 40, 64, 70])
def test_intervals_of_quality_are_students_of_few_and_of_many_prompts(tmp_path: Path, prompts: int) -> None:
    """Below 25 and from 64 units up Student's t; between, the bootstrap, which is close to it."""
    one = HUNDRED | {"prompts": prompts, "ladder": (4,)}
    base, candidate = (imported(table(**one, seed=seed), tmp_path, f"run{seed}") for seed in (0, 1))
    change = gate(base, candidate, config=WIDE).quality.change
    d = pair_runs(base, candidate, "q").quality[:, 0]
    assert len(d) == prompts
    limits = stats.t.interval(0.9, prompts - 1, d.mean(), stats.sem(d))
    assert (change.low, change.high) == pytest.approx(limits, abs=1e-12 if prompts != 40 else 0.2 * stats.sem(d))
    assert ("Student's t" in change.method) == (prompts != 40)


def prompts_for(sd: float, distance: float) -> int:
    """Two normal quantiles: the margin is missed in one of twenty cases, and seen in four of five."""
    return max(2, int(np.ceil(((stats.norm.ppf(0.95) + stats.norm.ppf(0.8)) * sd / distance) ** 2)))


def test_the_prompts_needed_are_those_of_two_normal_quantiles(tmp_path: Path) -> None:
    base = imported(table(**HUNDRED), tmp_path, "base")
    candidate = imported(table(**HUNDRED, seed=1, factor=1.03, shift=-0.01), tmp_path, "candidate")
    found = gate(base, candidate, config=GateConfig(margin_energy=0.05, margin_quality=0.05))
    pairs = pair_runs(base, candidate, "q")
    energy, quality = pairs.log_energy.mean(1), pairs.quality.mean(1)
    assert found.energy.n_needed == prompts_for(energy.std(ddof=1), np.log(1.05) - energy.mean())
    assert found.quality.n_needed == prompts_for(quality.std(ddof=1), 0.05 + quality.mean())


def test_the_remedy_for_too_narrow_a_margin_is_a_number_of_prompts(tmp_path: Path) -> None:
    """So many that the minimal detectable effect is the margin: it falls with the root of their number."""
    base, candidate = (imported(table(**HUNDRED, seed=seed), tmp_path, f"run{seed}") for seed in (0, 1))
    mde = gate(base, candidate, config=WIDE).quality.mde
    assert mde is not None
    with pytest.raises(UsageError) as caught:
        gate(base, candidate, config=GateConfig(margin_energy=0.3, margin_quality=mde / 3))
    asked = re.search(r"about (\d+) prompts", str(caught.value))
    assert asked is not None
    assert int(asked[1]) == pytest.approx(50 * 3**2, abs=1)
