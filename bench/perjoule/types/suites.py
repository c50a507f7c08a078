"""Suites and their parts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

Role = Literal["fixed", "predicted", "distilled", "control"]

# configuration of pydantic for suite files: no unknown keys, no silent conversion
_STRICT = {"extra": "forbid", "strict": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Denoiser:
    """Weights of a UNet or transformer in one file, which replace the model's own.

    Attributes:
        model: Hub id or folder that contains the file.
        file: Name of the file: `.safetensors`, or a pickle that contains only tensors.
        config: Name of its configuration file, if it differs from the model's.
        revision: Hub revision to pin.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    model: str
    file: str
    config: str = ""
    revision: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """A LoRA adapter.

    Attributes:
        model: Hub id or folder that contains the file.
        file: Name of the file (diffusers' `weight_name`).
        revision: Hub revision to pin.
        scale: Weight of the adapter.
        fuse: Add the adapter to the weights once; otherwise it costs time in every evaluation.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    model: str
    file: str
    revision: str | None = None
    scale: float = 1.0
    fuse: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """Reuse of intermediate results in several denoising steps.

    Attributes:
        kind: `deepcache` is the package DeepCache, for UNets; the others are diffusers' own.
        args: Parameters, named as in the package or in diffusers' config class.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    kind: Literal["deepcache", "first-block", "pyramid-attention", "taylorseer"]
    args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Options that change only how the arithmetic is done; images may differ in their last bits.

    Attributes:
        compile: Mode of `torch.compile` for the denoiser; empty for none.
        attention: The one kernel of `torch.nn.functional.scaled_dot_product_attention` that the denoiser may use; empty
            leaves the choice to PyTorch.
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
        role: Role in the comparison.
        policy: Step policy; `fixed` uses `steps` unchanged.
        policy_args: Settings of another policy; see the policy's documentation.
        levels: Values of another policy's parameter: one cell per entry.
        revision: Hub revision to pin; the catalogue's by default.
        file_variant: Selects weight files of the repository, e.g. `fp16` selects `*.fp16.safetensors`.
        pickled_weights: Load pickles (`.bin`) of a model without safetensors. Only tensors are read from them, but the
            format can contain programs: leave it off for models of authors whom you do not know.
        denoiser: Different weights for the UNet or transformer.
        lora: An adapter.
        scheduler: diffusers scheduler class; empty keeps the model's own.
        scheduler_args: Overrides of the scheduler's config, e.g. `timestep_spacing`.
        timesteps: The schedule itself, descending; `steps` is then its length.
        schedule: A named schedule for every step count: `short-first` has a short first step, e.g. timesteps 999, 916,
            then evenly spaced. Empty leaves the timesteps to the scheduler. Without `scheduler`, the sampler is
            `DPMSolverMultistepScheduler` with `solver_order = 1`, which equals DDIM.
        guidance: Guidance scale; at 1.0 or less the denoiser runs once per step.
        guidance_mode: Effect of the scale: `classifier-free` (two evaluations per step), `embedded` (the scale is an
            input of the denoiser, e.g. in a latent consistency model) or `none`. A declared mode is checked; `auto`
            uses that of the model.
        guidance_share: Share of the denoiser's calls, from the first, with classifier-free guidance. The other calls
            need one evaluation instead of two, e.g. 0.67: no guidance in the last third (arXiv:2404.07724).
        call_args: Further arguments of the pipeline call, e.g. `eta`.
        negative_prompt: Negative prompt for all prompts.
        dtype: `float32`, `float16` or `bfloat16`.
        width_px: Image width; None uses the model's default.
        height_px: Image height; None uses the model's default.
        batch_size: Images per pipeline call; None uses `protocol.batch_size`.
        cache: Reuse between steps. `nfe_per_image` then includes evaluations that were partly skipped.
        runtime: Compilation, kernels, memory format.
        safety_checker: Load and run the model's safety checker, which blackens images; off by default.
        family: Variants of one family are the same model, e.g. with other samplers; full-reference scores are only
            compared within it. By default each variant is a family.
        label: Name for readers, for the report's sentences, e.g. `the few-step student`. By default the name of the
            variant with its role, e.g. `distilled sd-lcm`.
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
    pickled_weights: bool = False
    denoiser: Denoiser | None = None
    lora: Lora | None = None
    scheduler: str = ""
    scheduler_args: dict[str, Any] = field(default_factory=dict)
    timesteps: tuple[int, ...] = ()
    schedule: Literal["", "short-first"] = ""
    guidance: float = 7.5
    guidance_mode: Literal["auto", "classifier-free", "embedded", "none"] = "auto"
    guidance_share: float = 1.0
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
    label: str = ""

    @property
    def family_name(self) -> str:
        """The family; by default the name of the variant."""
        return self.family or self.name

    @property
    def pipeline(self) -> Variant:
        """The variant without what may differ between variants that share a loaded pipeline, e.g. steps and policy."""
        return replace(
            self,
            name="",
            role="fixed",
            policy="fixed",
            family="",
            steps=(),
            levels=(),
            policy_args={},
            batch_size=None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSource:
    """Source of the prompts, and selection from it.

    Attributes:
        source: `builtin:NAME`, `public:NAME`, `hub:ORG/NAME`, an address, or a path (.txt, .tsv, .csv, .json, .jsonl,
            .parquet). `perjoule list prompts` names the first two kinds.
        column: Column of the prompt, in your own tables.
        category: Column of the first stratum, if the table has one.
        challenge: Column of the second stratum, inside the first.
        limit: Number of prompts, in an order in which every prefix is stratified; None uses all.
        select: `clip-farthest` selects prompts that differ as much as possible in the space of CLIP's text encoder,
            instead of the stratified order: each next prompt is the one whose most similar chosen prompt is least
            similar to it. Needs `limit`. Empty keeps the stratified order.
        select_model: CLIP for `select`: hub id, folder, or `builtin:NAME`.
        select_seed: Chooses the first prompt of `select`.
        split: `dev` or `test`: the half of the prompts that a hash assigns to it; None uses both.
        sha256: Digest of the file, to pin it; several files are pinned by the digest that a run records.
        revision: Revision of a hub data set; a full commit pins it.
        hub_split: Split of the data set, e.g. `train`.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    source: str
    column: str = "prompt"
    category: str = "category"
    challenge: str = "challenge"
    limit: int | None = None
    select: Literal["", "clip-farthest"] = ""
    select_model: str = "openai/clip-vit-large-patch14"
    select_seed: int = 0
    split: Literal["dev", "test"] | None = None
    sha256: str | None = None
    revision: str | None = None
    hub_split: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """Measurement protocol.

    Attributes:
        seeds: One image per prompt and seed in every cell.
        batch_size: Images per pipeline call.
        images_per_window: Images in one energy window, in as many calls as needed; None is one call of the suite's
            largest batch. A step policy fills its batches with images of equal steps from the window, so it needs a
            window of several batches to keep them full.
        blocks: Passes over all cells, each in a different shuffled order.
        order_seed: Seed of that order.
        interleave: Cells take turns window by window, so that drift affects all cells equally; all pipelines stay
            loaded. Otherwise the cells of a variant stay together, and one pipeline is loaded at a time.
        warmup_iterations: Pipeline calls after a variant is loaded, before its first window; calls of further sizes,
            as at the end of a window or of step policies, are made once.
        iterations: Minimum number of pipeline calls in a window; the energy of the window is divided by the actual
            number.
        idle_s: Seconds of rest for measuring idle power before the first window.
        cooldown_s: Rest before each window.
        max_uncertainty: Relative bound requested for every window, which repeats its work to reach it, for at most a
            minute; None accepts any bound.
        threads: torch CPU threads; None keeps torch's default.
        timeout_s: Time limit of a trial, and of the warm-up before it: after it the trial fails with the reason, and
            the run continues. If the work does not return at all, the process ends, and `--resume` continues. None: no
            limit.
        on_out_of_memory: What to do if the work of a trial does not fit into memory. `fail`: the trial fails with the
            reason. `halve-batch`: it is drawn again with half as many images per pipeline call, down to one. Such
            windows are cells of their own, e.g. `sd15@b4-025` with 4 images per call.
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
    timeout_s: float | None = None
    on_out_of_memory: Literal["fail", "halve-batch"] = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Metrics of a suite.

    Attributes:
        primary: Metric of the frontier, one of `names`.
        names: Metrics to score the images with.
        options: Options of a metric, in a table of its name, e.g. `options.lsnr.definition = "b"`.
        reference: Corner of a metric's hypervolume, e.g. `reference.scene = [40.0, 0.5]`: 40 J/image, quality 0.5.
        labels: Names of metrics for readers, for the report's sentences, e.g. `labels.scene = "attributes drawn"`.
        margins: Largest loss of a metric that passes the gate, in its units, e.g. `margins.clip_text = 0.02`, instead
            of the metric's own. `"resolvable"`: its own, or if the baseline's prompts cannot show so little, the
            smallest loss that they can show; needs two seeds.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    primary: str
    names: tuple[str, ...]
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    reference: dict[str, tuple[float, float]] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    margins: dict[str, float | Literal["resolvable"]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A suite: variants, prompts, metrics and protocol, as read from TOML with all defaults filled in.

    Attributes:
        name: Name of the suite: letters, digits, `.`, `_` and `-`, at most 64. Names runs and baselines.
        title: Title of the report.
        description: The question that the suite answers, in a sentence or two.
        prompts: What to draw.
        metrics: How to score the images.
        protocol: How to measure.
        variants: What to compare: models with their settings and step counts.
        schema: Version of the file format.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    name: str
    title: str
    description: str
    prompts: PromptSource
    metrics: Metrics
    protocol: Protocol
    variants: tuple[Variant, ...]
    schema: int = 1
