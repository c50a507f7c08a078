"""A run on a simulated board whose power follows the phases of a pipeline, on virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from perjoule.files import write_parquet
from perjoule.meters.nvml import open_nvml
from perjoule.prompts import prompt_id
from perjoule.protocols import Generation
from perjoule.running.execute import execute
from perjoule.running.trial import GeneratorCache
from perjoule.runs.directory import Run, load_run, write_scores
from perjoule.runs.writer import RunWriter
from perjoule.statistics.points import operating_points
from perjoule.suite.schedule import make_plan
from perjoule.testing import FakeFactory, FakeGenerator, NvmlSimulator, SimulatedBoard, StepLog
from perjoule.types import Metrics, MetricSpec, Prompt, PromptSource, Protocol, Score, Suite, Variant

REST_W, DENOISE_STEP_S = 60.0, 0.2
PHASES_W = {"text_encoder": 120.0, "denoise": 320.0, "vae_decode": 210.0}
PHASES_S = {"text_encoder": 0.4, "vae_decode": 0.6}
QUALITY = MetricSpec(
    name="sharp", direction="higher", track="absolute", needs_reference=False, unit="", weights_digest="none",
    licence="Apache-2.0", description="Share of the noise that is gone.", advisory=False, bounds=(0.0, 1.0),
)  # fmt: skip


class PhasedGenerator(FakeGenerator):
    """Draws like the fake, and makes the board draw what each phase needs."""

    def __init__(self, board: NvmlSimulator) -> None:
        super().__init__()
        self._board = board

    def generate(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> Generation:
        drawn = super().generate(prompts, seeds, steps)
        seconds = PHASES_S | {"denoise": DENOISE_STEP_S * steps}
        for phase in ("text_encoder", "denoise", "vae_decode"):
            self._board.set_power(0, PHASES_W[phase])
            self._board.sleep(seconds[phase])
        self._board.set_power(0, REST_W)
        return replace(drawn, phases_s=seconds)


def traced_run(
    folder: Path, *, prompts: Sequence[str] = ("a cat", "a dog", "a fox"), board: dict[str, Any] | None = None
) -> Run:
    """Three step counts on one board: power samples, conditions, images, made-up scores."""
    suite = Suite(
        name="board",
        title="A simulated board",
        description="",
        prompts=PromptSource(source="x"),
        metrics=Metrics(primary="sharp", names=("sharp",)),
        protocol=Protocol(seeds=(1,), idle_s=0.0, warmup_iterations=0, cooldown_s=0.0),
        variants=(Variant(name="v", model="m", steps=(2, 8, 25)),),
    )
    texts = tuple(Prompt(prompt_id=prompt_id(text), text=text) for text in prompts)
    environment = {"created_utc": "2026-01-02T03:04:05+00:00", "comparability": {}, "comparability_key": "k"}
    writer = RunWriter.create(folder, suite, texts, environment)
    simulated = SimulatedBoard(wave=StepLog(start_w=REST_W), warming_c_per_s=0.05, **(board or {}))
    with (
        NvmlSimulator([simulated], folder.parent / "nvml", virtual=True) as simulator,
        open_nvml(nvml=simulator.load(), clock=simulator, environ={}) as meter,
    ):
        generators = GeneratorCache(FakeFactory(PhasedGenerator(simulator)), lambda variant: variant.name)
        execute(
            make_plan(suite, texts),
            protocol=suite.protocol,
            meter=meter,
            generators=generators,
            writer=writer,
            on_progress=lambda _: None,
        )
    writer.finish()
    run = load_run(folder)
    chance = np.random.default_rng(3)
    scores = [
        Score(image_id=image, metric="sharp", value=float(1 - 0.8 / steps + chance.normal(0, 0.01)))
        for image, steps in run.images.select("image_id", "steps").iter_rows()
    ]
    write_scores(run, scores, [QUALITY])
    run = load_run(folder)
    write_parquet(operating_points(run), folder / "points.parquet")
    return load_run(folder)
