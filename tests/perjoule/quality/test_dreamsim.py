from __future__ import annotations

import json
import zipfile

import pytest

from perjoule.errors import UnknownNameError, UsageError
from perjoule.quality.dreamsim import dsim, with_lora

pytestmark = pytest.mark.slow

WIDTH, DEPTH, HEADS, RANK, ALPHA = 128, 2, 2, 4, 6
DINO = "checkpoints/dino_vitbase16_pretrain.pth"
FILES = {"dino": DINO, "clip": "clip_vitb16_pretrain.pth.tar", "open_clip": "open_clip_vitb16_pretrain.pth.tar"}
FAMILIES = ("dino", "clip", "open_clip")


def ignore(count: int) -> None:
    pass


def transformer_state(seed, family):
    """Random tensors under the names of facebookresearch/dino, with DreamSim's additions for CLIP."""
    import torch

    random = torch.Generator().manual_seed(seed)

    def tensor(*shape, mean=0.0):
        return mean + 0.1 * torch.randn(*shape, generator=random)

    state = {
        "cls_token": tensor(1, 1, WIDTH),
        "pos_embed": tensor(1, 197, WIDTH),
        "patch_embed.proj.weight": tensor(WIDTH, 3, 16, 16),
        "norm.weight": tensor(WIDTH, mean=1.0),
        "norm.bias": tensor(WIDTH),
    }
    if family == "dino":
        state["patch_embed.proj.bias"] = tensor(WIDTH)
    else:
        state |= {"pos_drop.weight": tensor(WIDTH, mean=1.0), "pos_drop.bias": tensor(WIDTH)}
        state["proj"] = tensor(WIDTH, 64)
    for n in range(DEPTH):
        for name, out, into in (
            ("attn.qkv", 3 * WIDTH, WIDTH),
            ("attn.proj", WIDTH, WIDTH),
            ("mlp.fc1", 4 * WIDTH, WIDTH),
            ("mlp.fc2", WIDTH, 4 * WIDTH),
        ):
            state |= {f"blocks.{n}.{name}.weight": tensor(out, into), f"blocks.{n}.{name}.bias": tensor(out)}
        for name in ("norm1", "norm2"):
            state[f"blocks.{n}.{name}.weight"] = tensor(WIDTH, mean=1.0)
            state[f"blocks.{n}.{name}.bias"] = tensor(WIDTH)
    return state


def plain_forward(state, adapter, number, family, pixels):
    """The class token in the words of the papers: attention written out, LoRA beside its layer and not inside."""
    import torch
    from torch.nn import functional

    eps = 1e-6 if family == "dino" else 1e-5

    def linear(name, x):
        y = functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])
        key = f"base_model.model.extractor_list.{number}.model.{name}"
        if f"{key}.lora_A.weight" in adapter:
            low = functional.linear(x, adapter[f"{key}.lora_A.weight"])
            y = y + ALPHA / RANK * functional.linear(low, adapter[f"{key}.lora_B.weight"])
        return y

    def norm(name, x):
        return functional.layer_norm(x, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"], eps)

    bias = state.get("patch_embed.proj.bias")
    x = functional.conv2d(pixels, state["patch_embed.proj.weight"], bias, stride=16)
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x], 1) + state["pos_embed"]
    if family != "dino":
        x = norm("pos_drop", x)
    for n in range(DEPTH):
        b, t, _ = x.shape
        q, k, v = linear(f"blocks.{n}.attn.qkv", norm(f"blocks.{n}.norm1", x)).reshape(b, t, 3, HEADS, -1).unbind(2)
        weights = torch.einsum("bihd,bjhd->bhij", q, k) / (WIDTH // HEADS) ** 0.5
        mixed = torch.einsum("bhij,bjhd->bihd", weights.softmax(-1), v).reshape(b, t, WIDTH)
        x = x + linear(f"blocks.{n}.attn.proj", mixed)
        h = linear(f"blocks.{n}.mlp.fc1", norm(f"blocks.{n}.norm2", x))
        h = h * torch.sigmoid(1.702 * h) if family == "clip" else functional.gelu(h)
        x = x + linear(f"blocks.{n}.mlp.fc2", h)
    return x[:, 0] if family == "dino" else norm("norm", x)[:, 0] @ state["proj"]


@pytest.fixture(scope="module")
def states():
    return {family: transformer_state(seed, family) for seed, family in enumerate(FAMILIES)}


@pytest.fixture(scope="module")
def adapter():
    import torch

    random = torch.Generator().manual_seed(9)
    found = {}
    for number in range(len(FAMILIES)):
        for n in range(DEPTH):
            key = f"base_model.model.extractor_list.{number}.model.blocks.{n}.attn.qkv"
            found[f"{key}.lora_A.weight"] = 0.3 * torch.randn(RANK, WIDTH, generator=random)
            found[f"{key}.lora_B.weight"] = 0.3 * torch.randn(3 * WIDTH, RANK, generator=random)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory, states, adapter):
    """The package's cache_dir, in the layout of the published checkpoints."""
    import torch
    from safetensors.torch import save_file

    root = tmp_path_factory.mktemp("dreamsim")
    for family, file in FILES.items():
        (root / file).parent.mkdir(exist_ok=True)
        torch.save(states[family] if family == "dino" else {"state_dict": states[family]}, root / file)
    for name in ("ensemble_lora", "dino_vitb16_single_lora"):
        (root / name).mkdir()
        save_file(adapter, root / name / "adapter_model.safetensors")
        config = {"r": RANK, "lora_alpha": ALPHA, "target_modules": ["qkv"], "peft_type": "LORA"}
        (root / name / "adapter_config.json").write_text(json.dumps(config))
    return root


