"""The schedules of the built-in suites: all images of a family begin with the same noise.

The schedulers are those of the real repositories, so what is examined here, and seen by a hook on the denoiser, is what
the real models would do.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.perjoule_suites.hub.conftest import run_python
from tests.perjoule_suites.hub.starts import SUITES

from perjoule.running.fidelity import sampling_findings
from perjoule.suite.reading import find_suite, load_suite, suite_names
from perjoule.testing import HubMirror
from perjoule.types import Suite, Variant
from perjoule_suites.testing import REPOSITORIES

pytestmark = pytest.mark.slow


def real_suites() -> list[str]:
    return [n for n in suite_names() if all(v.model in REPOSITORIES for v in load_suite(find_suite(n)).variants)]


def on(repositories: Path, suite: Suite) -> Suite:
    return replace(suite, variants=tuple(replace(v, model=str(repositories / v.model)) for v in suite.variants))


@pytest.mark.parametrize("name", real_suites())
def test_every_suite_of_a_real_model_pins_its_schedules(repositories: Path, name: str) -> None:
    suite = on(repositories, load_suite(find_suite(name)))
    found = sampling_findings(suite, Path(name))
    assert found.unlike == ()
    assert found.strides == ()


def test_stable_diffusion_is_among_them() -> None:
    assert {"sd15", "sd21", "sdxl", "caching", "compressed", "few-step", "budgetfusion-sd21-mini"} <= set(real_suites())


def unpinned(variant: Variant) -> Variant:
    """The sampler of earlier versions: DDIM with the spacing of the model's configuration."""
    return replace(variant, scheduler="DDIMScheduler", scheduler_args={})


@pytest.mark.parametrize("name", ["budgetfusion-sd21", "budgetfusion-sd21-curves", "caching"])
def test_suites_of_earlier_versions_are_refused(repositories: Path, name: str) -> None:
    suite = load_suite(find_suite(name))
    old = replace(suite, variants=tuple(unpinned(v) for v in suite.variants if "2-1-base" in v.model))
    problems = sampling_findings(on(repositories, old), Path(name)).problems(["iclip"])
    assert len(problems) == len(old.variants)
    if name != "caching":
        assert "sd21-base-003 begins at timestep 667" in problems[0]
        assert "sd21-base-129, the longest run of its family, at 897" in problems[0]


def test_the_noise_of_align_your_steps_in_earlier_versions_is_refused(repositories: Path) -> None:
    suite = load_suite(find_suite("sd15"))
    noisy = [replace(v, scheduler_args={"algorithm_type": "sde-dpmsolver++"}) for v in suite.variants if v.timesteps]
    old = replace(suite, variants=(*(v for v in suite.variants if not v.timesteps), *noisy))
    (problem,) = sampling_findings(on(repositories, old), Path("sd15")).problems(["iclip"])
    assert "sd15-ays10-010" in problem
    assert "DPMSolverMultistepScheduler adds noise" in problem


@pytest.fixture(scope="module")
def starts(mirror: HubMirror, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[list[float]]]:
    out = tmp_path_factory.mktemp("starts")
    environment = mirror.environment(tmp_path_factory.mktemp("home"), token=mirror.token)
    done = run_python(["-m", "tests.perjoule_suites.hub.starts", str(out)], environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    record: dict[str, list[list[float]]] = json.loads((out / "starts.json").read_text())
    return record


def test_every_suite_of_stable_diffusion_2_is_run() -> None:
    assert set(SUITES) == {
        n for n in suite_names() if any("diffusion-2-1" in v.model for v in load_suite(find_suite(n)).variants)
    }


@pytest.mark.parametrize("name", SUITES)
def test_the_denoiser_begins_at_the_same_timestep_for_all_rungs(
    starts: dict[str, list[list[float]]], name: str
) -> None:
    variants = [v for v in load_suite(find_suite(name)).variants if v.steps and "diffusion-2-1" in v.model]
    assert {first for first, _ in starts[name]} == {999.0}
    assert {length for _, length in starts[name]} == {steps for variant in variants for steps in variant.steps}
    assert len(starts[name]) == sum(len(variant.steps) for variant in variants)
