from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from perjoule.cli import app
from perjoule.errors import UsageError
from perjoule.forecast.nfe import evaluations, nfe_per_image
from perjoule.running import suite_doctor
from perjoule.suite.diffusers_code import diffusers_code
from perjoule.suite.reading import cells_of, find_suite, load_suite, smoke_of
from perjoule.types import Denoiser, Lora, Suite, Variant
from perjoule.weights.catalogue import (
    catalogue,
    facts_of,
    notices,
    repositories,
    revision_of,
    weights_name,
    with_models,
)

XL = "stabilityai/stable-diffusion-xl-base-1.0"


def suite(name: str = "few-step") -> Suite:
    return load_suite(find_suite(name))


def variant(name: str, of: str = "few-step") -> Variant:
    return next(v for v in suite(of).variants if v.name == name)


def test_facts_are_complete_and_commits_are_commits() -> None:
    assert catalogue()
    for name, facts in catalogue().items():
        assert facts.licence, name
        assert facts.licence_url.startswith("https://"), name
        assert facts.source.startswith("https://"), name
        assert facts.revision is None or len(facts.revision) == 40, name
    assert facts_of("builtin:sd-tiny") is None
    assert revision_of("someone/else") is None


def test_what_is_not_free_to_use_is_said() -> None:
    said = {line.partition(":")[0]: line for line in notices(suite())}
    assert "does not allow commercial use" in said["tianweiy/DMD2"]
    assert "gated" in said["stabilityai/stable-diffusion-3.5-large-turbo"]
    assert XL not in said
    assert list(notices(suite("demo"))) == []


def test_weights_are_named_by_all_that_they_are_made_of() -> None:
    lightning = variant("sdxl-lightning-4")
    assert repositories(lightning) == [XL, "ByteDance/SDXL-Lightning"]
    assert weights_name(lightning) == f"{XL}[fp16] + ByteDance/SDXL-Lightning/sdxl_lightning_4step_unet.safetensors"
    names = [weights_name(v) for v in suite().variants]
    assert len({n for n in names if "Lightning" in n}) == 4


def test_another_repository_takes_the_place_of_one_everywhere() -> None:
    moved = with_models(suite(), [f"{XL}=me/copy@abc", "ByteDance/Hyper-SD=/models/hyper"])
    used = {name for v in moved.variants for name in repositories(v)}
    assert "me/copy" in used
    assert "/models/hyper" in used
    assert not {XL, "ByteDance/Hyper-SD"} & used
    assert {v.revision for v in moved.variants if v.model == "me/copy"} == {"abc"}
    assert suite().variants[1].revision is None


