"""The code blocks of README and docs, run as they stand: in order, in one directory that was empty before.

```bash, ```python           run; names of one Python block are not known to the next
```toml                      a suite, or a part of one: checked
```LANGUAGE file.name        written to that file (a suite is checked as well)
```text, ```console          shown, not run
```yaml                      shown; Kubernetes knows every key
<!-- not run: REASON -->     before a block that cannot run here
<!-- exits with 0, 3: … -->  before a block whose exit code may be another than 0

A run that an earlier block made with the same options is copied, not made again.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from perjoule.suite.reading import find_suite, load_suite, parse_suite

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:^<!-- ([^>]*?) -->\n)?^```(\S*) ?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN = ("text", "console")
RUN = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
# what a part of a suite is completed by
SUITE: dict[str, Any] = {
    "name": "mine",
    "title": "Mine",
    "description": "A part that a document shows, and the rest of a suite.",
    "prompts": {"source": "prompts.txt"},
    "protocol": {"seeds": [1]},
    "metrics": {"primary": "clip_text", "names": ["clip_text"]},
    "variants": [{"name": "mine", "model": "me/my-model", "steps": [10]}],
}


RUN_TO = re.compile(r"^(perjoule run [^#\n]*?) --out (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    document: str
    line: int
    comment: str
    language: str
    file: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.document}:{self.line}"

    @property
    def skipped(self) -> str | None:
        """The reason not to run it."""
        found = re.fullmatch(r"not run(?: here)?: (.+)", self.comment)
        return found[1] if found else None

    @property
    def exit_codes(self) -> set[int]:
        found = re.match(r"exits with ([\d, or]+):", self.comment)
        return {int(code) for code in re.findall(r"\d+", found[1])} if found else {0}


def blocks() -> Iterator[Block]:
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for found in BLOCK.finditer(text):
            comment, language, file, body = found.groups()
            line = text.count("\n", 0, found.start(4))
            yield Block(str(document.relative_to(ROOT)), line, comment or "", language, file, body)


BLOCKS = list(blocks())


def test_every_block_is_seen() -> None:
    fences = sum(len(re.findall(r"^```", d.read_text(encoding="utf-8"), re.MULTILINE)) for d in DOCUMENTS)
    assert fences == 2 * len(BLOCKS)


def test_the_readme_has_at_most_900_words() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 900


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_every_block_has_a_language_and_is_run_or_says_why_not(block: Block) -> None:
    assert block.language in (*RUN, *SHOWN, "toml", "csv", "tsv", "yaml"), f"{block.place}: give the block a language"
    if block.comment:
        assert block.skipped or block.exit_codes != {0}, f"{block.place}: {block.comment!r} is not understood"
    if block.skipped is not None:
        assert len(block.skipped.split()) >= 3, f"{block.place}: give the reason"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, subprocess.CompletedProcess[str]]:
    """Every block that can run, by its place."""
    folder = tmp_path_factory.mktemp("reader")
    sources = [str(Path(entry).resolve()) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(sources),
    }
    found = {}
    runs: dict[str, str] = {}

    def once(line: re.Match[str]) -> str:
        first = runs.setdefault(line[1], line[2])
        return line[0] if first == line[2] else f"cp -r {first} {line[2]}"

    for block in BLOCKS:
        if block.skipped is not None:
            continue
        if block.file:
            (folder / block.file).write_text(block.text, encoding="utf-8")
        elif block.language in RUN:
            text = RUN_TO.sub(once, block.text) if block.language == "bash" else block.text
            command = [*RUN[block.language], text]
            found[block.place] = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
    return found


RUNNABLE = [b for b in BLOCKS if b.skipped is None and not b.file and b.language in RUN]


@pytest.mark.slow
@pytest.mark.parametrize("block", RUNNABLE, ids=lambda block: block.place)
def test_it_does_what_it_says(block: Block, ran: dict[str, subprocess.CompletedProcess[str]]) -> None:
    done = ran[block.place]
    assert done.returncode in block.exit_codes, f"{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if b.language == "toml" and b.skipped is None], ids=lambda block: block.place
)
def test_a_suite_or_a_part_of_one_is_valid(block: Block, tmp_path: Path) -> None:
    table = tomllib.loads(block.text)
    if "name" in table:
        file = tmp_path / "suite.toml"
        file.write_text(block.text, encoding="utf-8")
        load_suite(file)
        return
    variant = {key: value for key, value in table.items() if key not in SUITE}
    whole = SUITE | {key: value for key, value in table.items() if key in SUITE}
    whole["variants"] = [whole["variants"][0] | variant]
    parse_suite(whole, where=block.place)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "yaml"], ids=lambda block: block.place)
def test_kubernetes_knows_every_key(block: Block) -> None:
    """By the schemas of Kubernetes' own API; a RayJob is not in it, but consists of pods. CI jobs have another test."""
    document = yaml.safe_load(block.text)
    if set(document) == {"jobs"}:
        return
    assert {"apiVersion", "kind", "metadata", "spec"} <= set(document)
    if document["apiVersion"] != "ray.io/v1":
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
        return
    cluster = document["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": group["template"]["spec"]}
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


