"""The tests with the oldest releases that pyproject.toml allows.

    python -m tests.floors [PYTEST ARGUMENTS]        or: tox -e floors

Makes a virtual environment with the last patch of the lowest release of each requirement of the base package (e.g.
1.24.* for >=1.24; no torch), and runs the tests of what needs no more than these: reading runs, statistics, gates,
imports. Takes a few minutes and a network, so it runs weekly and not with every change.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# without what needs the packages of metrics, or a newer scipy as an oracle
TESTS = (
    "tests/perjoule/statistics",
    "--deselect=tests/perjoule/statistics/test_hermite.py::test_values_and_integrals_are_scipys",
    "--deselect=tests/perjoule/statistics/test_resampling.py::test_one_level_is_scipys_bca_with_the_same_draws",
    "--deselect=tests/perjoule/statistics/test_resampling.py::test_one_level_ratio_is_scipys_paired_bootstrap",
    "tests/perjoule/gating",
    "--ignore=tests/perjoule/gating/test_margins.py",
    "tests/perjoule/importing",
    "--deselect=tests/perjoule/importing/test_cell_values.py::test_known_metrics_point_the_way_that_ours_do",
    "--deselect=tests/perjoule/importing/test_cell_values.py::test_a_plan_says_that_an_imported_run_has_no_prices",
    "tests/perjoule/runs",
    "--ignore=tests/perjoule/runs/test_torch_settings.py",
    "tests/perjoule/suite",
)
# what the tests need besides; their versions are not promised
TEST_PACKAGES = ("bjontegaard", "hypothesis", "jsonschema", "moocore", "pytest-xdist")


def floors(requirements: list[str]) -> list[str]:
    """Return `name==version.*` for each `name>=version`; ValueError for a requirement without a lowest version."""
    pins = []
    for requirement in requirements:
        found = re.fullmatch(r"([A-Za-z0-9._-]+)>=([0-9.]+)(?:,<[0-9.]+)?", requirement)
        if found is None:
            raise ValueError(f"{requirement!r} has no lowest version: write NAME>=VERSION")
        pins.append(f"{found[1]}=={found[2]}.*")
    return pins


def main(arguments: list[str]) -> int:
    """Install the lowest releases, and run the tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = floors(project["dependencies"])
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder) / "bin" / "python")
        packages = [*pins, *TEST_PACKAGES, "-e", str(ROOT)]
        if subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=False).returncode:
            print(f"cannot be installed together: {', '.join(pins)}", file=sys.stderr)
            return 1
        options = arguments if any(Path(one).exists() for one in arguments) else [*arguments, *TESTS]
        command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
        return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
