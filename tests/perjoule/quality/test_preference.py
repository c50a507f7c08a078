from __future__ import annotations

import numpy as np
import pytest

from perjoule.errors import UsageError
from perjoule.quality.open_clip import load_open_clip, to_transformers
from perjoule.quality.preference import fitted_into, hpsv2, pickscore

pytestmark = pytest.mark.slow

PROMPTS = ["a large red circle", "a blue star", "a striped ring"]
FILE = "HPS_v2.1_compressed.pt"


def ignore(count: int) -> None:
    pass


def as_open_clip(model):
    """The state of transformers' CLIP under OpenCLIP's names: the other way round than the product goes."""
    import torch

    state = model.state_dict()
    found = {
        "logit_scale": state["logit_scale"],
        "text_projection": state["text_projection.weight"].T,
        "visual.proj": state["visual_projection.weight"].T,
        "visual.class_embedding": state["vision_model.embeddings.class_embedding"],
        "visual.conv1.weight": state["vision_model.embeddings.patch_embedding.weight"],
        "visual.positional_embedding": state["vision_model.embeddings.position_embedding.weight"],
        "token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": state["text_model.embeddings.position_embedding.weight"],
        "attn_mask": torch.zeros(2, 2),
    }
    for kind in ("weight", "bias"):
        found[f"visual.ln_pre.{kind}"] = state[f"vision_model.pre_layrnorm.{kind}"]
        found[f"visual.ln_post.{kind}"] = state[f"vision_model.post_layernorm.{kind}"]
        found[f"ln_final.{kind}"] = state[f"text_model.final_layer_norm.{kind}"]
        for tower, there in (("visual.", "vision_model"), ("", "text_model")):
            for n in range(len(getattr(model, there).encoder.layers)):
                a, b = f"{tower}transformer.resblocks.{n}", f"{there}.encoder.layers.{n}"
                parts = [state[f"{b}.self_attn.{p}_proj.{kind}"] for p in "qkv"]
                found[f"{a}.attn.in_proj_{kind}"] = torch.cat(parts)
                found[f"{a}.attn.out_proj.{kind}"] = state[f"{b}.self_attn.out_proj.{kind}"]
                for one, other in (("ln_1", "layer_norm1"), ("ln_2", "layer_norm2")):
                    found[f"{a}.{one}.{kind}"] = state[f"{b}.{other}.{kind}"]
                for one, other in (("c_fc", "fc1"), ("c_proj", "fc2")):
                    found[f"{a}.mlp.{one}.{kind}"] = state[f"{b}.mlp.{other}.{kind}"]
    return {name: tensor.contiguous() for name, tensor in found.items()}


@pytest.fixture(scope="module")
def trained(clip_folder):
    """A tiny CLIP other than the one in `clip_folder`, of the same shape."""
    import torch
    from transformers import CLIPModel

    model = CLIPModel.from_pretrained(clip_folder).eval()
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def checkpoint(trained, tmp_path_factory):
    import torch

    folder = tmp_path_factory.mktemp("hps")
    state = {f"module.{name}": tensor for name, tensor in as_open_clip(trained).items()}
    torch.save({"epoch": 3, "state_dict": state}, folder / FILE)
    return folder


def bare(model, folder, images, prompts):
    """Logits and cosines by transformers alone."""
    import torch
    from transformers import CLIPTokenizer

    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    tokens = CLIPTokenizer.from_pretrained(folder)(prompts, padding="max_length", max_length=32, return_tensors="pt")
    with torch.inference_mode():
        found = model(input_ids=tokens.input_ids, pixel_values=pixels)
    return found.logits_per_image.diag().tolist(), (found.image_embeds * found.text_embeds).sum(1).tolist()


def test_pickscore_is_the_logit_of_the_model(trained, clip_folder, tmp_path, pictures, noise):
    trained.save_pretrained(tmp_path)
    for file in clip_folder.iterdir():
        if not (tmp_path / file.name).exists():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    images = noise(3, 64)
    metric = pickscore({"model": str(tmp_path), "device": "cpu"})
    scores = metric.score(pictures(images, prompts=PROMPTS).image_set(), ignore)
    logits, _ = bare(trained, clip_folder, images, PROMPTS)
    assert [s.value for s in scores] == pytest.approx(logits, abs=1e-4)
    assert (metric.spec.temperature, metric.spec.unit, metric.spec.bounds) == (1.0, "logit", (None, None))
    assert "no human ratings" in metric.spec.description


