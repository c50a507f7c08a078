"""Settings of models are data of others: they choose no code, no file elsewhere, and no endless work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perjoule import registry
from perjoule.errors import UsageError
from perjoule.weights.settings import _settings, settings_problem

EVIL = "evil/kernel"
KERNELS: dict[str, dict[str, Any]] = {
    "plain": {"_attn_implementation": EVIL},
    "public": {"attn_implementation": EVIL},
    "revision": {"attn_implementation": f"{EVIL}@main:attention"},
    "per part": {"attn_implementation": {"text_config": EVIL}},
    "whole of parts": {"_attn_implementation": {"": EVIL}},
    "in a part": {"text_config": {"_attn_implementation": EVIL}},
    "by another name": {"attribute_map": {"harmless": "_attn_implementation"}, "harmless": EVIL},
    "experts": {"experts_implementation": "sonicmoe"},
    "flash": {"_attn_implementation": "flash_attention_2"},
}


def folder_with(place: Path, content: Any, name: str = "config.json") -> Path:
    place.mkdir(exist_ok=True)
    (place / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return place


@pytest.mark.parametrize("kind", KERNELS)
def test_no_settings_choose_kernels_of_the_hub(tmp_path: Path, kind: str) -> None:
    problem = settings_problem(folder_with(tmp_path / "part", KERNELS[kind]))
    assert problem is not None
    assert problem.startswith(f"{tmp_path}/part/config.json: ")
    assert problem.endswith(": use another model")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KERNELS if kind != "in a part"])  # CLIP does not obey that
def test_transformers_obeys_these_settings(kind: str) -> None:
    from transformers import CLIPConfig

    config = CLIPConfig.from_dict(dict(KERNELS[kind]))
    chosen = {config._attn_implementation, config.text_config._attn_implementation, config._experts_implementation}
    assert any(value and ("/" in value or value in ("flash_attention_2", "sonicmoe")) for value in chosen)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "in a part"])
def test_a_metric_reads_no_such_settings(tmp_path: Path, kind: str) -> None:
    from perjoule.quality.clip_encoder import ClipEncoder

    with pytest.raises(UsageError, match="chooses kernels that would be downloaded and executed"):
        ClipEncoder(folder_with(tmp_path / "clip", KERNELS[kind]), "cpu")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", {"num_hidden_layers": 10**7}, "num_hidden_layers = 1e+07; at most 1,000 is possible"),
        ("config.json", {"transformer_layers_per_block": [1, [2, 10**6]]}, "transformer_layers_per_block = 1e+06"),
        ("config.json", {"text_config": {"num_attention_heads": 5_000}}, "num_attention_heads = 5e+03"),
        ("config.json", {"depth": 10**400}, "depth = an integer of more than"),
        ("config.json", {"sample_size": 10**12}, "sample_size = 1e+12; at most 1,000,000,000"),
        ("config.json", {"down_block_types": ["DownBlock2D"] * 201}, "down_block_types has 201 values; at most 200"),
        ("config.json", {"block_out_channels": [64] * 100_000}, "block_out_channels has 100,000 values; at most 200"),
        ("config.json", {"text_config": {"moe_layers": [1] * 201}}, "moe_layers has 201 values; at most 200"),
        ("config.json", {"latents_mean": [0.5] * 100_001}, "latents_mean has 100,001 values; at most 100,000"),
        ("config.json", {"a": [[0] * 1000] * 1000}, "it has more than 1,000,000 settings"),
        (
            "config.json",
            {
                "down_block_types": ["DownBlock2D"] * 3,
                "layers_per_block": 100,
                "transformer_layers_per_block": [1, [99]],
            },
            "the numbers of blocks and of layers per block multiply to more than 20,000 layers",
        ),
        (
            "config.json",
            {"text_config": {"decoder_layers_per_block": [200], "motion_layers_per_block": 200}},
            "multiply to more than 20,000 layers",
        ),
        ("scheduler_config.json", {"num_train_timesteps": 10**10}, "num_train_timesteps = 1e+10; at most 100,000"),
        ("scheduler_config.json", {"solver_order": 10**8}, "solver_order = 1e+08"),
        ("tokenizer_config.json", {"vocab_file": "/etc/passwd"}, "vocab_file = '/etc/passwd' is not a file in its"),
        ("config.json", "[1]", "contains list instead of an object"),
        ("config.json", "{", "is not valid JSON"),
        ("adapter_config.json", {}, "names another model to be loaded instead: use a model without it"),
    ],
)
def test_settings_that_lead_elsewhere_or_never_end(tmp_path: Path, name: str, content: Any, words: str) -> None:
    problem = settings_problem(folder_with(tmp_path / "part", content, name))
    assert problem is not None
    assert words in problem
    assert problem.startswith(str(tmp_path / "part" / name))
    assert len(problem) < 400 + len(str(tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        {"_attn_implementation": None, "attn_implementation": "sdpa", "text_config": {"_attn_implementation": "eager"}},
        {"_name_or_path": "openai/clip-vit-large-patch14", "num_hidden_layers": 96, "vocab_size": 262_208},
        {"rope_theta": 1_000_000, "max_position_embeddings": 10_485_760, "num_experts": 512},
        {"block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2, "sample_size": 128},
        {  # the UNet of Stable Diffusion XL
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "layers_per_block": 2,
            "transformer_layers_per_block": [1, 2, 10],
            "reverse_transformer_layers_per_block": None,
        },
        {  # the decoder and prior of Stable Cascade
            "block_out_channels": [320, 640, 1280, 1280],
            "down_num_layers_per_block": [2, 6, 28, 6],
            "up_num_layers_per_block": [6, 28, 6, 2],
            "down_blocks_repeat_mappers": [1, 1, 1, 1],
            "up_blocks_repeat_mappers": [3, 3, 2, 2],
        },
        {
            "num_layers": 57,
            "num_single_layers": 38,
            "num_refiner_layers": 2,
            "encoder_layers": 32,
            "decoder_layers": 32,
        },
        {"mlp_only_layers": list(range(94)), "layer_types": ["full_attention"] * 94, "num_hidden_layers": 94},
        {"num_train_timesteps": 1000, "trained_betas": None, "beta_end": 0.012, "use_karras_sigmas": True},
    ],
)
def test_settings_of_published_models_are_taken(tmp_path: Path, content: dict[str, Any]) -> None:
    for name in ("config.json", "scheduler_config.json"):
        folder_with(tmp_path / "part", content, name)
    # 1e30 is "no limit", as transformers writes it
    folder_with(tmp_path / "part", {"model_max_length": 1000000000000000019884624838656}, "tokenizer_config.json")
    assert settings_problem(tmp_path / "part") is None


class Unreadable:
    """A setting that a check must not convert to text: a list of lists would be converted once per level."""

    def __repr__(self) -> str:
        raise AssertionError("converted to text")


def test_settings_without_a_problem_are_not_converted_to_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content: dict[str, Any] = {"deep": [[{"deeper": [[Unreadable()]]}]], "layers_per_block": [[Unreadable(), 2]]}
    monkeypatch.setattr("perjoule.weights.settings.json.loads", lambda text: content)
    assert settings_problem(folder_with(tmp_path / "part", {})) is None
    content["attribute_map"] = [Unreadable()]
    problem = settings_problem(tmp_path / "part")
    assert problem is not None
    assert "attribute_map gives settings other names" in problem


def test_long_names_are_not_searched_for_every_value() -> None:
    long = "x" * 10_000
    content = {long: [0, [1, 2]], f"implementation{long}": {long: {long: None}}, "a": {long: 1}}
    assert max(len(name) for name, _ in _settings(content)) == 200
    assert [value for name, value in _settings(content) if name.startswith("implementation")][-1] is None


def test_json_of_too_many_containers_is_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perjoule.opening._MOST_CONTAINERS", 100)
    problem = settings_problem(folder_with(tmp_path / "part", {"a": [[]] * 100}))
    assert problem is not None
    assert "is not valid JSON (more than 100 lists and objects)" in problem


def test_settings_of_the_builtin_models_are_taken() -> None:
    folders = [Path(folder) for folder in registry.merged_files("model_folders").values()]
    assert folders
    for folder in folders:
        for part in (folder, *(path for path in folder.iterdir() if path.is_dir())):
            assert settings_problem(part) is None
