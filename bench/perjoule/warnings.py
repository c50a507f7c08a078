"""What the W2xx codes on a reading mean, what follows from them, and what to do: the text of `perjoule explain`."""

from __future__ import annotations

from dataclasses import dataclass

from perjoule.text import without_uuids


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A warning code in full sentences."""

    meaning: str
    consequence: str
    remedy: str


WARNINGS: dict[str, Explanation] = {
    "W201": Explanation(
        meaning="The bound on the error is wider than the relative uncertainty that was asked for.",
        consequence="The joules are right within their bound, but cannot carry a claim that is finer than it.",
        remedy="Repeat the work inside one window (more iterations), or ask for a larger max_uncertainty.",
    ),
    "W202": Explanation(
        meaning="The energy came out as zero or less, which no powered device can do.",
        consequence="There is no number: a zero would look like a saving.",
        remedy="Make the window longer than the source's update period, and look for the warnings beside this one.",
    ),
    "W203": Explanation(
        meaning="The device has no usable energy counter; its power reading was sampled and integrated instead.",
        consequence="The bound is larger, and load that repeats in step with the sensor can be seen wrongly.",
        remedy="Use long windows and vary their phase; a newer driver or board may have the counter.",
    ),
    "W204": Explanation(
        meaning="The only power reading is smoothed over about a second, or has to be taken for it.",
        consequence="The window is followed for a second after its end; unquiet devices make this wrong.",
        remedy="Leave the device at rest for 1.2 s after each window, and prefer windows of 10 s or more.",
    ),
    "W205": Explanation(
        meaning="The sensor covers a whole module (CPU and GPU together), not the GPU board alone.",
        consequence="The joules must not be compared with those of a GPU board.",
        remedy="Compare runs of the same machine type only.",
    ),
    "W206": Explanation(
        meaning="The board is split by MIG, and energy is known for the whole board only.",
        consequence="Other slices' work is counted too.",
        remedy="Keep the other slices idle, or switch MIG off for the measurement.",
    ),
    "W207": Explanation(
        meaning="Power samples are missing (the driver answered 0 W, nothing, or an error).",
        consequence="The gaps widen the bound; with more than half of the window in gaps there is no number.",
        remedy="See whether another monitor polls the device fast, and stop it.",
    ),
    "W208": Explanation(
        meaning="Idle power after the window differs from idle power before it.",
        consequence="Net energy rests on the value before; it is off by the difference times the duration.",
        remedy="Learn idle power again on a warm device, and keep other work off it.",
    ),
    "W209": Explanation(
        meaning="The update period of the power sensor could not be seen, because the reading did not change.",
        consequence="A period of 0.1 s was assumed for the bound.",
        remedy="None is needed on common boards; learn idle power while the device does something small.",
    ),
    "W210": Explanation(
        meaning="The energy counter went backwards: the driver was reloaded or the device reset.",
        consequence="What was counted on both sides is kept, what is missing is filled in; the bound is wide.",
        remedy="Find out why the driver restarted, and repeat the trial.",
    ),
    "W211": Explanation(
        meaning="The energy counter stopped changing.",
        consequence="From there on the power reading is integrated and the bound is wide; without one, only the part "
        "that was counted is known.",
        remedy="Repeat the trial; if it happens again, restart the driver or measure with another source.",
    ),
    "W212": Explanation(
        meaning="The reading implies more power than the device's power limit allows.",
        consequence="The counter cannot be right, so there is no number.",
        remedy="Repeat the trial; report the driver version if it happens again.",
    ),
    "W213": Explanation(
        meaning="The reading implies less than half of the device's own idle power.",
        consequence="The counter must have paused within the window, so there is no number.",
        remedy="Repeat the trial with the device at rest before it.",
    ),
    "W214": Explanation(
        meaning="The energy counter sees only part of the time: what a burst counts for depends on when it falls.",
        consequence="Windows begin at random phase and the bound is wider; short windows are hardly worth anything.",
        remedy="Use windows of many update periods, repeat them, and keep the work out of step with the sensor.",
    ),
    "W215": Explanation(
        meaning="The work repeats in step with the sensor, which therefore sees the same part of it every time.",
        consequence="What the sensor misses it misses in the whole window; the bound does not cover that.",
        remedy="Change the period of the work (batch size, a pause), or pause for random times between repeats.",
    ),
    "W216": Explanation(
        meaning="The bursts of the phase test differ too much, or too little from rest, to say what the counter sees.",
        consequence="It stays open whether the energy counter sees all of the time; it is taken to do so.",
        remedy="Repeat the test on a device that does nothing else, with a burst that draws more power.",
    ),
    "W220": Explanation(
        meaning="The energy source failed inside the window.",
        consequence="There is no number for this window, but what was counted until then, if anything was; the work in "
        "it was not disturbed.",
        remedy="Read the error in the sentence; a lost device needs a reset or a reboot.",
    ),
    "W221": Explanation(
        meaning="A CPU energy counter may have wrapped around more than once inside the window.",
        consequence="The difference is ambiguous, so there is no number.",
        remedy="Use shorter windows.",
    ),
    "W223": Explanation(
        meaning="The energy counter and the power reading of the board disagree by more than a fifth.",
        consequence="One of them misses load or counts what the other does not see; the counter's number is given.",
        remedy="Let the phase test (`meter.try_phase`, docs/energy.md) tell whether the counter sees all of the time.",
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
        meaning="A GPU is visible to this process, but the meter reads or models the CPU alone.",
        consequence="What the GPU draws is not in the joules: work on it looks as cheap as the CPU's waiting for it.",
        remedy="Measure with --meter nvml (`perjoule doctor` shows why it is not available), or hide the GPU from the "
        "work with CUDA_VISIBLE_DEVICES= if it is not used.",
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
        meaning="The process or the whole machine was stopped inside the window: SIGSTOP, a frozen container, a "
        "closed lid.",
        consequence="There is no number: the device went on drawing power while no work was done.",
        remedy="Repeat the trial, and keep the process running: no Ctrl-Z, no sleep, no pausing of containers.",
    ),
    "W260": Explanation(
        meaning="Other compute processes were on the board before or after the window.",
        consequence="Their joules are in the number.",
        remedy="Keep others off the board while it is measured.",
    ),
    "W261": Explanation(
        meaning="The board slowed itself down inside the window (power cap, heat, power brake).",
        consequence="The joules are right, but belong to a board that was held back: others may see other values.",
        remedy="Cool the board, raise its power limit, or report the limit with the numbers.",
    ),
    "W262": Explanation(
        meaning="The SM clock changed by more than a tenth inside the window.",
        consequence="Energy and time belong to no single clock.",
        remedy="Lock the clocks (`nvidia-smi -lgc`), or warm the board up longer.",
    ),
    "W263": Explanation(
        meaning="The power limit of the board was changed while it was measured.",
        consequence="The window belongs to neither limit.",
        remedy="Leave the limit alone, and repeat the trial.",
    ),
    "W264": Explanation(
        meaning="More tasks wanted to run than there are CPUs, and not all of them were this run's.",
        consequence="The work waited for CPUs: the window is longer, and its joules include that waiting. On a CPU "
        "meter they include the others' work too.",
        remedy="Measure on a machine that does nothing else, or repeat the run later; `uptime` shows the load.",
    ),
    "W265": Explanation(
        meaning="Trials were measured on different boards: another model, or another power limit.",
        consequence="Joules of different boards are not pooled into one operating point, and cells that were measured "
        "on different boards differ by their boards as well.",
        remedy="Measure all cells on one board, or on boards of one model and power limit; one run for each board.",
    ),
    "W270": Explanation(
        meaning="Pictures of the trial are of one colour: nothing is drawn on them.",
        consequence="They are scored and cost joules like any other picture, but are probably the sign of a fault.",
        remedy="Look at the pictures. Common causes: a VAE that overflows in float16 (set dtype to bfloat16 or "
        "float32), a safety checker that blackens pictures, a scheduler that does not fit the model, too few steps.",
    ),
    "W271": Explanation(
        meaning="A prompt is longer than a text encoder reads; what comes after its limit is cut off.",
        consequence="The picture cannot show what was cut, and text-image scores count it against the model.",
        remedy="Shorten the prompt, or leave it out; `perjoule plan SUITE` counts such prompts before the run.",
    ),
    "W272": Explanation(
        meaning="A negative prompt is set, but guidance is off, so it has no effect.",
        consequence="The pictures are those without it.",
        remedy="Remove negative_prompt, or set guidance above 1 (for models with embedded guidance, true_cfg_scale in "
        "call_args).",
    ),
    "W280": Explanation(
        meaning="The joules were imported from a table that does not state how they were obtained.",
        consequence="They may be measured, estimated or made up. They are branded NOT STATED, rank below an estimate "
        "and above simulated joules, and are not compared with joules of another provenance.",
        remedy="Ask whoever made the table, add a column provenance (measured, estimated, simulated), import again.",
    ),
    "W281": Explanation(
        meaning="A table states one number for all prompts of a cell, in one row or repeated in the rows of its "
        "prompts, and it is not a bound of the metric.",
        consequence="Its scatter is not known, so it has no interval and no share of draws on the frontier, and no "
        "gate passes or fails on it.",
        remedy="Import the scores (or joules) of single images. If the number is a bound of the metric, say so: "
        "perjoule import --bounds NAME=LOW:HIGH.",
    ),
    "W299": Explanation(
        meaning="The meter itself has a defect.",
        consequence="There is no number for this window; the work in it was not disturbed.",
        remedy="Please report the sentence with the warning.",
    ),
}


def warning(code: str, sentence: str) -> str:
    """`CODE: sentence`, for a code that has an explanation (KeyError otherwise: a defect, not a user's mistake).

    Warnings go into records that are shared, so boards are named by digests in them.
    """
    WARNINGS[code]
    return f"{code}: {without_uuids(sentence)}"