def wanted(states, adapter, families, images):
    """1 - DreamSim of each image to the last, as the package defines it."""
    import torch
    from torchvision import transforms

    to_pixels = transforms.Compose(
        [
            transforms.ToPILImage(),
            transforms.Resize((224, 224), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
        ]
    )
    pixels = torch.stack([to_pixels(image) for image in images])
    parts = []
    for number, family in enumerate(families):
        imagenet = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        openai = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
        normalised = transforms.Normalize(*(imagenet if family == "dino" else openai))(pixels)
        parts.append(plain_forward(states[family], adapter, number, family, normalised))
    vectors = torch.cat(parts, 1)
    vectors = vectors - vectors.mean(1, keepdim=True)
    return torch.nn.functional.cosine_similarity(vectors, vectors[-1:], dim=-1).tolist()


@pytest.mark.parametrize(("variant", "families"), [("ensemble", FAMILIES), ("dino_vitb16", FAMILIES[:1])])
def test_it_is_dreamsims_cosine(variant, families, folder, states, adapter, pictures, noise):
    images = [noise(1, 64)[0], noise(1, 300, seed=1)[0][:200], noise(1, 224, seed=2)[0], noise(1, 96, seed=3)[0]]
    metric = dsim({"folder": str(folder), "variant": variant, "device": "cpu", "batch_size": 3})
    scores = metric.score(pictures(images, references=[3, 3, 3, 3]).image_set(), ignore)
    expected = wanted(states, adapter, families, images)
    assert [s.value for s in scores] == pytest.approx(expected, abs=1e-5)
    assert min(expected) < 0.97  # random networks can tell these images apart
    assert scores[3].value == 1.0


def test_the_spec_names_the_files_and_the_reference_is_needed(folder, pictures, noise):
    metric = dsim({"folder": str(folder), "device": "cpu"})
    spec = metric.spec
    assert (spec.direction, spec.track, spec.needs_reference) == ("higher", "fidelity", True)
    assert spec.weights_digest != dsim({"folder": str(folder), "variant": "dino_vitb16"}).spec.weights_digest
    (orphan,) = metric.score(pictures(noise(1, 64)).image_set(), ignore)
    assert "no reference" in orphan.reason_unscored


def test_the_published_archive_is_unpacked_once(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))
    kept = tmp_path / "hub" / "checkpoints"
    kept.mkdir(parents=True)
    with zipfile.ZipFile(kept / "dreamsim_dino_vitb16_checkpoint.zip", "w") as archive:
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            archive.write(folder / "dino_vitb16_single_lora" / file, f"dino_vitb16_single_lora/{file}")
        archive.writestr("../outside", "x")
    (kept / "dino_vitbase16_pretrain.pth").write_bytes((folder / DINO).read_bytes())
    fetched = dsim({"variant": "dino_vitb16"})
    assert fetched.weights_here()
    own = dsim({"variant": "dino_vitb16", "folder": str(folder)})
    assert fetched.spec.weights_digest == own.spec.weights_digest
    assert not list(tmp_path.rglob("outside"))


def test_updates_that_do_not_arrive_are_an_error_and_not_another_embedding(states, adapter):
    alone = {name: tensor for name, tensor in adapter.items() if "extractor_list.0" in name}
    assert with_lora(states["dino"], alone, 0, 1.0).keys() == states["dino"].keys()
    with pytest.raises(KeyError, match="no update for transformer 1"):
        with_lora(states["clip"], alone, 1, 1.0)
    with pytest.raises(KeyError, match="unknown is not an update"):
        with_lora(states["dino"], {"unknown": next(iter(alone.values()))}, 0, 1.0)
    other = {name.replace("blocks.1", "blocks.7"): tensor for name, tensor in alone.items()}
    with pytest.raises(KeyError, match=r"blocks\.7\.attn\.qkv\.weight"):
        with_lora(states["dino"], other, 0, 1.0)


def test_faults_are_named(folder, tmp_path, monkeypatch, pictures, noise):
    import torch

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("PERJOULE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UnknownNameError, match="unknown variant 'dinov2_vitb14'"):
        dsim({"variant": "dinov2_vitb14"})
    with pytest.raises(UsageError, match=r"dreamsim_ensemble_checkpoint\.zip is not in the cache"):
        _ = dsim({}).spec
    assert not dsim({}).weights_here()
    with pytest.raises(UsageError, match=f"is not a checkpoint of ensemble: {DINO} is missing"):
        _ = dsim({"folder": str(tmp_path)}).spec

    damaged = tmp_path / "damaged"
    for file in folder.rglob("*"):
        if file.is_file():
            target = damaged / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    torch.save({"cls_token": torch.zeros(1)}, damaged / DINO)
    metric = dsim({"folder": str(damaged), "variant": "dino_vitb16", "device": "cpu"})
    with pytest.raises(UsageError, match="not weights of DreamSim's dino"):
        metric.score(pictures(noise(1, 64)).image_set(), ignore)
