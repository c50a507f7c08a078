from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.text import without_uuids
from perjoule.warnings import WARNINGS, CodedWarning, code_of, has_code, is_marked, read_warning, warning

SENTENCES = st.text(st.characters(codec="utf-8"), max_size=60).map(str.strip)


@given(st.sampled_from(sorted(WARNINGS)), SENTENCES)
def test_a_text_is_read_as_it_was_written(code: str, sentence: str) -> None:
    assert read_warning(warning(code, sentence)) == CodedWarning(code, without_uuids(sentence).strip())


@given(st.lists(st.builds(warning, st.sampled_from(sorted(WARNINGS)), SENTENCES)))
def test_tables_and_texts_have_the_same_codes(texts: list[str]) -> None:
    frame = pl.DataFrame({"warnings": [texts, None]}, schema={"warnings": pl.List(pl.String)})
    for code in ("W203", "W251"):
        marked = any(has_code(text, code) for text in texts)
        assert frame.select(is_marked(code)).to_series().to_list() == [marked, False]
    codes = pl.DataFrame({"text": texts}, schema={"text": pl.String}).select(code_of(pl.col("text"))).to_series()
    assert codes.to_list() == [read_warning(text).code for text in texts]


@pytest.mark.parametrize("text", ["W2512: x", "see W251: x", "W25", ""])
def test_a_code_is_the_whole_word_before_the_colon(text: str) -> None:
    assert not has_code(text, "W251", "W250")
    frame = pl.DataFrame({"warnings": [[text]]})
    assert not frame.select(is_marked("W251")).item()


def test_a_foreign_text_is_a_code_without_a_sentence() -> None:
    assert read_warning("no colon") == CodedWarning("no colon", "")


def test_an_unknown_code_is_a_defect() -> None:
    with pytest.raises(KeyError):
        warning("W000", "never")
