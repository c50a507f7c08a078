"""Counts denoiser evaluations and times the parts of a pipeline with forward hooks on its modules."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

_PHASES = {
    "text_encoder": ("text_encoder", "text_encoder_2", "text_encoder_3"),
    "denoise": ("unet", "transformer"),
    "vae_decode": ("vae.decoder",),
}


class PhaseHooks:
    """Counts and times.

    On a GPU the times are between CUDA events, to avoid synchronisation inside the window; they are read after the
    call. On the CPU they are wall times. The phase `host` is the rest of the wall time: tokens, noise, scheduler,
    conversion and copies of images.
    """

    def __init__(self, pipeline: Any) -> None:
        self.evaluations = 0
        self._taken_s = time.perf_counter()
        self._open: dict[str, Any] = {}
        self._spans: dict[str, list[tuple[Any, Any]]] = defaultdict(list)
        self._cuda = pipeline.device.type == "cuda"
        self._finite: dict[str, list[torch.Tensor]] = defaultdict(list)
        for phase, paths in _PHASES.items():
            for path in paths:
                module = _at(pipeline, path)
                if isinstance(module, nn.Module):
                    module.register_forward_pre_hook(partial(self._enter, phase), with_kwargs=True)
                    module.register_forward_hook(partial(self._leave, phase))

    @contextmanager
    def span(self, phase: str) -> Iterator[None]:
        """Time the code inside as a separate phase."""
        began = self._now()
        yield
        self._spans[phase].append((began, self._now()))

    def take(self) -> tuple[int, dict[str, float]]:
        """Return denoiser evaluations (batch rows: guidance counts twice) and seconds by phase since the last call.

        The device must be idle.
        """
        evaluations, self.evaluations = self.evaluations, 0
        now_s = time.perf_counter()
        wall_s, self._taken_s = now_s - self._taken_s, now_s
        seconds = {
            phase: sum(a.elapsed_time(b) / 1e3 if self._cuda else b - a for a, b in spans)
            for phase, spans in self._spans.items()
        }
        self._spans.clear()
        self._finite.clear()
        return evaluations, seconds | {"host": max(wall_s - sum(seconds.values()), 0.0)}

    def take_not_finite(self) -> list[str]:
        """Return which of input and output of the VAE decoder contained NaN or infinite values since the last call."""
        names = [name for name, flags in self._finite.items() if not all(bool(flag) for flag in flags)]
        self._finite.clear()
        return names

    def _enter(self, phase: str, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if phase == "denoise":
            self.evaluations += len(args[0] if args else kwargs.get("sample", kwargs.get("hidden_states", ())))
        self._open[phase] = self._now()
        if phase == "vae_decode":
            self._look("the input of the VAE decoder", args[0] if args else kwargs.get("sample"))

    def _leave(self, phase: str, _module: nn.Module, _args: Any, output: Any) -> None:
        if phase == "vae_decode":
            self._look("the output of the VAE decoder", output)
        self._spans[phase].append((self._open.pop(phase), self._now()))

    def _look(self, name: str, values: Any) -> None:
        """Check on the device, without waiting, that all values are finite; pipelines hide this by clamping images."""
        if isinstance(values, torch.Tensor):
            self._finite[name].append(torch.isfinite(values).all())

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _at(root: Any, path: str) -> Any:
    for part in path.split("."):
        root = getattr(root, part, None)
    return root
