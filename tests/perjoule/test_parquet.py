"""Parquet is read unless it would fill the memory; the bound is compared with what polars makes of it."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perjoule import parquet
from perjoule.errors import RunError, SuiteError, UsageError
from perjoule.importing.reading import read_table
from perjoule.parquet import read_frame, unpacked_bytes
from perjoule.prompts.reading import Layout, read_rows

COMPRESSIONS: tuple[Any, ...] = ("zstd", "snappy", "gzip", "lz4", "uncompressed")
texts = st.lists(st.none() | st.text(max_size=20), max_size=40)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=texts, repeats=st.integers(1, 50), compression=st.sampled_from(COMPRESSIONS), lists=st.booleans())
def test_the_bound_is_above_what_polars_needs_and_the_values_are_the_same(
    tmp_path: Path, values: list[str | None], repeats: int, compression: Any, lists: bool
) -> None:
    frame = pl.DataFrame({"a": values * repeats, "b": [float(i) for i in range(len(values) * repeats)]},
                         schema={"a": pl.String, "b": pl.Float64})  # fmt: skip
    if lists:
        frame = frame.with_columns(c=pl.concat_list("a", "a"))
    frame.write_parquet(tmp_path / "a.parquet", compression=compression, row_group_size=30)
    with (tmp_path / "a.parquet").open("rb") as file:
        bound = unpacked_bytes(file, set(frame.columns))
    assert bound + sum(parquet._text_bytes(column) for column in frame) >= sum(
        len(frame) * 8 + (column.str.len_bytes().sum() if column.dtype == pl.String else 0) for column in frame
    )
    assert read_frame(tmp_path / "a.parquet").equals(frame)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_page_counts_with_its_size_in_memory(tmp_path: Path, compression: Any) -> None:
    """Even if there is only one value, or one that is repeated."""
    for frame in (pl.DataFrame({"a": ["x" * 3_000_000]}), pl.DataFrame({"a": ["x"] * 200_000})):
        frame.write_parquet(tmp_path / "a.parquet", compression=compression)
        with (tmp_path / "a.parquet").open("rb") as file:
            assert unpacked_bytes(file, {"a"}) >= 3_000_000
            assert unpacked_bytes(file, {"b"}) == 0


def bomb(file: Path, **columns: Any) -> Path:
    """Two million equal values; five hundred million of them took 6.8 GB from 370 kB."""
    pl.select(pl.repeat("a", 2_000_000).alias("variant"), **columns).write_parquet(file)
    assert file.stat().st_size < 40_000
    return file


@pytest.fixture
def low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_MOST_BYTES", 2**24)


@pytest.mark.usefixtures("low_limit")
def test_a_small_file_that_unpacks_to_gigabytes_is_refused_by_every_reader(tmp_path: Path) -> None:
    file = bomb(tmp_path / "a.parquet", prompt=pl.lit("a"))
    words = r"a\.parquet unpacks from 0\.0 MiB to 0\.\d GiB of memory, and perjoule reads at most"
    with pytest.raises(RunError, match=words):
        read_frame(file)
    with pytest.raises(UsageError, match=words):
        read_table(file)
    with pytest.raises(SuiteError, match=words):
        read_rows(file, Layout(), "suite")


@pytest.mark.usefixtures("low_limit")
def test_a_trusted_file_is_read_if_the_variable_that_the_error_names_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = bomb(tmp_path / "a.parquet")
    monkeypatch.setenv(parquet.VARIABLE, "0.01")
    with pytest.raises(RunError, match="PERJOULE_TABLE_GIB=1"):
        read_frame(file)
    monkeypatch.setenv(parquet.VARIABLE, "1")
    assert len(read_frame(file)) == 2_000_000
    for wrong in ("much", "-1", "nan", "inf", ""):
        monkeypatch.setenv(parquet.VARIABLE, wrong)
        with pytest.raises(RunError, match=r"PERJOULE_TABLE_GIB = .*a number of GiB"):
            read_frame(file)


@pytest.mark.usefixtures("low_limit")
@pytest.mark.parametrize("lists", [False, True])
def test_a_long_text_that_is_repeated_is_refused(tmp_path: Path, lists: bool) -> None:
    """Polars stores it once, but every row of ours would have a copy."""
    value: Any = ["x" * 100_000] if lists else "x" * 100_000
    pl.DataFrame({"a": [value] * 400}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(RunError, match=r"unpacks from .* GiB of memory"):
        read_frame(tmp_path / "a.parquet")


def test_only_the_chosen_columns_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data sets have pictures next to their prompts."""
    monkeypatch.setattr(parquet, "_MOST_BYTES", 0)
    monkeypatch.setattr(parquet, "_MOST_TIMES", 1)
    frame = pl.DataFrame({"a": ["x"], "b": ["y" * 1_000_000]})
    frame.write_parquet(tmp_path / "a.parquet")
    assert read_frame(tmp_path / "a.parquet", choose=lambda names: names[:1]).rows() == [("x",)]
    with pytest.raises(RunError, match="unpacks"):
        read_frame(tmp_path / "a.parquet")


def test_a_pattern_in_the_name_is_part_of_the_name(tmp_path: Path) -> None:
    """Polars reads all files that a path with `*` matches."""
    for name in ("a1", "a2", "a*", "a[1]"):
        pl.DataFrame({"a": [name]}).write_parquet(tmp_path / f"{name}.parquet")
    assert read_frame(tmp_path / "a*.parquet").rows() == [("a*",)]
    assert read_frame(tmp_path / "a[1].parquet").rows() == [("a[1]",)]


def test_every_changed_byte_is_an_error_of_ours_or_another_table(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    pl.DataFrame({"a": [1, 2, 3], "b": ["x", "y", None]}).write_parquet(buffer)
    whole = buffer.getvalue()
    file = tmp_path / "a.parquet"
    refused = 0
    for place in range(0, len(whole), 7):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            read_frame(file)
        except (ValueError, RunError):
            refused += 1
    assert refused > 10
    for length in (0, 3, 8, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"\w"):
            read_frame(file)


@settings(max_examples=200)
@given(content=st.binary(max_size=200))
def test_no_footer_is_followed_for_ever(content: bytes) -> None:
    length = len(content).to_bytes(4, "little")
    file = io.BytesIO(b"PAR1" + content + length + b"PAR1")
    try:
        assert unpacked_bytes(file, {"a"}) >= 0
    except ValueError:
        return


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.parquet")
    with pytest.raises(RunError, match="not a regular file"):
        read_frame(tmp_path / "a.parquet")
