"""Coded warnings: how they are written and read, and the text of `perjoule explain`.

A warning is a code and a sentence. On disk, in JSON and for people it is the text `CODE: sentence`; nothing but this
module writes or parses that text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from perjoule.text import without_uuids

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True)
class CodedWarning:
    """A code and a sentence; `str` gives their text. The code is any text if a run was not written by perjoule."""

    code: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.code}: {self.sentence}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Explanation of a warning code."""

    meaning: str
    consequence: str
    remedy: str


WARNINGS: dict[str, Explanation] = {
    "W201": Explanation(
        meaning="The bound on the error is wider than the relative uncertainty that was requested.",
        consequence="The joules are correct within their bound, but do not support a more precise claim.",
        remedy="Repeat the work inside one window (more iterations), or request a larger max_uncertainty.",
    ),
    "W202": Explanation(
        meaning="The computed energy is zero or less, which is impossible for a powered device.",
        consequence="There is no number: a zero would look like a saving.",
        remedy="Make the window longer than the source's update period, and check the other warnings of the reading.",
    ),
    "W203": Explanation(
        meaning="The device has no usable energy counter; its power reading was sampled and integrated instead.",
        consequence="The bound is larger, and load that repeats in step with the sensor can be misread.",
        remedy="Use long windows and vary their phase; a newer driver or board may have the counter.",
    ),
    "W204": Explanation(
        meaning="The only power reading is averaged over about a second, or may be.",
        consequence="The meter follows the window for a second after its end; load in that second causes errors.",
        remedy="Leave the device at rest for 1.2 s after each window, and prefer windows of 10 s or more.",
    ),
    "W205": Explanation(
        meaning="The sensor covers a whole module (CPU and GPU together), not the GPU board alone.",
        consequence="The joules must not be compared with those of a GPU board.",
        remedy="Compare runs of the same machine type only.",
    ),
    "W206": Explanation(
        meaning="The board is split by MIG, and energy is known only for the whole board.",
        consequence="The work of other slices is counted too.",
        remedy="Keep the other slices idle, or switch MIG off for the measurement.",
    ),
    "W207": Explanation(
        meaning="Power samples are missing (the driver answered 0 W, nothing, or an error).",
        consequence="The gaps widen the bound; with more than half of the window in gaps there is no number.",
        remedy="Check whether another monitor polls the device frequently, and stop it.",
    ),
    "W208": Explanation(
        meaning="Idle power after the window differs from idle power before it.",
        consequence="Net energy is computed from the value before; its error is the difference times the duration.",
        remedy="Measure idle power again on a warm device, and keep other work off it.",
    ),
    "W209": Explanation(
        meaning="The update period of the power sensor is unknown, because the reading did not change.",
        consequence="A period of 0.1 s was assumed for the bound.",
        remedy="No action is needed on common boards; otherwise measure idle power under a small load.",
    ),
    "W210": Explanation(
        meaning="The energy counter went backwards: the driver was reloaded or the device reset.",
        consequence="The energy counted on both sides is kept and the gap is filled in; the bound is wide.",
        remedy="Find out why the driver restarted, and repeat the trial.",
    ),
    "W211": Explanation(
        meaning="The energy counter stopped changing.",
        consequence="From then on the power reading is integrated and the bound is wide; without a power reading, only "
        "the counted part is known.",
        remedy="Repeat the trial; if it happens again, restart the driver or measure with another source.",
    ),
    "W212": Explanation(
        meaning="The reading implies more power than the device's power limit allows.",
        consequence="The counter is wrong, so there is no number.",
        remedy="Repeat the trial; report the driver version if it happens again.",
    ),
    "W213": Explanation(
        meaning="The reading implies less than half of the device's own idle power.",
        consequence="The counter must have paused within the window, so there is no number.",
        remedy="Repeat the trial with the device at rest before it.",
    ),
    "W214": Explanation(
        meaning="The energy counter sees only part of the time: the energy of a short burst depends on its timing.",
        consequence="Windows begin at a random phase and the bound is wider; short windows are of little use.",
        remedy="Use windows of many update periods, repeat them, and keep the work out of step with the sensor.",
    ),
    "W215": Explanation(
        meaning="The work repeats in step with the sensor, which therefore sees the same part of it every time.",
        consequence="The sensor may miss the same part throughout the window; the bound does not cover that.",
        remedy="Change the period of the work (batch size, a pause), or pause for random times between repeats.",
    ),
    "W216": Explanation(
        meaning="The bursts of the phase test vary too much, or differ too little from rest, for a conclusion.",
        consequence="It is unknown whether the energy counter sees all of the time; perjoule assumes that it does.",
        remedy="Repeat the test on an otherwise idle device, with a burst that draws more power.",
    ),
    "W217": Explanation(
        meaning="The process was held up again and again while idle power was measured, so most refreshes of the "
        "counter were seen late.",
        consequence="Idle power and the counter's period are less certain than usual; all bounds are wider.",
        remedy="Close other programs that use the CPU, and open the meter again on a quieter machine.",
    ),
    "W218": Explanation(
        meaning="The energy counter shows energy late or averages power over time, or that is not excluded yet.",
        consequence="Windows wait until the counter has counted all of the work, and the bound covers what it may owe.",
        remedy="Measure the lag with `meter.try_lag(burst)`, or measure work of half a second or more first: what the "
        "counter shows after it excludes a long average.",
    ),
    "W220": Explanation(
        meaning="The energy source failed inside the window.",
        consequence="There is no number for this window, only the energy counted until then, if any; the work in the "
        "window was not disturbed.",
        remedy="Read the error in the sentence; a lost device needs a reset or a reboot.",
    ),
    "W221": Explanation(
        meaning="A CPU energy counter may have wrapped around more than once inside the window.",
        consequence="The difference is ambiguous, so there is no number.",
        remedy="Use shorter windows.",
    ),
    "W223": Explanation(
        meaning="The energy counter and the power reading of the board disagree by more than a fifth.",
        consequence="One of them misses load, or counts load that the other misses; the counter's number is reported.",
        remedy="Run the phase test (`meter.try_phase`, docs/energy.md) to find out whether the counter sees all of "
        "the time.",
    ),
    "W224": Explanation(
        meaning="The device did not rest before or after the window, and its sensor averages over that time as well.",
        consequence="What the sensor shows of the time before and after is subtracted as if power had been even there; "
        "the bound covers the rest.",
        remedy="Let the board rest for 1.2 s before and after each window, or use windows of 10 s and more.",
    ),
    "W225": Explanation(
        meaning="The power reading did not change for much longer than its update period.",
        consequence="The sensor may be frozen: what it hides is not in the bound.",
        remedy="Check the log, update the driver, and measure again.",
    ),
    "W230": Explanation(
        meaning="The CPU is not in the table of known thermal design powers; a flat value per thread is assumed.",
        consequence="The absolute joules are a guess; comparisons on this machine follow CPU time and duration.",
        remedy="Measure on a machine with RAPL or an NVIDIA GPU for absolute joules.",
    ),
    "W231": Explanation(
        meaning="The power model had no usable input: CPU time did not move forward, or the model says 0 W.",
        consequence="There is no number for this window.",
        remedy="Check that the process may read its own CPU times; use longer windows.",
    ),
    "W232": Explanation(
        meaning="A GPU is visible to this process, but the meter reads or models only the CPU.",
        consequence="The GPU's energy is not in the joules: work on the GPU looks as cheap as waiting for it.",
        remedy="Measure with --meter nvml (`perjoule doctor` shows why it is not available), or hide the GPU from the "
        "work with CUDA_VISIBLE_DEVICES= if it is not used.",
    ),
    "W233": Explanation(
        meaning="Counted work was requested, but no network of torch ran in this process, or it could not be counted.",
        consequence="There is no number.",
        remedy="Use --meter estimate for work outside torch or in other processes.",
    ),
    "W234": Explanation(
        meaning="The work was done on another kind of device than the profile of counted work describes.",
        consequence="There is no number: joules per operation of a CPU and a GPU have nothing in common.",
        remedy="Choose the device's profile with --meter work:NAME, or fit one with perjoule calibrate --work RUN.",
    ),
    "W235": Explanation(
        meaning="Operators ran whose floating-point operations are unknown, e.g. of compiled or quantised networks.",
        consequence="Their work is missing from the joules; the bound is as large as the joules.",
        remedy="Count the network without these operators, or measure with nvml, rapl or estimate.",
    ),
    "W236": Explanation(
        meaning="The work was done in a data type for which the profile of counted work was not fitted.",
        consequence="The joules per operation may differ by a factor, which the bound includes.",
        remedy="Fit a profile to a measured run in this data type: perjoule calibrate --work RUN.",
    ),
    "W240": Explanation(
        meaning="The replayed trace ended before the window did.",
        consequence="The rest of the window is unknown, so there is no number.",
        remedy="Replay a longer trace, or fewer or shorter windows.",
    ),
    "W250": Explanation(
        meaning="The synchronise hook failed at the end of a window in which the work had already failed.",
        consequence="It is unknown when the device finished, so there is no number.",
        remedy="Fix the failure of the work first.",
    ),
    "W251": Explanation(
        meaning="The process or the whole machine was suspended inside the window, e.g. by SIGSTOP, a frozen "
        "container or a closed lid.",
        consequence="There is no number: the device continued to draw power while no work was done.",
        remedy="Repeat the trial, and keep the process running: no Ctrl-Z, no sleep, no pausing of containers.",
    ),
    "W260": Explanation(
        meaning="Other compute processes were on the board before or after the window.",
        consequence="Their joules are in the number.",
        remedy="Keep other processes off the board while it is measured.",
    ),
    "W261": Explanation(
        meaning="The board slowed itself down inside the window (heat, power brake, hardware slowdown, sync boost). "
        "Runs of earlier versions also have it for the power cap, which is normal under load.",
        consequence="The joules are correct, but the board was slowed down: other machines may give other values.",
        remedy="Cool the board, and check its power supply.",
    ),
    "W262": Explanation(
        meaning="The SM clock differed by more than a tenth between cells of a run (in runs of earlier versions: "
        "inside a window).",
        consequence="A part of the difference between these cells may be that of the clocks.",
        remedy="If the load of the cells does not explain it, set interleave = true, cool the board, or lock the "
        "clocks (`nvidia-smi -lgc`).",
    ),
    "W263": Explanation(
        meaning="The power limit of the board was changed while it was measured.",
        consequence="The window belongs to neither limit.",
        remedy="Leave the limit alone, and repeat the trial.",
    ),
    "W264": Explanation(
        meaning="More tasks were ready to run than there are CPUs, and some of them belong to other processes.",
        consequence="The work waited for CPUs: the window is longer, and its joules include that waiting. On a CPU "
        "meter they include the work of others too.",
        remedy="Measure on an otherwise idle machine, or repeat the run later; `uptime` shows the load.",
    ),
    "W265": Explanation(
        meaning="Trials were measured on different boards, i.e. boards of different models or power limits.",
        consequence="Joules of different boards are not pooled into one operating point, and differences between "
        "cells on different boards include the difference of the boards.",
        remedy="Measure all cells on one board, or on boards of one model and power limit; use one run per board.",
    ),
    "W266": Explanation(
        meaning="The work of a trial did not fit into memory with the planned number of images per pipeline call; it "
        "was drawn with fewer (protocol.on_out_of_memory).",
        consequence="The window is another operating point: it belongs to a cell named after its batch, e.g. "
        "sd15@b4-025, and is not pooled with the planned cell.",
        remedy="Set batch_size of the variant to the number that fits, or free memory of the device, and run again.",
    ),
    "W270": Explanation(
        meaning="Images of the trial have a single colour: they show nothing.",
        consequence="They are scored and cost joules like any other image, but are probably the sign of a fault.",
        remedy="Look at the images. Common causes: a VAE that overflows in float16 (set dtype to bfloat16 or "
        "float32), a safety checker that blackens images, a scheduler that does not fit the model, too few steps.",
    ),
    "W271": Explanation(
        meaning="A prompt is longer than a text encoder's limit; the rest of the prompt is cut off.",
        consequence="The image cannot show the part that was cut, and text-image scores count it against the model.",
        remedy="Shorten the prompt or remove it; `perjoule plan SUITE` counts such prompts before the run.",
    ),
    "W272": Explanation(
        meaning="A negative prompt is set, but guidance is off, so it has no effect.",
        consequence="The images are the same as without it.",
        remedy="Remove negative_prompt, or set guidance above 1 (for models with embedded guidance, true_cfg_scale in "
        "call_args).",
    ),
    "W280": Explanation(
        meaning="The joules were imported from a table that does not state how they were obtained.",
        consequence="They may be measured, estimated or invented. They are marked NOT STATED, rank below an estimate "
        "and above simulated joules, and are not compared with joules of another provenance.",
        remedy="Ask the authors of the table, add a column provenance (measured, estimated, simulated), import again.",
    ),
    "W281": Explanation(
        meaning="A table states one number for all prompts of a cell, in one row or repeated in the rows of its "
        "prompts, and it is not a bound of the metric.",
        consequence="Its variation is unknown, so it has no interval and no probability of being on the frontier, and "
        "a gate cannot pass or fail on it.",
        remedy="Import the scores (or joules) of single images. If the number is a bound of the metric, declare it: "
        "perjoule import --bounds NAME=LOW:HIGH.",
    ),
    "W299": Explanation(
        meaning="The meter itself has a defect.",
        consequence="There is no number for this window; the work in it was not disturbed.",
        remedy="Please report the sentence with the warning.",
    ),
}


def warning(code: str, sentence: str) -> str:
    """Return the text of a warning. A code without an explanation raises KeyError, which is a defect in perjoule.

    Warnings are stored in records that are shared, so they name boards by digests.
    """
    WARNINGS[code]
    return str(CodedWarning(code, without_uuids(sentence)))


def read_warning(text: str) -> CodedWarning:
    """Return code and sentence of a text. A text without a colon is a code without a sentence."""
    code, _, sentence = text.partition(":")
    return CodedWarning(code, sentence.strip())


def has_code(text: str, *codes: str) -> bool:
    """Return True if a text is a warning of one of these codes."""
    return text.partition(":")[0] in codes


def code_of(texts: pl.Expr) -> pl.Expr:
    """Return the codes of a column of texts."""
    return texts.str.split(":").list.first()


def is_marked(code: str) -> pl.Expr:
    """Return True for the trials of a table that have a warning of a code."""
    import polars as pl  # takes a tenth of a second, and most users of this module read no table

    text = pl.element()
    return pl.col("warnings").list.eval((text == code) | text.str.starts_with(f"{code}:")).list.any().fill_null(False)
