from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.errors import EvidenceError, UsageError
from perjoule.meters import carbon as module
from perjoule.meters.carbon import Carbon, carbon


@given(energy_j=st.floats(0, 1e12))
def test_grams_are_energy_times_factor(energy_j: float) -> None:
    found = carbon(energy_j, "FRA")
    assert found.grams == pytest.approx(energy_j / 3.6e6 * found.factor_g_per_kwh)
    assert found.energy_j == energy_j


def test_the_factor_has_its_source_year_and_caveat() -> None:
    france, poland = carbon(3.6e6, "fra"), carbon(3.6e6, " POL ")
    assert 20 < france.factor_g_per_kwh < 100 < 400 < poland.factor_g_per_kwh < 1000  # nuclear and coal
    assert (france.country, france.country_iso3) == ("France", "FRA")
    assert 2020 <= france.year < 2040
    assert "Our World in Data" in france.source
    assert "as in codecarbon " in france.source
    assert "not an SCI score" in france.caveat


def test_the_line_carries_its_provenance() -> None:
    found = Carbon(
        grams=0.0277,
        energy_j=1234.5,
        factor_g_per_kwh=80.75,
        source="some table 1.2",
        year=2023,
        country="Erewhon",
        country_iso3="ERE",
        caveat="not an SCI score",
    )
    assert found.line() == ("0.0277 g CO2e for 1234 J at 80.75 g/kWh (Erewhon, 2023; some table 1.2); not an SCI score")


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("FRX", "FRA (France)"),
        ("Germany", "DEU (Germany)"),
        ("germny", "DEU (Germany)"),
        ("united", "GBR (United Kingdom)"),
        ("", "alpha-3 code, e.g. FRA"),
        ("§§§", "alpha-3 code, e.g. FRA"),
    ],
)
def test_an_unknown_country_is_refused_with_near_ones(asked: str, hint: str) -> None:
    with pytest.raises(UsageError, match="not a country of the table") as caught:
        carbon(1.0, asked)
    assert hint in str(caught.value)


@pytest.mark.parametrize("energy_j", [-1.0, float("nan")])
def test_negative_energy_is_refused(energy_j: float) -> None:
    with pytest.raises(UsageError, match="must be 0 or more"):
        carbon(energy_j, "FRA")


@pytest.mark.parametrize(
    "entry", [{"carbon_intensity": 0.0, "year": 2022}, {"year": 2022}, {"carbon_intensity": 5.0}], ids=str
)
def test_a_table_without_a_factor_is_no_clean_conscience(
    entry: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_energy_mix", lambda: ("9.9", {"ABC": entry}))
    with pytest.raises(EvidenceError, match=r"codecarbon 9\.9 has no factor for ABC"):
        carbon(1.0, "ABC")


def test_a_missing_codecarbon_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "codecarbon.input", None)
    with pytest.raises(UsageError, match=r"perjoule\[codecarbon\]"):
        carbon(1.0, "FRA")


def test_nothing_is_loaded_before_it_is_asked_for() -> None:
    code = (
        "import sys, perjoule.meters.carbon; print([m for m in ('codecarbon', 'pandas', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
