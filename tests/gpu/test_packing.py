from __future__ import annotations

import json
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.gpu import packing


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kit for this Python with one package; unpacked below `tmp_path`."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(packing.tempfile, "tempdir", str(tmp_path / "tmp"))
    return write_kit(tmp_path / "kit.tar.xz", f"{sys.version_info.major}.{sys.version_info.minor}")


def write_kit(path: Path, python: str) -> Path:
    site = path.with_name("site")
    site.mkdir(exist_ok=True)
    (site / "module.py").write_text("answer = 42\n")
    manifest = path.with_name("manifest.json")
    manifest.write_text(json.dumps({"python": python}))
    with tarfile.open(path, "w:xz") as tar:
        tar.add(manifest, arcname="manifest.json")
        tar.add(site, arcname="site")
    return path


def test_a_kit_is_unpacked_once(kit: Path) -> None:
    site = packing.unpack_kit(kit)
    assert (site / "module.py").read_text() == "answer = 42\n"
    (site / "module.py").write_text("answer = 43\n")
    assert packing.unpack_kit(kit) == site
    assert (site / "module.py").read_text() == "answer = 43\n"


def test_a_kit_for_another_python_is_refused(tmp_path: Path, kit: Path) -> None:
    other = write_kit(tmp_path / "other.tar.xz", "3.99")
    with pytest.raises(SystemExit, match=r"other\.tar\.xz is for Python 3\.99, and this is 3\.\d+: pack it with"):
        packing.unpack_kit(other)


def test_present_packages_are_named_as_pip_names_them(tmp_path: Path) -> None:
    listed = tmp_path / "installed.txt"
    listed.write_text(
        "# of the image\nTyping_Extensions==4.1\ntorch==2.11.0+cu130\npillow @ file:///build/pillow\nnumpy\n"
    )
    assert packing._present(listed) == {"typing-extensions", "torch", "pillow", "numpy"}


def test_requirements_of_requirements_are_packed_in_the_versions_of_this_environment() -> None:
    required = packing._required("3.12")
    assert {"polars", "diffusers", "lpips", "deepcache", "pytest-xdist", "execnet", "typing-extensions"} <= set(
        required
    )
    assert required["polars"] == version("polars")
    assert not {"perjoule", "codecarbon", "mkdocs-material"} & set(required)


def test_markers_are_those_of_the_other_python(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own:
        version = "1"

        def __init__(self, requires: list[str]) -> None:
            self.requires = requires

    known = {
        "perjoule": Own(["new; python_version >= '3.12'", "old; python_version < '3.12'", "more; extra == 'run'"]),
        **{name: Own([]) for name in ("new", "old", "more", "hypothesis", "pytest-xdist")},
    }
    monkeypatch.setattr("importlib.metadata.distribution", known.__getitem__)
    assert set(packing._required("3.12")) == {"new", "more", "hypothesis", "pytest-xdist"}
    assert set(packing._required("3.11")) == {"old", "more", "hypothesis", "pytest-xdist"}
