"""Energy per step and image at real sizes and several batch sizes: `python -m tests.gpu.sizes_stage OUT.jsonl SECONDS`

Uses perjoule's own generator and meter. On a CPU the networks are tiny, as a rehearsal.
"""

from __future__ import annotations

import gc
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from perjoule.meters import open_base_meter
from perjoule.types import Variant
from perjoule_suites.diffusers_generator import DiffusersGenerator
from tests.gpu.networks import pipeline
from tests.gpu.records import Deadline, RecordFile, now

CUDA = torch.cuda.is_available()
STEPS = (4, 16) if CUDA else (2, 4)  # two counts give energy per step and the rest of an image
IMAGES = 16 if CUDA else 4  # per window, whatever the batch size
PROMPTS = [f"a photograph of lighthouse number {i} on a rocky coast in the evening" for i in range(16)]
# (network, side in px, batch sizes), in the order of their worth
CELLS: tuple[tuple[str, int, tuple[int, ...]], ...] = (
    (("sd21", 768, (1, 4, 16)), ("sdxl", 1024, (1, 4, 16)), ("sd21", 512, (1, 4, 16)), ("sdxl", 768, (1, 16)))
    if CUDA
    else (("sd21", 768, (1, 4)), ("sdxl", 1024, (1,)))
)
LEAST_S = 15.0  # for a further network


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    name: str
    side: int
    batch: int


class Sizes:
    """Measures cells until the time is up."""

    def __init__(self, log: RecordFile, meter: Any, deadline: Deadline) -> None:
        self._log, self._meter, self._deadline = log, meter, deadline

    def measure(self, generator: DiffusersGenerator, cell: Cell) -> None:
        """Warm up, then one window per number of steps, as long as they fit."""
        place = {"name": cell.name, "side": cell.side, "batch": cell.batch}
        try:
            first_s = self._call(generator, cell.batch, STEPS[0])
            call_s = self._call(generator, cell.batch, STEPS[0])
        except (RuntimeError, ValueError, ArithmeticError) as error:
            self._log.write("failed", **place, error=f"{type(error).__name__}: {error}"[:300])
            if CUDA:
                torch.cuda.empty_cache()
            return
        self._log.write("warm-up", **place, first_s=first_s, second_s=call_s)
        for steps in STEPS:
            step_share = steps / STEPS[0]
            calls = min(max(IMAGES // cell.batch, 1), int((self._deadline.left_s - 4) / (call_s * step_share)))
            if calls < 1:
                self._log.write("cut", **place, steps=steps)
                return
            self._window(generator, cell, steps, calls, place)

    def _call(self, generator: DiffusersGenerator, batch: int, steps: int) -> float:
        begin_s = now()
        generator.generate(PROMPTS[:batch], list(range(batch)), steps)
        generator.synchronize()
        return now() - begin_s

    def _window(self, generator: DiffusersGenerator, cell: Cell, steps: int, calls: int, place: dict[str, Any]) -> None:
        phases: dict[str, float] = {}
        evaluations = 0.0
        if CUDA:
            torch.cuda.reset_peak_memory_stats()
        label = f"{cell.name}-{cell.side}-{cell.batch}-{steps}"
        with self._meter.window(label=label, sync=generator.synchronize) as window:
            for call in range(calls):
                numbers = range(call * cell.batch, (call + 1) * cell.batch)
                drawn = generator.generate([PROMPTS[i % len(PROMPTS)] for i in numbers], list(numbers), steps)
                evaluations = drawn.nfe_per_image
                for phase, seconds in drawn.phases_s.items():
                    phases[phase] = phases.get(phase, 0.0) + seconds
        reading = window.reading
        device = reading.devices[0] if reading.devices else None
        self._log.write(
            "size",
            **place,
            steps=steps,
            images=calls * cell.batch,
            energy_j=reading.energy_j,
            bound_j=reading.uncertainty_j,
            net_j=reading.net_energy_j,
            duration_s=reading.duration_s,
            phases_s=phases,
            nfe_per_image=evaluations,
            peak_bytes=torch.cuda.max_memory_allocated() if CUDA else None,
            power_ratio=getattr(device, "power_ratio", None),
            conditions=str(getattr(device, "conditions", None)),
            warnings=list(reading.warnings),
        )
        time.sleep(0.2)


def main(path: str, seconds: str) -> int:
    """Measure all cells that fit into the time; return 1 if none did."""
    log, deadline = RecordFile(Path(path)), Deadline(float(seconds))
    device = "cuda" if CUDA else "cpu"
    torch.zeros(1, device=device)  # the context exists before the meter learns idle power
    made, made_name = None, ""
    with tempfile.TemporaryDirectory(prefix="perjoule-gpu-") as folder, open_base_meter("nvml") as meter:
        meter.learn_idle(2.0 if CUDA else 0.5)
        log.write("meter", why=meter.why, method=meter.method, idle_w=meter.idle_power_w, device=device)
        sizes = Sizes(log, meter, deadline)
        for name, side, batches in CELLS:
            if deadline.left_s < LEAST_S:
                log.write("cut", name=name, side=side)
                continue
            if name != made_name:
                made = None
                gc.collect()
                if CUDA:
                    torch.cuda.empty_cache()
                begin_s = now()
                made, made_name = pipeline(name, device, Path(folder), tiny=not CUDA), name
                log.write("network", name=name, seconds=now() - begin_s, parameters=_size(made.unet))
            pixels = side if CUDA else 32
            variant = Variant(
                name=name, model=name, steps=STEPS, guidance=7.5, dtype="float16" if CUDA else "float32",
                width_px=pixels, height_px=pixels,
            )  # fmt: skip
            generator = DiffusersGenerator(made, variant, ())
            for batch in batches:
                sizes.measure(generator, Cell(name=name, side=side, batch=batch))
            _unhook(made)
    log.write("end", left_s=deadline.left_s)
    return 0


def _size(network: Any) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _unhook(made: Any) -> None:
    """Remove the hooks of a generator, since the next one on this pipeline adds its own."""
    for module in (made.unet, made.text_encoder, getattr(made, "text_encoder_2", None), made.vae.decoder):
        if module is not None:
            module._forward_hooks.clear()
            module._forward_pre_hooks.clear()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
