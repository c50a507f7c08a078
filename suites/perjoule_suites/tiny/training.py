"""The chain of trainings, in order; finished parts are skipped.

Parts that do not need each other can be trained by two processes at the same time: each part has a lock, and a process
waits for a part that another one trains.
"""

from __future__ import annotations

import datetime
import fcntl
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from torch import distributed, multiprocessing
from transformers import CLIPModel, CLIPTokenizer

from perjoule_suites.tiny import autoencoder, clip, data, denoiser, few_step, pruned
from perjoule_suites.tiny.export import load_pipeline, save_student
from perjoule_suites.tiny.fitting import Peers

PARTS = ("vae", "latents", "tokenizer", "clip", "sd-tiny", "sd-tiny-lcm", "sd-tiny-pruned")
# which parts a part is made from
NEEDS = {
    "vae": (),
    "latents": ("vae",),
    "tokenizer": (),
    "clip": ("tokenizer",),
    "sd-tiny": ("latents", "clip"),
    "sd-tiny-lcm": ("sd-tiny",),
    "sd-tiny-pruned": ("sd-tiny",),
}
# name of a training's log -> its optimiser steps
STEPS = {module.RECIPE.name: module.RECIPE.steps for module in (autoencoder, clip, denoiser, few_step, pruned)}
_PEER_TIMEOUT = datetime.timedelta(hours=6)


def train_parts(out: Path, parts: tuple[str, ...] = PARTS, *, processes: int = 1) -> None:
    """Train each part that `out` does not contain yet, from its checkpoint if there is one.

    Args:
        out: Folder of checkpoints, logs and trained parts.
        parts: What to train, in order.
        processes: 2: the denoiser is trained by two processes, and the students at the same time.
    """
    out.mkdir(parents=True, exist_ok=True)
    students = ("sd-tiny-lcm", "sd-tiny-pruned")
    other = None
    for part in parts:
        if part == students[0] and students[1] in parts and processes > 1:
            other = multiprocessing.get_context("spawn").Process(
                target=_in_one_thread, args=(train_parts, out, students[1:]), daemon=True
            )
            other.start()
        with lock_of(out / f"{part}.lock"):
            if not (out / part).exists():
                _TRAIN[part](out, processes)
    if other is not None:
        other.join()


def _in_one_thread(function: Callable[..., None], *arguments: Any) -> None:
    torch.set_num_threads(1)
    function(*arguments)


def _autoencoder(out: Path, _processes: int) -> None:
    vae = autoencoder.train(out, autoencoder.RECIPE)
    write_folder(out / "vae", vae.save_pretrained)


def _latents(out: Path, _processes: int) -> None:
    _read_latents(out)
    write_folder(out / "latents", lambda folder: folder.mkdir(exist_ok=True))


def _read_latents(out: Path) -> tuple[data.Latents, data.Latents]:
    vae = AutoencoderKL.from_pretrained(out / "vae").eval()
    folder = out / "latents-parts"
    return (
        data.load_or_encode(folder, vae, count=denoiser.SCENES, split="train", seed=1),
        data.load_or_encode(folder, vae, count=denoiser.HELD_OUT_SCENES, split="dev", seed=2),
    )


def _tokenizer(out: Path, _processes: int) -> None:
    write_folder(out / "tokenizer", clip.tokenizer().save_pretrained)


def _clip(out: Path, _processes: int) -> None:
    towers = clip.train(CLIPTokenizer.from_pretrained(out / "tokenizer"), out, clip.RECIPE)
    write_folder(out / "clip", towers.save_pretrained)


def _denoiser(out: Path, processes: int) -> None:
    if processes == 1:
        _train_denoiser(out, None)
        return
    meeting = str(out / f"peers-{uuid.uuid4().hex}")
    context = multiprocessing.get_context("spawn")
    others = [
        context.Process(target=_train_together, args=(out, rank, processes, meeting), daemon=True)
        for rank in range(1, processes)
    ]
    for other in others:
        other.start()
    try:
        _train_together(out, 0, processes, meeting)
    finally:
        for other in others:
            other.terminate()
        Path(meeting).unlink(missing_ok=True)


def _train_together(out: Path, rank: int, count: int, meeting: str) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=count, timeout=_PEER_TIMEOUT
    )
    _train_denoiser(out, Peers(rank, count))
    distributed.destroy_process_group()


def _train_denoiser(out: Path, peers: Peers | None) -> None:
    words, towers = CLIPTokenizer.from_pretrained(out / "tokenizer"), CLIPModel.from_pretrained(out / "clip")
    vae = AutoencoderKL.from_pretrained(out / "vae").eval()
    seen, unseen = _read_latents(out)
    model = denoiser.train(seen, unseen, (words, towers, vae), out, denoiser.RECIPE, peers)
    if not peers or not peers.rank:
        write_folder(out / "sd-tiny", denoiser.assemble(vae, model, words).save_pretrained)


def _few_step(out: Path, _processes: int) -> None:
    teacher = load_pipeline(out / "sd-tiny")
    student = few_step.train(teacher, out, few_step.RECIPE, few_step.PAIR_COUNT)
    write_folder(out / "sd-tiny-lcm", lambda folder: save_student(student, out / "sd-tiny", folder))


def _pruned(out: Path, _processes: int) -> None:
    teacher: StableDiffusionPipeline = load_pipeline(out / "sd-tiny")
    student = pruned.train(teacher, _read_latents(out)[0], out, pruned.RECIPE)
    write_folder(out / "sd-tiny-pruned", lambda folder: save_student(student, out / "sd-tiny", folder))


_TRAIN: dict[str, Callable[[Path, int], None]] = {
    "vae": _autoencoder,
    "latents": _latents,
    "tokenizer": _tokenizer,
    "clip": _clip,
    "sd-tiny": _denoiser,
    "sd-tiny-lcm": _few_step,
    "sd-tiny-pruned": _pruned,
}


@contextmanager
def lock_of(file: Path) -> Iterator[None]:
    """Hold a lock; wait while another process holds it."""
    with file.open("wb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def write_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Write a folder completely or not at all."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    write(unfinished)
    for file in unfinished.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
    unfinished.rename(folder)
