"""The words of perjoule as frozen records. No I/O, no torch, nothing heavy.

SI units throughout, the unit in every name. An absent number is None with a reason beside it, never 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

Role = Literal["fixed", "predicted", "distilled", "control"]
# weakest first. Joules whose provenance is not stated rank below an estimate, because they may be anything, and above
# simulated ones, of which it is certain that they are not energy
Provenance = Literal["simulated", "not stated", "estimated", "measured"]
PROVENANCES: tuple[Provenance, ...] = get_args(Provenance)
Boundary = Literal["gpu-board", "gpu-module", "cpu-package+dram", "cpu-package", "estimate", "system"]
Direction = Literal["higher", "lower"]
Track = Literal["alignment", "fidelity", "sharpness", "absolute"]

# read by pydantic when a suite file is validated: no unknown keys, no silent conversion
_STRICT = {"extra": "forbid", "strict": True}


def weakest(provenances: Iterable[str | None]) -> Provenance | None:
    """The weakest of several provenances: a number is only as good as the worst that it rests on. None without any."""
    seen = set(provenances)
    return next((provenance for provenance in PROVENANCES if provenance in seen), None)


# -- what to run -------------------------------------------------------------------------------------------------------


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt with a stable id (the first 10 hex digits of its SHA-256) and its strata, if the set has any."""

    prompt_id: str
    text: str
    category: str = ""
    challenge: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptCut:
    """A prompt that is longer than a text encoder of a pipeline reads.

    Attributes:
        encoder: Name of the tokenizer in the pipeline: `tokenizer`, `tokenizer_2`.
        limit: Tokens that the encoder reads, those for start and end included.
        prompt: The text.
        tokens: How many it has.
        lost: The end of the text that is not read.
        negative: Whether it is the negative prompt.
    """

    encoder: str
    limit: int
    prompt: str
    tokens: int
    lost: str
    negative: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptFindings:
    """What of a variant's prompts has no effect: ends that are cut, a negative prompt without guidance."""

    cuts: tuple[PromptCut, ...] = ()
    negative_prompt_ignored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What is known of a variant before its weights are read.

    Attributes:
        problems: Why it cannot run: file, key, value and remedy each.
        findings: About its prompts; None if they are not known yet.
        unknown: Why `findings` is None.
    """

    problems: tuple[str, ...] = ()
    findings: PromptFindings | None = None
    unknown: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One variant at one step count, or at one level of its step policy: what is compared.

    Attributes:
        cell_id: Unique in the suite.
        variant: The variant.
        steps: diffusers' `num_inference_steps`, or None for a step policy.
        level: Of the step policy, or None for `fixed`.
        batch_size: Most images per pipeline call; None draws all images of a window in one.
    """

    cell_id: str
    variant: Variant
    steps: int | None = None
    level: float | None = None
    batch_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One line of the plan: a trial to do. `seeds[i]` belongs to `prompts[i]`."""

    trial_id: str
    cell: Cell
    block: int
    prompts: tuple[Prompt, ...]
    seeds: tuple[int, ...]


# -- what was measured -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerTrace:
    """Power over time. t_s: seconds on the monotonic clock from the start of the window; power_w: watts."""

    t_s: tuple[float, ...]
    power_w: tuple[float, ...]
    source: str
    poll_interval_s: float | None = None
    update_period_s: float | None = None
    averaging_window_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """A refresh of an energy counter, seen between two polls.

    Attributes:
        early_s: When the last poll that still saw the old value was sent.
        late_s: When the first poll that saw the new value came back.
        energy_j: The new value; whole mJ.
    """

    early_s: float
    late_s: float
    energy_j: float

    @property
    def at_s(self) -> float:
        """The best guess of the moment."""
        return (self.early_s + self.late_s) / 2

    @property
    def width_s(self) -> float:
        """How well the moment is known."""
        return self.late_s - self.early_s


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdatePeriod:
    """How often a counter is refreshed: median, shortest and longest gap in s, and how many were seen."""

    median_s: float
    shortest_s: float
    longest_s: float
    gap_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IdlePower:
    """Power before the work: mean, standard deviation between refreshes, and the range that anything showed, in W.

    On a resting device the range is narrow; on one that works all the time it says how far power may swing.
    `gap_count`: refreshes that the mean rests on.
    """

    power_w: float
    spread_w: float
    lowest_w: float
    highest_w: float
    gap_count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterPoll:
    """One look at counter and power inside a window; None where the source gave no answer."""

    t_s: float
    energy_j: float | None
    power_w: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterLog:
    """All that the energy of a counter's window is computed from; `perjoule.meters.edges.bracket` does it again.

    Attributes:
        before: The refresh before the start.
        started_s: Start of the window. All times are seconds on the monotonic clock, here 0.
        stopped_s: End of the window.
        stop_j: The counter as it stood at `stopped_s`: the energy up to the last refresh before.
        after: The refresh that closes the window, None if there was none.
        rest: The refresh after that one, which shows the power right after the window.
        polls: Looks in between, a few per second.
        period: As learnt.
        idle: As learnt before the window.
        limit_w: The device's power limit.
        seen_share: Share of time that a part-time counter sees; 1 for one that misses nothing.
        lost: The coded reason why the source failed on the way, or why the window is worthless; None if it is not.
    """

    before: Edge
    started_s: float
    stopped_s: float
    stop_j: float | None
    after: Edge | None
    rest: Edge | None
    polls: tuple[CounterPoll, ...]
    period: UpdatePeriod
    idle: IdlePower
    limit_w: float | None
    seen_share: float = 1.0
    lost: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What a board was in the middle of; fields are None where it does not tell. Tuples hold begin and end.

    Attributes:
        temperature_c: GPU temperature.
        power_limit_w: Enforced limit.
        sm_clock_mhz: Lowest and highest SM clock seen inside the window.
        throttle_reasons: All bits of `nvmlClocksEventReason` seen inside the window, idle and user settings left out.
        foreign_processes: Most compute processes of others that were on the board at either end.
        peak_memory_bytes: Most memory in use on the board, by anyone, among a look per second.
        utilisation: Mean share of time with a kernel running, 0 to 1, among a look per second.
    """

    temperature_c: tuple[int | None, int | None] = (None, None)
    power_limit_w: tuple[float | None, float | None] = (None, None)
    sm_clock_mhz: tuple[int, int] | None = None
    throttle_reasons: int | None = None
    foreign_processes: int | None = None
    peak_memory_bytes: int | None = None
    utilisation: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineLoad:
    """How busy the machine was around a window; None where the system does not tell. Tuples hold before and after.

    Attributes:
        load: Load average of the last minute: tasks that run or wait, our own included.
        cores: Logical CPUs.
        others_cores: Mean number of CPUs that other processes used between the two looks.
        steal_share: Share of all CPU time that a hypervisor gave to others.
        cpu_mhz: Mean CPU frequency.
    """

    load: tuple[float | None, float | None]
    cores: int
    others_cores: float | None = None
    steal_share: float | None = None
    cpu_mhz: tuple[float | None, float | None] = (None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEnergy:
    """One board's part of a reading.

    Attributes:
        device: Digest of its UUID (runs of earlier versions hold the UUID itself).
        energy_j: Gross energy of the window, or None.
        uncertainty_j: Its bound, or None.
        idle_power_w: Learnt before the window.
        counter: What it was computed from, for boards with an energy counter.
        power_ratio: Energy by the counter over energy by the power reading, inside the window; a cross-check.
        conditions: What else went on on the board.
    """

    device: str
    energy_j: float | None
    uncertainty_j: float | None
    idle_power_w: float | None = None
    counter: CounterLog | None = None
    power_ratio: float | None = None
    conditions: Conditions | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyReading:
    """The joules of one window, with all that is needed to believe them.

    Attributes:
        energy_j: Gross energy; None when it could not be had (`warnings` then says why).
        uncertainty_j: Bound on the error, meant to hold for at least 99.5 % of windows; None if it is not known.
        duration_s: Length of the window.
        boundary: What the number covers.
        provenance: How it came about.
        method: The source in words, e.g. `nvml energy counter, GPU-1234, period 0.100 s`.
        idle_power_w: Idle power learnt before the window, or None.
        net_energy_j: `energy_j - idle_power_w * duration_s`, or None.
        partial_energy_j: Where `energy_j` is None since the source failed on the way: what was counted until then.
        partial_s: How far into the window `partial_energy_j` reaches.
        iterations: How often the work ran, where `Window.repeat` drove it.
        warnings: Codes with a sentence each: `W203: no driver counter, power integrated instead`.
        trace: Power samples inside the window, if the source has any.
        devices: The boards' parts, in the order in which they were asked for; empty for sources without boards.
        device: Model of what was metered, several boards joined by ` + `; None for sources that do not know.
        device_digest: Tells boards of one model apart.
        power_limit_w: Enforced power limit of the device when the meter was opened.
        machine: How busy the machine was; None on virtual time.
    """

    energy_j: float | None
    uncertainty_j: float | None
    duration_s: float
    boundary: Boundary
    provenance: Provenance
    method: str
    idle_power_w: float | None = None
    net_energy_j: float | None = None
    partial_energy_j: float | None = None
    partial_s: float | None = None
    iterations: int | None = None
    warnings: tuple[str, ...] = ()
    trace: PowerTrace | None = None
    devices: tuple[DeviceEnergy, ...] = ()
    device: str | None = None
    device_digest: str | None = None
    power_limit_w: float | None = None
    machine: MachineLoad | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One finished window: a row of `trials.jsonl`.

    `nfe_per_image` counts denoiser evaluations by a hook on the denoiser; guidance counts two per step.
    `phases_s` are wall seconds per pipeline phase (text_encoder, denoise, vae_decode). `failure` is why the trial has
    no images; `traceback` is where it failed, which is kept in `failures.jsonl`. `remarks` are coded warnings about the
    images and prompts, next to those of the reading.
    """

    trial_id: str
    cell_id: str
    variant: str
    role: Role
    policy: str
    block: int
    prompts: tuple[str, ...]
    prompt_ids: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: tuple[int, ...]
    nfe_per_image: float | None
    image_count: int
    iterations: int
    reading: EnergyReading | None
    image_sha256: tuple[str, ...] = ()
    phases_s: dict[str, float] = field(default_factory=dict)
    failure: str | None = None
    traceback: str = ""
    remarks: tuple[str, ...] = ()


# -- what it was worth -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """What a quality metric is; the fields without a default are mandatory.

    Attributes:
        name: As used in suites and tables.
        direction: Which way is better.
        track: `alignment`, `sharpness` and `absolute` compare across variants; `fidelity` only within one family.
        needs_reference: True if it compares with the longest run of the same family, prompt and seed.
        unit: Of the value, for people.
        weights_digest: SHA-256 of the weights it uses, or `none`.
        licence: SPDX name of code and weights.
        description: One sentence.
        advisory: True if it must not decide a verdict.
        bounds: Smallest and largest possible value, None where unbounded.
        weights: Which weights: `builtin:NAME`, a folder, a hub id, an address; empty without any.
        commercial: Whether `licence` allows commercial use; None if its name does not tell.
        temperature: The difference of two scores at which the odds of being preferred are e to 1, for metrics that were
            trained on preferences.
        margin: The gate's default: the largest loss, in `unit`, that is still no loss worth mentioning. None where
            nobody can say; the gate then asks for `--margin-quality`.
        scale: What differences of the metric mean, e.g. `1 JOD: 75 of 100 people prefer the better image`.
    """

    name: str
    direction: Direction
    track: Track
    needs_reference: bool
    unit: str
    weights_digest: str
    licence: str
    description: str
    advisory: bool
    bounds: tuple[float | None, float | None]
    weights: str = ""
    commercial: bool | None = None
    temperature: float | None = None
    margin: float | None = None
    scale: str = ""

    @property
    def sign(self) -> float:
        """+1 where higher is better, −1 where lower is."""
        return 1.0 if self.direction == "higher" else -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One image under one metric; an absent value has its reason."""

    image_id: str
    metric: str
    value: float | None
    reason_unscored: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetScore:
    """All images of a cell under a metric of sets; for orientation only. notes: what to know before believing it."""

    cell_id: str
    metric: str
    image_count: int
    value: float | None
    reason_unscored: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its interval. n: how many independent units (prompts) it rests on."""

    value: float | None
    low: float | None
    high: float | None
    level: float
    n: int
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """Energy and quality of a cell under one metric, aggregated over prompts and seeds.

    `provenance` is the weakest of its trials (see `weakest`).
    """

    cell_id: str
    variant: str
    role: Role
    policy: str
    family: str
    steps_mean: float
    nfe_mean: float | None
    energy_j_per_image: Estimate
    metric: str
    quality: Estimate
    duration_s_per_image: float
    n_prompts: int
    n_seeds: int
    provenance: Provenance | None
    boundary: Boundary | None
    on_frontier: bool
    p_on_frontier: float | None
