"""Failures as a user meets them: exit codes, the last line on the console, the report, and what plan and doctor say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from perjoule.errors import UsageError
from perjoule.protocols import ImageGenerator
from perjoule.quality.lsnr import lsnr
from perjoule.running import device, pipeline
from perjoule.running.prepared import prepare
from perjoule.running.trial import GeneratorCache
from perjoule.runs.directory import load_run
from perjoule.runs.trial_counts import trial_counts
from perjoule.testing import FakeFactory, FakeGenerator, VirtualClock
from perjoule.types import Variant
from perjoule_suites.tiny import sd_tiny
from tests.perjoule.running.test_failures import Breaking, Silent
from tests.perjoule.test_cli import call

pytestmark = pytest.mark.slow

SUITE = """
name = "mine"
title = "Mine"
description = "Two captions."
[prompts]
source = "prompts.txt"
[protocol]
seeds = [1]
idle_s = 0.0
warmup_iterations = 0
threads = 1
[metrics]
primary = "lsnr"
names = ["lsnr"]
"""
LONG = "a large red circle on a white ground, " * 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "prompts.txt").write_text(f"a large red circle on a white ground\n{LONG}\n")
    return tmp_path


def suite_of(folder: Path, *variants: str) -> Path:
    file = folder / "suite.toml"
    file.write_text(SUITE + "".join(f"[[variants]]\n{variant}\n" for variant in variants))
    return file


def faked(monkeypatch: pytest.MonkeyPatch, factory: Any) -> None:
    """Draw with a fake in the place of diffusers; models are still looked at."""
    monkeypatch.setattr(
        device, "generators_of", lambda suite, path: GeneratorCache(factory, lambda v: f"{path}: {v.name}")
    )


TINY = 'name = "t"\nmodel = "builtin:sd-tiny"\nsteps = [2, 4]\nguidance = 3.0'


@pytest.mark.parametrize("options", [(), ("--smoke",)], ids=["run", "smoke"])
def test_a_run_without_a_finished_trial_says_so_last_and_exits_with_4(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    def breaks(prompts: Sequence[str]) -> None:
        raise ValueError("no picture")

    faked(monkeypatch, FakeFactory(Breaking(breaks, VirtualClock())))
    suite = suite_of(folder, TINY)
    code, out, err = call("run", str(suite), "--out", str(folder / "r"), "--meter", "estimate", *options, "--json",
                          capsys=capsys)  # fmt: skip
    count = 1 if options else 4
    assert code == 4
    assert err.splitlines()[-1].startswith(f"perjoule: {count} of {count} trials failed: ValueError: no picture")
    assert json.loads(out)["trials"]["failed"] == count
    html, text = ((folder / "r" / name).read_text() for name in ("report.html", "report.md"))
    assert f"{count} OF {count} TRIALS FAILED" in html
    assert f"{count} OF {count} TRIALS FAILED" in text
    assert call("baseline", "save", "main", str(folder / "r"), capsys=capsys)[0] == 4
    # a plain --resume leaves them failed, --retry-failed does them again
    if not options:
        faked(monkeypatch, FakeFactory(FakeGenerator()))
        again = ("run", str(suite), "--out", str(folder / "r"), "--meter", "estimate", "--resume")
        assert call(*again, capsys=capsys)[0] == 4
        code, _, err = call(*again, "--retry-failed", capsys=capsys)
        assert (code, "trials failed" in err) == (0, False)


def test_some_failed_trials_are_said_last_and_exit_with_0(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(prompts: Sequence[str]) -> None:
        if prompts[0].startswith("a large red circle on a white ground,"):
            raise IndexError("index 21")

    faked(monkeypatch, FakeFactory(Breaking(breaks, VirtualClock())))
    code, _, err = call("run", str(suite_of(folder, TINY)), "--out", str(folder / "r"), "--meter", "estimate",
                        "--quiet", capsys=capsys)  # fmt: skip
    assert code == 0
    assert err.splitlines()[-1].startswith("perjoule: 2 of 4 trials failed: IndexError: index 21")


def test_retry_failed_goes_with_resume(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call("run", str(suite_of(folder, TINY)), "--retry-failed", capsys=capsys)
    assert code == 2
    assert "add --resume" in err


def test_a_variant_that_raises_while_it_is_loaded_leaves_the_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def factory(variant: Variant, *, where: str) -> ImageGenerator:
        if variant.guidance > 3:
            raise NotImplementedError("no such kernel")
        return FakeGenerator()

    faked(monkeypatch, factory)
    other = TINY.replace('"t"', '"u"').replace("3.0", "4.0")
    out = folder / "r"
    code, _, err = call("run", str(suite_of(folder, TINY, other)), "--out", str(out), "--meter", "estimate",
                        capsys=capsys)  # fmt: skip
    assert code == 4  # two planned cells have none
    assert "warning: u-002 cannot be loaded, its trials will fail: NotImplementedError: no such kernel" in err
    found = trial_counts(load_run(out))
    assert (found.done, found.failed, found.empty_cells) == (8, 4, ("u-002", "u-004"))


def test_where_nothing_can_be_loaded_nothing_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def factory(variant: Variant, *, where: str) -> ImageGenerator:
        raise NotImplementedError("no such kernel")

    faked(monkeypatch, factory)
    out = folder / "r"
    code, _, err = call("run", str(suite_of(folder, TINY)), "--out", str(out), "--meter", "estimate", capsys=capsys)
    assert code == 2
    assert "no cell of mine can be loaded" in err
    assert "t-002: NotImplementedError: no such kernel" in err
    assert not out.exists()


def test_a_metric_that_cannot_score_is_found_before_the_first_joule(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawer = FakeGenerator()
    faked(monkeypatch, FakeFactory(drawer))
    kind = type(lsnr({}))

    def broken(*_: object) -> None:
        raise KeyError("conv1.weight")

    monkeypatch.setattr(kind, "score", broken)
    out = folder / "r"
    code, _, err = call("run", str(suite_of(folder, TINY)), "--out", str(out), "--meter", "estimate", capsys=capsys)
    assert code == 2
    assert "metrics.names: 'lsnr' cannot score an image: KeyError: 'conv1.weight'" in err
    assert drawer.calls == []
    assert not out.exists()


@pytest.mark.parametrize("error", [IndexError("i"), TypeError("t"), KeyError("k"), NotImplementedError("n")])
def test_a_metric_that_raises_later_leaves_its_images_unscored(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    faked(monkeypatch, FakeFactory(FakeGenerator()))
    prepared = prepare(str(suite_of(folder, TINY)))
    run = pipeline.run(prepared, out=folder / "r", meter_name="estimate", resume=False, command=(), reporter=Silent())

    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(type(prepared.metrics[0]), "score", broken)
    scored = pipeline.score(run, prepared.metrics, Silent())
    assert scored.scores["value"].null_count() == 4
    assert all(type(error).__name__ in reason for reason in scored.scores["reason_unscored"])


def test_plan_and_doctor_refuse_what_cannot_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(sd_tiny(), folder / "m" / "edit")
    index = folder / "m" / "edit" / "model_index.json"
    index.write_text(index.read_text().replace('"StableDiffusionPipeline"', '"StableDiffusionImg2ImgPipeline"'))
    suite = suite_of(
        folder,
        TINY.replace("builtin:sd-tiny", "m/edit"),
        TINY.replace('"t"', '"lcm"') + '\nscheduler = "LCMScheduler"',
        'name = "long"\nmodel = "builtin:sd-tiny"\nsteps = [60]\nscheduler = "LCMScheduler"',
    )
    words = ["variants[0].model = 'm/edit'", "needs image", "variants[2].scheduler = 'LCMScheduler'", "steps = 60"]
    for verb in (("plan", str(suite)), ("run", str(suite), "--out", str(folder / "r"))):
        code, _, err = call(*verb, capsys=capsys)
        assert code == 2
        assert all(word in err for word in words)
        assert "variants[1]" not in err
    code, out, _ = call("doctor", "--suite", str(suite), capsys=capsys)
    assert code == 4
    assert all(word in out for word in words)
    assert "2 missing" in out
    assert not (folder / "r").exists()


def test_prompts_that_are_cut_and_models_beside_the_suite(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real diffusers, from a working directory that knows neither suite nor model."""
    shutil.copytree(sd_tiny(), folder / "m" / "tiny")
    work = folder / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    variant = 'name = "t"\nmodel = "m/tiny"\nsteps = [1]\nguidance = 1.0\nnegative_prompt = "ugly"'
    suite = suite_of(folder, variant)
    code, out, _ = call("plan", str(suite), capsys=capsys)
    assert code == 0
    assert "W271: 1 of 2 prompts is cut after 32 tokens (tokenizer of t): " in out
    assert "W272: the negative prompt of t has no effect" in out
    code, _, err = call("run", str(suite), "--out", "r", "--meter", "estimate", "--limit", "1", capsys=capsys)
    assert code == 0
    # the copy in the run directory still finds the model
    code, _, err = call("run", "r/suite.toml", "--out", "r", "--meter", "estimate", "--resume", capsys=capsys)
    assert code == 0, err
    code, _, err = call("run", str(suite), "--out", "s", "--meter", "estimate", capsys=capsys)
    assert code == 0
    assert "warning: W271: 1 of 2 prompts" in err
    run = load_run("s")
    assert "m/tiny" in run.environment["models"]
    (record,) = run.environment["prompt_findings"]
    assert record["negative_prompt_ignored"] is True
    marked = {row["prompts"][0]: row["warnings"] for row in run.trials.iter_rows(named=True)}
    cut = next(warnings for prompt, warnings in marked.items() if prompt.startswith(LONG[:60]))
    assert any(text.startswith("W271") for text in cut)
    assert all(any(text.startswith("W272") for text in warnings) for warnings in marked.values())
    text = (run.path / "report.md").read_text()
    assert "1 of 2 prompts is cut after 32 tokens" in text
    with pytest.raises(UsageError):
        prepare(str(suite_of(folder, variant.replace("m/tiny", "./m/gone"))))
