from __future__ import annotations

import tomllib

import pytest

from tests.floors import ROOT, floors


def test_every_requirement_has_a_lowest_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = floors(project["dependencies"])
    assert len(pins) == len(project["dependencies"])
    assert "polars==1.24.*" in pins  # joins with nulls_equal


@pytest.mark.parametrize(
    "requirement", ["polars", "polars==1.24", "polars<2", "polars>1.24", "polars>=1.24; extra == 'x'"]
)
def test_a_requirement_without_a_lowest_version_is_refused(requirement: str) -> None:
    with pytest.raises(ValueError, match="has no lowest version: write NAME>=VERSION"):
        floors([requirement])


def test_an_upper_limit_is_left_out() -> None:
    assert floors(["setuptools>=77.0.3,<82"]) == ["setuptools==77.0.3.*"]
