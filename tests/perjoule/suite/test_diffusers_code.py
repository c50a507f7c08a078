"""Code to paste for a cell."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import sys
from perjoule.suite.diffusers_code import policy_code
from perjoule.types import Cell, Variant

for policy in ("budgetfusion", "budgetfusion-peek", "shared-start"):
    variant = Variant(name="v", model="builtin:sd-tiny", policy=policy, levels=(2.0,))
    assert policy_code(Cell(cell_id="v-2", variant=variant, steps=None, level=2.0)) is None
print("torch" in sys.modules)
"""


@pytest.mark.slow
def test_policies_that_choose_only_steps_are_not_made_for_their_code() -> None:
    """Torch would take a fifth of the time of a report."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")
