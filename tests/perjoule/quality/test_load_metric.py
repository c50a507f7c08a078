from __future__ import annotations

import subprocess
import sys

import pytest

from perjoule.errors import UnknownNameError, UsageError
from perjoule.quality import load_metric, metric_names


def test_importing_the_package_loads_no_network_library():
    modules = [
        "weights.models",
        "weights.digests",
        "quality.clip",
        "quality.cvvdp",
        "quality.lsnr",
        "quality.pyiqa_adapter",
    ]
    names = ", ".join(["perjoule_suites.tiny.world.metric", *(f"perjoule.{m}" for m in modules)])
    heavy = "{'torch', 'transformers', 'pycvvdp', 'pyiqa', 'huggingface_hub'}"
    code = f"import sys, {names}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_built_in_metrics_are_found_by_name():
    assert {"clip_text", "r_precision", "iclip", "cvvdp", "lsnr", "scene"} <= set(metric_names())
    assert load_metric("lsnr", {"definition": "b"}, "s.toml").spec.name == "lsnr"


def test_an_unknown_name_names_its_neighbours_and_the_place():
    with pytest.raises(UnknownNameError, match=r"^s\.toml: unknown metric 'lsnrr': did you mean 'lsnr'"):
        load_metric("lsnrr", {}, "s.toml")


def test_a_wrong_option_names_the_place():
    with pytest.raises(UsageError, match=r"^s\.toml: metrics\.options\.lsnr: metric lsnr: unknown option 'x'"):
        load_metric("lsnr", {"x": 1}, "s.toml: metrics.options.lsnr")
