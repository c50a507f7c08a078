from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from perjoule.commands.plan_text import as_text
from perjoule.forecast.counted import CountedCell, counted_cells, prices
from perjoule.forecast.forecasting import forecast
from perjoule.suite.schedule import make_plan
from perjoule.types import Metrics, Prompt, PromptSource, Protocol, Suite, Variant, Work
from perjoule.work.profile import write_profile
from tests.support import driving
from tests.support.work import PROFILE, joules, work_of

PROMPTS = [Prompt(prompt_id=f"p{i}", text=f"p{i}") for i in range(5)]
LADDER = Variant(name="ladder", model="m", steps=(2, 8), family="m")
POLICY = Variant(name="policy", model="m", policy="own", levels=(0.5,), role="predicted", family="m")


def suite_of(*variants: Variant, batch_size: int = 2) -> Suite:
    return Suite(
        name="s",
        title="S",
        description="",
        prompts=PromptSource(source="x"),
        metrics=Metrics(primary="lsnr", names=("lsnr",)),
        protocol=Protocol(seeds=(0,), batch_size=batch_size, images_per_window=5),
        variants=variants,
    )


def call(variant: Variant, images: int, steps: int) -> Work | str:
    """Work of a call; that of two images is not twice that of one, because operators are the same."""
    return "not here" if variant.model == "absent" else work_of(steps, images=images, device="meta")


def counted(suite: Suite) -> dict[str, CountedCell]:
    return counted_cells(make_plan(suite, PROMPTS), call, PROFILE)


def test_a_cell_has_the_joules_of_all_its_calls() -> None:
    cells = counted(suite_of(LADDER))
    for steps in LADDER.steps:
        cell = cells[f"ladder-{steps:03d}"]
        # five images in calls of two, two and one
        expected_j = (2 * joules(steps, images=2) + joules(steps, images=1)) / 5
        energy_j = cell.price.energy_j
        assert energy_j is not None
        assert energy_j.value == pytest.approx(expected_j)
        assert (energy_j.high - energy_j.low) / 2 == pytest.approx(expected_j * 0.5)  # the profile's own error
        assert cell.flops_per_image == work_of(steps, images=1).flops
        assert (cell.price.boundary, cell.price.rests_on) == ("estimate", "estimated")
        assert "profile 'one'" in cell.price.source
        assert cell.price.reason == "counted work has no seconds"


def test_an_adaptive_cell_lies_between_the_ends_of_its_ladder() -> None:
    cells = counted(suite_of(LADDER, POLICY))
    (policy,) = (cell for cell_id, cell in cells.items() if cell_id.startswith("policy"))
    few, many = (cells[f"ladder-{steps:03d}"].price.energy_j for steps in LADDER.steps)
    energy_j = policy.price.energy_j
    assert few is not None
    assert many is not None
    assert energy_j is not None
    assert (energy_j.low, energy_j.high) == (few.low, many.high)
    assert "its step policy decides" in policy.price.reason
    assert policy.flops_per_image is None
    alone = counted(suite_of(replace(POLICY, family="other")))
    assert [cell.price.reason for cell in alone.values()] == [
        "its step policy decides, and no fixed cell of other is counted"
    ]


def test_what_is_not_counted_has_its_reason() -> None:
    cells = counted(suite_of(replace(LADDER, model="absent"), POLICY))
    assert {cell.price.reason for cell_id, cell in cells.items() if cell_id.startswith("ladder")} == {"not here"}
    assert all(cell.price.energy_j is None for cell in cells.values())


def test_another_device_or_data_type_is_said() -> None:
    suite = suite_of(LADDER)
    plan = make_plan(suite, PROMPTS)

    def on_gpu(variant: Variant, images: int, steps: int) -> Work:
        return work_of(steps, images=images, device="cuda")

    def half(variant: Variant, images: int, steps: int) -> Work:
        return replace(work_of(steps, images=images, device="meta"), dtypes=("float16",))

    assert all("is for cpu" in cell.price.reason for cell in counted_cells(plan, on_gpu, PROFILE).values())
    assert all("not for float16" in cell.price.reason for cell in counted_cells(plan, half, PROFILE).values())


def test_the_plan_shows_work() -> None:
    suite = suite_of(LADDER)
    cells = counted(suite)
    plan = forecast(
        suite,
        make_plan(suite, PROMPTS),
        measured=prices(cells),
        device=None,
        flops={cell_id: cell.flops_per_image for cell_id, cell in cells.items()},
    )
    text = as_text(plan)
    assert "GFLOP/image" in text
    assert "counted work, profile 'one'" in text
    assert plan.energy_j is not None
    assert plan.energy_j.value == pytest.approx(
        sum(2 * joules(steps, images=2) + joules(steps, images=1) for steps in LADDER.steps)
    )


@pytest.mark.slow
def test_the_command_counts_without_drawing(tmp_path: Path) -> None:
    write_profile(PROFILE, tmp_path / "mine.json")
    (tmp_path / "prompts.txt").write_text("a red circle\na blue star\n")
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\ntitle = "Mine"\ndescription = "Two."\n[prompts]\nsource = "prompts.txt"\n'
        '[protocol]\nseeds = [1]\n[metrics]\nprimary = "lsnr"\nnames = ["lsnr"]\n'
        '[[variants]]\nname = "tiny"\nmodel = "builtin:sd-tiny"\nsteps = [2, 4]\n'
    )
    ended = driving.drive("plan", tmp_path / "mine.toml", "--meter", f"work:{tmp_path / 'mine.json'}", "--json")
    assert ended.code == 0, ended
    cells = json.loads(ended.out)["cells"]
    assert [cell["steps"] for cell in cells] == [2, 4]
    few, many = (cell["flops_per_image"] for cell in cells)
    assert 1e9 < few < many < 1e11
    assert cells[0]["energy_j_per_image"]["value"] > 1.0
    both = driving.drive("plan", tmp_path / "mine.toml", "--meter", "work", "--from", tmp_path)
    assert both.code == 2
    assert "either --from or --meter work" in both.err
