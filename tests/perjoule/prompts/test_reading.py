from __future__ import annotations

import hashlib
import json
import re
import zipfile
from pathlib import Path

import polars as pl
import pytest

from perjoule.errors import SuiteError
from perjoule.prompts import load_prompts
from perjoule.prompts.reading import Layout, read_rows
from perjoule.types import PromptSource


def load(path: Path, **options: object) -> list[str]:
    source = PromptSource(source=str(path), **options)  # type: ignore[arg-type]
    return [p.text for p in load_prompts(source, where="s.toml: prompts.source")]


def test_formats_agree(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text('a cat\n\na "dog"\na cat\n')
    (tmp_path / "p.tsv").write_text('Prompt\tNote\na cat\tx\na "dog"\ty\n')
    (tmp_path / "p.csv").write_text('prompt,note\na cat,x\n"a ""dog""",y\n')
    (tmp_path / "p.jsonl").write_text('{"prompt": "a cat"}\n{"prompt": "a \\"dog\\""}\n')
    (tmp_path / "p.json").write_text('["a cat", {"prompt": "a \\"dog\\""}]')
    pl.DataFrame({"Prompt": ["a cat", 'a "dog"']}).write_parquet(tmp_path / "p.parquet")
    found = [load(file) for file in sorted(tmp_path.iterdir())]
    assert len(found) == 6
    assert all(texts == found[0] for texts in found)
    assert sorted(found[0]) == ['a "dog"', "a cat"]


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("p.txt", "", {}, "contains no prompt"),
        ("p.txt", "\n  \n", {}, "contains no prompt"),
        ("p.tsv", "text\tx\na\tb\n", {}, "no column 'prompt': it has text, x"),
        ("p.jsonl", "{\n", {}, "not JSON lines"),
        ("p.jsonl", '{"prompt": 3}\n', {}, "prompt = 3 is not text"),
        ("p.jsonl", '["a"]\n', {}, "must be a JSON object"),
        ("p.txt", "x" * 20_001, {}, "20,001 characters"),
        ("p.txt", "a\nb\n", {"limit": 3}, "limit = 3"),
        ("p.txt", "a\nb\0c\n", {}, "line 2 of p.txt: a NUL character in 'b"),
        ("p.csv", "prompt\na\0b\n", {}, "NUL"),
        ("p.csv", "prompt\n" + "x" * 140_000, {}, "after line 1: field larger than field limit"),
        ("p.jsonl", '{"prompt": "\\ud800"}\n', {}, "row 1 of p.jsonl: half a character"),
        ("p.jsonl", "[" * 100_000, {}, "not JSON lines: line 1"),
        ("p.json", "{}", {}, "must be a list of texts or objects"),
        ("p.json", '{"annotations": [{"id": 1}]}', {}, "not COCO's captions: an annotation has no usable 'image_id'"),
        ("p.json", "[3]", {}, "must be a JSON object"),
        ("p.tsv", "prompt\tkind\na\tb\n", {"category": "sort"}, "no column 'sort': it has prompt, kind"),
        ("p.parquet", "no parquet", {}, "cannot be read as Parquet"),
        ("p.txt", "a\n", {"sha256": "0" * 64}, "prompts.sha256 = 0000"),
    ],
)
def test_bad_sources_are_named(
    tmp_path: Path, name: str, content: str, options: dict[str, object], message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(SuiteError, match=re.escape(message)) as caught:
        load(tmp_path / name, **options)
    assert "prompts.source" in str(caught.value)


def test_binary_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SuiteError, match="UTF-8"):
        load(tmp_path / "p.txt")
    with pytest.raises(SuiteError, match="no such file"):
        load(tmp_path / "nothing.txt")
    with pytest.raises(SuiteError, match="builtin:tiny-held-out"):
        load_prompts(PromptSource(source="builtin:tiny"), where="x")

    (tmp_path / "p.txt").write_bytes(b"a\nb\n\xff")
    with pytest.raises(SuiteError, match=r"UTF-8 text: line 3: .*save it as UTF-8"):
        load(tmp_path / "p.txt")


def test_marks_line_ends_and_odd_separators(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes("\ufeffa cat\r\n\r\na\u2028b\r\n a cat \n".encode())
    assert sorted(load(tmp_path / "p.txt")) == ["a cat", "a\u2028b"]
    (tmp_path / "p.jsonl").write_bytes('\ufeff{"prompt": "a\u2028b\x85c"}\n'.encode())
    assert load(tmp_path / "p.jsonl") == ["a\u2028b\x85c"]


def test_of_equal_prompts_the_first_counts(tmp_path: Path) -> None:
    (tmp_path / "p.tsv").write_text("prompt\tcategory\tchallenge\na\tfirst\tx\na\tsecond\ty\n")
    (prompt,) = load_prompts(PromptSource(source=str(tmp_path / "p.tsv")), where="x")
    assert (prompt.category, prompt.challenge) == ("first", "x")


def test_declared_columns(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("Caption,kind,Level\na,b,3\n")
    source = PromptSource(source=str(tmp_path / "p.csv"), column="caption", category="kind", challenge="level")
    (prompt,) = load_prompts(source, where="x")
    assert (prompt.text, prompt.category, prompt.challenge) == ("a", "b", "3")


def test_of_parquet_only_the_wanted_columns_are_read(tmp_path: Path) -> None:
    frame = pl.DataFrame({"Prompt": ["a cat"], "Category": [7], "image": [b"\0" * 9]})
    frame.write_parquet(tmp_path / "p.parquet")
    (prompt,) = load_prompts(PromptSource(source=str(tmp_path / "p.parquet")), where="x")
    assert (prompt.text, prompt.category, prompt.challenge) == ("a cat", "7", "")
    with pytest.raises(SuiteError, match="no column 'caption': it has Prompt, Category, image"):
        load(tmp_path / "p.parquet", column="caption")


def test_a_pin_that_holds_is_silent(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a cat\n")
    assert load(tmp_path / "p.txt", sha256=hashlib.sha256(b"a cat\n").hexdigest()) == ["a cat"]


def test_coco_gives_one_caption_an_image_out_of_its_archive(tmp_path: Path) -> None:
    captions = [(9, 1, "late"), (3, 1, "a cat"), (4, 2, "a dog"), (5, 2, "late")]
    annotations = [{"id": i, "image_id": image, "caption": text} for i, image, text in captions]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("annotations/captions_val2014.json", json.dumps({"annotations": annotations}))
    layout = Layout(column="caption", member="annotations/captions_val2014.json")
    assert [row.text for row in read_rows(tmp_path / "a.zip", layout, "x")] == ["a cat", "a dog"]
    with pytest.raises(SuiteError, match="no item named"):
        read_rows(tmp_path / "a.zip", Layout(member="other.json"), "x")
    (tmp_path / "b.zip").write_bytes(b"PK")
    with pytest.raises(SuiteError, match="not a zip file"):
        read_rows(tmp_path / "b.zip", layout, "x")
