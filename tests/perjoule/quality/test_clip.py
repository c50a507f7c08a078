from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from perjoule.errors import UnknownNameError, UsageError
from perjoule.protocols import ImageSet
from perjoule.quality.clip import clip_text, iclip, r_precision
from perjoule.quality.clip_encoder import load_encoder

FACTORIES: dict[str, Callable[..., Any]] = {"clip_text": clip_text, "r_precision": r_precision, "iclip": iclip}
PROMPTS = [f"a {c} {s} on a {g} ground" for c in ("red", "blue", "pink") for s in ("star", "ring") for g in "wxyz"]


# a warning would reach the user's terminal once per run
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("error::UserWarning")]


def ignore(count: int) -> None:
    pass


@pytest.fixture
def options(clip_folder):
    return {"model": str(clip_folder), "device": "cpu"}


@pytest.fixture
def run(pictures, noise):
    """Seven prompts at three step counts each; the third is the reference of the other two."""
    images = noise(21)
    return pictures(
        images,
        prompts=[PROMPTS[i // 3] for i in range(21)],
        references=[3 * (i // 3) + 2 for i in range(21)],
        all_prompts=PROMPTS,
    )


@pytest.mark.parametrize("name", FACTORIES)
def test_values_lie_within_the_bounds_the_spec_states(name, options, run, values):
    metric = FACTORIES[name](options)
    low, high = metric.spec.bounds
    found = values(metric.score(run.image_set(), ignore))
    assert len(found) == 21
    assert all(value is not None and low <= value <= high for value in found.values())


@pytest.mark.parametrize("name", FACTORIES)
def test_neither_batch_size_nor_order_matters(name, options, run, values):
    whole = values(FACTORIES[name](options).score(run.image_set(), ignore))
    single = values(FACTORIES[name](options | {"batch_size": 1}).score(run.image_set(), ignore))
    order = np.random.default_rng(0).permutation(21).tolist()
    shuffled = values(FACTORIES[name](options | {"batch_size": 5}).score(run.image_set(order), ignore))
    assert single == pytest.approx(whole, abs=1e-5)
    assert shuffled == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize("name", FACTORIES)
def test_each_image_is_loaded_once_and_progress_adds_up(name, options, run):
    done: list[int] = []
    FACTORIES[name](options | {"batch_size": 8}).score(run.image_set(), done.append)
    assert run.loaded == [1] * 21
    assert done == [8, 8, 5]


def test_clip_text_is_the_cosine_that_transformers_gives(options, clip_folder, run, values):
    import torch
    from transformers import CLIPModel, CLIPTokenizer

    model, tokenizer = CLIPModel.from_pretrained(clip_folder).eval(), CLIPTokenizer.from_pretrained(clip_folder)
    pixels = torch.from_numpy(np.stack(run.images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    tokens = tokenizer([p.text for p in run.prompts], padding="max_length", max_length=32, return_tensors="pt")
    with torch.inference_mode():
        found = model(input_ids=tokens.input_ids, pixel_values=pixels)
    wanted = (found.image_embeds * found.text_embeds).sum(1).tolist()
    assert list(values(clip_text(options).score(run.image_set(), ignore)).values()) == pytest.approx(wanted, abs=1e-5)


def test_without_image_settings_the_plain_resize_gives_the_same(options, clip_folder, tmp_path, run, values):
    plain = tmp_path / "plain"
    shutil.copytree(clip_folder, plain)
    (plain / "preprocessor_config.json").unlink()
    found = values(iclip(options | {"model": str(plain)}).score(run.image_set(), ignore))
    assert found == pytest.approx(values(iclip(options).score(run.image_set(), ignore)), abs=1e-5)


@pytest.mark.parametrize("settings", [True, False])
def test_images_of_any_size_are_resized(options, clip_folder, tmp_path, pictures, noise, values, settings):
    folder = tmp_path / "copy"
    shutil.copytree(clip_folder, folder)
    if not settings:
        (folder / "preprocessor_config.json").unlink()
    images = [noise(1, 64)[0], noise(1, 48)[0], noise(1, 96)[0][:70]]
    found = values(clip_text(options | {"model": str(folder)}).score(pictures(images).image_set(), ignore))
    assert None not in found.values()


def test_iclip_of_a_reference_is_one_and_without_reference_there_is_a_reason(options, pictures, noise):
    images = noise(2)
    run = pictures([images[0], images[0].copy(), images[1]], references=[0, 0, None])
    reference, twin, orphan = iclip(options).score(run.image_set(), ignore)
    assert reference.value == 1.0
    assert twin.value == pytest.approx(1.0, abs=1e-6)
    assert orphan.value is None
    assert "no reference" in orphan.reason_unscored


def test_an_empty_prompt_is_unscored(options, pictures, noise):
    run = pictures(noise(2), prompts=["", "a red star"], all_prompts=PROMPTS)
    for factory in (clip_text, r_precision):
        empty, full = factory(options).score(run.image_set(), ignore)
        assert "empty" in empty.reason_unscored
        assert full.value is not None


def test_r_precision_ranks_by_clip_text(options, clip_folder, run, values):
    encoder = load_encoder(clip_folder, "cpu")
    seen, texts = encoder.images(run.images), encoder.texts(PROMPTS)
    first = (seen @ texts.T).argmax(1)
    wanted = [float(PROMPTS[k] == p.text) for k, p in zip(first, run.prompts, strict=True)]
    assert list(values(r_precision(options).score(run.image_set(), ignore)).values()) == wanted


class TwoPoles:
    """An encoder that sees the number an image is filled with as an angle, and a text's length likewise."""

    def images(self, pictures):
        return self._at([int(p[0, 0, 0]) for p in pictures])

    def texts(self, texts):
        return self._at([len(t) for t in texts])

    @staticmethod
    def _at(angles):
        return np.stack([np.cos(np.array(angles) / 40), np.sin(np.array(angles) / 40)], 1)


def test_r_precision_is_one_for_the_right_prompt_and_zero_for_a_wrong_or_a_tied_one(options, pictures, monkeypatch):
    texts = ["x" * n for n in range(1, 41)]
    images = [np.full((4, 4, 3), n, np.uint8) for n in (5, 9, 5)]
    run = pictures(images, prompts=[texts[4], texts[4], "yyyyy"], all_prompts=texts)
    metric = r_precision(options)
    monkeypatch.setattr(type(metric), "encoder", lambda self: TwoPoles())
    assert [s.value for s in metric.score(run.image_set(), ignore)] == [1.0, 0.0, 0.0]


def test_r_precision_says_when_it_has_too_few_distractors(options, pictures, noise, tmp_path, caplog):
    run = pictures(noise(2), prompts=["a red star", "a blue ring"])
    scores = r_precision(options).score(run.image_set(), ignore)
    assert all("only 1 distractors, 20 are needed" in s.reason_unscored for s in scores)

    file = tmp_path / "more.txt"
    file.write_text("\n".join(PROMPTS) + "\n\n")
    with caplog.at_level(logging.WARNING, "perjoule"):
        scores = r_precision(options | {"distractors": str(file)}).score(run.image_set(), ignore)
    assert all(s.value is not None for s in scores)
    assert f"{len(PROMPTS) + 1} distractors instead of 99" in caplog.text

    caplog.clear()
    many = [f"picture number {i}" for i in range(200)]
    scores = r_precision(options | {"distractors": many}).score(run.image_set(), ignore)
    assert all(s.value is not None for s in scores)
    assert not caplog.text


def test_an_empty_run_has_no_scores(options, pictures):
    empty: ImageSet = pictures([]).image_set()
    assert all(factory(options).score(empty, ignore) == [] for factory in FACTORIES.values())


def test_the_metrics_share_one_model_in_memory(clip_folder, options):
    assert clip_text(options).encoder() is iclip(options).encoder() is load_encoder(clip_folder, "cpu")


def test_the_spec_names_the_weights(options, clip_folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(clip_folder, other)
    same = clip_text(options | {"model": str(other)}).spec.weights_digest
    assert same == clip_text(options).spec.weights_digest
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert clip_text(options | {"model": str(other)}).spec.weights_digest != same
    assert iclip(options).spec.track == "fidelity"
    assert "by definition" in iclip(options).spec.description


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"modle": "x"}, "unknown option 'modle': did you mean 'model'.*batch_size"),
        ({"batch_size": 0}, "batch_size = 0: must be 1 or more"),
        ({"batch_size": True}, "batch_size = True: must be int"),
        ({"revision": 3}, "revision = 3: must be str or nothing"),
        ({"model": "./not-there"}, "no such folder"),
        ({"distractors": [1]}, "distractors contains 1"),
        ({"distractors": "not-there.txt"}, "not-there.txt': no such file"),
    ],
)
def test_wrong_options_are_named(options, extra, message):
    with pytest.raises(UsageError, match=message):
        r_precision(options | extra)


def test_an_unknown_builtin_and_a_folder_without_a_model_are_usage_errors(options, tmp_path, pictures, noise):
    with pytest.raises(UnknownNameError, match="unknown builtin model 'clip-tinny'"):
        clip_text({"model": "builtin:clip-tinny"})
    with pytest.raises(UsageError, match="no weights"):
        _ = clip_text(options | {"model": str(tmp_path)}).spec
    with pytest.raises(UsageError, match="cannot load a CLIP model"):
        clip_text(options | {"model": str(tmp_path)}).score(pictures(noise(1)).image_set(), ignore)


def test_a_device_that_is_not_here_is_a_usage_error(options, pictures, noise):
    with pytest.raises(UsageError, match="device = 'warp'"):
        clip_text(options | {"device": "warp"}).score(pictures(noise(1)).image_set(), ignore)
