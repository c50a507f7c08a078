"""A run whose prompts and failures try to break out of every format, made with the public fakes."""

from __future__ import annotations

import re
from pathlib import Path

from perjoule.files import write_parquet
from perjoule.prompts import prompt_id
from perjoule.running.execute import execute
from perjoule.running.trial import GeneratorCache
from perjoule.runs.directory import Run, load_run, write_scores
from perjoule.runs.writer import RunWriter
from perjoule.statistics.points import operating_points
from perjoule.suite.schedule import make_plan
from perjoule.testing import FakeFactory, FakeGenerator, SyntheticMeter, VirtualClock
from perjoule.types import Metrics, MetricSpec, Prompt, PromptSource, Protocol, Score, Suite, Variant

# what runs if a text gets out: the browser tests ask whether it did
PAYLOAD = "document.documentElement.dataset.pwned=1"
PROMPTS = (
    f"</script><script>{PAYLOAD}</script>",
    f"\"'><img src=x onerror={PAYLOAD}>",
    f"]]><svg onload={PAYLOAD}></svg><![CDATA[",
    f"</style></title></textarea>--><body onload={PAYLOAD}>",
    f"[click](javascript:{PAYLOAD}) ![x](https://example.com/x.png) <https://example.com> @everyone #1 GH-1",
    "a | pipe\nand a new line\r\n| --- | ---\n# heading\n> quote\n- list\n```\nfence\n``` `code` ~~~ \\| end",
    "{{ 7*7 }} {% raw %} ${7*7} $x^2$ $$y$$ %(name)s {0} \\frac",
    "\u202ereversed\u202c \u2066isolated\u2069 \u200bzero \ufeffwidth\u00ad \u0301combining",
    "nul \x00 bell \x07 escape \x1b[31mred\x1b[0m \x1b]8;;https://example.com\x07link\x1b]8;;\x07 \x9b2J \ufffe \uffff",
    '=cmd|"/c calc"!A1,+1,-1,@SUM(A1)\t"quoted", \'single\'',
    "👩\u200d🚀 🏳️\u200d🌈 e\u0301 日本語 עברית العربية 𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    "long " * 2_000,
    " ",
)
SCORED = MetricSpec(
    name="sharp", direction="higher", track="absolute", needs_reference=False, unit="<b>", weights_digest="none",
    licence="Apache-2.0", description=PROMPTS[0], advisory=False, bounds=(0.0, 1.0),
)  # fmt: skip


class Refusing(FakeGenerator):
    """Fails on the prompts that the fake refuses, and says so in their own words."""

    def generate(self, prompts, seeds, steps):  # type: ignore[no-untyped-def]
        if steps == 9:
            raise RuntimeError(" ".join(prompts))
        return super().generate(prompts, seeds, steps)


def hostile_run(folder: Path, factor: float = 1.0) -> Run:
    """Three step counts, of which the last fails with a message that quotes the prompt."""
    suite = Suite(
        name="hostile",
        title=PROMPTS[1],
        description=PROMPTS[0],
        prompts=PromptSource(source="x"),
        metrics=Metrics(primary="sharp", names=("sharp",)),
        protocol=Protocol(seeds=(1,), idle_s=0.0, warmup_iterations=0),
        variants=(Variant(name="v", model="m", steps=(1, 4, 9)), Variant(name="w", model="m", steps=(2,))),
    )
    prompts = tuple(Prompt(prompt_id=prompt_id(text), text=text) for text in PROMPTS)
    environment = {
        "created_utc": "2026-01-02T03:04:05+00:00",
        "comparability": {"device": PROMPTS[2]},
        "comparability_key": "k",
        "meter": {"name": PROMPTS[0], "why": PROMPTS[5]},
        "cpu": PROMPTS[5],
        "commit": PROMPTS[4],
        "packages": {PROMPTS[1]: PROMPTS[7]},
        "command": ["perjoule", *PROMPTS[:9]],
    }
    clock = VirtualClock()
    writer = RunWriter.create(folder, suite, prompts, environment)
    execute(
        make_plan(suite, prompts),
        protocol=suite.protocol,
        meter=SyntheticMeter(40.0 * factor, clock),
        generators=GeneratorCache(FakeFactory(Refusing(clock=clock, step_s=0.5)), lambda variant: variant.name),
        writer=writer,
        on_progress=lambda _: None,
    )
    writer.finish()
    run = load_run(folder)
    scores = [
        Score(image_id=image, metric="sharp", value=0.9 - 0.5 / steps + 0.01 * (number % 7))
        if number % 5
        else Score(image_id=image, metric="sharp", value=None, reason_unscored=PROMPTS[number % len(PROMPTS)])
        for number, (image, steps) in enumerate(run.images.select("image_id", "steps").iter_rows())
    ]
    write_scores(run, scores, [SCORED])
    run = load_run(folder)
    write_parquet(operating_points(run), folder / "points.parquet")
    return load_run(folder)


CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff]")