def test_a_misspelt_key_of_kubernetes_is_noticed() -> None:
    text = next(block.text for block in BLOCKS if "volumeMounts" in block.text).replace("volumeMounts", "volumeMount")
    with pytest.raises(kubernetes_validate.ValidationError, match="volumeMount"):
        kubernetes_validate.validate(yaml.safe_load(text), kubernetes_validate.latest_version(), strict=True)


def test_a_whole_suite_names_only_models_that_a_suite_of_ours_names() -> None:
    """A hub id that nobody runs is one that may be gone."""
    ours = "".join(file.read_text() for file in (ROOT / "suites/perjoule_suites/files").glob("*.toml"))
    suites = [tomllib.loads(block.text) for block in BLOCKS if block.language == "toml" and block.file]
    assert suites
    for suite in suites:
        for variant in suite["variants"]:
            assert f'"{variant["model"]}"' in ours


TERMS = {
    "anchor": r"anchors?",
    "arm": r"arms?",
    "cell": r"cells?",
    "edge": r"edges?",
    "family": r"famil(?:y|ies)",
    "ladder": r"ladders?",
    "operating-point": r"operating points?",
    "resolved": r"resolved",
    "rung": r"rungs?",
    "track": r"tracks?",
    "trial": r"trials?",
    "window": r"windows?",
    "window-group": r"window groups?",
}
# these are ordinary words as well, so only their entries are checked
AMBIGUOUS = ("draw", "level", "look")


def prose(document: Path) -> str:
    """The text without code, headings, comments and the addresses of links to other pages than the glossary."""
    text = document.read_text(encoding="utf-8")
    for code in (r"^```.*?^```", r"^#.*?$", r"`[^`\n]*`", r"^<!--.*?-->$", r"\]\((?!(?:docs/)?glossary)[^)]*\)"):
        text = re.sub(code, " ", text, flags=re.MULTILINE | re.DOTALL)
    return text


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if d.name != "glossary.md"], ids=lambda d: d.name)
def test_a_term_links_to_the_glossary_where_a_page_first_uses_it(document: Path) -> None:
    text = prose(document)
    for term, pattern in TERMS.items():
        first = re.search(rf"(?<![\w#-]){pattern}(?![\w-])", text, re.IGNORECASE)
        if first is not None:
            rest = text[first.start() :]
            assert re.match(rf"[^][\n]*\]\((?:docs/)?glossary\.md#{term}\)", rest), f"{document.name}: {rest[:60]!r}"


def test_the_glossary_has_every_term_that_is_linked() -> None:
    entries = re.findall(r"^## (.+)$", (ROOT / "docs/glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    anchors = {entry.lower().replace(" ", "-") for entry in entries}
    linked = {link for d in DOCUMENTS for link in re.findall(r"glossary\.md#([\w-]+)", d.read_text(encoding="utf-8"))}
    assert linked | set(TERMS) | set(AMBIGUOUS) <= anchors
    assert entries == sorted(entries, key=str.lower)


def test_the_drawing_of_the_rooms_is_the_import_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    (drawing,) = re.findall(r"```text\n(.*?)───", (ROOT / "docs" / "architecture.md").read_text(), re.DOTALL)
    assert [line.split()[0] for line in drawing.splitlines()] == layers


def test_the_demo_names_adaptive_cells_by_their_levels() -> None:
    """A level is not what an image costs: "16 J" in a row of 0.76 J would be wrong."""
    table = (ROOT / "docs" / "demo.md").read_text().split("| setting | steps | J/image |")[1].split("\n\n")[0]
    names = [line.split("|")[1].strip(" *") for line in table.splitlines()[2:]]
    suite = load_suite(find_suite("demo"))
    levels = sorted(f"{variant.label}, level {level:g}" for variant in suite.variants for level in variant.levels)
    assert sorted(name for name in names if re.search(r"\d", name)) == levels
