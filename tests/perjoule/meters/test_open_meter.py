from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import perjoule.meters as meters
from perjoule.errors import MeterError, UnknownNameError
from perjoule.meters import list_meters, open_meter
from perjoule.testing import SyntheticMeter, VirtualClock
from perjoule.warnings import WARNINGS, warning


def stub(monkeypatch: pytest.MonkeyPatch, works: set[str]) -> None:
    def opened(name: str) -> Any:
        if name not in works:
            raise MeterError(f"{name}: nothing here")
        return SyntheticMeter(1.0, VirtualClock())

    monkeypatch.setattr(meters, "_open", opened)


@pytest.mark.parametrize(
    ("works", "missed"),
    [({"nvml", "rapl", "estimate"}, []), ({"rapl", "estimate"}, ["nvml"]), ({"estimate"}, ["nvml", "rapl"])],
)
def test_auto_takes_the_best_and_says_why_not_the_others(
    monkeypatch: pytest.MonkeyPatch, works: set[str], missed: list[str]
) -> None:
    stub(monkeypatch, works)
    why = open_meter("auto").why
    assert [name for name in ("nvml", "rapl", "estimate") if f"{name} was not used" in why] == missed
    assert all(f"{name} was not used (nothing here)" in why for name in missed)


def test_auto_prefers_counted_work_for_networks_only(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def refuse(name: str) -> Any:
        opened.append(name)
        raise MeterError(f"{name}: nothing here")

    monkeypatch.setattr(meters, "_open", refuse)
    for of_networks in (True, False):
        with pytest.raises(MeterError):
            open_meter(of_networks=of_networks)
    assert opened == ["nvml", "rapl", "work", "estimate", "nvml", "rapl", "estimate"]


def test_auto_without_any_source_names_all_obstacles(monkeypatch: pytest.MonkeyPatch) -> None:
    stub(monkeypatch, set())
    with pytest.raises(MeterError, match=r"nvml was not.*rapl was not.*estimate was not"):
        open_meter()


@pytest.mark.parametrize("name", ["nvlm", "rapl:0", "estimate:x", "Auto", ""])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(UnknownNameError, match="known: auto, estimate"):
        open_meter(name)


@pytest.mark.parametrize("name", ["replay", "replay:", "nvml:", "work:", "work:absent", "replay:absent.csv"])
def test_half_a_name_is_an_error_with_a_remedy(name: str) -> None:
    with pytest.raises(MeterError):
        open_meter(name)


def test_a_replay_opens_by_name(tmp_path: Path) -> None:
    file = tmp_path / "a:b.csv"
    file.write_text("t_s,power_w\n0,5\n1,5\n")
    with open_meter(f"replay:{file}") as meter:
        assert meter.name == f"replay:{file}"


def test_the_list_has_every_kind_with_a_reason() -> None:
    listed = list_meters()
    assert {info.name.split(":")[0] for info in listed} == {"nvml", "rapl", "work", "estimate", "replay"}
    assert all(info.why for info in listed)


def test_importing_loads_nothing_heavy() -> None:
    code = (
        "import sys, perjoule.meters, perjoule.meters.nvml, perjoule.meters.rapl, perjoule.meters.estimate, "
        "perjoule.meters.replay, perjoule.warnings; "
        "print([m for m in ('torch', 'pynvml', 'codecarbon', 'polars', 'numpy.linalg') if m in sys.modules][:4])"
    )
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    heavy = [name for name in ("torch", "pynvml", "codecarbon", "polars") if f"'{name}'" in done.stdout]
    assert heavy == []


def test_every_code_in_use_is_explained_and_every_explanation_used() -> None:
    package = Path(meters.__file__).parent.parent
    sources = "\n".join(file.read_text() for file in package.rglob("*.py"))
    used = set(re.findall(r'(?:warning|Fault|_invalid)\(\s*"(W\d{3})"', sources))
    assert used == set(WARNINGS)
    for code, entry in WARNINGS.items():
        assert re.fullmatch(r"W2\d\d", code)
        assert all(text.endswith(".") for text in (entry.meaning, entry.consequence, entry.remedy))


def test_codes_without_an_explanation_cannot_be_made() -> None:
    assert warning("W202", "so") == "W202: so"
    with pytest.raises(KeyError):
        warning("W000", "so")
