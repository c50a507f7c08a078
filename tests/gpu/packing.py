"""The packages that an offline machine lacks, in one file; unpacking needs the standard library only.

kit.tar.xz
  manifest.json       commit, Python version, packages
  site/…              what pip would install, without the packages that the machine has
"""

from __future__ import annotations

import hashlib
import json
import lzma
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

# pip matches the version of glibc in a wheel's name exactly, so every one that a current system has is named
_PLATFORMS = [
    *(f"manylinux_2_{minor}_x86_64" for minor in range(35, 4, -1)),
    *("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"),
]
_EXTRAS = "run,metrics,deepcache"
_FILTERS = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 64 * 2**20}]


def pack_kit(kit: Path, python: str, installed: Path | None, more: list[str]) -> int:
    """Resolve, download and pack; return 1 if pip fails."""
    from perjoule.runs.commit import checked_out_commit
    from tests.gpu.stages import ROOT

    present = _present(installed)
    with tempfile.TemporaryDirectory() as folder:
        wheels, site = Path(folder) / "wheels", Path(folder) / "site"
        site.mkdir()
        missing = _resolve(Path(folder), python, present, more)
        if missing is None:
            return 1
        pins = [f"{name}=={version}" for name, version in sorted(missing.items())]
        if pins and _pip("download", "--no-deps", "-q", *_target(python), "-d", str(wheels), *pins).returncode:
            return 1
        for wheel in sorted(wheels.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)
        _copy_own_metadata(site)
        manifest = {"commit": checked_out_commit(ROOT), "python": python, "packages": missing}
        (Path(folder) / "manifest.json").write_text(json.dumps(manifest, indent=1))
        with (
            lzma.open(kit, "wb", format=lzma.FORMAT_XZ, filters=_FILTERS) as file,
            tarfile.open(fileobj=file, mode="w") as tar,
        ):
            tar.add(Path(folder) / "manifest.json", arcname="manifest.json", filter=_anonymous)
            tar.add(site, arcname="site", filter=_anonymous)
    print(f"{kit}: {kit.stat().st_size / 2**20:.1f} MiB, {len(missing)} packages: {', '.join(pins)}")
    return 0


def _present(installed: Path | None) -> dict[str, str]:
    """Read `pip freeze`, or names only: version by normal name, without local parts as in 2.11.0+cu130."""
    found = {}
    for line in installed.read_text(encoding="utf-8").splitlines() if installed is not None else ():
        name, _, version = line.strip().partition("==")
        if name and not name.startswith(("#", "-")):
            found[_normal(name.partition("@")[0].strip())] = version.partition("+")[0]
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _target(python: str) -> list[str]:
    platforms = [word for platform in _PLATFORMS for word in ("--platform", platform)]
    return ["--only-binary=:all:", "--python-version", python, "--implementation", "cp", *platforms]


def _pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr[-3000:], file=sys.stderr)
    return done


def _resolve(folder: Path, python: str, present: dict[str, str], more: list[str]) -> dict[str, str] | None:
    """Let pip resolve perjoule's requirements with the present versions; return those that are missing."""
    constraints, report = folder / "constraints.txt", folder / "report.json"
    requirements = [*_requirements(), *more]
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in present.items() if version))
    done = _pip(
        # pip compares with the Python that it runs in; the download compares with the right one
        "install", "--dry-run", "--ignore-installed", "--ignore-requires-python", "-q", "--target", str(folder / "none"), *_target(python),
        "-c", str(constraints), "--report", str(report), *requirements,
    )  # fmt: skip
    if done.returncode:
        return None
    found: list[dict[str, Any]] = [entry["metadata"] for entry in json.loads(report.read_text())["install"]]
    return {_normal(one["name"]): one["version"] for one in found if _normal(one["name"]) not in present}


def _requirements() -> list[str]:
    """perjoule's own requirements, those of the extras that the check uses, and what the stage `tests` needs."""
    import tomllib

    from tests.gpu.stages import ROOT

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    chosen = [one for name in _EXTRAS.split(",") for one in extras[name] if not one.startswith("perjoule[")]
    tests = [one for one in extras["dev"] if one.startswith(("hypothesis", "pytest-xdist"))]
    return [*project["dependencies"], *chosen, *tests]


def _copy_own_metadata(site: Path) -> None:
    """perjoule runs from the checkout; its metadata makes version and entry points known there."""
    from importlib.metadata import distribution

    own = distribution("perjoule")
    folder = site / f"perjoule-{own.version}.dist-info"
    folder.mkdir()
    for name in ("METADATA", "entry_points.txt", "WHEEL"):
        (folder / name).write_text(own.read_text(name) or "", encoding="utf-8")


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    return member


def unpack_kit(kit: Path) -> Path:
    """Unpack a kit once per content into the temporary folder; return the folder of packages."""
    digest = hashlib.sha256(kit.read_bytes()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"perjoule-kit-{digest}"
    if not folder.exists():
        part = Path(tempfile.mkdtemp(prefix="perjoule-kit-", dir=folder.parent))
        with tarfile.open(kit, "r:xz") as tar:
            tar.extractall(part, filter="data")
        part.rename(folder)
    python = json.loads((folder / "manifest.json").read_text())["python"]
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if python != here:
        raise SystemExit(f"{kit} is for Python {python}, and this is {here}: pack it with --python {here}")
    return folder / "site"
