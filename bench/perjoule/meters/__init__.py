"""Energy meters: sources of joules, opened by name.

`auto` opens the best meter that works on this machine and records why; a named meter opens or raises the reason.
Importing this package loads neither torch nor pynvml nor codecarbon.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perjoule.errors import MeterError, PerjouleError, UnknownNameError, install_command
from perjoule.meters.base import BaseMeter
from perjoule.meters.sensor import chosen, split_name, stated
from perjoule.warnings import warning

if TYPE_CHECKING:  # importing it at run time would load numpy
    from perjoule.protocols import EnergyMeter

__all__ = ["METER_NAMES", "MeterInfo", "list_meters", "open_meter", "require_meter"]

METER_NAMES = ("auto", "nvml", "nvml:UUID", "rapl", "work", "work:PROFILE", "estimate", "replay:FILE")


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterInfo:
    """An entry of `list_meters`: the name to type, whether the meter works here, and the reason."""

    name: str
    available: bool
    why: str


def open_meter(name: str = "auto", *, of_networks: bool = False) -> EnergyMeter:
    """Open a meter; use it as a context manager, or close it.

    Args:
        name: `auto`, `nvml`, `nvml:UUID` (or a prefix of it, or the board's digest as in records), `rapl`, `work`,
            `work:PROFILE`, `estimate` or `replay:FILE`. A name that ends in `@stored` or `@GAIN,OFFSET[,W]` corrects
            every reading for the gain and the offset of the board's sensor (see `perjoule.meters.sensor`).
        of_networks: The windows contain networks of torch in this process, so that `auto` prefers counted work to an
            estimate by CPU time.

    Returns:
        The meter, ready for windows. Opening takes about a second for NVML and codecarbon.

    Raises:
        UnknownNameError: There is no such meter.
        MeterError: The meter does not work here; the message contains the reason.
    """
    return open_base_meter(name, of_networks=of_networks)


def open_base_meter(name: str = "auto", *, of_networks: bool = False) -> BaseMeter[Any]:
    """Open a meter like `open_meter`, for callers that need more than the protocol, such as facts about its boards."""
    plain, sensor = split_name(name)
    if sensor not in (None, "stored"):
        stated(sensor or "")
    meter = _open_best(of_networks) if plain == "auto" else _open(plain)
    if sensor is not None:
        try:
            meter.sensor = chosen(sensor, meter.device.digest if meter.device else None)
        except PerjouleError:
            meter.close()
            raise
    return meter


def require_meter(name: str) -> None:
    """Raise UnknownNameError if there is no meter of that name; opens nothing."""
    kind, separator, _ = split_name(name)[0].partition(":")
    if kind not in ("nvml", "replay", "work") and (separator or kind not in ("auto", "rapl", "estimate")):
        raise UnknownNameError("meter", name, METER_NAMES)


def _open(name: str) -> BaseMeter[Any]:
    require_meter(name)
    kind, separator, detail = name.partition(":")
    if separator and not detail:
        what = {"nvml": "board", "work": "profile"}.get(kind, "file")
        raise MeterError(f"{name!r} does not name a {what}: write {kind}:…")
    if kind == "nvml":
        from perjoule.meters.nvml import open_nvml

        return open_nvml(detail)
    if name == "rapl":
        from perjoule.meters.rapl import RaplMeter

        return _without_gpus(RaplMeter())
    if name == "estimate":
        from perjoule.meters.estimate import EstimateMeter

        return _without_gpus(EstimateMeter())
    if kind == "work":
        from perjoule.meters.work import WorkMeter, choose_profile

        return WorkMeter(choose_profile(detail))
    if kind == "replay" and detail:
        from perjoule.meters.replay import ReplayMeter

        return ReplayMeter(Path(detail))
    raise MeterError("the replay meter needs a stored trace: write replay:FILE")


def _without_gpus(meter: BaseMeter[Any]) -> BaseMeter[Any]:
    """Open the meter of a CPU, with a warning if there are GPUs whose energy it does not include."""
    from perjoule.meters.nvml import visible_gpus

    gpus = visible_gpus()
    if gpus:
        count = Counter(gpus)
        listed = ", ".join(f"{n} x {model}" if n > 1 else model for model, n in count.items())
        said = f"the joules are those of the CPU ({meter.name}) and do not include {listed}"
        meter.notes = (*meter.notes, warning("W232", said))
    return meter


def _open_best(of_networks: bool) -> BaseMeter[Any]:
    """Open the first meter that works; its `why` includes the reasons against the others."""
    reasons: list[str] = []
    for name in ("nvml", "rapl", *(("work",) if of_networks else ()), "estimate"):
        try:
            meter = _open(name)
        except MeterError as error:
            reasons.append(f"{name} was not used ({str(error).removeprefix(f'{name}: ')})")
            continue
        meter.add_reasons(reasons)
        return meter
    raise MeterError(f"no energy source works here: {'; '.join(reasons)}")


def list_meters() -> list[MeterInfo]:
    """List the meters of this machine, without keeping any of them open."""
    return [*_list_nvml(), _list_rapl(), _list_work(), _list_estimate(), _REPLAY]


_REPLAY = MeterInfo(
    name="replay:FILE", available=True, why="replays a stored power log (nvidia-smi, DCGM, Zeus, CSV, Parquet)"
)


def _list_nvml() -> list[MeterInfo]:
    from perjoule.meters.nvml import describe_nvml

    try:
        boards = describe_nvml()
    except MeterError as error:
        return [MeterInfo(name="nvml", available=False, why=str(error))]
    if not boards:
        return [MeterInfo(name="nvml", available=False, why="nvml: the driver lists no GPU; see `nvidia-smi -L`")]
    return [
        MeterInfo(
            name=f"nvml:{board.label}",
            available=True,
            why=f"{board.model or 'unknown model'}, GPU {board.index} of `nvidia-smi -L`",
        )
        for board in boards
    ]


def _list_rapl() -> MeterInfo:
    from perjoule.meters.rapl import find_domains

    try:
        names = sorted({domain.name for domain in find_domains()})
    except MeterError as error:
        return MeterInfo(name="rapl", available=False, why=str(error))
    return MeterInfo(name="rapl", available=True, why=f"CPU energy counters: {', '.join(names)}")


def _list_work() -> MeterInfo:
    from perjoule.meters.work import require_torch

    try:
        require_torch()
    except MeterError as error:
        return MeterInfo(name="work", available=False, why=str(error))
    return MeterInfo(name="work", available=True, why="counts the work of networks of torch; not a measurement")


def _list_estimate() -> MeterInfo:
    if find_spec("codecarbon") is None:
        why = f"estimate: codecarbon is missing; {install_command('codecarbon')}"
        return MeterInfo(name="estimate", available=False, why=why)
    return MeterInfo(name="estimate", available=True, why="codecarbon's power model for CPU and RAM; not a measurement")
