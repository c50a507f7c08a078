"""Known vulnerabilities of the installed packages.

    python -m tests.audit        or: tox -e audit

pip-audit exits with 0 even if it could look up none of the packages, e.g. because an index has no such data. This fails
then, and names them. Builds of their own, e.g. torch 2.9.0+cpu, are in no database; they are only listed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

COMMAND = ("-m", "pip_audit", "--local", "--skip-editable", "--progress-spinner=off", "--format=json")


def problems(report: dict[str, Any]) -> list[str]:
    """Return a sentence for each vulnerability, and for the packages that were not looked up."""
    packages = [package for package in report["dependencies"] if package["name"] != "perjoule"]
    found = [
        f"{package['name']} {package['version']}: {fault['id']}, fixed in {', '.join(fault['fix_versions']) or 'none'}"
        for package in packages
        for fault in package.get("vulns", ())
    ]
    unknown = [package["name"] for package in packages if "+" not in package.get("skip_reason", "+")]
    if unknown:
        found.append(f"{len(unknown)} of {len(packages)} packages were not looked up: {', '.join(unknown)}")
    return found


def main() -> int:
    """Audit this environment, and return the exit code."""
    audit = subprocess.run([sys.executable, *COMMAND], stdout=subprocess.PIPE, text=True, check=False)
    if not audit.stdout.startswith("{"):
        print(f"pip-audit failed with exit code {audit.returncode}")
        return 1
    report = json.loads(audit.stdout)
    own = [package["skip_reason"] for package in report["dependencies"] if "+" in package.get("skip_reason", "")]
    found = problems(report)
    print(*own, *found, f"{len(report['dependencies'])} packages, {len(found)} problems", sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
