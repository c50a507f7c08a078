"""Figures of the shipped weights, a little below those of the model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from transformers import CLIPModel, CLIPTokenizer

from perjoule.suite.timesteps import short_first, trailing
from perjoule_suites.budgetfusion.predictor import _folder, _read
from perjoule_suites.budgetfusion.rules import Calibration, CurveForecast, QualityFloor
from perjoule_suites.tiny import autoencoder, clip, clip_tiny, sd_tiny, sd_tiny_lcm, sd_tiny_pruned
from perjoule_suites.tiny.denoiser import means
from perjoule_suites.tiny.evaluation import held_out_captions
from perjoule_suites.tiny.export import load_pipeline
from perjoule_suites.tiny.sampling import GUIDANCE, draw
from perjoule_suites.tiny.world import validation
from perjoule_suites.tiny.world.captions import Caption, Level

pytestmark = pytest.mark.slow

# mean score of 24 captions of each level
TEACHER_12: Mapping[Level, float] = {"closed": 0.84, "half open": 0.62, "open": 0.52}
LCM_4: Mapping[Level, float] = {"closed": 0.82, "half open": 0.60, "open": 0.42}
PRUNED_8: Mapping[Level, float] = {"closed": 0.68, "half open": 0.41, "open": 0.22}
# share of the 12-step score at 4 steps: closed captions are done, open ones are not
DONE_AT_4, OPEN_AT_4 = 0.95, 0.90
PSNR_DB, ROUND_TRIP_SCORE = 38.0, 0.93
CLIP_BEATS_CONTRADICTIONS = 0.85
_CAPTIONS = 24


@pytest.fixture(scope="module")
def captions() -> dict[Level, list[Caption]]:
    return held_out_captions(_CAPTIONS)


def scores(
    folder: Path, timesteps: list[int], captions: Mapping[Level, list[Caption]], guidance: float | None
) -> dict[Level, float]:
    pipeline = load_pipeline(folder)
    network = (pipeline.unet, pipeline.text_encoder, pipeline.tokenizer, pipeline.vae)

    def images(some: list[Caption]) -> NDArray[np.uint8]:
        return draw(network, [caption.text() for caption in some], timesteps, guidance=guidance)

    return {level: means(images(some), some)["score"] for level, some in captions.items()}


@pytest.fixture(scope="module")
def long_run(captions: dict[Level, list[Caption]]) -> dict[Level, float]:
    return scores(sd_tiny(), short_first(12), captions, GUIDANCE)


def test_the_teacher_does_what_captions_say(long_run: dict[Level, float]) -> None:
    for level, least in TEACHER_12.items():
        assert long_run[level] >= least, level


def test_closed_captions_are_done_at_four_steps_and_open_ones_are_not(
    captions: dict[Level, list[Caption]], long_run: dict[Level, float]
) -> None:
    four = scores(sd_tiny(), short_first(4), captions, GUIDANCE)
    assert four["closed"] >= DONE_AT_4 * long_run["closed"]
    assert four["half open"] < long_run["half open"]
    assert four["open"] <= OPEN_AT_4 * long_run["open"]


@pytest.mark.parametrize(
    ("folder", "timesteps", "guidance", "least"),
    [(sd_tiny_lcm, trailing(4), None, LCM_4), (sd_tiny_pruned, short_first(8), GUIDANCE, PRUNED_8)],
)
def test_the_students_do_what_captions_say(
    folder: object, timesteps: list[int], guidance: float | None, least: Mapping[Level, float],
    captions: dict[Level, list[Caption]],
) -> None:  # fmt: skip
    assert callable(folder)
    found = scores(folder(), timesteps, captions, guidance)
    for level, limit in least.items():
        assert found[level] >= limit, level


def test_the_few_step_student_beats_the_teacher_at_few_steps(captions: dict[Level, list[Caption]]) -> None:
    for steps in (1, 2):
        student = scores(sd_tiny_lcm(), trailing(steps), captions, None)
        teacher = scores(sd_tiny(), short_first(steps), captions, GUIDANCE)
        assert sum(student.values()) > sum(teacher.values()), steps


def test_the_autoencoder_keeps_pictures_whole() -> None:
    vae = AutoencoderKL.from_pretrained(sd_tiny() / "vae", torch_dtype=torch.float32).eval()
    assert autoencoder.psnr(vae, autoencoder.renders(np.random.default_rng(2), 64, "dev")) >= PSNR_DB
    probes = {probe.name: probe for probe in validation.probes(45, 5, partial(autoencoder.round_trip, vae))}
    assert probes["renders through the autoencoder"].score >= ROUND_TRIP_SCORE


def test_clip_prefers_captions_to_their_contradictions() -> None:
    towers = CLIPModel.from_pretrained(clip_tiny(), dtype=torch.float32)
    figures = clip.evaluate(towers, CLIPTokenizer.from_pretrained(clip_tiny()), clip.draw_batch(
        np.random.default_rng(4), 200, "test"
    ))  # fmt: skip
    assert figures["beats_contradictions"] >= CLIP_BEATS_CONTRADICTIONS


@pytest.mark.parametrize(("name", "floor"), [("steps-tiny", 0.95), ("steps-tiny-peek2", 0.97)])
def test_the_promise_is_kept_on_average_over_calibrations_of_shipped_curves(name: str, floor: float) -> None:
    """50 of the 72 calibration prompts calibrate, the others are drawn: a promise of 10 %."""
    config, _, labels = _read(_folder(f"builtin:{name}"))
    seeds = config.calibration_seeds or 0
    images = np.arange(len(labels.true)).reshape(-1, seeds)
    predicted, true = labels.predicted.astype(float), labels.true.astype(float)
    grid = np.array(config.grid)
    known = CurveForecast(grid=grid, energy_j=1.0 * grid, metrics=config.metrics, values=predicted)
    chance = np.random.default_rng(0)
    rates = []
    for _ in range(60):
        order = chance.permutation(len(images))
        here, there = images[order[:50]].ravel(), images[order[50:]].ravel()
        calibration = Calibration(
            forecast=replace(known, values=predicted[here]), truth=true[here], prompts=here // seeds
        )
        stops = QualityFloor(metric="iclip", floor=floor).choose(replace(known, values=predicted[there]), calibration)
        drawn = true[there, stops, config.metrics.index("iclip")]
        rates.append((drawn < floor).mean())
    assert np.mean(rates) <= 0.1
    assert np.mean(rates) > 0.05  # not by being wasteful
