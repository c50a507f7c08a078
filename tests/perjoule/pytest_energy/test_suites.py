"""The cells of a suite file are drawn as `perjoule run` draws them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from perjoule.prompts.catalogue import public_sets
from perjoule.weights.downloads import cached_file
from tests.perjoule.pytest_energy.repository import Repository, run
from tests.support.routers import undecided_router

pytestmark = pytest.mark.slow

HEAD = """
name = "mine"
title = "Mine"
description = "Every kind of cell."
[prompts]
source = "{source}"
limit = {limit}
[protocol]
seeds = [1, 2]
batch_size = {limit}
idle_s = 0.0
threads = 1
[metrics]
primary = "lsnr"
names = ["lsnr"]
"""
FIXED = """
[[variants]]
name = "fixed"
model = "builtin:sd-tiny"
family = "sd-tiny"
steps = [1]
guidance = 3.0
"""
KINDS = """
[[variants]]
name = "predicted"
model = "builtin:sd-tiny"
family = "sd-tiny"
role = "predicted"
policy = "budgetfusion"
policy_args = { predictor = "builtin:steps-tiny", metric = "iclip" }
levels = [30]
guidance = 3.0

[[variants]]
name = "shuffled"
model = "builtin:sd-tiny"
family = "sd-tiny"
role = "control"
policy = "budgetfusion"
policy_args = { predictor = "builtin:steps-tiny", metric = "iclip", control = "shuffled" }
levels = [30]
guidance = 3.0

[[variants]]
name = "peek"
model = "builtin:sd-tiny"
family = "sd-tiny"
role = "predicted"
scheduler = "DPMSolverMultistepScheduler"
scheduler_args = { solver_order = 1 }
policy = "budgetfusion-peek"
policy_args = { predictor = "builtin:steps-tiny-peek2", metric = "iclip" }
levels = [30]
guidance = 3.0

[[variants]]
name = "routed"
model = "builtin:sd-tiny"
role = "predicted"
policy = "router"
policy_args = { router = "./router" }
levels = [0.5]
guidance = 3.0

[[variants]]
name = "shared"
model = "builtin:sd-tiny"
family = "sd-tiny"
role = "control"
scheduler = "DPMSolverMultistepScheduler"
scheduler_args = { solver_order = 1 }
policy = "shared-start"
policy_args = { shared = 2 }
levels = [2]
guidance = 3.0

[[variants]]
name = "batched"
model = "builtin:sd-tiny"
family = "sd-tiny"
steps = [1]
guidance = 3.0
batch_size = 2
negative_prompt = "a blue star"

[[variants]]
name = "cached"
model = "builtin:sd-tiny"
family = "sd-tiny"
steps = [3]
guidance = 3.0
cache = { kind = "deepcache", args = { cache_interval = 2, cache_branch_id = 0 } }

[[variants]]
name = "pruned"
model = "builtin:sd-tiny-pruned"
role = "distilled"
steps = [1]
guidance = 3.0

