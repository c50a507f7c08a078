"""The base install: what its verbs import, and what the others say without their extra."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from perjoule.errors import install_command, missing_extra
from tests.perjoule.running.test_execute import do, fresh, make_suite

pytestmark = pytest.mark.slow

EXTRAS = (
    "DeepCache", "accelerate", "codecarbon", "diffusers", "huggingface_hub", "lpips", "peft", "pycvvdp", "pyiqa", "ray",
    "requests", "safetensors", "starlette", "tokenizers", "torch", "torch_fidelity", "torchvision", "transformers",
    "uvicorn",
)  # fmt: skip

# an interpreter that finds no package of the extras, as after `pip install perjoule`
BARE = f"""
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def bare(cls, name, path=None, target=None):
    return None if name.partition(".")[0] in {EXTRAS!r} else find(name, path, target)
PathFinder.find_spec = classmethod(bare)
"""
IMPORTS = """
import importlib, pkgutil, perjoule, perjoule_reports
for package in (perjoule, perjoule_reports):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        # classes of torch, imported by the metric dsim when it scores, and when work is counted; classes of starlette
        if module.name not in ("perjoule.__main__", "perjoule.quality.vision_transformer", "perjoule.work.operators",
                               "perjoule.people.server"):
            importlib.import_module(module.name)
import perjoule_suites.builtin, perjoule_suites.tiny.world.metric, perjoule_suites.budgetfusion.commands
"""
VERBS = """
import contextlib, io, json
from perjoule.cli import app
from perjoule.commands.outcome import status_of
found = []
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = status_of(lambda: app(arguments, standalone_mode=False))
    found.append([status, out.getvalue(), err.getvalue()])
print(json.dumps(found))
"""


def run_python(code: str, *arguments: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, cwd=cwd
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_bare(code: str, *arguments: str, cwd: Path | None = None) -> str:
    return run_python(BARE + code, *arguments, cwd=cwd)


def test_everything_but_the_drawing_code_is_imported_without_an_extra() -> None:
    assert run_bare(f"{IMPORTS}\nprint(sorted(set(sys.modules) & set({EXTRAS!r})))").strip() == "[]"


def test_verbs_without_their_extra_name_it_in_one_line(tmp_path: Path) -> None:
    rows = [f"{v},p{p},1,{s},{s * 10 + p},{20 + s + p}" for v in "ab" for s in (2, 4, 8) for p in range(1, 7)]
    (tmp_path / "t.csv").write_text("\n".join(["variant,prompt_id,seed,steps,energy_j,quality:psnr", *rows]))
    (tmp_path / "trace.csv").write_text("t_s,power_w\n0,10\n100,10\n")
    base = [
        ["import", "t.csv", "--out", "r"],
        ["frontier", "r"],
        ["recommend", "r", "--min-quality", "22"],
        ["gate", "--baseline", "r", "--candidate", "r", "--margin-quality", "1"],
        ["report", "r"],
        ["measure", "--meter", "replay:trace.csv", "--", "true"],
        *(["list", what] for what in ("suites", "variants", "prompts", "metrics", "meters")),
    ]
    lacking = [
        (["run", "demo", "--out", "x"], "pip install 'perjoule[run,metrics]'"),
        (["plan", "demo"], "pip install 'perjoule[run,metrics]'"),
        (["budgetfusion", "predict", "builtin:steps-tiny", "a dog"], "pip install 'perjoule[run]'"),
        (["study", "serve", "r"], "pip install 'perjoule[study]'"),
        (["report", "r", "--co2-country", "FRA"], "pip install 'perjoule[codecarbon]'"),
    ]
    doctor = ["doctor", "--suite", "demo"]
    verbs = [*base, *(arguments for arguments, _ in lacking), doctor]
    found = json.loads(run_bare(VERBS, json.dumps(verbs), cwd=tmp_path))
    for arguments, (status, _, err) in zip(base, found, strict=False):
        assert status == 0, (arguments, err)
    for (arguments, words), (status, out, err) in zip(lacking, found[len(base) : -1], strict=True):
        assert (status, out) == (2, ""), (arguments, err)
        assert words in err, arguments
        assert len(err.strip().splitlines()) == 1, err
    status, out, err = found[-1]
    assert status == 4, err
    assert "MISSING package  diffusers" in out
    assert "pip install 'perjoule[run]'" in out


def test_scoring_without_an_extra_names_it(tmp_path: Path) -> None:
    suite = make_suite()
    do(suite, fresh(tmp_path / "r", suite))
    verbs = [["score", "r", "--metric", name] for name in ("lsnr", "clip_text", "cvvdp")]
    found = json.loads(run_bare(VERBS, json.dumps(verbs), cwd=tmp_path))
    assert [status for status, _, _ in found] == [0, 2, 2], found
    for (_, _, err), extra in zip(found[1:], ("run", "metrics"), strict=True):
        assert f"pip install 'perjoule[{extra}]'" in err
    rows = run_bare("from perjoule.quality import metric_rows; print(*(row['weights'] for row in metric_rows()))")
    assert "pycvvdp is not installed: pip install 'perjoule[metrics]'" in rows


def test_what_to_install() -> None:
    assert install_command("torch", "lpips", "diffusers") == "pip install 'perjoule[run,metrics]'"
    assert missing_extra(ModuleNotFoundError(name="torch.nn")) == "torch is not installed: pip install 'perjoule[run]'"
    assert missing_extra(ModuleNotFoundError(name="something")) is None


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ('model = "builtin:sd-tni"', "variants[0].model: unknown builtin model 'sd-tni': did you mean 'sd-tiny'"),
        ('model = "./gone"', "variants[0].model: model './gone': no such folder"),
        ('model = "builtin:sd-tiny"\nscheduler = "DDIMSchedule"', "did you mean DDIMScheduler"),
        ('model = "builtin:sd-tiny"\npolicy = "budgetfusoin"\nlevels = [1.0]', "did you mean 'budgetfusion'"),
    ],
)
def test_names_that_do_not_exist_are_refused_before_torch_is_imported(tmp_path: Path, variant: str, words: str) -> None:
    steps = "" if "policy" in variant else "\nsteps = [1]"
    (tmp_path / "s.toml").write_text(
        'name = "s"\ntitle = ""\ndescription = ""\nprompts = {source = "builtin:tiny-dev"}\nprotocol = {}\n'
        f'metrics = {{primary = "lsnr", names = ["lsnr"]}}\n[[variants]]\nname = "v"\n{variant}{steps}\n'
    )
    code = f"import sys{VERBS}\nassert 'torch' not in sys.modules"
    calls = json.dumps([["plan", "s.toml"], ["doctor", "--suite", "s.toml"], ["plan", "s.toml", "--meter", "nvlm"]])
    done = subprocess.run(
        [sys.executable, "-c", code, calls], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    plan, doctor, meter = json.loads(done.stdout)
    assert plan[0] == meter[0] == 2
    assert words in plan[2]
    assert doctor[0] == 4
    assert words in doctor[1]
    assert "did you mean 'nvml'" in meter[2]


def test_the_schedulers_of_diffusers_are_known_without_importing_it() -> None:
    diffusers = pytest.importorskip("diffusers")
    from diffusers.schedulers.scheduling_utils import SchedulerMixin

    from perjoule.running.examining import scheduler_names

    kinds = {name: getattr(diffusers, name, None) for name in dir(diffusers) if name.endswith("Scheduler")}
    assert {name for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, SchedulerMixin)} <= set(
        scheduler_names()
    )