def test_hpsv2_is_the_cosine_of_the_checkpoint_in_its_own_layout(trained, checkpoint, clip_folder, pictures, noise):
    images = noise(3, 64)
    metric = hpsv2({"model": str(checkpoint), "architecture": str(clip_folder), "device": "cpu"})
    scores = metric.score(pictures(images, prompts=PROMPTS).image_set(), ignore)
    _, cosines = bare(trained, clip_folder, images, PROMPTS)
    assert [s.value for s in scores] == pytest.approx(cosines, abs=1e-5)
    assert metric.spec.temperature == 0.01
    assert len(metric.spec.weights_digest) == 64
    assert metric.weights_here()


def test_an_empty_prompt_is_unscored(checkpoint, clip_folder, pictures, noise):
    metric = hpsv2({"model": str(checkpoint), "architecture": str(clip_folder), "device": "cpu"})
    (score,) = metric.score(pictures(noise(1, 64), prompts=[""]).image_set(), ignore)
    assert score.reason_unscored == "the prompt is empty"


def test_hpsv2_sees_the_whole_of_a_wide_picture():
    wide = np.full((32, 128, 3), 200, np.uint8)
    square = fitted_into(wide, 64)
    assert square.shape == (64, 64, 3)
    assert (square[24:40] == 200).all()
    assert not square[:24].any()
    assert not square[40:].any()
    same = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)
    assert np.array_equal(fitted_into(same, 64), same)


def test_weights_of_another_shape_or_kind_are_named(trained, checkpoint, clip_folder, tmp_path):
    import torch

    with pytest.raises(UsageError, match=r"unknown version '3': known: 2\.0, 2\.1"):
        hpsv2({"version": "3"})
    with pytest.raises(UsageError, match=f"does not contain {FILE}"):
        _ = hpsv2({"model": str(tmp_path), "architecture": str(clip_folder)}).spec
    state = as_open_clip(trained)
    del state["visual.proj"]
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(UsageError, match=r"visual_projection\.weight is None, must be"):
        load_open_clip(clip_folder, tmp_path / "x.pt")
    with pytest.raises(UsageError, match="perceiver is not a tensor of OpenCLIP's CLIP"):
        to_transformers({"perceiver": 1})
    with pytest.raises(UsageError, match=r"layers\.1: attn\.rope is not a tensor"):
        to_transformers({"transformer.resblocks.1.attn.rope": 1})
    (tmp_path / FILE).write_bytes(b"not a pickle")
    metric = hpsv2({"model": str(tmp_path), "architecture": str(clip_folder), "device": "cpu"})
    with pytest.raises(UsageError, match="contains no readable weights"):
        metric.encoder()


def test_what_is_not_here_offline_is_said_before_anything_is_scored():
    with pytest.raises(UsageError, match=r"metric hpsv2: xswu/HPSv2/HPS_v2\.1_compressed\.pt could not be downloaded"):
        _ = hpsv2({}).spec
    with pytest.raises(UsageError, match="metric pickscore: model 'yuvalkirstain/PickScore_v1' is not a folder"):
        _ = pickscore({}).spec
    assert not hpsv2({}).weights_here()
    assert (pickscore({}).card.weights, pickscore({}).card.commercial) == ("yuvalkirstain/PickScore_v1", None)


def test_the_real_open_clip_agrees(clip_folder, tmp_path):
    open_clip = pytest.importorskip("open_clip")
    import torch
    from transformers import CLIPConfig

    torch.manual_seed(0)
    vision = {"image_size": 56, "layers": 3, "width": 160, "head_width": 80, "patch_size": 14}
    text = {"context_length": 77, "vocab_size": 600, "width": 64, "heads": 4, "layers": 2}
    theirs = open_clip.model.CLIP(embed_dim=48, vision_cfg=vision, text_cfg=text).eval()
    torch.save(theirs.state_dict(), tmp_path / "x.pt")
    CLIPConfig(
        projection_dim=48,
        text_config={
            **{"vocab_size": 600, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2},
            **{"num_attention_heads": 4, "hidden_act": "gelu", "projection_dim": 48, "eos_token_id": 599},
        },
        vision_config={
            **{"hidden_size": 160, "intermediate_size": 640, "num_hidden_layers": 3, "num_attention_heads": 2},
            **{"image_size": 56, "patch_size": 14, "hidden_act": "gelu", "projection_dim": 48},
        },
    ).save_pretrained(tmp_path)
    ours = load_open_clip(tmp_path, tmp_path / "x.pt").eval()
    pixels = torch.randn(2, 3, 56, 56)
    with torch.inference_mode():
        wanted = theirs.encode_image(pixels, normalize=True)
        found = getattr(features := ours.get_image_features(pixel_values=pixels), "pooler_output", features)
    assert torch.allclose(torch.nn.functional.normalize(found, dim=-1), wanted, atol=1e-6)
