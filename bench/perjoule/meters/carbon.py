"""Grams of CO2 for measured joules: only on request, and always with the source of the factor.

    grams = energy * carbon intensity of the country's electricity, in the year of the table

The factors are those that codecarbon ships for use without a network: the carbon intensity of electricity generation
by country of Our World in Data, which adapts them from Ember and the Energy Institute
(https://ourworldindata.org/grapher/carbon-intensity-electricity).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from perjoule.errors import EvidenceError, UsageError, install_command

J_PER_KWH = 3.6e6
SOURCE = "Our World in Data (Ember, Energy Institute), carbon intensity of electricity generation"
CAVEAT = (
    "location-based yearly average of generation, operational energy of the measured boundary only: no embodied "
    "carbon, no grid losses, no cooling; not an SCI score"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Carbon:
    """Emissions of some energy.

    Attributes:
        grams: Grams of CO2 equivalent.
        energy_j: Energy that was converted.
        factor_g_per_kwh: Carbon intensity of the country's electricity.
        source: Source of the factor, with the version of the package that contains it.
        year: Year of the factor.
        country: Name of the country.
        country_iso3: ISO 3166-1 alpha-3.
        caveat: Limits of the number.
    """

    grams: float
    energy_j: float
    factor_g_per_kwh: float
    source: str
    year: int
    country: str
    country_iso3: str
    caveat: str

    def line(self) -> str:
        """Return the emissions as one line of text."""
        return (
            f"{self.grams:.3g} g CO2e for {self.energy_j:.4g} J at {self.factor_g_per_kwh:g} g/kWh "
            f"({self.country}, {self.year}; {self.source}); {self.caveat}"
        )


def carbon(energy_j: float, country_iso3: str) -> Carbon:
    """Convert joules to grams of CO2 equivalent.

    Loads codecarbon and its tables, which takes up to a second the first time.

    Args:
        energy_j: Energy, zero or more.
        country_iso3: ISO 3166-1 alpha-3 code, e.g. FRA; case does not matter.

    Raises:
        UsageError: The country is not in the table (the message names the nearest), the energy is negative, or
            codecarbon is missing.
        EvidenceError: The table has no usable factor for the country.
    """
    if not energy_j >= 0:
        raise UsageError(f"carbon: the energy is {energy_j:g} J; it must be 0 or more")
    version, table = _energy_mix()
    code = country_iso3.strip().upper()
    if code not in table:
        raise UsageError(_unknown(country_iso3, table))
    entry = table[code]
    factor, year = entry.get("carbon_intensity"), entry.get("year")
    if not factor or year is None:  # a factor of 0 g/kWh means that data are missing
        raise EvidenceError(
            f"carbon: codecarbon {version} has no factor for {code}; name a neighbouring country instead"
        )
    return Carbon(
        grams=energy_j / J_PER_KWH * float(factor),
        energy_j=energy_j,
        factor_g_per_kwh=float(factor),
        source=f"{SOURCE}, as in codecarbon {version}",
        year=int(year),
        country=str(entry.get("country_name", code)),
        country_iso3=code,
        caveat=CAVEAT,
    )


def _energy_mix() -> tuple[str, Mapping[str, Mapping[str, Any]]]:
    """Return the version of codecarbon and its table by country."""
    from perjoule.meters.estimate import silent_codecarbon

    try:
        with silent_codecarbon("codecarbon", "codecarbon.input") as (codecarbon, source):
            return str(codecarbon.__version__), source.DataSource().get_global_energy_mix_data()
    except ImportError as error:
        raise UsageError(f"carbon: codecarbon cannot be imported ({error}); {install_command('codecarbon')}") from error


def _unknown(asked: str, table: Mapping[str, Mapping[str, Any]]) -> str:
    """Return an error message with the countries nearest by code or by name."""
    names = {str(entry.get("country_name", code)): code for code, entry in table.items()}
    near = [f"{code} ({table[code].get('country_name')})" for code in get_close_matches(asked.upper(), table, n=3)]
    wanted = asked.casefold()
    by_name = get_close_matches(wanted, [name.casefold() for name in names], n=3, cutoff=0.7)
    near += [
        f"{code} ({name})"
        for name, code in names.items()
        if name.casefold() in by_name or (len(wanted) > 3 and wanted in name.casefold())
    ]
    hint = f"did you mean {' or '.join(dict.fromkeys(near[:5]))}? " if near else ""
    return f"carbon: {asked!r} is not a country of the table: {hint}give an ISO 3166-1 alpha-3 code, e.g. FRA"
