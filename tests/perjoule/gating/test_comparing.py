"""Differences between two runs, without a verdict."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import polars as pl
import pytest

from perjoule.commands.schemas import schemas
from perjoule.errors import EvidenceError
from perjoule.gating import GateConfig, gate
from perjoule.gating.comparing import compare
from perjoule.gating.render import compared
from tests.perjoule.test_cli import call
from tests.support.gating import SMALL, runs
from tests.support.tables_of_runs import as_own, imported, rewrite, rewrite_table, table


def test_it_agrees_with_the_gate_at_the_same_level(tmp_path: Path) -> None:
    before, after = runs(tmp_path, factor=1.2, shift=-0.1)
    found, verdict = compare(before, after), gate(before, after, config=GateConfig(alpha=0.025))
    assert found.change.energy == verdict.energy.change
    assert found.change.quality == verdict.quality.change
    assert [(c.cell_id, c.energy, c.quality) for c in found.cells] == [
        (c.cell_id, c.energy, c.quality) for c in verdict.cells
    ]
    first, second = found.energy_j_per_image or (0.0, 0.0)
    assert found.energy_j_per_image == verdict.energy_j_per_image
    assert second / first - 1 == pytest.approx(verdict.energy.change.value, rel=0.01)


def test_the_joules_are_the_geometric_mean_of_the_cells(tmp_path: Path) -> None:
    """Cells of 1, 4 and 16 J have a geometric mean of 4 J and a mean of 7 J; half of the prompts cost 20 % more."""
    steps = {4: 1.0, 16: 4.0, 64: 16.0}
    frame = table(**SMALL | {"ladder": tuple(steps), "variants": (("ladder", 1.0),)})
    share = pl.when(pl.col("prompt_id") < "p032").then(0.9).otherwise(1.1)
    frame = frame.with_columns(energy_j=share * pl.col("steps").replace_strict(steps))
    before, after = (imported(frame.with_columns(pl.col("energy_j") * k), tmp_path, f"x{k}") for k in (1, 2))
    assert compare(before, after).energy_j_per_image == pytest.approx((4.0, 8.0))


def test_it_is_antisymmetric(tmp_path: Path) -> None:
    before, after = runs(tmp_path, factor=1.2, shift=-0.1)
    there, back = compare(before, after), compare(after, before)
    assert there.change.quality is not None and back.change.quality is not None  # noqa: PT018
    assert there.change.energy is not None and back.change.energy is not None  # noqa: PT018
    assert there.change.quality.value == pytest.approx(-(back.change.quality.value or 0.0))
    assert (1 + (there.change.energy.value or 0.0)) * (1 + (back.change.energy.value or 0.0)) == pytest.approx(1.0)


def test_no_margin_is_needed_and_nothing_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, factor in (("a", 1.0), ("b", 3.0)):
        imported(table(**SMALL, factor=factor), tmp_path, name)
    code, out, _ = call("compare", str(tmp_path / "a"), str(tmp_path / "b"), capsys=capsys)
    assert code == 0
    energy, quality, *_ = out.splitlines()
    assert re.match(
        r"energy   \+200 % \[\+200, \+200\], \d\S* → \d\S* J per image, geometric mean of 2 cells; ", energy
    )
    assert quality == "quality  q no difference; 64 prompts"
    assert "note: the intervals do not include the variation between sessions" in out
    code, out, _ = call("compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json", capsys=capsys)
    assert code == 0
    jsonschema.validate(json.loads(out), schemas()["compare"])


def test_what_is_unlike_is_listed_and_what_cannot_be_compared_is_withheld(tmp_path: Path) -> None:
    before, after = runs(tmp_path)
    other = rewrite(after, "environment.json", lambda e: e["comparability"].update(device="another"))
    found = compare(before, other)
    assert "differs: device: " in compared(found)
    assert found.change.energy is not None
    estimated = rewrite_table(other, "trials", pl.lit("estimated").alias("provenance"))
    found = compare(before, estimated)
    assert (found.change.energy, found.energy_j_per_image) == (None, None)
    assert found.change.quality is not None
    assert "energy   withheld: the joules have different origins" in compared(found)

    def unlike(content: Any) -> None:
        content["metrics"][0]["weights_digest"] = "other"

    found = compare(before, rewrite(estimated, "metrics.json", unlike))
    assert found.change.quality is None
    assert "quality  q withheld: its settings differ" in compared(found)


def test_what_only_one_run_has_is_named(tmp_path: Path) -> None:
    before, _ = runs(tmp_path)
    fewer = imported(table(**SMALL, seed=1).filter(pl.col("steps") == 4), tmp_path, "fewer")
    found = compare(before, fewer)
    assert [cell.cell_id for cell in found.cells] == ["ladder-004"]
    assert "missing in the second run: cell ladder-016" in compared(found)


def test_nothing_in_common_is_an_error(tmp_path: Path) -> None:
    before, after = runs(tmp_path)
    with pytest.raises(EvidenceError, match="lacks metric none"):
        compare(before, after, "none")
    apart = table(**SMALL).with_columns(prompt_id=pl.lit("z") + pl.col("prompt_id"))
    with pytest.raises(EvidenceError, match="no cell whose prompts"):
        compare(before, imported(apart, tmp_path, "apart"))
    negative = rewrite_table(as_own(after), "trials", -pl.col("energy_j"))
    with pytest.raises(EvidenceError, match="zero or negative joules"):
        compare(before, negative)
