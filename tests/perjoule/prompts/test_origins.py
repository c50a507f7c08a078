from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perjoule.errors import SuiteError
from perjoule.prompts import catalogue, prompt_sets, read_prompt_set
from perjoule.prompts.catalogue import public_sets
from perjoule.prompts.hub import choose_files
from perjoule.prompts.origins import Origin
from perjoule.types import Prompt, PromptSource
from perjoule.weights.digests import digest_named

WHERE = "s.toml: prompts.source"


def read(source: str, **options: object) -> tuple[list[Prompt], Origin]:
    prompts, origin = read_prompt_set(PromptSource(source=source, **options), where=WHERE)  # type: ignore[arg-type]
    return list(prompts), origin


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def public(web, monkeypatch):
    """The public sets, their files on loopback and pinned to what lies there."""

    def serve(name: str, pages: dict[str, bytes]) -> None:
        known = public_sets()[name]
        files = tuple(
            replace(
                file,
                url=f"{web.url}/{name}/{file.name}",
                sha256=file.sha256 and digest(pages[file.name]),
            )
            for file in known.files
        )
        web.pages |= {f"/{name}/{file}": content for file, content in pages.items()}
        table = {**public_sets(), name: replace(known, files=files)}
        for module in (catalogue, sys.modules["perjoule.prompts.origins"]):
            monkeypatch.setattr(module, "public_sets", lambda: table)

    return serve


def test_partiprompts_brings_its_strata_and_its_licence(public, caplog):
    public("partiprompts", {"PartiPrompts.tsv": b"Prompt\tCategory\tChallenge\tNote\nbond\tAbstract\tBasic\tx\n"})
    prompts, origin = read("public:partiprompts")
    assert prompts == [Prompt(prompt_id=prompts[0].prompt_id, text="bond", category="Abstract", challenge="Basic")]
    assert (origin.licence, origin.commercial, origin.pinned) == ("Apache-2.0", True, True)
    assert not caplog.text


def test_geneval_is_stratified_by_tag(public):
    lines: list[dict[str, Any]] = [
        {"tag": tag, "include": [], "prompt": f"a photo of {tag}"} for tag in ("colors", "counting")
    ]
    public("geneval", {"evaluation_metadata.jsonl": "\n".join(map(json.dumps, lines)).encode()})
    prompts, origin = read("public:geneval")
    assert [(p.text, p.category) for p in prompts] == [
        ("a photo of colors", "colors"),
        ("a photo of counting", "counting"),
    ]
    assert origin.licence == "MIT"


def test_t2i_compbench_takes_its_categories_from_its_files_and_says_that_nothing_pins_it(public, caplog, tmp_path):
    names = [file.name for file in public_sets()["t2i-compbench-val"].files]
    assert len(names) == 8
    pages = {name: f"a {name}\nanother {name}\n".encode() for name in names}
    public("t2i-compbench-val", pages)
    with caplog.at_level(logging.WARNING, "perjoule"):
        prompts, origin = read("public:t2i-compbench-val")
    assert len({p.category for p in prompts}) == 8
    assert not origin.pinned
    for name, content in pages.items():
        (tmp_path / name).write_bytes(content)
    assert origin.sha256 == digest_named({name: tmp_path / name for name in names})
    assert f'prompts.sha256 = "{origin.sha256}"' in caplog.text

    caplog.clear()
    assert read("public:t2i-compbench-val", sha256=origin.sha256)[1].pinned
    assert not caplog.text


def test_mlperf_captions(public):
    table = b"id\timage_id\tcaption\theight\n70\t1\tA city at night\t640\n"
    public("coco-2014-mlperf", {"captions_source.tsv": table})
    prompts, origin = read("public:coco-2014-mlperf")
    assert [p.text for p in prompts] == ["A city at night"]
    assert origin.licence == "CC-BY-4.0"


