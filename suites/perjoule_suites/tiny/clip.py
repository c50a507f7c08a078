"""The tiny CLIP: tokenizer, text tower and image tower, trained with contradicting captions as hard negatives.

An open caption fits many pictures. Other captions of a batch that fit a picture are therefore no negatives for it, and
a hard negative is a caption with one change that the picture contradicts. The text tower starts the denoiser's text
encoder; the model itself is the default of the metrics `clip_text`, `r_precision` and `iclip`.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from perjoule_suites.tiny.autoencoder import to_tensor
from perjoule_suites.tiny.data import training_captions
from perjoule_suites.tiny.fitting import Recipe, fit, seed_everything
from perjoule_suites.tiny.world.captions import (
    COLOURS,
    GROUNDS,
    LAYOUTS,
    PATTERNS,
    POSITIONS,
    RELATIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    Caption,
    Split,
    Wish,
)
from perjoule_suites.tiny.world.checker import Seen
from perjoule_suites.tiny.world.scenes import draw_scene, render
from perjoule_suites.tiny.world.score import holds, shown_by

TOKEN_COUNT = 32
RECIPE = Recipe(name="clip", steps=3_500, learning_rate=1.5e-3, weight_decay=0.05, seed=3)
_BATCH, _NEGATIVES, _TOKENIZER_CAPTIONS, _HELD_OUT, _TRIES = 64, 2, 10_000, 500, 12
_VALUES: dict[str, tuple[str, ...]] = {
    "size": SIZES,
    "texture": tuple(TEXTURES),
    "colour": COLOURS,
    "shape": SHAPES,
    "ground": GROUNDS,
    "pattern": tuple(PATTERNS),
}


def tokenizer() -> CLIPTokenizer:
    """A byte-pair tokenizer in CLIP's format, learnt from captions of the world."""
    rng = np.random.default_rng(0)
    return train_tokenizer([caption.text(rng) for caption in training_captions(rng, _TOKENIZER_CAPTIONS)])


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


def build(words: CLIPTokenizer) -> CLIPModel:
    """The untrained pair of towers, 0.8 M parameters."""
    text = {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": TOKEN_COUNT,
        "vocab_size": len(words),
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }
    vision = {
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 8,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=96))


def contradict(caption: Caption, seen: Seen, rng: np.random.Generator) -> Caption:
    """A caption with one change that the picture contradicts: a word, the count, the order or the binding."""
    changes = _changes(caption)
    for _ in range(_TRIES):
        other = changes[int(rng.integers(len(changes)))](rng)
        # a caption that is held out of training is no negative in training either
        if not holds(seen, other) and (other.split == "train" or caption.split != "train"):
            return other
    return Caption(kind="many", count=2 if caption.count != 2 else 3, wishes=(Wish(),))


def _changes(caption: Caption) -> list[Callable[[np.random.Generator], Caption]]:
    changes: list[Callable[[np.random.Generator], Caption]] = []

    def another(values: tuple[str, ...], current: str, rng: np.random.Generator) -> str:
        others = [value for value in values if value != current]
        return others[int(rng.integers(len(others)))]

    def in_wish(which: int, name: str) -> Callable[[np.random.Generator], Caption]:
        def change(rng: np.random.Generator) -> Caption:
            wishes = list(caption.wishes)
            current = getattr(wishes[which], name)
            wishes[which] = dataclasses.replace(wishes[which], **{name: another(_VALUES[name], current, rng)})
            return dataclasses.replace(caption, wishes=tuple(wishes))

        return change

    def around(name: str, values: tuple[str, ...]) -> Callable[[np.random.Generator], Caption]:
        current = getattr(caption, name)

        def change(rng: np.random.Generator) -> Caption:
            slot: dict[str, Any] = {name: another(values, current, rng)}
            return dataclasses.replace(caption, **slot)

        return change

    def of_binding(name: str) -> Callable[[np.random.Generator], Caption]:
        first, second = caption.wishes
        wishes = tuple(
            dataclasses.replace(wish, **{name: getattr(other, name)})
            for wish, other in ((first, second), (second, first))
        )
        return lambda rng: dataclasses.replace(caption, wishes=wishes)

    def of_count(rng: np.random.Generator) -> Caption:
        counts = [count for count in LAYOUTS if count != caption.count]
        count = counts[int(rng.integers(len(counts)))]
        wish = caption.wishes[0] if count == 2 else dataclasses.replace(caption.wishes[0], size=None)
        layout = caption.layout if caption.layout in LAYOUTS[count] else None
        return dataclasses.replace(caption, kind="many", count=count, wishes=(wish,), layout=layout)

    for which, wish in enumerate(caption.wishes):
        changes += [in_wish(which, field) for field, value in _named(wish)]
    changes += [around(name, _VALUES[name]) for name in ("ground", "pattern") if getattr(caption, name)]
    if caption.kind == "pair":
        changes += [of_binding(name) for name in ("colour", "shape", "texture", "size")]
        if caption.layout:
            changes += [
                lambda rng: dataclasses.replace(caption, wishes=caption.wishes[::-1]),
                around("layout", RELATIONS),
            ]
    elif caption.kind == "many":
        changes += [of_count] * 2
        if caption.layout and len(LAYOUTS[caption.count]) > 1:
            changes.append(around("layout", LAYOUTS[caption.count]))
    else:
        changes.append(of_count)
        if caption.layout:
            changes.append(around("layout", POSITIONS))
    return changes


