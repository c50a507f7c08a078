"""What goes wrong between the hub and the pipeline: each with its file or id and the way out, and resumable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tests.perjoule_suites.hub.conftest import Shelf, shelf_of

from perjoule.types import Denoiser, Lora

pytestmark = pytest.mark.slow

UNET = "unet/diffusion_pytorch_model.safetensors"


def test_a_repository_that_moved(shelf: Shelf) -> None:
    variant = replace(shelf.put("test/moved"), model="test/old")
    message = shelf.worker.error(variant)
    assert "suite.toml: variants[0].model = 'test/old'" in message
    assert shelf.mirror.url in message
    assert "--model test/old=NEW/ID" in message


def test_a_revision_that_is_not_there(shelf: Shelf) -> None:
    message = shelf.worker.error(replace(shelf.put("test/revision"), revision="0" * 40))
    assert "'test/revision'" in message
    assert "no such revision" in message


def test_a_gated_repository(shelf: Shelf) -> None:
    message = shelf.worker.error(shelf.put("test/gated"))
    assert "gated" in message
    assert "https://huggingface.co/test/gated" in message
    assert "HF_TOKEN" in message


def test_a_missing_file_then_there_again(shelf: Shelf) -> None:
    variant = shelf.put("test/missing")
    shelf.mirror.faults.lost.add(f"test/missing/{UNET}")
    message = shelf.worker.error(variant)
    assert "a file is missing on the hub" in message
    assert UNET in message
    shelf.mirror.faults.lost.clear()
    assert shelf.worker.load(variant)["nfe"] == 6  # its own PNDM: one more than two, guided


def test_a_download_that_breaks_off_goes_on(shelf: Shelf) -> None:
    variant = shelf.put("test/cut")
    weights = shelf.repositories / "test/cut" / UNET
    # huggingface_hub writes pieces of 10 MiB, and what is less than one piece is lost
    save_file(load_file(weights), weights, metadata={"format": "pt", "padding": "x" * (12 << 20)})
    shelf.mirror.faults.cut[f"test/cut/{UNET}"] = 11 << 20
    first = shelf.worker.load(variant)
    if "error" in first:  # it may go on by itself
        assert "Run again: complete files are kept" in first["error"]
        assert "nfe" in shelf.worker.load(variant)
    address = f"/test/cut/resolve/{shelf.mirror.commit('test/cut')}/{UNET}"
    asked = [request.range for request in shelf.mirror.requests if request.path == address]
    assert 10 << 20 in asked


def test_a_file_that_is_not_what_the_hub_promised(shelf: Shelf) -> None:
    variant = shelf.put("test/false")
    shelf.mirror.faults.false.add(f"test/false/{UNET}")
    message = shelf.worker.error(variant)
    blob = shelf.blob("test/false", UNET)
    assert f"test/false/{UNET} is damaged" in message
    assert f"Delete {blob}" in message
    shelf.mirror.faults.false.clear()
    blob.unlink()
    assert "nfe" in shelf.worker.load(variant)


def test_a_cached_file_that_was_cut_short(shelf: Shelf) -> None:
    variant = shelf.put("test/short")
    assert "nfe" in shelf.worker.load(variant)
    blob = shelf.blob("test/short", UNET)
    blob.write_bytes(blob.read_bytes()[:1000])
    message = shelf.worker.error(variant)
    assert f"test/short/{UNET} is damaged: 1,000 bytes" in message
    assert f"Delete {blob}" in message
    blob.unlink()
    assert "nfe" in shelf.worker.load(variant)


def test_a_folder_with_a_file_that_was_cut_short(shelf: Shelf) -> None:
    shelf.put("test/folder")
    folder = shelf.repositories / "test/folder"
    weights = folder / UNET
    weights.write_bytes(weights.read_bytes()[:1000])
    message = shelf.worker.error(replace(shelf.put("test/other"), model=str(folder)))
    assert f"{UNET} is cut short or not a safetensors file (1,000 bytes)" in message
    assert f"delete {weights}" in message


def test_a_full_disk_then_room(shelf: Shelf) -> None:
    variant = shelf.put("test/full")
    found = shelf.worker.load(variant, full_disk=True)
    assert found["exit_code"] == 2
    assert "'test/full' cannot be loaded: the disk is full" in found["error"]
    assert str(shelf.home / "hub") in found["error"]
    assert "HF_HOME" in found["error"]
    assert "nfe" in shelf.worker.load(variant)


def test_parts_that_do_not_fit(shelf: Shelf) -> None:
    variant = shelf.put("test/parts")
    other = "stabilityai/none"
    message = shelf.worker.error(replace(variant, lora=Lora(model=other, file="x.safetensors")))
    assert f"variants[0].lora.file = '{other}'" in message
    vae = Denoiser(model="test/parts", file="vae/diffusion_pytorch_model.safetensors")
    message = shelf.worker.error(replace(variant, denoiser=vae))
    assert "variants[0].denoiser.file = 'diffusion_pytorch_model.safetensors'" in message
    assert "these weights do not fit the UNet2DConditionModel" in message


def test_airplane_mode(repositories: Path, tmp_path: Path) -> None:
    """A filled cache works, what is not in it is named. The mirror does not come back, so it is a shelf of its own."""
    with shelf_of(tmp_path, repositories) as shelf:
        there, missing = shelf.put("test/there"), shelf.put("test/never")
        before = shelf.worker.load(there)
        shelf.mirror.__exit__(None, None, None)
        after = shelf.worker.load(there)
        assert after["pixels"] == before["pixels"]
        message = shelf.worker.error(missing)
        assert "cannot be reached" in message
        assert "'test/never'" in message
        assert str(shelf.home / "hub") in message


def test_no_file_of_the_safety_checker_is_asked_for(shelf: Shelf) -> None:
    variant = shelf.put("test/checked")
    assert (shelf.repositories / "test/checked/safety_checker/model.safetensors").is_file()
    assert "nfe" in shelf.worker.load(variant)
    asked = [request.path for request in shelf.mirror.requests if "test/checked" in request.path]
    assert asked
    assert not [path for path in asked if "safety_checker" in path]