def test_a_public_set_that_changed_is_refused_with_both_digests(public, web):
    public("partiprompts", {"PartiPrompts.tsv": b"Prompt\nbond\n"})
    web.pages["/partiprompts/PartiPrompts.tsv"] = b"Prompt\nother\n"
    with pytest.raises(SuiteError) as caught:
        read("public:partiprompts")
    assert digest(b"Prompt\nbond\n") in str(caught.value)
    assert digest(b"Prompt\nother\n") in str(caught.value)


def test_the_shipped_table_of_public_sets_is_well_formed():
    known = public_sets()
    assert {"partiprompts", "geneval", "t2i-compbench-train", "t2i-compbench-val", "coco-2014-val"} <= set(known)
    for name, entry in known.items():
        assert entry.licence, name
        assert entry.commercial is True, name
        for file in entry.files:
            assert file.url.startswith("http"), name
            assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256), name
            # what is not pinned by a digest stands at a commit, which does not move
            assert file.sha256 or re.search("/[0-9a-f]{40}/", file.url), name


def test_an_address_is_read_by_its_ending_and_warned_of(web, caplog):
    web.pages["/p.csv"] = b"prompt\na cat\n"
    with caplog.at_level(logging.WARNING, "perjoule"):
        prompts, origin = read(f"{web.url}/p.csv")
    assert [p.text for p in prompts] == ["a cat"]
    assert (origin.licence, origin.commercial) == ("not stated", None)
    assert "is not pinned" in caplog.text


def test_halves_of_a_set(tmp_path):
    (tmp_path / "p.txt").write_text("".join(f"prompt {i}\n" for i in range(50)))
    dev, test = (read(str(tmp_path / "p.txt"), split=part)[0] for part in ("dev", "test"))
    assert len(dev) + len(test) == 50
    assert not set(dev) & set(test)
    with pytest.raises(SuiteError, match=f"limit = 50: .*has {len(dev)} distinct prompts in its dev half"):
        read(str(tmp_path / "p.txt"), split="dev", limit=50)
    (tmp_path / "p.txt").write_text("a lighthouse\n")
    with pytest.raises(SuiteError, match="no prompt in split = 'test'"):
        read(str(tmp_path / "p.txt"), split="test")


def test_what_is_not_known_is_named(tmp_path):
    with pytest.raises(SuiteError, match=r"unknown prompt set; known: .*public:geneval"):
        read("public:parti")
    with pytest.raises(SuiteError, match="a public set has fixed columns"):
        read("public:geneval", column="text")
    with pytest.raises(SuiteError, match="no such file; use a path, builtin:NAME, public:NAME, hub:ORG/NAME"):
        read(str(tmp_path / "nothing.txt"))


def test_the_list_says_licence_digest_and_whether_it_is_here(web, public):
    content = b"Prompt\tCategory\tChallenge\nbond\tAbstract\tBasic\n"
    public("partiprompts", {"PartiPrompts.tsv": content})
    rows = {row.prompts: row for row in prompt_sets()}
    own, parti, mlperf = rows["builtin:everyday"], rows["public:partiprompts"], rows["public:coco-2014-mlperf"]
    assert (own.count, own.licence, own.commercial, own.cached) == (64, "Apache-2.0", True, True)
    assert (parti.pinned, parti.cached, parti.sha256) == (True, False, digest(content))
    assert (mlperf.pinned, mlperf.cached, mlperf.sha256) == (False, False, None)
    read("public:partiprompts")
    assert {row.prompts: row.cached for row in prompt_sets()}["public:partiprompts"]


# -- data sets of the hub ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "configs", "split", "wanted"),
    [
        (["README.md", "LICENSE.txt", "prompts.csv"], None, None, ["prompts.csv"]),
        (["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"], None, None, 2),
        (["train.jsonl", "dev.jsonl"], None, "validation", ["dev.jsonl"]),
        (["train.jsonl", "eval.jsonl"], None, "test", ["eval.jsonl"]),
        (["a.parquet", "b.parquet"], [{"data_files": [{"split": "x", "path": "b.*"}]}], "x", ["b.parquet"]),
        (["a.csv", "b.csv"], [{"data_files": "a.csv"}, {"default": True, "data_files": "b.csv"}], None, ["b.csv"]),
        (["a.csv", "b.csv"], [{"data_files": [{"split": "t", "path": ["a.csv", "b.csv"]}]}], "t", ["a.csv", "b.csv"]),
    ],
)
def test_the_files_of_a_split(names, configs, split, wanted):
    found = choose_files(names, configs, split, "x")
    assert len(found) == wanted if isinstance(wanted, int) else found == wanted


