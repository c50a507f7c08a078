"""A profile of counted work with round numbers, and runs whose windows have counted work."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from perjoule.runs.directory import Run, load_run
from perjoule.runs.writer import RunWriter
from perjoule.types import (
    EnergyReading,
    Metrics,
    Prompt,
    PromptSource,
    Protocol,
    Suite,
    Trial,
    Variant,
    Work,
    WorkPart,
)
from perjoule.work.profile import WorkProfile

PROFILE = WorkProfile(
    name="one",
    device="cpu",
    device_model="Fake",
    dtypes=("float32",),
    j_per_flop=1e-9,
    j_per_byte=1e-8,
    j_per_operator=0.01,
    j_per_call=0.5,
    level_error=0.4,
    shape_error=0.3,
    origin="as stated",
)
STEPS = (1, 2, 4, 8, 16)


def work_of(steps: int, *, images: int = 2, iterations: int = 1, device: str = "cpu") -> Work:
    """Work of a small pipeline: a text encoder, a denoiser and a decoder."""
    parts = [
        WorkPart(
            name=name,
            calls=calls * iterations,
            flops=calls * flops * images * iterations,
            bytes_moved=calls * moved * images * iterations,
            operators=calls * operators * iterations,
        )
        for name, calls, flops, moved, operators in (
            ("UNet", steps, 10**9, 3 * 10**7, 200),
            ("Decoder", 1, 4 * 10**9, 9 * 10**7, 120),
            ("Text", 1, 10**8, 10**7, 90),
        )
    ]
    return Work(parts=tuple(parts), devices=(device,), dtypes=("float32",))


@dataclass(frozen=True, kw_only=True)
class Window:
    """One window of a run: its work, and its joules with everything else that a reading contains."""

    steps: int
    energy_j: float | None
    work: Work | None
    images: int = 2
    iterations: int = 1
    reading: dict[str, Any] | None = None
    failure: str | None = None

    def trial(self, number: int) -> Trial:
        cell = f"v-{self.steps:03d}"
        usual: dict[str, Any] = {
            "uncertainty_j": None if self.energy_j is None else self.energy_j * 0.02,
            "duration_s": 1.0, "boundary": "cpu-package", "provenance": "measured", "method": "rapl", "device": "Fake",
        }  # fmt: skip
        return Trial(
            trial_id=f"{cell}-{number}", cell_id=cell, variant="v", role="fixed", policy="fixed", block=number,
            prompts=("a",) * self.images, prompt_ids=("a",) * self.images, seeds=tuple(range(self.images)),
            steps=(self.steps,) * self.images, nfe_per_image=2.0 * self.steps, image_count=self.images,
            iterations=self.iterations, image_sha256=("0" * 64,) * self.images, failure=self.failure,
            reading=EnergyReading(energy_j=self.energy_j, work=self.work, **usual | (self.reading or {})),
        )  # fmt: skip


def joules(steps: int, profile: WorkProfile = PROFILE, **work: Any) -> float:
    return profile.energy_j(work_of(steps, **work))


def counted_windows(profile: WorkProfile = PROFILE, **reading: Any) -> list[Window]:
    """Windows whose joules follow the profile."""
    return [
        Window(steps=steps, energy_j=joules(steps, profile), work=work_of(steps), reading=reading) for steps in STEPS
    ]


def counted_run(folder: Path, windows: Sequence[Window]) -> Run:
    """A run of one variant with these windows."""
    suite = Suite(
        name="counted",
        title="Counted",
        description="",
        prompts=PromptSource(source="x"),
        metrics=Metrics(primary="lsnr", names=("lsnr",)),
        protocol=Protocol(seeds=(0, 1)),
        variants=(Variant(name="v", model="m", steps=STEPS),),
    )
    writer = RunWriter.create(folder, suite, [Prompt(prompt_id="a", text="a")], {"comparability_key": "k"})
    for number, window in enumerate(windows):
        writer.append(window.trial(number))
    writer.finish()
    return load_run(folder)


def with_work(run: Run, work: Work) -> Run:
    """The run with this counted work in each window."""
    record = asdict(work)
    rows = [json.dumps({"trial_id": trial} | record) for trial in run.trials["trial_id"]]
    (run.path / "work.jsonl").write_text("\n".join(rows) + "\n")
    return load_run(run.path)
