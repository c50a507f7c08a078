from __future__ import annotations

import subprocess
import sys

import pytest

from perjoule.statistics.designs import DESIGNS, Design
from perjoule.statistics.sequential import nominal_levels


@pytest.mark.parametrize("design", DESIGNS)
def test_every_design_has_levels(design: Design) -> None:
    assert all(0 < level <= 0.05 for level in nominal_levels(design, (0.5, 1.0), 0.05))


def test_the_names_import_nothing_heavy() -> None:
    script = "import sys, perjoule.statistics.designs; print(sorted({'polars', 'numpy', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
