"""Run in a process of its own, because the hub's libraries read their address when they are imported:

    python -m tests.perjoule_suites.hub.starts OUT

Runs the fixed ladders of every suite of Stable Diffusion 2.1 in full, for one prompt and seed at 32 px, with a hook on
the denoiser, which computes only once: no timestep depends on what it returns. `OUT/starts.json` has for each suite the
first timestep and the number of timesteps of each pipeline call.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from tests.perjoule_suites.hub.drive import few, perjoule

from perjoule.suite.reading import load_suite, write_suite
from perjoule.types import Variant
from perjoule_suites import diffusers_generator
from perjoule_suites.assembly import assemble, denoiser_of

SUITES = (
    "sd21",
    "caching",
    "budgetfusion-sd21",
    "budgetfusion-sd21-curves",
    "budgetfusion-sd21-curves-dev",
    "budgetfusion-sd21-mini",
)


def main(out: Path) -> None:
    """One run directory for each suite, and the record."""
    torch.set_num_threads(1)
    os.chdir(out)
    seen: list[list[float]] = []
    watch(seen)
    starts: dict[str, list[tuple[float, int]]] = {}
    for name in SUITES:
        file = few(name, out, "builtin:tiny-test", 1, steps=None)
        suite = load_suite(file)
        # adaptive cells need a predictor, and their schedules are those of the ladder
        variants = [v for v in suite.variants if v.policy == "fixed" and "stable-diffusion-2-1" in v.model]
        metrics = replace(
            suite.metrics, primary="iclip", names=("iclip",), options={"iclip": suite.metrics.options["iclip"]}
        )
        quick = replace(suite.protocol, warmup_iterations=0)
        write_suite(replace(suite, variants=tuple(variants), metrics=metrics, protocol=quick), file)
        seen.clear()
        perjoule("run", str(file), "--meter", "estimate", "--out", name)
        starts[name] = [(call[0], len(call)) for call in seen]
    (out / "starts.json").write_text(json.dumps(starts))


def watch(seen: list[list[float]]) -> None:
    """Collect the timesteps of each pipeline call: within a call they decrease."""

    def look(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        timestep = float(torch.as_tensor(args[1] if len(args) > 1 else kwargs["timestep"]).flatten()[0])
        if not seen or timestep >= seen[-1][-1]:
            seen.append([])
        seen[-1].append(timestep)

    def watched(variant: Variant, where: str) -> Any:
        pipeline, sources = assemble(variant, where)
        denoiser = denoiser_of(pipeline)
        denoiser.register_forward_pre_hook(look, with_kwargs=True)
        if variant.cache is None:
            denoiser.forward = computed_once(denoiser.forward)
        return pipeline, sources

    vars(diffusers_generator)["assemble"] = watched


def computed_once(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Return a forward pass that computes once per shape: 2,900 steps of random weights take most of the time."""
    outputs: dict[torch.Size, Any] = {}

    @wraps(forward)
    def known(sample: torch.Tensor, *arguments: Any, **keywords: Any) -> Any:
        if sample.shape not in outputs:
            outputs[sample.shape] = forward(sample, *arguments, **keywords)
        return outputs[sample.shape]

    return known


if __name__ == "__main__":
    main(Path(sys.argv[1]))
