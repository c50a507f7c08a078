"""Reads prompts with the text encoder of a pipeline: the input of predictors and routers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from perjoule.errors import UsageError, first_line
from perjoule.weights.models import resolve_model
from perjoule.weights.settings import settings_problem
from perjoule_suites.prompt_embeddings import encode_prompts

_MOST_CHARACTERS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PromptReader:
    """Tokenizer and text encoder of a pipeline; the first ones, if it has several.

    `pipeline` is the pipeline itself, if it is loaded: it reads prompts with all of its encoders.
    """

    tokenizer: Any
    text_encoder: Any
    pipeline: Any = None

    @classmethod
    def of(cls, pipeline: Any) -> PromptReader:
        """Return the reader of a loaded pipeline."""
        return cls(tokenizer=pipeline.tokenizer, text_encoder=pipeline.text_encoder, pipeline=pipeline)

    @classmethod
    def load(cls, model: str, where: str) -> PromptReader:
        """Load only tokenizer and text encoder of a model; `where` names the file that states it. Raises UsageError."""
        from transformers import CLIPTextModel, CLIPTokenizer

        folder = resolve_model(model, f"{where}: model")
        for part in ("tokenizer", "text_encoder"):
            if problem := settings_problem(Path(folder) / part):
                raise UsageError(f"{where}: model: {problem}")
        try:
            return cls(
                tokenizer=CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer"),
                text_encoder=CLIPTextModel.from_pretrained(
                    folder,
                    subfolder="text_encoder",
                    dtype=torch.float32,
                    attn_implementation="sdpa",  # transformers' default, whatever the settings of a repository say
                ).eval(),
            )
        except Exception as error:  # transformers and the hub raise many types
            raise UsageError(
                f"{where}: the text encoder of {model} cannot be loaded: {first_line(error)}; pass pipeline="
            ) from error

    @property
    def digest(self) -> str:
        """SHA-256 of the text encoders, see `text_encoder_digest`."""
        return text_encoder_digest(*clip_encoders(self.pipeline, self.text_encoder))

    @torch.inference_mode()
    def states(self, prompts: Sequence[str]) -> torch.Tensor:
        """Return the pipeline's encoding of each prompt: (n, tokens, width). Raises UsageError."""
        check_prompts(prompts)
        if self.pipeline is not None:
            read: torch.Tensor = encode_prompts(self.pipeline, prompts, guided=False)["prompt_embeds"]
            return read
        ids = self.tokenizer(
            list(prompts), padding="max_length", max_length=self.tokenizer.model_max_length, truncation=True,
            return_tensors="pt",
        ).input_ids  # fmt: skip
        states: torch.Tensor = self.text_encoder(ids.to(self.text_encoder.device)).last_hidden_state
        return states

    def token_counts(self, prompts: Sequence[str]) -> NDArray[np.int64]:
        """Return the number of tokens of each prompt, up to the text encoder's limit: (n,)."""
        most = self.tokenizer.model_max_length
        return np.array([len(ids) for ids in self.tokenizer(list(prompts), truncation=True, max_length=most).input_ids])


def check_prompts(prompts: Sequence[str]) -> None:
    """Raise UsageError for an invalid prompt."""
    for index, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise UsageError(f"prompt {index}: {type(prompt).__name__} is not a text")
        if not prompt.strip():
            raise UsageError(f"prompt {index} is empty: a prediction needs a text")
        if len(prompt) > _MOST_CHARACTERS:
            raise UsageError(f"prompt {index} has {len(prompt):,} characters: at most {_MOST_CHARACTERS:,}")


def text_encoder_digest(*encoders: Any) -> str:
    """Return the SHA-256 of the weights in memory, in float32; weights loaded in half precision have another digest."""
    digest = hashlib.sha256()
    for encoder in encoders:
        for name, tensor in sorted(encoder.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()


def clip_encoders(pipeline: Any, first: Any) -> list[Any]:
    """Return the CLIP encoders, which distinguish pipelines; an additional T5 is the same in all and slow to hash."""
    second = getattr(pipeline, "text_encoder_2", None)
    return [first] if second is None else [first, second]


def pretrained_folder(source: str | Path, kind: str, files: Sequence[str]) -> Path:
    """Return the folder of a predictor or router: a folder, a hub id, or `builtin:NAME`. Raises UsageError."""
    folder = Path(resolve_model(str(source), kind))
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(str(source), allow_patterns=list(files)))
        except Exception as error:  # the hub raises many types
            raise UsageError(f"{kind} {str(source)!r} could not be downloaded: {first_line(error)}") from error
    return folder
