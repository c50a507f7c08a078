from __future__ import annotations

import math
from pathlib import Path

import pytest
from scipy.stats import norm

from perjoule.errors import UsageError
from perjoule.forecast.effects import effects
from perjoule.gating import GateConfig, gate
from perjoule.suite.schedule import make_plan
from tests.perjoule.forecast.worlds import PROMPTS, suite_of
from tests.support.tables_of_runs import as_own, imported, table

# tables_of_runs: joules scatter by 2 % an image, two seeds a prompt, in both cells of a difference
ENERGY_SD = 0.02
QUALITY_NOISE = 0.03


def test_the_formula(tmp_path: Path) -> None:
    run = as_own(imported(table(prompts=200, noise=QUALITY_NOISE), tmp_path))
    plan = make_plan(suite_of(batch_size=2), PROMPTS)
    energy, quality = effects(plan, ["q"], run)
    z = norm.ppf(0.95) + norm.ppf(0.8)
    # batches of two prompts: two groups share windows
    assert (energy.n, quality.n) == (2, 4)
    assert energy.mde_in_sd == pytest.approx(z / math.sqrt(2))
    assert quality.mde_in_sd == pytest.approx(z / math.sqrt(4))
    assert energy.sd == pytest.approx(ENERGY_SD, rel=0.1)
    assert quality.sd == pytest.approx(QUALITY_NOISE, rel=0.1)
    assert energy.mde == pytest.approx(math.expm1(energy.mde_in_sd * energy.sd))
    assert quality.mde == pytest.approx(quality.mde_in_sd * quality.sd)
    assert energy.unit == "relative"
    assert str(run.path) in energy.source


def test_the_gate_sees_what_the_plan_promises(tmp_path: Path) -> None:
    """A margin above the planned effect is one the gate can resolve; one well below is refused by the gate."""
    run = as_own(imported(table(prompts=64, ladder=(4, 8), variants=(("v", 1.0),)), tmp_path))
    suite = suite_of(seeds=(1, 2))
    prompts = tuple(type(PROMPTS[0])(prompt_id=f"p{i}", text=str(i)) for i in range(64))
    planned = effects(make_plan(suite, prompts), ["q"], run)[0].mde
    assert planned is not None
    one, other = (
        imported(table(prompts=64, seed=seed, ladder=(8,), variants=(("v", 1.0),)), tmp_path, f"r{seed}")
        for seed in (1, 2)
    )
    seen = gate(one, other, "q", GateConfig(margin_energy=2 * planned, margin_quality=0.5)).energy.mde
    assert seen == pytest.approx(planned, rel=0.4)
    with pytest.raises(UsageError, match="minimal detectable effect"):
        gate(one, other, "q", GateConfig(margin_energy=planned / 4, margin_quality=0.5))


def test_without_a_run_the_effect_is_in_standard_deviations() -> None:
    energy, quality = effects(make_plan(suite_of(), PROMPTS), ["q"], None)
    for effect in (energy, quality):
        assert effect.mde is None
        assert effect.mde_in_sd is not None
        assert "--from" in effect.reason


def test_too_few_prompts_are_no_scatter(tmp_path: Path) -> None:
    run = as_own(imported(table(prompts=5), tmp_path))
    for effect in effects(make_plan(suite_of(), PROMPTS), ["q"], run):
        assert effect.mde is None
        assert "8 prompts" in effect.reason
    one = effects(make_plan(suite_of(), PROMPTS[:1]), ["q"], run)[0]
    assert (one.mde, one.mde_in_sd) == (None, None)


def test_an_energy_of_one_window_group_has_no_effect() -> None:
    energy, quality = effects(make_plan(suite_of(batch_size=4), PROMPTS), ["q"], None)
    assert (energy.n, quality.n) == (1, 4)
    assert "one window group" in energy.reason
    assert quality.mde_in_sd is not None
