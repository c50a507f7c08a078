"""The list of mutants follows the code: `tests/benchmarks/gate_mutants.py` tries them, which takes too long here."""

from __future__ import annotations

import pytest

from tests.benchmarks.gate_mutants import ROOT, Mutant, mutants


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: mutant.name)
def test_every_mutant_fits_the_code(mutant: Mutant) -> None:
    assert mutant.edited(ROOT / "bench") != (ROOT / "bench" / mutant.file).read_text(encoding="utf-8")
