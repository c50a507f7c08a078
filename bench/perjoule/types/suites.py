"""What to run: a suite and its parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

Role = Literal["fixed", "predicted", "distilled", "control"]

# read by pydantic when a suite file is validated: no unknown keys, no silent conversion
_STRICT = {"extra": "forbid", "strict": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Denoiser:
    """Weights of a UNet or transformer in one file, in the place of the model's own.

    Attributes:
        model: Hub id or folder that holds the file.
        file: Its name there: `.safetensors`, or a pickle that holds tensors only.
        config: Name of its own configuration there, where it is not the model's.
        revision: Hub revision to pin.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    model: str
    file: str
    config: str = ""
    revision: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """An adapter.

    Attributes:
        model: Hub id or folder that holds the file.
        file: Its name there (diffusers' `weight_name`).
        revision: Hub revision to pin.
        scale: Its weight.
        fuse: Add it to the weights once; otherwise every evaluation pays for it.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    model: str
    file: str
    revision: str | None = None
    scale: float = 1.0
    fuse: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """What is computed once and used in several denoising steps.

    Attributes:
        kind: `deepcache` is the package DeepCache, for UNets; the others are diffusers' own.
        args: Its parameters, as the package or diffusers' config class names them.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    kind: Literal["deepcache", "first-block", "pyramid-attention", "taylorseer"]
    args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """How the same arithmetic is carried out; images may differ in their last bits.

    Attributes:
        compile: Mode of `torch.compile` for the denoiser; empty for none.
        attention: The one kernel of `torch.nn.functional.scaled_dot_product_attention` that may be used; empty leaves
            the choice to PyTorch.
        channels_last: Memory format of UNet and VAE.
        vae_tiling: Decode in tiles.
        vae_slicing: Decode image by image.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    compile: Literal["", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = ""
    attention: Literal["", "math", "flash", "efficient", "cudnn"] = ""
    channels_last: bool = False
    vae_tiling: bool = False
    vae_slicing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A checkpoint with sampler, guidance and step policy.

    Attributes:
        name: Unique in the suite; letters, digits, `.`, `_`, `-`.
        model: Hub id, folder, or `builtin:NAME`.
        steps: The ladder of the policy `fixed`: one cell per entry (diffusers `num_inference_steps`).
        role: Part it plays in the comparison.
        policy: Step policy; `fixed` takes `steps` as they are.
        policy_args: Settings of another policy; see its own documentation.
        levels: Settings of another policy's parameter: one cell per entry.
        revision: Hub revision to pin; the catalogue's by default.
        file_variant: Which weight files of the repository: `fp16` takes `*.fp16.safetensors`.
        denoiser: Other weights for the UNet or transformer.
        lora: An adapter.
        scheduler: diffusers scheduler class; empty keeps the model's own.
        scheduler_args: Overrides of the scheduler's config, `timestep_spacing` say.
        timesteps: The schedule itself, falling; `steps` is then its length.
        guidance: Guidance scale; at 1.0 or less the denoiser runs once a step.
        guidance_mode: What the scale does: `classifier-free` (two evaluations a step), `embedded` (the denoiser is told
            the scale, as a latent consistency model is) or `none`. What is declared is checked; `auto` takes what the
            model does.
        call_args: Further arguments of the pipeline call, `eta` say.
        negative_prompt: For all prompts.
        dtype: `float32`, `float16` or `bfloat16`.
        width_px: Image width; None takes the model's own.
        height_px: Image height; None takes the model's own.
        batch_size: Images per pipeline call; None takes `protocol.batch_size`.
        cache: Reuse between steps. `nfe_per_image` then counts evaluations that were partly skipped as well.
        runtime: Compilation, kernels, memory format.
        safety_checker: Load and run the model's own, which blackens images; off by default.
        family: Variants of one family are the same model, under other samplers say; full-reference scores stay
            inside it. The variant alone by default.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    name: str
    model: str
    steps: tuple[int, ...] = ()
    role: Role = "fixed"
    policy: str = "fixed"
    policy_args: dict[str, Any] = field(default_factory=dict)
    levels: tuple[float, ...] = ()
    revision: str | None = None
    file_variant: str = ""
    denoiser: Denoiser | None = None
    lora: Lora | None = None
    scheduler: str = ""
    scheduler_args: dict[str, Any] = field(default_factory=dict)
    timesteps: tuple[int, ...] = ()
    guidance: float = 7.5
    guidance_mode: Literal["auto", "classifier-free", "embedded", "none"] = "auto"
    call_args: dict[str, Any] = field(default_factory=dict)
    negative_prompt: str = ""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    width_px: int | None = None
    height_px: int | None = None
    batch_size: int | None = None
    cache: Cache | None = None
    runtime: Runtime = field(default_factory=Runtime)
    safety_checker: bool = False
    family: str = ""

    @property
    def family_name(self) -> str:
        """The family; the variant alone where none is stated."""
        return self.family or self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSource:
    """Where the prompts come from, and which of them are taken.

    Attributes:
        source: `builtin:NAME`, `public:NAME`, `hub:ORG/NAME`, an address, or a path (.txt, .tsv, .csv, .json, .jsonl,
            .parquet). `perjoule list prompts` names the first two kinds.
        column: Of the prompt, in tables of your own.
        category: Column of the first stratum, if the table has one.
        challenge: Column of the second stratum, inside the first.
        limit: How many to take, in an order in which every prefix is stratified; None takes all.
        split: `dev` or `test`: the half of the prompts that a hash puts there; None takes both.
        sha256: Pin of the file; several files are pinned by the digest that a run records.
        revision: Of a hub data set; a full commit pins it.
        hub_split: The data set's own split, such as `train`.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    source: str
    column: str = "prompt"
    category: str = "category"
    challenge: str = "challenge"
    limit: int | None = None
    split: Literal["dev", "test"] | None = None
    sha256: str | None = None
    revision: str | None = None
    hub_split: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How the measurement is done.

    Attributes:
        seeds: One image per prompt and seed in every cell.
        batch_size: Images per pipeline call.
        images_per_window: Images in one energy window, over as many calls as that takes; None is one call of the
            suite's largest batch. A step policy fills its batches with images of equal steps from the window, so a
            window of several batches is what lets it keep them full.
        blocks: Passes over all cells, each in its own shuffled order.
        order_seed: Seed of that order.
        interleave: Cells take turns window by window, so that what drifts falls on all of them alike; all pipelines
            stay loaded. Otherwise the cells of a variant stay together, and one pipeline is loaded at a time.
        warmup_iterations: Pipeline calls after a variant is loaded, before its first window.
        iterations: Pipeline calls inside a window, at least; the energy of the window is divided by how many there
            were.
        idle_s: Seconds of rest over which idle power is learnt before the first window.
        cooldown_s: Rest before each window.
        max_uncertainty: Relative bound asked of every window, which repeats its work to reach it, for a minute at most;
            None takes what comes.
        threads: torch CPU threads; None keeps torch's default.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    seeds: tuple[int, ...] = (1,)
    batch_size: int = 1
    images_per_window: int | None = None
    blocks: int = 1
    order_seed: int = 0
    interleave: bool = False
    warmup_iterations: int = 1
    iterations: int = 1
    idle_s: float = 1.0
    cooldown_s: float = 0.0
    max_uncertainty: float | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Which qualities are scored; `primary` is the frontier's axis. `options` go to the metric of that name.

    `reference` fixes the corner of a metric's hypervolume: `reference.scene = [40.0, 0.5]` is 40 J/image, quality 0.5.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    primary: str
    names: tuple[str, ...]
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    reference: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """What to run: variants, prompts, metrics and protocol, as read from TOML with every default written out."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    name: str
    title: str
    description: str
    prompts: PromptSource
    metrics: Metrics
    protocol: Protocol
    variants: tuple[Variant, ...]
    schema: int = 1
