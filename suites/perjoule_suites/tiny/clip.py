"""The tiny CLIP: tokenizer, text tower and image tower, trained with hard negatives on the important words.

It is an ordinary transformers `CLIPModel`. Its text tower starts the denoiser's text encoder; the model itself is the
default of the metrics `clip_text`, `r_precision` and `iclip` for the family.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from perjoule_suites.tiny.autoencoder import to_tensor
from perjoule_suites.tiny.dataset import Dataset
from perjoule_suites.tiny.scenes import (
    COLOURS,
    GROUND_PATTERNS,
    GROUNDS,
    POSITIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    Scene,
    caption,
)
from perjoule_suites.tiny.training import Recipe, fit, seed_everything

TOKEN_COUNT = 32
RECIPE = Recipe(name="clip", steps=3_500, learning_rate=1.5e-3, weight_decay=0.05, seed=3)
_BATCH, _NEGATIVES = 64, 1


def train_tokenizer(captions: list[str]) -> CLIPTokenizer:
    """A byte-pair tokenizer in CLIP's format, learnt from the captions."""
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=1_000,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        show_progress=False,
    )
    # every byte also as the end of a word, so that the vocabulary covers prompts in every script
    learner.train_from_iterator([*captions, *(chr(i) for i in range(33, 2048))], trainer)
    with tempfile.TemporaryDirectory() as folder:
        learner.model.save(folder)
        vocab = json.loads(Path(folder, "vocab.json").read_text(encoding="utf-8"))
        merges = Path(folder, "merges.txt").read_text(encoding="utf-8").splitlines()
    pairs = [tuple(line.split()) for line in merges if line and not line.startswith("#")]
    return CLIPTokenizer(vocab=vocab, merges=pairs, model_max_length=TOKEN_COUNT, pad_token="<|endoftext|>")


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """-> (n, TOKEN_COUNT) int64, padded and cut as the diffusers pipelines do."""
    tokens = tokenizer(captions, padding="max_length", max_length=TOKEN_COUNT, truncation=True, return_tensors="pt")
    ids: torch.Tensor = tokens.input_ids
    return ids


def build(tokenizer: CLIPTokenizer) -> CLIPModel:
    """The untrained pair of towers, 1.0 M parameters."""
    text = {
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": TOKEN_COUNT,
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": 96,
        "intermediate_size": 288,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 8,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=96))


def train(
    data: Dataset, held_out: Dataset, tokenizer: CLIPTokenizer, workdir: Path, recipe: Recipe = RECIPE
) -> CLIPModel:
    """Contrast each image with the other captions of the batch and with its own caption with one word changed."""
    seed_everything(recipe.seed)
    model = build(tokenizer)

    def loss_of(rng: np.random.Generator, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        index = np.sort(rng.integers(0, len(data.scenes), _BATCH))
        scenes = [data.scenes[int(i)] for i in index]
        texts = [caption(s, rng) for s in scenes]
        wrong = [caption(swap_one_word(s, rng), rng) for s in scenes for _ in range(_NEGATIVES)]
        ids = tokenize(tokenizer, texts + wrong)
        ids = ids[:, : int((ids != tokenizer.eos_token_id).sum(1).max()) + 1]  # no padding: it costs a third
        with torch.autocast("cpu", torch.bfloat16):
            image = F.normalize(model.get_image_features(to_tensor(data.images[index])).pooler_output.float())
            text = F.normalize(model.get_text_features(ids).pooler_output.float())
        scale = model.logit_scale.exp().clamp(max=100)
        right, swapped = text[:_BATCH], text[_BATCH:].view(_BATCH, _NEGATIVES, -1)
        across = scale * image @ right.T
        hard = scale * torch.einsum("nd,nkd->nk", image, swapped)
        target = torch.arange(_BATCH)
        by_image = F.cross_entropy(torch.cat([across, hard], 1), target)
        by_text = F.cross_entropy(across.T, target)
        # the one-word swaps again separately, so that in-batch negatives do not dominate them
        alone = F.cross_entropy(torch.cat([across.diagonal()[:, None], hard], 1), torch.zeros(_BATCH, dtype=torch.long))
        return by_image + by_text + alone, {"swap_loss": alone.item()}

    def validate() -> dict[str, float]:
        return evaluate(model, tokenizer, held_out)

    fit(recipe, model, loss_of, workdir, validate=validate, validate_every=1_000)
    return model.eval()


@torch.inference_mode()
def evaluate(model: CLIPModel, tokenizer: CLIPTokenizer, held_out: Dataset) -> dict[str, float]:
    """Retrieval of the right caption among 1,000, and of the right word among two, by attribute."""
    model.eval()
    rng = np.random.default_rng(11)
    scenes, images = held_out.scenes[:1_000], held_out.images[:1_000]

    def texts(captions: list[str]) -> torch.Tensor:
        return F.normalize(model.get_text_features(tokenize(tokenizer, captions)).pooler_output)

    image = F.normalize(model.get_image_features(to_tensor(images)).pooler_output)
    right = texts([caption(s) for s in scenes])
    score = (image * right).sum(1)
    rank = ((image @ right.T) > score[:, None]).sum(1)
    shares = {"recall_at_1": (rank == 0).float().mean().item()}
    for attribute in (
        "colour",
        "shape",
        "texture",
        "size",
        "position",
        "arrangement",
        "ground",
        "ground_pattern",
    ):
        changed = [swap_one_word(s, rng, attribute) for s in scenes]
        rows = [i for i, (a, b) in enumerate(zip(scenes, changed, strict=True)) if a != b]
        other = (image[rows] * texts([caption(changed[i]) for i in rows])).sum(1)
        shares[f"swap_{attribute}"] = (score[rows] > other).float().mean().item()
    model.train()
    return shares


def swap_one_word(scene: Scene, rng: np.random.Generator, attribute: str | None = None) -> Scene:
    """The scene with one attribute changed to another value; unchanged if the scene has no such attribute."""
    single = scene.arrangement == "single"
    options = ["colour", "shape", "texture", "ground", "ground_pattern"]
    options += ["size", "position"] if single else ["arrangement", "order"]
    chosen = attribute or str(rng.choice(options))
    if chosen not in options:
        return scene
    values: dict[str, tuple[str, ...]] = {
        "colour": tuple(COLOURS),
        "shape": SHAPES,
        "texture": TEXTURES,
        "size": SIZES,
        "position": POSITIONS,
        "ground": tuple(GROUNDS),
        "ground_pattern": GROUND_PATTERNS,
        "arrangement": ("beside", "stacked"),
    }
    if chosen == "order":
        return dataclasses.replace(scene, things=scene.things[::-1])
    if chosen in ("ground", "ground_pattern", "position", "arrangement"):
        scene_change: dict[str, Any] = {chosen: _another(values[chosen], getattr(scene, chosen), rng)}
        return dataclasses.replace(scene, **scene_change)
    which = int(rng.integers(0, len(scene.things)))
    things = list(scene.things)
    thing_change: dict[str, Any] = {chosen: _another(values[chosen], getattr(things[which], chosen), rng)}
    things[which] = dataclasses.replace(things[which], **thing_change)
    return dataclasses.replace(scene, things=tuple(things))


def _another(values: tuple[str, ...], current: str, rng: np.random.Generator) -> str:
    return str(rng.choice([value for value in values if value != current]))
