from __future__ import annotations

import json
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from perjoule.errors import UsageError
from perjoule.quality import metric_rows, weights
from perjoule.quality.weights import announce, fetch_hub_file, fetch_weights, load_tensors

pytestmark = pytest.mark.slow

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SCORE = """
import json, sys
import numpy as np
from perjoule.protocols import ImageSet
from perjoule.quality import load_metric
from perjoule.types import Prompt
image = np.full((80, 48, 3), 90, np.uint8)
images = ImageSet(image_ids=["a"], prompts=[Prompt(prompt_id="p", text="a blue star")], images=lambda i: image,
                  reference_ids=[None], references=None, all_prompts=[])
for model in sys.argv[1:]:
    metric = load_metric("clip_text", {"model": model, "device": "cpu"}, "s.toml")
    (score,) = metric.score(images, lambda n: None)
    spec = metric.spec
    print(json.dumps([score.value, metric.weights_here(), spec.licence, spec.commercial, spec.weights_digest]))
"""


@pytest.fixture(autouse=True)
def unsaid():
    announce.cache_clear()


def test_any_clip_by_its_hub_id_out_of_the_hubs_cache(clip_folder, tmp_path):
    """As LAION's repositories are: transformers' files beside OpenCLIP's, a card with a licence."""
    snapshot = tmp_path / "hub" / "models--org--clip" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(COMMIT)
    for file in clip_folder.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    (snapshot / "open_clip_model.safetensors").write_bytes(b"not for transformers")
    (snapshot / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment = kept | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}

    command = [sys.executable, "-c", SCORE, "org/clip", str(clip_folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    by_id, by_folder = map(json.loads, done.stdout.splitlines())
    assert by_id[0] == by_folder[0]
    assert by_id[1:4] == [True, "cc-by-nc-4.0", False]
    assert by_id[4] == by_folder[4]  # OpenCLIP's file is not read, so it is not in the digest
    assert by_folder[2:4] == ["LicenseRef-see-model-card", None]


def test_a_non_commercial_licence_is_said_before_the_download_and_once(web, monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    order = []

    def page(number):
        order.append("fetched" if "not for commercial use" in caplog.text else "fetched in silence")
        return 200, {}, b"x"

    web.pages["/w.pth"] = page
    with caplog.at_level(logging.WARNING, "perjoule"):
        for _ in range(2):
            fetch_weights(f"{web.url}/w.pth", sha256=None, licence="CC-BY-NC-4.0", metric="m")
    assert order == ["fetched"]
    assert caplog.text.count("not for commercial use") == 1


def test_a_free_licence_is_silent_and_an_unknown_one_is_not(caplog):
    with caplog.at_level(logging.WARNING, "perjoule"):
        announce("m", "w", "MIT")
        assert not caplog.text
        announce("m", "w", "LicenseRef-see-model-card")
    assert "its conditions are unknown" in caplog.text


def test_the_first_digits_of_a_digest_are_a_pin(web, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    web.pages["/net-2d711642.pth"] = b"x"  # SHA-256 of "x" begins so
    assert fetch_weights(f"{web.url}/net-2d711642.pth", sha256="2d711642", licence="MIT", metric="m").is_file()
    web.pages["/net-12345678.pth"] = b"x"
    with pytest.raises(UsageError, match=r"metric m: .*has SHA-256 2d711642.* instead of 12345678"):
        fetch_weights(f"{web.url}/net-12345678.pth", sha256="12345678", licence="MIT", metric="m")


def test_pickles_that_would_run_code_are_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.system, ("touch " + str(tmp_path / "ran"),))

    (tmp_path / "x.pt").write_bytes(pickle.dumps({"state_dict": Trap()}))
    with pytest.raises(UsageError, match=r"metric m: .*contains no readable weights"):
        load_tensors(tmp_path / "x.pt", "m")
    assert not (tmp_path / "ran").exists()
    (tmp_path / "x.safetensors").write_bytes(b"\0" * 4)
    with pytest.raises(UsageError, match="contains no readable weights"):
        load_tensors(tmp_path / "x.safetensors", "m")


def test_a_file_of_a_folder_is_taken_as_it_is(tmp_path):
    (tmp_path / "w.pt").write_bytes(b"x")
    assert fetch_hub_file(str(tmp_path), "w.pt", None, "m") == tmp_path / "w.pt"
    with pytest.raises(UsageError, match=r"does not contain v\.pt"):
        fetch_hub_file(str(tmp_path), "v.pt", None, "m")


def test_the_list_says_what_each_metric_is_without_fetching_anything(monkeypatch):
    monkeypatch.setattr(weights, "fetch_file", None)
    rows = {row["metric"]: row for row in metric_rows()}
    assert {"clip_text", "cvvdp", "dsim", "fid", "hpsv2", "iclip", "lpips", "lsnr", "pickscore", "scene"} <= set(rows)
    assert (rows["lpips"]["direction"], rows["lpips"]["track"]) == ("lower", "fidelity")
    assert (rows["fid"]["advisory"], rows["scene"]["advisory"]) == (True, False)
    assert (rows["clip_text"]["cached"], rows["clip_text"]["weights"]) == (True, "builtin:clip-tiny")
    assert (rows["pyiqa:NAME"]["licence"], rows["pyiqa:NAME"]["commercial"]) == ("PolyForm-Noncommercial-1.0.0", False)
    fidelity = {name for name, row in rows.items() if row["track"] == "fidelity"}
    assert fidelity == {"iclip", "cvvdp", "dsim", "lpips"}
    assert all(row["licence"] for row in rows.values())


def test_torchs_cache_is_where_torch_has_it(monkeypatch, tmp_path):
    import torch

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = Path(torch.hub.get_dir()) / "checkpoints" / "a.pth"
    assert not weights.weights_cached("https://x.org/a.pth")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    assert weights.weights_cached("https://x.org/a.pth")
