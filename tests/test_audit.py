from __future__ import annotations

from tests.audit import problems

FAULT = {"id": "PYSEC-1", "fix_versions": ["2.1", "3.0"], "aliases": [], "description": ""}


def test_vulnerabilities_and_packages_that_were_not_looked_up_are_problems() -> None:
    report = {
        "dependencies": [
            {"name": "safe", "version": "1.0", "vulns": []},
            {"name": "faulty", "version": "2.0", "vulns": [FAULT, FAULT | {"fix_versions": []}]},
            {"name": "unknown", "skip_reason": "Dependency not found on PyPI and could not be audited: unknown (1.0)"},
            {"name": "torch", "skip_reason": "Dependency not found on PyPI and is not there: torch (2.9.0+cpu)"},
            {"name": "perjoule", "skip_reason": "distribution marked as editable"},
        ],
        "fixes": [],
    }
    assert problems(report) == [
        "faulty 2.0: PYSEC-1, fixed in 2.1, 3.0",
        "faulty 2.0: PYSEC-1, fixed in none",
        "1 of 4 packages were not looked up: unknown",
    ]
    assert problems({"dependencies": report["dependencies"][:1], "fixes": []}) == []
