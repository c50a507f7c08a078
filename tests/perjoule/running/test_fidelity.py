"""Suites whose images could not be compared with their reference are refused before anything is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from perjoule import registry
from perjoule.running.fidelity import SamplingFindings, sampling_findings
from perjoule.types import Metrics, PromptSource, Protocol, Sampling, Suite, Variant

PATH = Path("s.toml")
Sampler = Callable[[Variant, int], Sampling]


def suite_of(*variants: Variant) -> Suite:
    return Suite(
        name="s",
        title="s",
        description="",
        prompts=PromptSource(source="x"),
        metrics=Metrics(primary="iclip", names=("iclip",)),
        protocol=Protocol(),
        variants=variants,
    )


def ladder(name: str, *steps: int, scheduler: str = "Plain") -> Variant:
    return Variant(name=name, model="m", family="f", steps=steps, scheduler=scheduler)


def adaptive(name: str) -> Variant:
    return Variant(name=name, model="m", family="f", policy="p", levels=(1.0,), scheduler="Plain")


def sampler(variant: Variant, steps: int) -> Sampling:
    """`Leading` begins at 1000 - 1000 // N, `Noisy` adds noise from two steps on, `Integer` strides by 1000 // N."""
    kind = variant.scheduler
    return Sampling(
        scheduler=kind,
        steps=steps,
        first_timestep=1000.0 - 1000 // steps if kind == "Leading" else 999.0,
        stochastic=kind == "Noisy" and steps > 1,
        stride_error=1 if kind == "Integer" and 1000 % steps else 0,
    )


@pytest.fixture(autouse=True)
def factory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Factory:
        def samplings(self, variant: Variant, step_counts: Sequence[int], *, where: str) -> tuple[Sampling, ...] | str:
            if variant.model == "elsewhere":
                return "not downloaded"
            return tuple(sampler(variant, steps) for steps in step_counts)

    monkeypatch.setattr(registry, "load", lambda *_, **__: Factory())


def findings(*variants: Variant) -> SamplingFindings:
    return sampling_findings(suite_of(*variants), PATH)


def test_a_family_that_shares_its_start_is_accepted() -> None:
    found = findings(ladder("a", 4, 50), ladder("b", 8, 25), adaptive("c"))
    assert found == SamplingFindings()
    assert found.problems(["iclip"]) == []


def test_rungs_that_begin_elsewhere_name_both_cells_their_timesteps_and_the_remedy() -> None:
    (problem,) = findings(ladder("a", 4, 10, 50, scheduler="Leading")).problems(["iclip", "cvvdp"])
    for part in (
        "s.toml: variants[0]", "a-004 begins at timestep 750", "a-050", "at 980", "iclip, cvvdp",
        'timestep_spacing = "trailing"', "1 more",
    ):  # fmt: skip
        assert part in problem


def test_the_reference_is_the_longest_run_of_the_family_and_the_first_by_name() -> None:
    variants = [ladder("b", 4, 50), ladder("a", 50, scheduler="Leading"), ladder("c", 20)]
    text = "\n".join(findings(*variants).problems(["iclip"]))
    assert "b-004" in text
    assert "c-020" in text
    assert text.count("a-050, the longest run") == 2


def test_other_families_and_models_elsewhere_do_not_matter() -> None:
    apart = replace(ladder("a", 4, scheduler="Leading"), family="g")
    elsewhere = replace(ladder("e", 4, scheduler="Leading"), model="elsewhere")
    assert findings(ladder("b", 8, 50), apart, elsewhere).unlike == ()


def test_a_step_policy_is_examined_at_the_step_counts_of_its_family() -> None:
    policy = replace(adaptive("p"), scheduler="Leading")
    (problem,) = findings(ladder("a", 4, 50), policy).problems(["iclip"])
    assert "variants[1]" in problem
    assert "p at 4 steps begins at timestep 750" in problem
    assert findings(policy).unlike == ()  # no step count is known


@pytest.mark.parametrize(("noisy", "named"), [("a", "Noisy adds noise and Plain does not"), ("b", "to the latter")])
def test_a_solver_that_adds_noise_needs_a_reference_of_its_kind(noisy: str, named: str) -> None:
    a, b = (ladder(n, s, scheduler="Noisy" if n == noisy else "Plain") for n, s in (("a", 10), ("b", 50)))
    (problem,) = findings(a, b).problems(["iclip"])
    for part in ("a-010", "b-050", "timestep 999", named, "a family of its own"):
        assert part in problem


def test_equally_stochastic_cells_and_single_steps_are_accepted() -> None:
    assert findings(ladder("a", 1, 2, 8, scheduler="Noisy")).unlike == ()


def test_without_full_reference_metrics_it_is_only_a_note() -> None:
    found = findings(ladder("a", 4, 50, scheduler="Leading"))
    assert found.problems([]) == []
    (note,) = found.notes([])
    assert "do not score this run with a full-reference metric" in note
    assert found.notes(["iclip"]) == []


def test_steps_that_do_not_join_are_one_note() -> None:
    found = findings(ladder("a", 15, 25, 30, scheduler="Integer"), ladder("b", 30, scheduler="Integer"))
    assert found.problems(["iclip"]) == []
    (note,) = found.notes(["iclip"])
    assert "a at 15, 30 steps, b at 30 steps" in note
    assert "1 of 33 timesteps, at 30 steps" in note
