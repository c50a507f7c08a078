"""Runs made up for tests: curves that rise and level off, pictures whose noise falls with the steps."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image, ImageDraw

from perjoule.runs.columns import IMAGE_COLUMNS, POWER_COLUMNS, SCORE_COLUMNS, TRIAL_COLUMNS
from perjoule.runs.directory import Run
from perjoule.runs.pictures import pixel_digest
from perjoule.statistics.points import operating_points
from perjoule.types import DeviceEnergy, Metrics, MetricSpec, Prompt, PromptSource, Protocol, Suite, Variant

LADDER = (1, 2, 3, 4, 6, 8, 12, 25, 50)
SHAPES = ("circle", "square", "triangle")
COLOURS = {"red": (215, 35, 40), "green": (45, 155, 60), "blue": (40, 75, 210), "pink": (245, 130, 185)}
GROUNDS = {"white": (245, 245, 245), "beige": (225, 200, 160)}
HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a | pipe\nand a newline | in `code` [link](javascript:alert(1)) @everyone #1",
    "<!-- comment --> & {{ 7*7 }} {% raw %} $x^2$ \\ *bold* https://example.com www.example.com",
    "\u202ereversed\u202c \u200bzero width \x00nul \u2028 line",
    "</style><svg onload=alert(1)>]]>",
)


@dataclass(frozen=True, kw_only=True)
class SyntheticRun(Run):
    """A run in memory but for the pictures."""

    path: Path
    suite: Suite
    environment: dict[str, Any]
    trials: pl.DataFrame
    images: pl.DataFrame
    scores: pl.DataFrame
    points: pl.DataFrame
    power: pl.DataFrame
    metrics: dict[str, MetricSpec]
    prompts: dict[str, str]
    devices: list[tuple[str, DeviceEnergy]] = field(default_factory=list)
    is_imported: bool = False

    @property
    def prompt_set(self) -> tuple[Prompt, ...]:
        return tuple(Prompt(prompt_id=pid, text=text) for pid, text in self.prompts.items())


def spec(name: str, **changes: Any) -> MetricSpec:
    usual = MetricSpec(
        name=name,
        direction="higher",
        track="absolute",
        needs_reference=False,
        unit="",
        weights_digest=hashlib.sha256(name.encode()).hexdigest(),
        licence="Apache-2.0",
        description=f"What {name} sees in a picture.",
        advisory=False,
        bounds=(None, None),
    )
    return replace(usual, **changes)


SPECS = {
    "scene": spec("scene", bounds=(0.0, 1.0), description="Share of the caption's facts that hold."),
    "clip_text": spec("clip_text", track="alignment"),
    "iclip": spec("iclip", track="fidelity", needs_reference=True),
    "blur": spec("blur", direction="lower", track="sharpness", unit="px", advisory=True),
}


def make_run(
    folder: Path,
    *,
    prompts: tuple[str, ...] | int = 24,
    ladder: tuple[int, ...] = LADDER,
    variants: tuple[str, ...] = ("tiny-teacher", "tiny-student"),
    seeds: tuple[int, ...] = (1, 2),
    provenance: str = "estimated",
    watts: float = 32.0,
    second_per_step: float = 0.05,
    metrics: tuple[str, ...] = tuple(SPECS),
) -> SyntheticRun:
    """Make a run whose teacher needs about 12 steps and whose student needs about 4."""
    rng = np.random.default_rng(7)
    texts = _captions(prompts) if isinstance(prompts, int) else prompts
    by_id = {hashlib.sha256(t.encode("utf-8", "replace")).hexdigest()[:10]: t for t in texts}
    hardness = {pid: rng.uniform(0.3, 1.6) for pid in by_id}
    images, scores, trials = [], [], []
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for v, variant in enumerate(variants):
        speed = (2.6, 0.9, 1.5, 3.5)[v % 4]
        for steps in ladder:
            cell = f"{variant}-{steps:03d}"
            for pid, text in by_id.items():
                quality = []
                for seed in seeds:
                    image_id = f"{cell}.{pid}.s{seed}"
                    clarity = 1 - np.exp(-steps / (speed * hardness[pid]))
                    _draw(folder / "images" / f"{image_id}.png", text, float(clarity), seed)
                    images.append((image_id, f"{cell}.{pid}", cell, variant, pid, seed, steps))
                    value = float(np.clip((0.97 - 0.03 * v) * clarity + rng.normal(0, 0.02), 0, 1))
                    quality.append((image_id, pid, seed, value, 1.0 if steps == max(ladder) else clarity * 0.99))
                for image_id, pid_, seed, value, closeness in quality:
                    row = {"image_id": image_id, "cell_id": cell, "prompt_id": pid_, "seed": seed}
                    for metric, number in (
                        ("scene", value),
                        ("clip_text", 0.18 + 0.12 * value),
                        ("iclip", float(closeness)),
                        ("blur", 3 - 2 * value),
                    ):
                        if metric in metrics:
                            scores.append(row | {"metric": metric, "value": number, "reason_unscored": None})
                trials.append(
                    _trial(
                        cell, variant, pid, text, steps, seeds, provenance, watts, second_per_step, float(rng.normal())
                    )
                )
    columns = [c for c in IMAGE_COLUMNS if c not in {"file", "sha256"}]
    frame = pl.DataFrame(images, schema={c: IMAGE_COLUMNS[c] for c in columns}, orient="row").with_columns(
        file=pl.format("images/{}.png", "image_id"),
        sha256=pl.Series([_digest(folder / "images" / f"{row[0]}.png") for row in images], dtype=pl.String),
    )
    run = SyntheticRun(
        path=folder,
        suite=_suite(variants, ladder, seeds, len(by_id), metrics),
        environment=_environment(),
        trials=pl.DataFrame(trials, schema=TRIAL_COLUMNS),
        images=frame,
        scores=pl.DataFrame(scores, schema=SCORE_COLUMNS),
        points=pl.DataFrame(),
        power=pl.DataFrame(schema=POWER_COLUMNS),
        metrics={name: SPECS[name] for name in metrics},
        prompts=by_id,
    )
    return summarised(run)


def summarised(run: SyntheticRun) -> SyntheticRun:
    """The run with its operating points worked out by the bench itself."""
    return replace(run, points=operating_points(run))


def _captions(count: int) -> tuple[str, ...]:
    every = [f"a {c} {s} on a {g} ground" for s in SHAPES for c in COLOURS for g in GROUNDS]
    return tuple(every[:count])


def _digest(file: Path) -> str:
    with Image.open(file) as picture:
        return pixel_digest(np.asarray(picture.convert("RGB")))


def _draw(file: Path, text: str, clarity: float, seed: int) -> None:
    if file.exists():
        return
    words = text.split()
    ground = next((GROUNDS[w] for w in words if w in GROUNDS), (120, 120, 120))
    colour = next((COLOURS[w] for w in words if w in COLOURS), (20, 20, 20))
    image = Image.new("RGB", (64, 64), ground)
    pen = ImageDraw.Draw(image)
    if "square" in words:
        pen.rectangle((16, 16, 48, 48), fill=colour)
    elif "triangle" in words:
        pen.polygon(((32, 12), (52, 50), (12, 50)), fill=colour)
    else:
        pen.ellipse((14, 14, 50, 50), fill=colour)
    noise = np.random.default_rng(seed).normal(128, 60, (16, 16, 3)).repeat(4, 0).repeat(4, 1)
    mixed = clarity * np.asarray(image, float) + (1 - clarity) * noise
    Image.fromarray(mixed.clip(0, 255).astype(np.uint8)).save(file)


def _trial(
    cell: str,
    variant: str,
    pid: str,
    text: str,
    steps: int,
    seeds: tuple[int, ...],
    provenance: str,
    watts: float,
    second_per_step: float,
    luck: float,
) -> dict[str, Any]:
    images = len(seeds)
    denoise = second_per_step * steps * images
    seconds = (denoise + 0.06 * images) * (1 + 0.01 * luck)
    joules = seconds * watts * (1 + 0.01 * luck)
    warned = ["W203: no driver counter, power integrated instead"] if steps == 1 else []
    return {
        "trial_id": f"b0.{cell}.{pid}",
        "cell_id": cell,
        "variant": variant,
        "role": "distilled" if "student" in variant else "fixed",
        "policy": "fixed",
        "block": 0,
        "prompts": [text] * images,
        "prompt_ids": [pid] * images,
        "seeds": list(seeds),
        "steps": [steps] * images,
        "nfe_per_image": float(steps if "student" in variant else 2 * steps),
        "image_count": images,
        "iterations": 1,
        "energy_j": joules,
        "uncertainty_j": 0.02 * joules,
        "net_energy_j": joules * 0.7,
        "idle_power_w": 9.0,
        "duration_s": seconds,
        "boundary": "estimate" if provenance != "measured" else "gpu-board",
        "provenance": provenance,
        "method": "power model, 65 W processor at full load",
        "warnings": warned,
        "failure": None,
        "image_sha256": ["0" * 64] * images,
        "phases_s": json.dumps({"text_encoder": 0.01 * images, "denoise": denoise, "vae_decode": 0.05 * images}),
    }


def _suite(
    variants: tuple[str, ...], ladder: tuple[int, ...], seeds: tuple[int, ...], prompts: int, metrics: tuple[str, ...]
) -> Suite:
    return Suite(
        name="tiny-quick",
        title="Tiny family, quick ladder",
        description="Teacher and student.",
        prompts=PromptSource(source="builtin:tiny", limit=prompts),
        metrics=Metrics(primary="scene", names=metrics),
        protocol=Protocol(seeds=seeds, batch_size=1),
        variants=tuple(
            Variant(
                name=name,
                model="builtin:sd-tiny",
                steps=ladder,
                role="distilled" if "student" in name else "fixed",
                family="tiny",
            )
            for name in variants
        ),
    )


def _environment() -> dict[str, Any]:
    return {
        "schema": 1,
        "created_utc": "2026-01-02T03:04:05+00:00",
        "perjoule": "0.1.0",
        "command": ["perjoule", "run", "tiny-quick"],
        "meter": {"name": "estimate", "why": "no energy counter can be read here"},
        "models": {"builtin:sd-tiny": "ab" * 32},
        "gpu": [],
        "cpu": "Imaginary 2-core",
        "cpu_count": 2,
        "ram_bytes": 16 * 2**30,
        "os": "Linux",
        "python": "3.11.7",
        "packages": {"torch": "2.9.0", "diffusers": "0.38.0"},
        "commit": "0123456789ab",
        "comparability_key": "0011223344556677",
        "fingerprint": "0011223344556677",
    }
