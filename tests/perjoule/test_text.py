from __future__ import annotations

import re
import unicodedata
from xml.etree import ElementTree as Xml

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from perjoule.text import escape_markdown, one_line

anything = st.text(st.characters(exclude_categories=()), max_size=60)


@given(anything)
@example("a\u202eb\x00c\n d\x1b[31m\u2028\ufffe\ud800")
def test_one_line_has_no_way_out(text):
    found = one_line(text)
    assert len(found.splitlines()) <= 1
    assert not {unicodedata.category(c) for c in found} & {"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"}
    assert one_line(found) == found
    assert Xml.fromstring(f"<a>{found.replace('&', '&amp;').replace('<', '&lt;')}</a>").text in {found, None}


@pytest.mark.parametrize("text", ["plain words", "日本語 é ñ", "0.97 [0.95, 0.98]", "sd-tiny at 25 steps, 3 %"])
def test_plain_text_stays(text):
    assert one_line(text) == text


@given(st.text(st.sampled_from("a1 |`*_~[]()<>!\\#@&:;./-+$\nhttpsw"), max_size=30))
@example("[a](javascript:alert(1)) ![b](https://x.y)")
@example("<https://example.com> https://example.com www.example.com a@b.c")
@example("~~a~~ **b** __c__ `d` | e &lt; &#60; \\")
def test_markdown_shows_exactly_the_text(text):
    (_, inline, _), *rest = _blocks(f"x {escape_markdown(text)} x")
    assert not rest
    assert {child.type for child in inline.children} <= {"text", "text_special"}
    shown = "".join(child.content for child in inline.children)
    assert not re.search(r"[@#]\w", shown)
    shown = shown.replace("\u200b", "")
    assert " ".join(shown.split()) == " ".join(f"x {one_line(text)} x".split())


def _blocks(source):
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(source)
    return [tokens[i : i + 3] for i in range(0, len(tokens), 3)]
