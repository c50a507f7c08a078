from __future__ import annotations

import ast
import json
import re
import unicodedata
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import perjoule_suites
from perjoule import text as text_module
from perjoule.text import as_json, escape_markdown, listed, one_line, printable, spreadsheet_cell

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


@given(anything)
@example("ok\n::stop-commands::x\n \t::error::y ##[add-mask]z \x9b2J \u202e \u2028::a")
def test_printed_text_moves_no_cursor_and_gives_no_command(text):
    found = printable(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", found)
    assert "##[" not in found
    assert not [line for line in found.splitlines() if line.lstrip().startswith("::")]
    assert printable(found) == found


def test_ordinary_lines_stay():
    text = "a::b, perjoule: c\n\t1 ## x\n  [sd-tiny] 3 %"
    assert printable(text) == text


@given(anything)
@example('=HYPERLINK("http://a")')
def test_no_cell_is_a_formula(text):
    found = spreadsheet_cell(text)
    assert not found.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert found.removeprefix("'") == one_line(text) or found == one_line(text)
    assert spreadsheet_cell(-1.5) == -1.5


@given(anything)
@example("\x9b2J ##[error]x \u202e\u2066\x85")
def test_printed_json_has_escapes_and_loses_nothing(text):
    found = as_json({"a": text})
    assert not re.search("[\x7f-\x9f\u202a-\u202e\u2066-\u2069]|##\\[", found)
    assert json.loads(found) == {"a": text}


def test_commands_print_only_through_what_cleans():
    """Names, prompts and messages of others reach every command's output."""
    free = {"options.py", "completion.py", "gate.py", "tables.py", "console.py", "outcome.py"}
    rooms = [Path(text_module.__file__).parent / "commands", *Path(perjoule_suites.__file__).parent.glob("*/")]
    for file in [path for room in rooms for path in room.glob("*.py") if path.name not in free]:
        calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
        if "tiny" not in file.parts:  # programs of developers
            assert not {"typer.echo", "print", "sys.stdout.write"} & set(calls), file


def test_a_list_of_names_is_cut():
    assert listed([]) == ""
    assert listed(["a", "b"], most=2) == "a, b"
    assert listed([str(i) for i in range(1_234)], most=3) == "0, 1, 2 and 1,231 more"
