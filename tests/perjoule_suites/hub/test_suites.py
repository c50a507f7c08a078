"""Every variant of every suite of the hub: downloaded, loaded, drawn, metered, scored, reported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from tests.perjoule_suites.hub.conftest import mirror_of, run_python
from tests.perjoule_suites.hub.drive import CURVES, MINI, REHEARSED, STUDY

from perjoule.forecast.nfe import nfe_per_image
from perjoule.runs.directory import Run, load_run
from perjoule.suite.reading import find_suite, load_suite, suite_names
from perjoule.testing import HubMirror
from perjoule.weights.catalogue import catalogue, repositories
from perjoule_suites.testing import REPOSITORIES

pytestmark = pytest.mark.slow

DRIVEN = (*REHEARSED, *CURVES, MINI, STUDY)


@pytest.fixture(scope="module")
def mirror(repositories: Path) -> HubMirror:
    return mirror_of(repositories)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def runs(mirror: HubMirror, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    with mirror:
        environment = mirror.environment(home, token=mirror.token)
        done = run_python(["-m", "tests.perjoule_suites.hub.drive", str(out)], environment)
    (out / "stdout").write_text(done.stdout)
    (out / "stderr").write_text(done.stderr)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return out


def is_of_the_hub(name: str) -> bool:
    models = {model for variant in load_suite(find_suite(name)).variants for model in repositories(variant)}
    return any(not model.startswith("builtin:") for model in models)


def test_no_suite_of_the_hub_is_left_out() -> None:
    assert {name for name in suite_names() if is_of_the_hub(name)} == set(DRIVEN)


def test_every_model_has_facts_and_a_stand_in() -> None:
    used = {
        model for name in DRIVEN for variant in load_suite(find_suite(name)).variants for model in repositories(variant)
    }
    assert used <= set(catalogue())
    assert used <= set(REPOSITORIES)


@pytest.mark.parametrize("name", DRIVEN)
def test_all_variants_were_drawn_metered_scored_and_reported(runs: Path, name: str) -> None:
    run = load_run(runs / name)
    expected = {variant.name for variant in load_suite(find_suite(name)).variants}
    assert set(run.trials["variant"]) == expected
    for trial in run.trials.iter_rows(named=True):
        assert trial["failure"] is None, trial
        assert trial["energy_j"] > 0
        assert "nvml energy counter" in trial["method"]
        assert {"text_encoder", "denoise", "vae_decode"} <= json.loads(trial["phases_s"]).keys()
    check_images(run)
    assert run.scores.filter(pl.col("value").is_null()).is_empty()
    assert set(run.scores["metric"]) == set(run.suite.metrics.names)
    assert set(run.points["variant"]) == expected
    assert (run.path / "report.html").stat().st_size > 10_000


def check_images(run: Run) -> None:
    assert len(run.images) == run.trials["image_count"].sum()
    for row in run.images.iter_rows(named=True):
        assert np.asarray(Image.open(run.path / row["file"])).shape == (32, 32, 3)


@pytest.mark.parametrize("name", [*REHEARSED, CURVES[0]])
def test_evaluations_are_those_of_the_closed_count(runs: Path, name: str) -> None:
    run = load_run(runs / name)
    variants = {variant.name: variant for variant in run.suite.variants}
    for trial in run.trials.iter_rows(named=True):
        assert trial["nfe_per_image"] == nfe_per_image(variants[trial["variant"]], trial["steps"][0]), trial["cell_id"]


def test_commits_and_digests_are_on_record(runs: Path, mirror: HubMirror) -> None:
    for name in DRIVEN:
        environment = load_run(runs / name).environment
        wanted = {model for variant in load_suite(find_suite(name)).variants for model in repositories(variant)}
        assert set(environment["weights"]) == wanted
        for model, source in environment["weights"].items():
            assert source["revision"] == mirror.commit(model)
            assert source["files"]
            assert all(len(digest) == 64 for digest in source["files"].values())
        pinned = {model: facts.revision for model, facts in catalogue().items() if facts.revision}
        assert all(environment["weights"][m]["revision"] == c for m, c in pinned.items() if m in wanted)


def test_licences_and_gates_are_named_before_a_download(runs: Path) -> None:
    said = (runs / "stderr").read_text()
    for text in (
        "note: stabilityai/sdxl-turbo: licence sai-nc-community does not allow commercial use",
        "note: tianweiy/DMD2: licence cc-by-nc-sa-4.0 does not allow commercial use",
        "stable-diffusion-3.5-medium: licence stabilityai-ai-community allows commercial use under conditions",
        "gated: accept the licence at https://huggingface.co/stabilityai/stable-diffusion-3.5-medium",
    ):
        assert text in said


def test_caches_and_distilled_models_change_the_image_and_nothing_else(runs: Path) -> None:
    """A cache that is declared must have an effect; the noise and the schedule are the same."""
    images = load_run(runs / "caching").images
    shas = dict(zip(images["variant"], images["sha256"], strict=True))
    for cached, plain in (
        ("sd21-deepcache-3", "sd21-base"),
        ("sd21-deepcache-5", "sd21-deepcache-3"),
        ("sd21-pab", "sd21-base"),
        ("sdxl-deepcache-3", "sdxl"),
        ("sd35-pab", "sd35"),
        ("sd35-taylorseer", "sd35"),
    ):
        assert shas[cached] != shas[plain], cached


def test_airplane_mode(runs: Path, mirror: HubMirror, home: Path, tmp_path: Path) -> None:
    """The mirror is gone and the hub's libraries are told to stay offline: the same images."""
    environment = mirror.environment(home) | {"HF_HUB_OFFLINE": "1"}
    arguments = [
        "-c",
        "from perjoule.cli import main; main()",
        "run",
        "sd35",
        "--smoke",
        "--size",
        "32",
        "--meter",
        "estimate",
    ]
    done = run_python([*arguments, "--out", str(tmp_path / "run")], environment)
    assert done.returncode == 0, done.stderr[-3000:]
    again, first = load_run(tmp_path / "run").images, load_run(runs / "sd35").images
    assert again["sha256"].to_list() == first["sha256"].to_list()


def test_prompts_are_selected_by_the_clip_of_the_hub(runs: Path) -> None:
    selection = load_run(runs / MINI).environment["prompts"]["selection"]
    assert selection["model"] == "openai/clip-vit-large-patch14"
    assert selection["candidates"] > 2
    assert len(selection["weights"]) == 64
    assert load_run(runs / CURVES[1]).environment["prompts"]["selection"] is None
