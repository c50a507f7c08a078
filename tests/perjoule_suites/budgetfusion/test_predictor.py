from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from perjoule.errors import EvidenceError, UnknownNameError, UsageError
from perjoule_suites.budgetfusion import StepPredictor, training
from perjoule_suites.budgetfusion.curves import Curves
from perjoule_suites.budgetfusion.network import CurveNet, Shape
from perjoule_suites.budgetfusion.predictor import _folder, _read
from perjoule_suites.diffusers_generator import DiffusersGenerator
from perjoule_suites.prompt_states import text_encoder_digest

pytestmark = pytest.mark.slow

EASY, HARD = "a large red circle on a white ground", "a large striped red circle on a white ground"


def test_harder_prompts_get_more_steps(trained: StepPredictor) -> None:
    easy = [f"a large {c} circle on a {g} ground" for c in ("red", "blue", "pink") for g in ("white", "grey", "black")]
    hard = [prompt.replace("large ", "large striped ") for prompt in easy]
    assert np.mean(trained.steps_for(easy)) < np.mean(trained.steps_for(hard))


def test_it_comes_back_from_disk_as_it_was(
    trained: StepPredictor, generator: DiffusersGenerator, tmp_path: Path
) -> None:
    trained.save_pretrained(tmp_path)
    shared = StepPredictor.from_pretrained(tmp_path, pipeline=generator.pipeline)
    assert shared.text_encoder is generator.pipeline.text_encoder
    alone = StepPredictor.from_pretrained(tmp_path)
    prompts = [EASY, HARD, "a blue star above a pink ring on a grey ground"]
    devices = {parameter.device.type for one in (shared, alone, trained) for parameter in one.network.parameters()}
    for loaded in (shared, alone):
        assert loaded.config == trained.config
        values, known = loaded.curves_for(prompts).values, trained.curves_for(prompts).values
        if devices == {"cpu"}:
            assert np.array_equal(values, known)
            assert loaded.steps_for(prompts) == trained.steps_for(prompts)
        else:  # sums differ in their last bits between devices
            np.testing.assert_allclose(values, known, rtol=1e-3, atol=1e-4)


def test_states_are_those_of_the_pipeline(trained: StepPredictor, generator: DiffusersGenerator) -> None:
    assert torch.equal(trained.states([EASY, HARD]), generator.encode([EASY, HARD])["prompt_embeds"])


def test_the_network_moves_to_the_device_of_the_pipeline(
    trained: StepPredictor, generator: DiffusersGenerator, tmp_path: Path
) -> None:
    trained.save_pretrained(tmp_path)
    pipeline = generator.pipeline
    elsewhere = SimpleNamespace(
        tokenizer=pipeline.tokenizer, text_encoder=pipeline.text_encoder, device=torch.device("meta")
    )
    moved = StepPredictor.from_pretrained(tmp_path, pipeline=elsewhere)
    assert {parameter.device.type for parameter in moved.network.parameters()} == {"meta"}


@pytest.mark.parametrize("channels", [0, 4])
def test_the_network_works_on_another_device(channels: int) -> None:
    """The device "meta" has shapes without values, and refuses to be mixed with the CPU as a GPU does."""
    with torch.no_grad():
        network = CurveNet(Shape(text_width=8, metrics=2, latent_channels=channels)).eval().to("meta")
        latents = torch.zeros(3, channels, 8, 8, device="meta") if channels else None
        text = network.read(torch.zeros(3, 5, 8, device="meta"))
        curves = network(text, torch.arange(1, 3, device="meta"), latents)
    assert curves.device.type == "meta"
    assert curves.shape == (3, 2, 2)


def test_another_text_encoder_is_refused_by_digest(trained: StepPredictor) -> None:
    other = type(trained.text_encoder)(trained.text_encoder.config)
    with pytest.raises(EvidenceError) as caught:
        replace(trained, text_encoder=other)
    assert trained.config.text_encoder_digest[:12] in str(caught.value)
    assert text_encoder_digest(other)[:12] in str(caught.value)


