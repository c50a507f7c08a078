"""The tables of a check, on records whose numbers are known in closed form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.gpu import tables


def cells(lines: list[str], row: int) -> list[str]:
    """The texts of a row, counted from the first below the headers."""
    return [text.strip() for text in lines[4 + row].strip("|").split("|")]


def size(steps: int, images: int, energy_j: float, duration_s: float) -> dict[str, Any]:
    place = {"kind": "size", "name": "sdxl", "side": 1024, "batch": 1}
    numbers = {"steps": steps, "images": images, "energy_j": energy_j, "bound_j": 0.5 * images}
    return place | numbers | {"duration_s": duration_s}


def test_energy_per_step_is_the_slope_and_the_rest_its_intercept() -> None:
    # an image of N steps: 30 J + N · 40 J, at 400 W
    lines = tables.size_lines([size(4, 2, 2 * 190.0, 2 * 0.475), size(16, 4, 4 * 670.0, 4 * 1.675)])
    assert cells(lines, 0) == [
        *("sdxl", "1024", "1", "4: 190 ± 0.5; 16: 670 ± 0.5", "40", "30", "1030", "400"),
        "969.4",
    ]


def test_joules_per_image_of_a_run_gross_and_net(tmp_path: Path) -> None:
    trials = [
        {"cell_id": "a", "failure": None, "energy_j": 100.0, "net_energy_j": 40.0, "image_count": 4, "iterations": 2},
        {"cell_id": "a", "failure": None, "energy_j": 60.0, "net_energy_j": 24.0, "image_count": 4, "iterations": 1},
        {"cell_id": "b", "failure": "no", "energy_j": 9.0, "net_energy_j": 9.0, "image_count": 0, "iterations": 0},
        {"cell_id": "c", "failure": None, "energy_j": 8.0, "net_energy_j": None, "image_count": 2, "iterations": 1},
    ]
    text = "".join(json.dumps(trial | {"duration_s": 1.2}) + "\n" for trial in trials)
    (tmp_path / "trials.jsonl").write_text(text)
    lines = tables.run_lines(tmp_path)
    assert cells(lines, 0) == ["a", "2", "13.33", "5.333", "0.2"]
    assert cells(lines, 1) == ["c", "1", "4", "", "0.6"]


def test_a_window_equals_its_parts_and_the_rest_between() -> None:
    part = {"energy_j": 40.0, "bound_j": 1.0}
    record = {
        "kind": "sum",
        "whole_j": 101.0,
        "whole_bound_j": 2.0,
        "parts": [part, part],
        "idle_w": 50.0,
        "rest_s": 0.4,
    }
    assert cells(tables.sum_lines([record]), 0) == ["101", "80 + 20", "+1", "4"]
    assert tables.sum_lines([record | {"whole_j": None}]) == []


def test_verdicts_of_the_second_session(tmp_path: Path) -> None:
    path = tmp_path / "second.json"
    tests = [{"nodeid": "x.py::test_a", "mean_j": 2.5}, {"nodeid": "x.py::test_b", "mean_j": None}]
    judged = {"x.py::test_a": {"outcome": "pass", "reason": "energy +0.1%"}}
    path.write_text(json.dumps({"tests": tests, "judged": judged}))
    lines = tables.verdict_lines(path)
    assert cells(lines, 0) == ["test_a", "2.5", "pass", "energy +0.1%"]
    assert cells(lines, 1)[:2] == ["test_b", "absent"]
    assert tables.verdict_lines(tmp_path / "none.json") == []


def test_failed_tests_are_named(tmp_path: Path) -> None:
    file = tmp_path / "tests-gpu.xml"
    file.write_text(
        '<testsuites><testsuite tests="3" skipped="1"><testcase name="test_a"/>'
        '<testcase name="test_b"><failure/></testcase><testcase name="test_c"><error/></testcase>'
        "</testsuite></testsuites>"
    )
    assert cells(tables.junit_lines([file]), 0) == ["tests-gpu", "3", "1", "2", "test_b, test_c"]


def test_power_at_rest_is_taken_between_changes_of_the_counter() -> None:
    # 120 W by updates every 0.1 s, seen every 0.03 s
    rows = [(0.03 * i, 12_000 * int(0.03 * i / 0.1 + 1e-9), 119.0, 1980) for i in range(61)]
    lines = tables.rest_lines([{"kind": "rest", "when": "bare", "rows": rows}])
    when, part, counter_w, instant_w, clock = cells(lines, 0)
    assert (when, part, instant_w, clock) == ("bare", "first third", "119.0", "1980")
    assert abs(float(counter_w) - 120) < 10  # edges are seen to within 0.03 s


def test_no_records_give_no_tables(tmp_path: Path) -> None:
    assert tables.print_summary(tmp_path) == 0