def _named(wish: Wish) -> list[tuple[str, str]]:
    names = ("size", "texture", "colour", "shape")
    return [(name, getattr(wish, name)) for name in names if getattr(wish, name) is not None]


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Renders with their captions, one contradiction or more for each, and which other captions they satisfy.

    images: (n, 64, 64, 3) uint8; right: n texts; wrong: n * k texts; fits: (n, n) bool, picture i and caption j.
    """

    images: NDArray[np.uint8]
    right: list[str]
    wrong: list[str]
    fits: NDArray[np.bool_]


def draw_batch(rng: np.random.Generator, count: int, split: Split = "train") -> Batch:
    """Draw captions, scenes and contradictions."""
    captions = training_captions(rng, count, split)
    scenes = [draw_scene(caption, rng) for caption in captions]
    shown = [shown_by(scene) for scene in scenes]
    return Batch(
        images=np.stack([render(scene) for scene in scenes]),
        right=[caption.text(rng) for caption in captions],
        wrong=[
            contradict(caption, seen, rng).text(rng)
            for caption, seen in zip(captions, shown, strict=True)
            for _ in range(_NEGATIVES)
        ],
        fits=np.array([[holds(seen, caption) for caption in captions] for seen in shown]),
    )


def train(words: CLIPTokenizer, workdir: Path, recipe: Recipe) -> CLIPModel:
    """Contrast each picture with captions that it contradicts: those of the batch, and its own with one change."""
    seed_everything(recipe.seed)
    model = build(words)
    held = draw_batch(np.random.default_rng(4), _HELD_OUT, "dev")

    def loss_of(rng: np.random.Generator, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        batch = draw_batch(rng, _BATCH)
        image, text = _features(model, words, batch)
        scale = model.logit_scale.exp().clamp(max=100)
        right, wrong = text[:_BATCH], text[_BATCH:].view(_BATCH, _NEGATIVES, -1)
        fits = torch.from_numpy(batch.fits) & ~torch.eye(_BATCH, dtype=torch.bool)
        across = (scale * image @ right.T).masked_fill(fits, -1e4)
        hard = scale * torch.einsum("nd,nkd->nk", image, wrong)
        target = torch.arange(_BATCH)
        by_image = F.cross_entropy(torch.cat([across, hard], 1), target)
        by_text = F.cross_entropy(across.T, target)
        # the contradictions again on their own, so that the other captions of the batch do not dominate them
        own = F.cross_entropy(torch.cat([across.diagonal()[:, None], hard], 1), torch.zeros_like(target))
        return by_image + by_text + own, {"own": own.item()}

    def validate() -> dict[str, float]:
        return evaluate(model, words, held)

    fit(recipe, model, loss_of, workdir, validate=validate, validate_every=500)
    return model.eval()


def _features(model: CLIPModel, words: CLIPTokenizer, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    ids = tokenize(words, batch.right + batch.wrong)
    ids = ids[:, : int((ids != words.eos_token_id).sum(1).max()) + 1]  # padding costs a third
    image = F.normalize(model.get_image_features(to_tensor(batch.images)).pooler_output)
    return image, F.normalize(model.get_text_features(ids).pooler_output)


@torch.inference_mode()
def evaluate(model: CLIPModel, words: CLIPTokenizer, held: Batch) -> dict[str, float]:
    """Share of pictures whose caption beats its contradictions, and all captions of the set that do not fit."""
    model.eval()
    image, text = _features(model, words, held)
    right, wrong = text[: len(image)], text[len(image) :].view(len(image), _NEGATIVES, -1)
    own = (image * right).sum(1)
    hard = torch.einsum("nd,nkd->nk", image, wrong)
    others = (image @ right.T).masked_fill(torch.from_numpy(held.fits), -1)
    model.train()
    return {
        "beats_contradictions": (own[:, None] > hard).float().mean().item(),
        "recall_at_1": (own > others.amax(1)).float().mean().item(),
    }
