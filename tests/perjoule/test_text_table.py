"""Tables fit the terminal."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import perjoule
from perjoule.commands import options
from perjoule.commands.listing import LISTS
from perjoule.text_table import cell_text, text_table
from tests.support import driving
from tests.support.tables_of_runs import imported, table

SOURCES = sorted(Path(perjoule.__file__).parent.rglob("*.py"))
WORDS = st.text("ab-/é ", max_size=60)
VALUES = st.one_of(st.none(), st.booleans(), st.integers(-(10**12), 10**12), st.floats(allow_nan=False), WORDS)


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, object]]:
    heads = draw(st.lists(st.text("abc d", min_size=1, max_size=40), min_size=1, max_size=8, unique=True))
    columns = [draw(st.sampled_from([VALUES, WORDS, st.integers(0, 10**6)])) for _ in heads]
    count = draw(st.integers(1, 4))
    return [{head: draw(column) for head, column in zip(heads, columns, strict=True)} for _ in range(count)]


@given(tables(), st.integers(1, 120), st.booleans())
def test_no_line_is_longer_than_the_terminal(rows: list[dict[str, object]], width: int, spare: bool) -> None:
    heads = list(rows[0])
    room = dict.fromkeys(heads, 6)  # the fewest characters of a column of texts
    for head in heads:
        if all(isinstance(row[head], int | float | None) for row in rows):
            room[head] = max(len(cell_text(row[head])) for row in rows)
    least = room[heads[0]] if spare else sum(room.values()) + 2 * (len(heads) - 1)
    lines = text_table(rows, width, heads[1:] if spare else ()).splitlines()
    assert max(map(len, lines)) <= max(width, 20, least)


def test_a_number_is_never_broken() -> None:
    rows = [{"name": "x" * 40, "energy": 1.234e-09, "count": 12345678901}]
    lines = text_table(rows, 28).splitlines()
    assert any("1.234e-09  12345678901" in line for line in lines)


@given(tables())
def test_a_wide_terminal_changes_nothing(rows: list[dict[str, object]]) -> None:
    whole = text_table(rows)
    assert text_table(rows, max(map(len, whole.splitlines())), list(rows[0])) == whole


@given(st.text("abcdef ", min_size=1, max_size=300), st.integers(30, 80))
def test_a_wrapped_text_loses_no_character(text: str, width: int) -> None:
    lines = text_table([{"name": "n", "text": text}], width).splitlines()[1:]
    assert "".join(line[6:] for line in lines).replace(" ", "") == (text.replace(" ", "") or "")
    assert lines[0].startswith("n")


def test_texts_wrap_before_columns_are_left_out_and_words_break_last() -> None:
    row = {"name": "first-of-all", "count": 12, "title": "a title of some words that is long", "spare": 1.5}
    assert text_table([row], 52, ("spare",)).splitlines() == [
        "name          count  title                     spare",
        "first-of-all     12  a title of some words       1.5",
        "                     that is long",
    ]
    assert text_table([row], 46, ("spare",)).splitlines() == [
        "name          count  title",
        "first-of-all     12  a title of some words",
        "                     that is long",
        "not shown: spare (--wide)",
    ]
    assert text_table([{"name": "n", "title": "abcdefghijklmnopqrstuvwxyz"}], 20).splitlines() == [
        "name  title",
        "n     abcdefghijklmn",
        "      opqrstuvwxyz",
    ]


def test_columns_without_a_value_go_first_and_are_not_named() -> None:
    rows = [{"name": "x" * 10, "verdict": None, "problem": "", "n": 5}]
    assert text_table(rows, 20, ("n",)).splitlines() == ["name        n", "xxxxxxxxxx  5"]


def test_limits_are_left_out_together() -> None:
    rows = [{"cell": "a" * 12, "low": 0.25, "high": 0.75}]
    assert text_table(rows, 20, (("low", "high"),)).splitlines()[0] == "cell"


@pytest.mark.parametrize("width", [80, 60])
@pytest.mark.parametrize("what", LISTS)
def test_every_list_fits(what: str, width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["list", what]
    if what == "runs":
        imported(table(prompts=3, seeds=1, ladder=(2, 4)), tmp_path, "a-run-with-a-rather-long-name-of-its-own")
        (tmp_path / "bad").mkdir()
        (tmp_path / "bad" / "environment.json").write_text("{")
        arguments.append(str(tmp_path))
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(options, "sys", SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: True)))
    ended = driving.drive(*arguments)
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert len(lines) > 1
    assert [line for line in lines if len(line) > width] == []


def test_every_table_is_laid_out_here_for_a_terminal() -> None:
    """A caller that states no width, or that pads columns itself, would overflow."""
    careless = []
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            pads = name in ("ljust", "rjust") and source.name != "text_table.py"
            if pads or (name == "text_table" and len(node.args) < 2):
                careless.append(f"{source.name}:{node.lineno}")
    assert careless == []