@pytest.mark.parametrize(("text", "words"), [("nonsense", "OLD=NEW"), ("a/b=c/d", "does not use 'a/b'")])
def test_a_replacement_that_cannot_be_made_is_named(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        with_models(suite(), [text])


def test_a_rehearsal_keeps_every_variant_and_little_else() -> None:
    short = smoke_of(suite(), 32)
    assert [v.name for v in short.variants] == [v.name for v in suite().variants]
    assert len(cells_of(short)) == len(short.variants)
    assert {(v.width_px, v.height_px) for v in short.variants} == {(32, 32)}
    assert short.prompts.limit == 1
    assert short.protocol.seeds == (1,)
    assert short.protocol.max_uncertainty is None
    # a schedule of one's own has one length
    assert next(v for v in short.variants if v.name == "dmd2-sdxl-4").steps == (4,)


@pytest.mark.parametrize(
    ("scheduler", "steps", "count"),
    [
        ("DDIMScheduler", 10, 10),
        ("HeunDiscreteScheduler", 10, 19),
        ("KDPM2DiscreteScheduler", 1, 1),
        ("PNDMScheduler", 10, 11),
        ("PNDMScheduler", 1, 1),
    ],
)
def test_evaluations_in_closed_form(scheduler: str, steps: int, count: int) -> None:
    assert evaluations(scheduler, steps, {}) == count
    one = Variant(name="v", model="m", steps=(steps,), scheduler=scheduler, guidance=7.5)
    assert nfe_per_image(one, steps) == 2 * count
    assert nfe_per_image(replace(one, guidance=1.0), steps) == count
    assert nfe_per_image(replace(one, guidance=8.0, guidance_mode="embedded"), steps) == count


def test_the_printed_code_has_every_setting() -> None:
    made = Variant(
        name="v",
        model="me/base",
        revision="abc",
        steps=(2,),
        denoiser=Denoiser(model="me/unet", file="unet.bin"),
        lora=Lora(model="me/lora", file="lora.safetensors", scale=0.5, fuse=False),
        scheduler="LCMScheduler",
        scheduler_args={"timestep_spacing": "trailing"},
        timesteps=(999, 499),
        guidance=0.0,
        call_args={"eta": 1.0},
        dtype="float16",
        file_variant="fp16",
        width_px=64,
    )
    code = diffusers_code(made, 2)
    for words in (
        "unet.load_state_dict(torch.load(hf_hub_download('me/unet', 'unet.bin'), map_location='cpu', "
        "weights_only=True))",
        "'me/base', dtype=torch.float16, unet=unet, revision='abc', variant='fp16', safety_checker=None",
        "pipe.load_lora_weights('me/lora', weight_name='lora.safetensors', adapter_name='lora')",
        "pipe.set_adapters(['lora'], [0.5])",
        "LCMScheduler.from_config(pipe.scheduler.config, timestep_spacing='trailing')",
        "pipe(prompt, timesteps=[999, 499], guidance_scale=0.0, width=64, eta=1.0).images[0]",
    ):
        assert words in code
    compile(code, "code", "exec")


def test_doctor_names_what_a_suite_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(suite_doctor, "find_spec", lambda name: None if name == "peft" else object())
    monkeypatch.setattr(suite_doctor, "free_bytes", lambda path: 2**30)
    monkeypatch.setattr(suite_doctor, "nvidia_gpus", lambda: [{"name": "Small", "memory_bytes": 8 << 30}])
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    needs = suite_doctor.examine(suite())
    missing = {(need.kind, need.name) for need in needs.needs if need.state == "missing"}
    assert {
        ("package", "peft"),
        ("token", "stabilityai/stable-diffusion-3.5-large-turbo"),
        ("weights", XL),
        ("memory", "Small"),
        ("disk", str(tmp_path)),
    } <= missing
    text = suite_doctor.as_text(needs)
    assert "pip install 'perjoule[run]'" in text
    assert text.index("MISSING") < text.index("note ")
    assert needs.ready is False


def test_doctor_is_content_with_what_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for name in ("stable-diffusion-v1-5/stable-diffusion-v1-5", "openai/clip-vit-large-patch14"):
        snapshot = tmp_path / f"models--{name.replace('/', '--')}" / "snapshots" / "abc" / "unet"
        snapshot.mkdir(parents=True)
        (snapshot / "model.safetensors").write_bytes(b"")
    assert suite_doctor.examine(suite("sd15")).ready is True
    done = CliRunner().invoke(app, ["doctor", "--suite", "sd15"])
    assert (done.exit_code, done.stdout.splitlines()[0]) == (0, "sd15: nothing missing")


def test_variants_are_listed_with_their_terms() -> None:
    import json

    done = CliRunner().invoke(app, ["list", "variants", "--json"])
    rows = {row["variant"]: row for row in json.loads(done.stdout)["variants"] if row["suite"] == "few-step"}
    assert rows["dmd2-sdxl-4"]["commercial"] == "no"
    assert rows["dmd2-sdxl-4"]["licence"] == "openrail++ + cc-by-nc-sa-4.0"
    assert rows["sd35-large-turbo"]["gated"] is True
    assert rows["sdxl-dpm2m"]["revision"] == "462165984030"
    assert rows["sdxl-dpm2m"]["commercial"] == "yes"


def test_every_variant_of_the_hub_says_where_its_settings_come_from() -> None:
    for name in ("sd15", "sd21", "sdxl", "sd35", "few-step", "compressed", "caching", "budgetfusion-sd21"):
        lines = find_suite(name).read_text().splitlines()
        for number, line in enumerate(lines):
            if line == "[[variants]]":
                assert lines[number - 1].startswith("# "), f"{name}, line {number + 1}"
