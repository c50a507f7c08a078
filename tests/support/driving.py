"""Drive perjoule's commands in this process on damaged inputs, and judge how they ended."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

ALLOWED = {0, 1, 2, 3, 4, 74, 130}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended. `trace`: of the error that ended it."""

    arguments: tuple[str, ...]
    code: int
    out: str
    err: str
    trace: str

    def faults(self) -> list[str]:
        """What is wrong with that, whatever the input was."""
        found = []
        said = [line for line in self.err.splitlines() if line.startswith("perjoule: ")]
        if self.code not in ALLOWED:
            found.append(f"exit code {self.code}")
        if "Traceback" in self.err or "Traceback" in self.out:
            found.append("a traceback is printed")
        if self.code in (2, 74) and len(said) != 1:
            found.append(f"{len(said)} messages, not one")
        if self.code == 4 and not said and not self.out:
            found.append("no word about what is wrong")
        if self.code == 1 and not (self.arguments[0] == "gate" and "FAIL" in self.out.upper()):
            found.append("exit code 1 without the verdict FAIL")
        if any(ord(sign) < 32 and sign not in "\r\n\t" for sign in self.err + self.out):
            found.append("control characters are printed")
        if "--json" in self.arguments:
            try:
                json.loads(self.out, parse_constant=_refuse)
            except ValueError as error:
                found.append(f"stdout is not JSON: {error}")
        return found

    def __str__(self) -> str:
        return (
            f"perjoule {' '.join(self.arguments)}\n-> {self.code}\nstderr: {self.err[-1500:]}\n{_shortened(self.trace)}"
        )


def _shortened(trace: str) -> str:
    """The frames of perjoule, and what was raised."""
    lines = trace.splitlines()
    return "\n".join([*(line for line in lines if "perjoule" in line and "File" in line), *lines[-1:]])


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def drive(*arguments: str | Path) -> Ended:
    """Run a command in this process."""
    from perjoule import cli
    from perjoule.commands import outcome

    words = tuple(map(str, arguments))
    traces: list[str] = []

    def command() -> object:
        try:
            return cli.app(list(words), standalone_mode=False)
        except BaseException as error:
            traces.append("".join(traceback.format_exception(error)))
            raise

    out, err = io.StringIO(), io.StringIO()
    before = signal.getsignal(signal.SIGINT)
    try:
        argv = patch.object(sys, "argv", ["perjoule", *words])
        with argv, patch.dict(os.environ), redirect_stdout(out), redirect_stderr(err):  # --offline sets a variable
            code = outcome.status_of(command)
    finally:
        signal.signal(signal.SIGINT, before)
    return Ended(arguments=words, code=code, out=out.getvalue(), err=err.getvalue(), trace="".join(traces))


@contextmanager
def fakes() -> Iterator[None]:
    """Instant pipelines and a meter of known power in place of the real ones."""
    import pytest

    from perjoule.running import device
    from perjoule.running.trial import GeneratorCache
    from perjoule.testing import FakeFactory, FakeGenerator, SyntheticMeter, VirtualClock

    with pytest.MonkeyPatch.context() as patch:
        clock = VirtualClock()
        factory = FakeFactory(FakeGenerator(clock=clock, step_s=1.0))
        patch.setattr(device, "generators_of", lambda suite, source: GeneratorCache(factory, lambda v: v.name))

        @contextmanager
        def meter(name: str, *, of_networks: bool) -> Iterator[SyntheticMeter]:
            yield SyntheticMeter(10.0, clock)

        patch.setattr(device, "open_meter", meter)
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@contextmanager
def counted_joules() -> Iterator[None]:
    """Real pipelines, and a meter of 10 J per step and image, so that nothing depends on the load of the machine."""
    import pytest

    from perjoule.running import device
    from perjoule.testing import SyntheticMeter, VirtualClock
    from perjoule_suites.diffusers_generator import DiffusersGenerator

    clock, call = VirtualClock(), DiffusersGenerator.call

    def counted(self: DiffusersGenerator, arguments: dict[str, Any]) -> Any:
        images = call(self, arguments)
        clock.advance(float(arguments["num_inference_steps"] * len(images)))
        return images

    @contextmanager
    def meter(name: str, *, of_networks: bool) -> Iterator[SyntheticMeter]:
        yield SyntheticMeter(10.0, clock)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DiffusersGenerator, "call", counted)
        patch.setattr(device, "open_meter", meter)
        yield


def left_behind(folder: Path) -> set[str]:
    """Every path below a folder; the reader of a failed command finds none more than before."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}
