from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from perjoule.testing import HubMirror
from perjoule.types import Variant
from perjoule.weights.catalogue import catalogue
from perjoule_suites.testing import build

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All repositories of the built-in suites, tiny."""
    return build(tmp_path_factory.mktemp("repositories"))


@pytest.fixture(scope="session")
def mirror(repositories: Path) -> Iterator[HubMirror]:
    with mirror_of(repositories) as server:
        yield server


def mirror_of(folder: Path) -> HubMirror:
    """A mirror with the catalogue's gates and commits."""
    known = catalogue()
    return HubMirror(
        folder,
        gated={name for name, facts in known.items() if facts.gated},
        commits={name: facts.revision for name, facts in known.items() if facts.revision},
    )


def run_python(arguments: list[str], environment: dict[str, str], **options: Any) -> subprocess.CompletedProcess[str]:
    """This interpreter in the repository's root, offline unless the environment says otherwise."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


class Worker:
    """A process that loads variants from a mirror, for tests that want more than one of them."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.perjoule_suites.hub.worker"],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def load(self, variant: Variant, **more: Any) -> dict[str, Any]:
        """What the process says of it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"variant": asdict(variant), **more}) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        raise RuntimeError(f"the worker ended with {self._process.wait()}")

    def error(self, variant: Variant) -> str:
        """The message for people."""
        found = self.load(variant)
        assert found.get("exit_code") == 2, found
        return str(found["error"])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


class Shelf:
    """A mirror of copies of one small repository under ids of a test's own, a cache, and a process that loads them."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self._model = folder, model
        self.repositories = folder / "repositories"
        self.home = folder / "home"
        self.repositories.mkdir()
        self.mirror = HubMirror(self.repositories, gated={"test/gated"})
        self.mirror.__enter__()
        self.worker = Worker(self.mirror.environment(self.home))

    def put(self, name: str) -> Variant:
        """A variant of a fresh copy."""
        shutil.copytree(self._model, self.repositories / name)
        return Variant(name="v", model=name, steps=(2,), guidance=7.5, width_px=32, height_px=32)

    def blob(self, name: str, file: str) -> Path:
        """Where the cache keeps a file."""
        (found,) = (self.home / "hub" / f"models--{name.replace('/', '--')}" / "snapshots").glob(f"*/{file}")
        return found.resolve()


@contextmanager
def shelf_of(folder: Path, repositories: Path) -> Iterator[Shelf]:
    """A shelf of copies of the smallest repository."""
    made = Shelf(folder, repositories / "nota-ai" / "bk-sdm-tiny")
    yield made
    made.worker.close()
    made.mirror.__exit__(None, None, None)


@pytest.fixture(scope="module")
def shelf(repositories: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    with shelf_of(tmp_path_factory.mktemp("shelf"), repositories) as made:
        yield made
