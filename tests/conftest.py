"""Every test leaves the process as it found it, so that no test depends on the order."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

# what is remembered of this machine's boards must not reach a test
os.environ["PERJOULE_STATE"] = tempfile.mkdtemp(prefix="perjoule-state-")
atexit.register(shutil.rmtree, os.environ["PERJOULE_STATE"], ignore_errors=True)

# set by pytest itself, lengthened by polars at every import, set to nothing by pycvvdp when it is imported
_FREE = {"PYTEST_CURRENT_TEST", "_RJEM_MALLOC_CONF", "HF_HUB_TOKEN"}


def process_state() -> dict[str, Any]:
    """What tests share: what one changes and does not put back, the next one meets."""
    state: dict[str, Any] = {
        "the working directory": str(Path.cwd()),
        # libraries add folders of their own when they are first imported
        "sys.path": [entry for entry in sys.path if "site-packages" not in entry],
        "logging.disable": logging.root.manager.disable,
        **{f"signal {s.name}": signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)},
        **{f"environment variable {k}": v for k, v in os.environ.items() if k not in _FREE},
    }
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads"):
        state |= {
            "torch's threads": torch.get_num_threads(),
            "torch's default dtype": torch.get_default_dtype(),
            "torch's gradients": torch.is_grad_enabled(),
            "torch's deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        }
    return state


def lost_modules(before: dict[str, Any]) -> list[str]:
    """Modules that are gone or were imported again: their classes are others now, and what they remember is lost."""

    def is_kept(name: str, module: Any) -> bool:
        now = sys.modules.get(name)
        # a lazy module puts an object of a class of its own in its place
        return now is module or (isinstance(now, ModuleType) and type(now) is not ModuleType)

    return sorted(name for name, module in before.items() if not is_kept(name, module))


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What differs. Variables and states that are new come with an import."""
    found = [f"{key}: {value!r} became {after.get(key)!r}" for key, value in before.items() if after.get(key) != value]
    ours = ("PERJOULE", "HF_", "PYTHON", "OMP_", "CUDA")
    fresh = [key for key in after.keys() - before.keys() if key.removeprefix("environment variable ").startswith(ours)]
    return found + [f"{key} is new: {after[key]!r}" for key in sorted(fresh)]


@pytest.fixture(autouse=True)
def _no_traces() -> Iterator[None]:
    """Fails a test that changes what other tests share. Set up first, torn down last."""
    modules, before = dict(sys.modules), process_state()
    yield
    traces = changes(before, process_state())
    lost = lost_modules(modules)
    if lost:
        traces.append(f"{len(lost)} modules were lost or replaced: {', '.join(lost[:5])}")
    if traces:
        pytest.fail("left behind: " + "; ".join(traces), pytrace=False)


@pytest.fixture(scope="module")  # playwright keeps an event loop in the main thread
def browser() -> Iterator[Any]:
    """One headless Chromium for the tests of a module; see `tests.support.browsing`."""
    from playwright.sync_api import sync_playwright

    from tests.support.browsing import CHROMIUM

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--disable-quic"])
        yield browser
        browser.close()
