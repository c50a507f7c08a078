from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perjoule.runs.directory import Run
from perjoule.statistics.contrasts import contrasts
from perjoule.statistics.drawn import draw, evidence_of
from perjoule.statistics.per_prompt import per_prompt, slices

DRAWS = 400


def test_single_prompts_average_to_the_contrast(run: Run) -> None:
    evidence = evidence_of(run, draw(run, ["q"], DRAWS), "q")
    found = per_prompt(evidence, "ladder-004", "ladder-064")
    assert found is not None
    assert len(found.prompts) == 40
    assert found.quality.mean() == pytest.approx(contrasts(evidence, "ladder-064")["ladder-004"].quality.value)
    assert found.energy_change.mean() == pytest.approx(5 / 65 - 1, abs=0.01)
    worst = found.worst(3)
    assert sorted(found.quality[worst]) == sorted(found.quality)[:3]
    turned = replace(found, quality=-found.quality, higher=False)
    assert turned.worst(3) == worst


def test_slices_of_noise_discover_nothing_and_a_real_one_is_found(run: Run) -> None:
    found = per_prompt(evidence_of(run, draw(run, ["q"], 50), "q"), "quick-064", "ladder-064")
    assert found is not None
    kinds = {p: "abcd"[i % 4] for i, p in enumerate(found.prompts)}
    assert [s.name for s in slices(found, kinds)] == ["a", "b", "c", "d"]
    assert all(s.n == 10 and s.q_value is not None and s.q_value > 0.05 for s in slices(found, kinds))
    hurt = replace(found, quality=found.quality - np.array([kinds[p] == "b" for p in found.prompts]))
    rates = {s.name: s.q_value for s in slices(hurt, kinds)}
    assert min(rates, key=lambda name: rates[name] or 1) == "b"
    assert (rates["b"] or 1) < 0.01
    assert slices(found, {}) == ()
    lonely = {p: "one" if i else "two" for i, p in enumerate(found.prompts)}
    assert {s.name: s.q_value is None for s in slices(found, lonely)} == {"one": False, "two": True}
