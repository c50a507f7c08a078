from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.errors import SuiteError
from perjoule.prompts import load_prompts, prompt_id
from perjoule.types import PromptSource


def load(path: Path, **options: object) -> list[str]:
    source = PromptSource(source=str(path), **options)  # type: ignore[arg-type]
    return [p.text for p in load_prompts(source, where="s.toml: prompts.source")]


def test_formats_agree(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text('a cat\n\na "dog"\na cat\n')
    (tmp_path / "p.tsv").write_text('Prompt\tNote\na cat\tx\na "dog"\ty\n')
    (tmp_path / "p.csv").write_text('prompt,note\na cat,x\n"a ""dog""",y\n')
    (tmp_path / "p.jsonl").write_text('{"prompt": "a cat"}\n{"prompt": "a \\"dog\\""}\n')
    found = [load(tmp_path / name) for name in ("p.txt", "p.tsv", "p.csv", "p.jsonl")]
    assert found[0] == found[1] == found[2] == found[3]
    assert sorted(found[0]) == ['a "dog"', "a cat"]


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Z"]), min_size=1),
        unique=True,
        min_size=2,
        max_size=30,
    ),
    st.data(),
)
def test_limits_nest(tmp_path_factory: pytest.TempPathFactory, texts: list[str], data: st.DataObject) -> None:
    file = tmp_path_factory.mktemp("p") / "p.txt"
    file.write_text("\n".join(texts), encoding="utf-8")
    everything = load(file)
    n = data.draw(st.integers(1, len(everything)))
    assert load(file, limit=n) == everything[:n]


def test_every_prefix_is_stratified(tmp_path: Path) -> None:
    rows = [f"prompt {i}\t{'abc'[i % 3]}" for i in range(30)]
    (tmp_path / "p.tsv").write_text("prompt\tcategory\n" + "\n".join(rows))
    prompts = load_prompts(PromptSource(source=str(tmp_path / "p.tsv"), limit=12), where="x")
    assert sorted(p.category for p in prompts) == ["a"] * 4 + ["b"] * 4 + ["c"] * 4


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("p.txt", "", {}, "holds no prompt"),
        ("p.txt", "\n  \n", {}, "holds no prompt"),
        ("p.tsv", "text\tx\na\tb\n", {}, "no column 'prompt': it has text, x"),
        ("p.jsonl", "{\n", {}, "not JSON lines"),
        ("p.jsonl", '{"prompt": 3}\n', {}, "prompt = 3 is not text"),
        ("p.jsonl", '["a"]\n', {}, "must be a JSON object"),
        ("p.txt", "x" * 20_001, {}, "20,001 characters"),
        ("p.txt", "a\nb\n", {"limit": 3}, "limit = 3"),
    ],
)
def test_bad_sources_are_named(tmp_path: Path, name: str, content: str, options: dict[str, int], message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(SuiteError, match=message.replace("(", r"\(")) as caught:
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


def test_a_prompt_has_one_id_everywhere() -> None:
    assert prompt_id("a lighthouse") == prompt_id("a lighthouse") != prompt_id("a lighthouse ")
    assert len(prompt_id("\ud800")) == 10  # even a lone surrogate
