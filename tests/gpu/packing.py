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
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

# pip matches the version of glibc in a wheel's name exactly, so every one that a current system has is named
_PLATFORMS = [
    *(f"manylinux_2_{minor}_x86_64" for minor in range(35, 4, -1)),
    *("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"),
]
_EXTRAS = "run,metrics,deepcache"
_FILTERS = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 64 * 2**20}]


def pack_kit(kit: Path, python: str, installed: Path | None, more: list[str]) -> int:
    """Find what is missing, download and pack it; return 1 if a package cannot be downloaded.

    The versions are those of this environment, in which the tests run, except for those of `more`, e.g. a smaller
    release. Packages of `more` are taken without what they require.
    """
    from perjoule.runs.commit import checked_out_commit
    from tests.gpu.stages import ROOT

    present = _present(installed)
    given = {_normal(re.split(r"[=<>~ ]", one, maxsplit=1)[0]) for one in more}
    missing = {name: version for name, version in _required(python).items() if name not in present | given}
    pins = [*(f"{name}=={version}" for name, version in sorted(missing.items())), *more]
    with tempfile.TemporaryDirectory() as folder:
        wheels, site = Path(folder) / "wheels", Path(folder) / "site"
        site.mkdir()
        lost = [pin for pin in pins if not _download(pin, python, wheels)]
        if lost:
            print(f"not downloaded: {', '.join(lost)}", file=sys.stderr)
            return 1
        for wheel in sorted(wheels.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)
        for name in ("tests", "docs", "examples"):  # which some packages install by mistake, next to ours
            shutil.rmtree(site / name, ignore_errors=True)
        _copy_own_metadata(site)
        manifest = {"commit": checked_out_commit(ROOT), "python": python, "packages": pins}
        (Path(folder) / "manifest.json").write_text(json.dumps(manifest, indent=1))
        with (
            lzma.open(kit, "wb", format=lzma.FORMAT_XZ, filters=_FILTERS) as file,
            tarfile.open(fileobj=file, mode="w") as tar,
        ):
            tar.add(Path(folder) / "manifest.json", arcname="manifest.json", filter=_anonymous)
            tar.add(site, arcname="site", filter=_anonymous)
    print(f"{kit}: {kit.stat().st_size / 2**20:.1f} MiB, {len(pins)} packages: {', '.join(pins)}")
    return 0


def _present(installed: Path | None) -> set[str]:
    """Read the normal names of packages from `pip freeze`, or from a list of names."""
    lines = [] if installed is None else installed.read_text(encoding="utf-8").splitlines()
    names = (re.split(r"[=@ ]", line.strip(), maxsplit=1)[0] for line in lines)
    return {_normal(name) for name in names if name and not name.startswith(("#", "-"))}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _required(python: str) -> dict[str, str]:
    """Return perjoule's requirements, with theirs, as installed here: version by normal name.

    Includes the extras that the check uses, and what the stage `tests` needs.
    """
    from importlib.metadata import distribution

    from packaging.requirements import Requirement

    target = {"python_version": python, "python_full_version": f"{python}.0"}
    found: dict[str, str] = {}
    todo = [Requirement(f"perjoule[{_EXTRAS}]"), Requirement("hypothesis"), Requirement("pytest-xdist")]
    seen: set[tuple[str, str]] = set()
    while todo:
        wanted = todo.pop()
        name = _normal(wanted.name)
        extras = {"", *wanted.extras} - {extra for known, extra in seen if known == name}
        if not extras:
            continue
        seen |= {(name, extra) for extra in extras}
        own = distribution(name)
        if name != "perjoule":
            found[name] = own.version
        for line in own.requires or ():
            one = Requirement(line)
            if one.marker is None or any(one.marker.evaluate({**target, "extra": extra}) for extra in extras):
                todo.append(one)
    return found


def _download(pin: str, python: str, wheels: Path) -> bool:
    """Download the wheel of a package for that Python; build one where there is only a source of pure Python."""
    platforms = [word for platform in _PLATFORMS for word in ("--platform", platform)]
    target = ["--only-binary=:all:", "--python-version", python, "--implementation", "cp", *platforms]
    if _pip("download", "--no-deps", *target, "-d", str(wheels), pin).returncode == 0:
        return True
    built = wheels.with_name("built")
    done = _pip("wheel", "--no-deps", "-w", str(built), pin)
    found = list(built.glob("*-none-any.whl"))
    for wheel in found:
        wheel.rename(wheels / wheel.name)
    if not found:
        print(done.stderr[-3000:], file=sys.stderr)
    return bool(found)


def _pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "pip", "-q", *arguments], capture_output=True, text=True, check=False)


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