[[variants]]
name = "distilled"
model = "builtin:sd-tiny-lcm"
role = "distilled"
steps = [1]
guidance = 1.0
"""
CELLS = {
    "fixed-001", "predicted-30", "shuffled-30", "peek-30", "routed-0.5", "shared-2", "batched-001", "cached-003",
    "pruned-001", "distilled-001",
}  # fmt: skip
QUICK = ("--benchmark", "--energy-meter=estimate", "--energy-rounds=2", "--benchmark-disable-gc")


@pytest.fixture
def folder(repository: Repository) -> Repository:
    """The repository, the usual meter in place of its own."""
    conftest = repository.path / "conftest.py"
    text = conftest.read_text()
    conftest.write_text(text[: text.index("@pytest.fixture(scope")] + text[text.index("@pytest.hookimpl") :])
    return repository


def test_every_kind_of_cell_is_drawn_as_a_run_draws_it(folder: Repository) -> None:
    text = HEAD.format(source="builtin:tiny-held-out", limit=3) + FIXED + KINDS
    # windows of several calls: three images each, in calls of three or two
    text = text.replace("[protocol]", "[protocol]\nimages_per_window = 3")
    (folder.path / "mine.toml").write_text(text)
    undecided_router().save_pretrained(folder.path / "router")
    session = run(folder, *QUICK, "--benchmark-only", "--benchmark-json=out.json", "mine.toml")
    session.assert_outcomes(passed=len(CELLS))
    session.stdout.fnmatch_lines(["*mine.toml::fixed-001*estimated*", "*ESTIMATED, not measured*"])
    tests = {b["name"]: b for b in json.loads((folder.path / "out.json").read_text())["benchmarks"]}

    script = "from perjoule.cli import main; raise SystemExit(main())"
    arguments = ["run", "mine.toml", "--out", "run", "--meter", "estimate"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=folder.path, env=dict(os.environ), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    trials = [json.loads(line) for line in (folder.path / "run" / "trials.jsonl").read_text().splitlines()]
    first = {t["cell_id"]: t for t in trials if t["trial_id"].endswith(".0000")}
    assert set(tests) == set(first) == CELLS
    for cell, trial in first.items():
        assert trial["failure"] is None
        assert tests[cell]["extra_info"]["image_sha256"] == trial["image_sha256"], cell
        assert tests[cell]["extra_info"]["energy"]["call"].startswith("3 images, prompts and seeds ")


def test_prompts_of_every_origin(folder: Repository, web: object, monkeypatch: pytest.MonkeyPatch) -> None:
    web.pages["/prompts.txt"] = b"a blue star on a white ground\n"  # type: ignore[attr-defined]
    public = next(s for s in public_sets().values() if all(f.sha256 is None for f in s.files))
    for file in public.files:
        place = cached_file(file.url)
        place.parent.mkdir(parents=True)
        column = f"{file.layout.column}\n" if place.suffix in (".tsv", ".csv") else ""
        place.write_text(f"{column}a green ring\n")
    suites = folder.mkdir("suites")
    (suites / "words.txt").write_text("a red circle on a white ground\n")
    sources = {
        "file": "words.txt",
        "shipped": "builtin:everyday",
        "published": f"public:{public.name}",
        "address": f"{web.url}/prompts.txt",  # type: ignore[attr-defined]
        "data-set": "hub:org/none",
    }
    for name, source in sources.items():
        (suites / f"{name}.toml").write_text(HEAD.format(source=source, limit=1) + FIXED)
    monkeypatch.setenv("HF_ENDPOINT", web.url)  # type: ignore[attr-defined]
    result = run(folder, *QUICK, "suites")
    result.assert_outcomes(passed=4, failed=1)
    for name in ("file", "shipped", "published", "address"):
        result.stdout.fnmatch_lines([f"*suites/{name}.toml::fixed-001*estimated*"])
    text = result.stdout.str()
    assert "data-set.toml: prompts.source = 'hub:org/none'" in text
    assert "no such file" not in text
    assert "Traceback" not in text


def test_the_meter_and_the_autouse_fixtures_of_the_project_apply(repository: Repository) -> None:
    conftest = repository.path / "conftest.py"
    conftest.write_text(
        conftest.read_text()
        + """
@pytest.fixture(autouse=True, scope="module")
def everywhere(request):
    yield

@pytest.fixture(autouse=True)
def threads_stay():
    import torch
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
"""
    )
    (repository.path / "mine.toml").write_text(HEAD.format(source="builtin:everyday", limit=1) + FIXED)
    result = run(repository, "--benchmark", "-pno:benchmark", "mine.toml")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*mine.toml::fixed-001*measured*"])
    once = run(repository, "--benchmark", "--benchmark-disable", "mine.toml")
    once.assert_outcomes(passed=1)
    assert "measured" not in once.stdout.str()


def test_a_suite_that_cannot_be_used_is_one_sentence(repository: Repository) -> None:
    (repository.path / "typo.toml").write_text(HEAD.format(source="builtin:everyday", limit=1) + FIXED + "stepz = 1\n")
    (repository.path / "none.toml").write_text(HEAD.format(source="builtin:nothing", limit=1) + FIXED)
    result = run(
        repository, "--benchmark", "-pno:benchmark", "none.toml", "typo.toml", "--continue-on-collection-errors"
    )
    result.assert_outcomes(failed=1, errors=1)
    text = result.stdout.str()
    assert "unknown key 'variants[0].stepz': did you mean 'steps'?" in text
    assert "none.toml: prompts.source = 'builtin:nothing': unknown prompt set" in text
    assert "suites.py:" not in text