def test_an_unclear_split_names_what_there_is():
    with pytest.raises(SuiteError, match="x: hub_split is not set; available: 'test', 'train'"):
        choose_files(["train.csv", "test.csv"], None, None, "x")
    with pytest.raises(SuiteError, match="hub_split = 'dev': no such split; available: 'train'"):
        choose_files(["train.csv"], None, "dev", "x")
    with pytest.raises(SuiteError, match="no readable file"):
        choose_files(["images.zip"], None, None, "x")


COMMIT = "0123456789abcdef0123456789abcdef01234567"
READ = """
import json, sys
from dataclasses import asdict
from perjoule.prompts import read_prompt_set
from perjoule.types import PromptSource
prompts, origin = read_prompt_set(PromptSource(**json.loads(sys.argv[1])), where="s.toml: prompts.source")
print(json.dumps([[p.text for p in prompts], asdict(origin)]))
"""


def in_a_process(source: dict[str, object], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The hub's client reads its environment when it is imported."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "PERJOULE_"))}
    return subprocess.run(
        [sys.executable, "-c", READ, json.dumps(source)],
        env=kept | {"NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_data_set_of_the_hub_online_and_then_from_its_cache(web, tmp_path):
    card = b"---\nlicense: cc-by-nc-4.0\nconfigs:\n- data_files:\n  - {split: eval, path: e.csv}\n---\n"
    files = {"README.md": card, "e.csv": b"caption,kind\na cat,x\n", "other.csv": b"caption\na dog\n"}
    siblings = [{"rfilename": name} for name in files]
    tree = [{"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()} for n, c in files.items()]
    for revision in ("main", COMMIT):
        about = {"id": "org/set", "sha": COMMIT, "private": False, "tags": [], "downloads": 0, "siblings": siblings}
        web.pages[f"/api/datasets/org/set/revision/{revision}"] = json.dumps(about).encode()
        web.pages[f"/api/datasets/org/set/tree/{revision}"] = json.dumps(tree).encode()
        for name, content in files.items():
            headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
            web.pages[f"/datasets/org/set/resolve/{revision}/{name}"] = (
                lambda number, headers=headers, content=content: (200, headers, content)
            )
    web.pages["/api/datasets/org/set"] = web.pages["/api/datasets/org/set/revision/main"]
    here = {"HF_ENDPOINT": web.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    source: dict[str, object] = {"source": "hub:org/set", "column": "caption", "category": "kind", "hub_split": "eval"}

    done = in_a_process(source, here)
    assert done.returncode == 0, done.stderr
    texts, origin = json.loads(done.stdout)
    assert texts == ["a cat"]
    assert origin["files"] == [f"hub:org/set@{COMMIT}/e.csv"]
    assert (origin["licence"], origin["commercial"]) == ("cc-by-nc-4.0", False)
    assert origin["sha256"] == digest(files["e.csv"])
    assert (origin["pinned"], "is not pinned" in done.stderr) == (False, True)
    assert not any("other.csv" in path for path in web.asked)

    web.pages.clear()
    offline = in_a_process(source | {"revision": COMMIT}, here | {"PERJOULE_OFFLINE": "1", "HF_HUB_OFFLINE": "1"})
    assert offline.returncode == 0, offline.stderr
    assert json.loads(offline.stdout)[0] == ["a cat"]
    assert json.loads(offline.stdout)[1]["pinned"]
    assert "is not pinned" not in offline.stderr

    missing = in_a_process({"source": "hub:org/none"}, here)
    assert missing.returncode != 0
    assert "the hub's data set could not be downloaded" in missing.stderr
    assert not Path(tmp_path / "hf" / "hub" / "datasets--org--none" / "snapshots").exists()
