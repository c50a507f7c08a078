"""Describes the system under test, and the part of it that must agree if two runs are compared."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from perjoule import __version__
from perjoule.errors import MeterError
from perjoule.meters.base import BaseMeter
from perjoule.meters.identity import cpu_name
from perjoule.meters.known import recall, subject
from perjoule.meters.nvml import describe_gpus, visible_gpus
from perjoule.meters.proof import Proof, summary
from perjoule.protocols import EnergyMeter
from perjoule.runs.commit import checked_out_commit
from perjoule.runs.environment_record import ProofRecord
from perjoule.runs.torch_settings import torch_settings
from perjoule.text import without_uuids
from perjoule.types import Suite

_PACKAGES = (
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "numpy",
    "cvvdp",
    "pyiqa",
    "nvidia-ml-py",
    "codecarbon",
)


def describe(suite: Suite, meter: EnergyMeter, model_digests: dict[str, str], command: list[str]) -> dict[str, Any]:
    """Return everything that can change an energy or an image, for `environment.json`.

    `comparability` contains the keys whose difference makes joules incomparable; `comparability_key` is its digest.
    """
    system = system_of(meter)
    packages = {name: installed for name in _PACKAGES if (installed := _version(name))}
    comparability = {**system, "models": model_digests}
    if not (isinstance(meter, BaseMeter) and meter.counts_work):  # counted joules do not depend on speed
        comparability |= {
            "torch": packages.get("torch", ""),
            "diffusers": packages.get("diffusers", ""),
            "threads": suite.protocol.threads or os.cpu_count(),
        }
    key = hashlib.sha256(json.dumps(comparability, sort_keys=True).encode()).hexdigest()[:16]
    record: dict[str, Any] = {
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "perjoule": __version__,
        # a UUID on the command line is replaced by the meter's name for the board
        "command": [re.sub(r"nvml:(?!all$).+", meter.name, word) for word in command],
        "suite": suite.name,
        "meter": {
            "name": meter.name,
            "why": meter.why,
            "notes": list(getattr(meter, "notes", ())),
            "proof": asdict(_proof(meter)),
        },
        "models": model_digests,
        "gpu": nvidia_gpus(),
        "torch": torch_settings(),
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count(),
        "ram_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "os": platform.platform(),
        "python": sys.version.split()[0],
        "packages": packages,
        # uncommitted changes are not recorded: to find them, git may run programs that the folder configures
        "commit": checked_out_commit(Path()),
        "comparability": comparability,
        "comparability_key": key,
        "fingerprint": key,
    }
    return {key: _scrubbed(value) for key, value in record.items()}


def _proof(meter: EnergyMeter) -> ProofRecord:
    """Return the result of the last `doctor --prove` of this meter."""
    if not isinstance(meter, BaseMeter):
        return ProofRecord(why="this meter cannot be proved")
    try:
        proof = recall(subject(meter), "proof", Proof)
    except MeterError:
        return ProofRecord(why="the stored proof cannot be read")
    if proof is None:
        return ProofRecord(why="perjoule doctor --prove was not run for this meter")
    return ProofRecord(verdict=proof.verdict, why=summary(proof), digest=proof.digest, created_utc=proof.created_utc)


def system_of(meter: EnergyMeter) -> dict[str, Any]:
    """Return the keys that must agree if two readings of this kind of meter are compared.

    They describe the measured boards, not all boards in the host. A meter of the CPU adds the visible GPUs, because the
    work may use them unmeasured, and the CPU time depends on them.
    """
    boards = meter.describe() if isinstance(meter, BaseMeter) else ()
    kind = meter.name.split(":")[0]
    if isinstance(meter, BaseMeter) and meter.counts_work and meter.device:
        return {"device": meter.device.digest, "meter": kind, "driver": "", "power_limit_w": []}
    if boards:
        return {
            "device": [board.model for board in boards],
            "meter": kind,
            "driver": boards[0].driver.split(".")[0],
            "power_limit_w": [board.limit_w for board in boards],
        }
    system: dict[str, Any] = {"device": cpu_name(), "meter": kind, "driver": "", "power_limit_w": []}
    gpus = list(visible_gpus())
    return system | ({"visible_gpus": gpus} if gpus else {})


def gpu_name() -> str | None:
    """Return the name of the first NVIDIA GPU; None if there is none or its name is unknown."""
    gpus = nvidia_gpus()
    return gpus[0]["name"] if gpus else None


def nvidia_gpus() -> list[dict[str, Any]]:
    """Return name, digest, driver, memory and power limit of each NVIDIA GPU; None for unknown values."""
    return describe_gpus()


def _scrubbed(value: Any) -> Any:
    """Replace UUIDs in all texts by digests, because the record is shared."""
    if isinstance(value, str):
        return without_uuids(value)
    if isinstance(value, dict):
        return {key: _scrubbed(item) for key, item in value.items()}
    return [_scrubbed(item) for item in value] if isinstance(value, list) else value


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
