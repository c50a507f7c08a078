"""The packages that the documents show, made of their very text, installed and used."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perjoule.prompts import load_prompts, prompt_sets
from perjoule.prompts.catalogue import public_sets
from perjoule.protocols import ImageSet
from perjoule.quality import load_metric, metric_rows
from perjoule.types import Prompt, PromptSource

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def install(document: str, heading: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **replaced: str) -> None:
    """Write the named blocks below a heading as files, and the entry points as an installed package has them."""
    section = (DOCS / document).read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    assert section, f"{document} has no heading {heading!r}"
    for old, new in replaced.items():
        section = section.replace(old, new)
    files = {}
    for _, title, text in _BLOCK.findall(section):
        files[title or text.split("\n", 1)[0].removeprefix("# ")] = text
    points = tomllib.loads(files.pop("pyproject.toml"))["project"]["entry-points"]
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    installed = folder / "mine-1.0.dist-info"
    installed.mkdir()
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items()) for group, entries in points.items()]
    (installed / "entry_points.txt").write_text("".join(lines))
    (installed / "METADATA").write_text("Metadata-Version: 2.4\nName: mine\nVersion: 1.0\nLicense-Expression: MIT\n")
    monkeypatch.syspath_prepend(folder)


def test_add_a_metric(tmp_path, monkeypatch):
    install("metrics.md", "Add a metric", tmp_path, monkeypatch)
    images = [np.full((4, 4, 3), 60, np.uint8), np.zeros((4, 4, 3), np.uint8)]
    run = ImageSet(
        image_ids=["a", "b"],
        prompts=[Prompt(prompt_id="p", text="a cat")] * 2,
        images=lambda index: images[index],
        reference_ids=[None, None],
        references=lambda index: images[index],
        all_prompts=[],
    )
    metric: Any = load_metric("brightness", {}, "s.toml")
    assert [score.value for score in metric.score(run, lambda count: None)] == [60.0, 0.0]
    assert metric.spec.advisory
    (row,) = [row for row in metric_rows() if row["metric"] == "brightness"]
    assert (row["cached"], row["direction"]) == (None, None)  # it shows no card


def test_add_a_prompt_set(tmp_path, monkeypatch, web):
    address = {"https://example.org": web.url}
    install("prompts.md", "Add a prompt set", tmp_path, monkeypatch, **address)
    web.pages["/bridges.csv"] = b"caption\na bridge of stone\na bridge of rope\n"
    public_sets.cache_clear()
    try:
        own = load_prompts(PromptSource(source="builtin:harbours"), where="s.toml")
        fetched = load_prompts(PromptSource(source="public:bridges"), where="s.toml")
        rows = {row.prompts: row for row in prompt_sets()}
    finally:
        public_sets.cache_clear()
    assert {(p.category, p.challenge) for p in own} == {("boats", "plain"), ("boats", "counting")}
    assert {p.text for p in fetched} == {"a bridge of stone", "a bridge of rope"}
    assert (rows["builtin:harbours"].licence, rows["builtin:harbours"].commercial) == ("MIT", True)
    assert (rows["public:bridges"].pinned, rows["public:bridges"].cached) == (True, True)
    assert "builtin:everyday" in rows


def test_the_documents_name_every_metric_and_every_set():
    metrics, prompts = ((DOCS / name).read_text(encoding="utf-8") for name in ("metrics.md", "prompts.md"))
    for row in metric_rows():
        assert f"| `{row['metric']}` |" in metrics
    for name in public_sets():
        assert f"`{name}`" in prompts