def test_calibration_images_are_told_apart_by_prompt(trained: StepPredictor) -> None:
    by_file = trained.calibration.prompts
    assert trained.config.calibration_seeds == 2
    assert by_file is not None
    assert np.bincount(by_file).tolist() == [2] * (len(trained.labels.true) // 2)
    # a file of an earlier version: forecasts of the prompt alone are the same for its seeds
    earlier = replace(trained, config=replace(trained.config, calibration_seeds=None))
    assert np.array_equal(earlier.calibration.prompts, by_file)
    # a predictor that peeks forecasts each seed by itself
    peeking = replace(earlier, config=replace(earlier.config, peek=1))
    assert peeking.calibration.prompts is None
    with pytest.raises(EvidenceError, match="calibration_seeds"):
        peeking.with_rule("quality-floor", "quality", 0.5)


def test_calibration_seeds_that_do_not_fit_are_refused(trained: StepPredictor, tmp_path: Path) -> None:
    wrong = replace(trained.config, calibration_seeds=len(trained.labels.true) - 1)
    replace(trained, config=wrong).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=r"predictor\.json: calibration_seeds = \d+"):
        StepPredictor.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["steps-tiny", "steps-tiny-peek2"])
def test_shipped_predictors_say_how_many_seeds_calibrated_them(name: str) -> None:
    config, _, labels = _read(_folder(f"builtin:{name}"))
    seeds = config.calibration_seeds
    assert seeds is not None
    by_prompt = labels.predicted.reshape(-1, seeds, *labels.predicted.shape[1:])
    if not config.peek:
        assert (by_prompt == by_prompt[:, :1]).all()
        assert len(np.unique(labels.predicted, axis=0)) == len(by_prompt)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [("", "prompt 0 is empty"), ("  \n", "prompt 0 is empty"), (7, "int is not a text"),
     (None, "NoneType is not a text"),
     ("x" * 20_001, "20,001 characters")],
)  # fmt: skip
def test_what_is_no_prompt(trained: StepPredictor, prompt: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        trained.steps_for([prompt])  # type: ignore[list-item]


def test_long_and_odd_prompts_are_prompts(trained: StepPredictor) -> None:
    steps = trained.steps_for(["circle " * 2_000, "\u202e🟥 <script>", "x\x00y"])
    assert all(n in trained.config.grid for n in steps)
    assert trained.steps_for([]) == []


def test_controls_know_what_they_may(trained: StepPredictor) -> None:
    prompts = [EASY, HARD, "a blue star above a pink ring on a grey ground"]
    mean = trained.as_control("mean").curves_for(prompts).values
    assert np.allclose(mean[0], mean[1])
    assert np.allclose(mean[0], trained.labels.mean)
    length = trained.as_control("length")
    counts = length.token_counts(prompts)
    values = length.curves_for(prompts).values
    assert counts[0] < counts[1]
    same = length.curves_for(["a large red circle on a black ground"]).values
    assert np.allclose(values[0], same[0])  # as long, whatever it says


@pytest.mark.parametrize("damage", ["missing", "json", "schema", "weights", "grid"])
def test_damaged_predictors(trained: StepPredictor, tmp_path: Path, damage: str) -> None:
    trained.save_pretrained(tmp_path)
    file = tmp_path / "predictor.json"
    table = json.loads(file.read_text())
    if damage == "missing":
        file.unlink()
    elif damage == "json":
        file.write_text("{")
    elif damage == "weights":
        (tmp_path / "predictor.safetensors").write_bytes(b"\x00" * 40)
    else:
        file.write_text(json.dumps(table | ({"schema": 9} if damage == "schema" else {"grid": [1, 2]})))
    with pytest.raises(UsageError, match=str(tmp_path)):
        StepPredictor.from_pretrained(tmp_path)


def test_a_path_that_is_not_there(trained: StepPredictor) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        StepPredictor.from_pretrained("/nowhere/at/all")
    with pytest.raises(UnknownNameError, match="steps-tinny"):
        StepPredictor.from_pretrained("builtin:steps-tinny")


def test_what_is_refused_before_training(generator: DiffusersGenerator, curves: tuple[Curves, Curves]) -> None:
    learnt, known = curves
    for changed, words in (
        (replace(known, digest="other"), "pipeline"),
        (replace(known, grid=(1, 2, 4, 9)), "grid"),
        (replace(known, metrics=("quality", "another")), "metrics"),
        (learnt, "prompts are in both sets"),
    ):
        with pytest.raises(EvidenceError, match=words):
            training.train(learnt, changed, generator)
    broken = replace(learnt, values=np.where(learnt.values > 0.99, np.nan, learnt.values))
    with pytest.raises(EvidenceError, match="NaN"):
        training.train(broken, replace(known, prompts=tuple(p + "." for p in known.prompts)), generator)


def test_training_pays_after(trained: StepPredictor) -> None:
    payback = training.pays_after(trained)
    assert payback.saved_j_per_image > 0
    assert payback.pays_after_images == pytest.approx(1000.0 / payback.saved_j_per_image)
