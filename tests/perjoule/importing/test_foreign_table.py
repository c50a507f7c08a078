"""Tables of other people: the same values in every dialect, nothing guessed, made up or left behind."""

from __future__ import annotations

import csv
import io
import json
import random
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perjoule.errors import PerjouleError, UsageError
from perjoule.importing.conversion import import_table
from perjoule.importing.reading import read_table
from perjoule.runs.directory import Run, load_run
from perjoule.statistics.frontier import frontier
from perjoule.types import PROVENANCES, weakest
from perjoule.warnings import WARNINGS
from tests.perjoule.test_cli import call

HEADER = ["variant", "prompt_id", "seed", "energy_j", "quality:q"]
ROWS = [
    ["base", "001", "1", "9.403", "0.8542"],
    ["base", "001", "2", "11.291", "0.6765"],
    ["base", "1.10", "1", "10.486", "0.7348"],
    ["base", "1.10", "2", "10.955", "0.8366"],
    ["1e001", "001", "1", "9.282", "0.6085"],
    ["1e001", "001", "2", "11.507", "0.7298"],
    ["1e001", "1.10", "1", "11.287", "0.6006"],
    ["1e001", "1.10", "2", "11.101", "0.6161"],
]


def values_of(run: Run) -> list[tuple[Any, ...]]:
    """What a run holds of each row, in order: variant, prompt id, seed, J/image, quality."""
    trials = run.trials.select(
        "cell_id", "variant", pl.col("energy_j") / pl.col("image_count"),
        prompt_id=pl.col("prompt_ids").list.first(), seed=pl.col("seeds").list.first(),
    )  # fmt: skip
    scored = trials.join(run.scores, on=["cell_id", "prompt_id", "seed"], how="left", nulls_equal=True)
    return sorted(scored.select("variant", "prompt_id", "seed", "energy_j", "value").iter_rows(), key=str)


EXPECTED = sorted(
    ((v, p, int(s), float(e), float(q)) for v, p, s, e, q in ROWS),
    key=str,
)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def delimited(separator: str = ",", header: list[str] = HEADER, rows: list[list[str]] = ROWS, end: str = "\n") -> str:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator=end)
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()


def with_commas() -> list[list[str]]:
    return [[v, p, s, e.replace(".", ","), q.replace(".", ",")] for v, p, s, e, q in ROWS]


def records() -> list[dict[str, Any]]:
    return [dict(zip(HEADER, (v, p, int(s), float(e), float(q)), strict=True)) for v, p, s, e, q in ROWS]


DIALECTS: dict[str, str | bytes] = {
    "plain.csv": delimited(),
    "tabs.tsv": delimited("\t"),
    "commas.tsv": delimited(","),
    "tabs.csv": delimited("\t"),
    "bars.csv": delimited("|"),
    "semicolons.csv": delimited(";"),
    "decimal-comma.csv": delimited(";", rows=with_commas()),
    "decimal-comma.tsv": delimited("\t", rows=with_commas()),
    "sep.csv": "sep=;\n" + delimited(";", rows=with_commas()),
    "sep-quoted.csv": '"sep=;"\r\n' + delimited(";", end="\r\n"),
    "mark.csv": "\ufeff" + delimited(),
    "utf-16.csv": delimited().encode("utf-16"),
    "utf-16-le.csv": delimited().encode("utf-16-le"),
    "utf-16-be.csv": delimited().encode("utf-16-be"),
    "utf-16-be-mark.csv": ("\ufeff" + delimited()).encode("utf-16-be"),
    "utf-32.csv": delimited().encode("utf-32"),
    "old-mac.csv": delimited(end="\r"),
    "windows.csv": delimited(end="\r\n"),
    "spaces.csv": delimited().replace(",", ", "),
    "quoted.csv": "\n".join(", ".join(f'"{cell}"' for cell in row) for row in [HEADER, *ROWS]),
    "comments.csv": "# made by hand\n" + delimited().replace("\n1e001", "\n# another\n1e001", 1) + "\n# the end",
    "header-in-comment.csv": "#" + delimited(),
    "sentence.csv": "# measured by us, variant and prompt_id, in this order; variant names are ours\n" + delimited(),
    "blank-lines.csv": "\n\n" + delimited().replace("\n", "\n\n") + ",,,,\n",
    "trailing.csv": delimited().replace("\n", ",\n"),
    "capitals.csv": delimited(header=["VARIANT", "Prompt_ID", "Seed", "Energy_J", "Quality:q"]),
    "blanks-in-names.csv": delimited(header=["Variant", "prompt id", "SEED", "energy (J)", "quality: q"]),
    "records.json": json.dumps(records()),
    "columns.json": json.dumps({name: [row[name] for row in records()] for name in HEADER}),
    "pandas.json": json.dumps({name: {str(i): row[name] for i, row in enumerate(records())} for name in HEADER}),
    "split.json": json.dumps({"columns": HEADER, "data": [list(row.values()) for row in records()]}),
    "wrapped.json": json.dumps({"rows": records()}),
    "lines.json": "\n".join(map(json.dumps, records())),
    "lines.jsonl": "\n".join(map(json.dumps, records())),
    "lines.ndjson": "\ufeff" + "\n\n".join(map(json.dumps, records())),
}  # fmt: skip


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_gives_the_same_values(tmp_path: Path, name: str) -> None:
    run = import_table(write(tmp_path, name, DIALECTS[name]), tmp_path / "run")
    assert values_of(run) == EXPECTED


@pytest.mark.parametrize("kind", [pl.Float64, pl.String, pl.Decimal(10, 4)])
def test_parquet_gives_the_same_values(tmp_path: Path, kind: Any) -> None:
    file = tmp_path / "table.parquet"
    frame = pl.DataFrame(ROWS, schema=HEADER, orient="row")
    frame.with_columns(pl.col("energy_j", "quality:q").cast(kind), pl.col("seed").cast(pl.Int16)).write_parquet(file)
    assert values_of(import_table(file, tmp_path / "run")) == EXPECTED


IDENTIFIERS = ("001", "1", "1.10", "1.1", "1e001", "10.0", "007", "7", "2024", "0x1F", "true", "NaN", "null", "-0", "½")


@pytest.mark.parametrize("value", [b"3", [3.0], {"a": 3.0}, timedelta(seconds=3)])
def test_parquet_columns_of_other_types_are_refused(tmp_path: Path, value: Any) -> None:
    file = tmp_path / "table.parquet"
    pl.DataFrame({"variant": ["a"], "energy_j": [3.0], "device": [value]}).write_parquet(file)
    with pytest.raises(UsageError, match=r"table\.parquet: column device has type .*must be one text or number"):
        read_table(file)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_identifiers_stay_the_text_that_they_are(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"variant": name, "prompt_id": name, "prompt": name, "policy": name, "device": "007", "model": name,
         "category": name, "family": name, "seed": str(i), "energy_j": "2.5", "quality:q": "0.5"}
        for i, name in enumerate(IDENTIFIERS)
        if name != "½"
    ]  # fmt: skip
    file = tmp_path / f"ids.{suffix}"
    frame = pl.DataFrame(rows)
    writers: dict[str, Callable[[Path], object]] = {
        "csv": frame.write_csv,
        "tsv": lambda f: frame.write_csv(f, separator="\t"),
        "jsonl": frame.write_ndjson,
        "json": lambda f: f.write_text(json.dumps(rows)),
        "parquet": frame.write_parquet,
    }
    writers[suffix](file)
    run = import_table(file, tmp_path / "run")
    names = [name for name in IDENTIFIERS if name != "½"]
    assert run.trials["prompt_ids"].list.first().to_list() == names
    assert run.trials["prompts"].list.first().to_list() == names
    assert run.trials["policy"].to_list() == names
    assert run.prompts == {name: name for name in names}
    assert [prompt.category for prompt in sorted(run.prompt_set, key=lambda p: names.index(p.prompt_id))] == names
    assert {v.model for v in run.suite.variants} == {v.policy for v in run.suite.variants} == set(names)
    assert run.environment["comparability"]["device"] == ["007"]
    # "-0" is no name that a suite accepts: it is written x-0, and the note says so
    assert sorted(v.name for v in run.suite.variants) == sorted("x-0" if n == "-0" else n for n in names)
    assert any("'-0' as x-0" in note for note in run.environment["import_notes"])


def test_numbers_of_json_and_parquet_are_names_as_they_are_written(tmp_path: Path) -> None:
    lines = '{"variant": 1.10, "prompt_id": 1e001, "prompt": 2024, "seed": 1, "energy_j": 3, "quality:q": true}\n'
    with pytest.raises(UsageError, match="quality:q = 'true': not a number"):
        import_table(write(tmp_path, "t.jsonl", lines), tmp_path / "run")
    run = import_table(write(tmp_path, "t.jsonl", lines.replace("true", "0.5")), tmp_path / "run")
    assert run.trials["variant"].to_list() == ["1.10"]
    assert run.prompts == {"1e001": "2024"}
    file = tmp_path / "t.parquet"
    pl.DataFrame({"variant": [7], "prompt_id": [2024], "seed": [1], "energy_j": [3]}).write_parquet(file)
    assert import_table(file, tmp_path / "other").trials["prompt_ids"].to_list() == [["2024"]]


def test_nan_is_no_name(tmp_path: Path) -> None:
    lines = '{"variant": "a", "prompt_id": "p", "device": NaN, "provenance": NaN, "energy_j": 3}\n'
    run = import_table(write(tmp_path, "t.jsonl", lines), tmp_path / "lines")
    assert run.environment["comparability"]["device"] == "not stated"
    assert run.trials.select("variant", "device", "provenance").row(0) == ("a", None, "not stated")
    file = tmp_path / "t.parquet"
    pl.DataFrame({"variant": ["a"], "device": [float("nan")], "energy_j": [3.0]}).write_parquet(file)
    assert import_table(file, tmp_path / "typed").trials["device"].to_list() == [None]


def test_numeric_prompts_do_not_break_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "variant,prompt_id,seed,energy_j,quality:c,prompt\nm,a,1,10,0.5,2024\nm,b,1,11,0.6,007\n"
    assert call("import", str(write(tmp_path, "t.csv", text)), "--out", str(tmp_path / "run"), capsys=capsys)[0] == 0
    assert load_run(tmp_path / "run").prompts == {"a": "2024", "b": "007"}
    assert call("report", str(tmp_path / "run"), capsys=capsys)[0] == 0


class TestSeeds:
    @pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
    def test_of_64_bits_are_exact_everywhere(
        self, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        seeds = [0, 1, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1]
        frame = pl.DataFrame(
            {"variant": "a", "prompt_id": ["p", "q"][i % 2], "seed": s, "energy_j": 2.0 + i, "quality:q": 0.1 * i}
            for i, s in enumerate(seeds * 2)
        ).unique(["prompt_id", "seed"])
        frame = frame.with_columns(pl.col("seed").cast(pl.UInt64))
        file = tmp_path / f"t.{suffix}"
        writers: dict[str, Callable[[Path], object]]
        writers = {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}
        writers[suffix](file)
        run = import_table(file, tmp_path / "run")
        assert run.suite.protocol.seeds == tuple(seeds)
        for found in (run.trials["seeds"].list.first(), run.images["seed"], run.scores["seed"]):
            assert sorted(found.unique()) == seeds
        lines = [json.loads(line) for line in (run.path / "trials.jsonl").read_text().splitlines()]
        assert sorted({line["seeds"][0] for line in lines}) == seeds
        assert frontier(run, resamples=50)["points"][0]["n_seeds"] == len(seeds)
        out = str(run.path)
        assert call("gate", "--baseline", out, "--candidate", out, "--margin-quality", "1", capsys=capsys)[0] == 0
        assert call("report", out, capsys=capsys)[0] == 0

    @pytest.mark.parametrize("seed", ["1.5", "-1", "1e3", str(2**64), "one", "0x10", "1_000", "1,5"])
    def test_that_are_none_are_refused(self, tmp_path: Path, seed: str) -> None:
        text = delimited(rows=[*ROWS, ["base", "p", seed, "1", "1"]])
        with pytest.raises(UsageError, match=re.escape(f"row 9 (line 10): seed = {seed!r}: must be a whole number")):
            import_table(write(tmp_path, "t.csv", text), tmp_path / "run")

    @pytest.mark.parametrize("seed", [1.5, -1.0, 2.0**60])
    def test_that_are_floats_of_parquet_must_be_whole_and_exact(self, tmp_path: Path, seed: float) -> None:
        file = tmp_path / "t.parquet"
        pl.DataFrame({"variant": ["a"], "prompt_id": ["p"], "seed": [seed], "energy_j": [3.0]}).write_parquet(file)
        with pytest.raises(UsageError, match=r"row 1: seed = .*must be a whole number"):
            import_table(file, tmp_path / "run")

    def test_written_as_floats_are_whole_numbers(self, tmp_path: Path) -> None:
        text = "variant,prompt_id,seed,energy_j\na,p,00012.0,1\n"
        assert import_table(write(tmp_path, "t.csv", text), tmp_path / "run").suite.protocol.seeds == (12,)


class TestUnits:
    @pytest.mark.parametrize(
        ("column", "cell", "joules"),
        [
            ("energy_wh", "2", 7200), ("Energy_kWh", "0.5", 1_800_000), ("ENERGY_KWH", "0.5", 1_800_000),
            ("energy_kj", "3", 3000), ("energy_mJ", "3", 0.003), ("energy_MJ", "3", 3_000_000), ("energy_mWh", "5", 18),
            ("energy_uJ", "5", 5e-6), ("energy [Wh]", "1", 3600), ("energy (kJ)", "1", 1000), ("energy_joules", "4", 4),
            ("energy_j_per_image", "4", 4),
        ],
    )  # fmt: skip
    def test_by_name_are_converted_with_a_note(self, tmp_path: Path, column: str, cell: str, joules: float) -> None:
        run = import_table(write(tmp_path, "t.csv", f"variant,{column}\na,{cell}\n"), tmp_path / "run")
        assert run.trials["energy_j"].to_list() == [pytest.approx(joules, rel=1e-15)]
        noted = [note for note in run.environment["import_notes"] if "was converted to energy_j" in note]
        assert len(noted) == (joules != float(cell))
        for note in noted:
            assert float(note.rpartition("times ")[2]) * float(cell) == pytest.approx(joules, rel=1e-15)

    def test_of_time_and_uncertainty_too(self, tmp_path: Path) -> None:
        text = "variant,energy_j,duration_ms,uncertainty_mJ\na,4,250,500\n"
        trials = import_table(write(tmp_path, "t.csv", text), tmp_path / "run").trials
        assert trials.select("duration_s", "uncertainty_j").row(0) == (0.25, 0.5)

    @pytest.mark.parametrize("column", ["energy_mj", "energy_Mj", "ENERGY_MJ", "energy_mwh", "uncertainty_mj"])
    def test_that_may_be_milli_or_mega_are_refused_with_both_spellings(self, tmp_path: Path, column: str) -> None:
        file = write(tmp_path, "t.csv", f"variant,quality:q,{column}\na,1,3\n")
        stem, unit = column.lower().split("_")
        milli = "m" + {"mj": "J", "mwh": "Wh"}[unit]
        with pytest.raises(
            UsageError, match=f"Name it {stem}_{milli} or {stem}_{milli.replace('m', 'M', 1)}, or convert"
        ):
            import_table(file, tmp_path / "run")

    @pytest.mark.parametrize("column", ["energy", "energy_kcal", "Energy consumption"])
    def test_that_are_not_named_are_asked_for(self, tmp_path: Path, column: str) -> None:
        for quality in ("", ",quality:q"):
            file = write(tmp_path, "t.csv", f"variant,{column}{quality}\na,3{quality and ',1'}\n")
            with pytest.raises(UsageError, match=re.escape(column) + ".*energy_Wh"):
                import_table(file, tmp_path / "run")


UNREADABLE: dict[str, tuple[str, Any, str]] = {
    "two numbers in one": ("t.csv", 'variant,energy_j\na,"1,234"\n', r"row 1 \(line 2\): energy_j = '1,234': a comma"),
    "thousands or decimals": ("t.tsv", "variant\tenergy_j\na\t1,234\n", "decimal comma or thousands"),
    "point and comma": (
        "t.csv",
        "variant;energy_j\na;1,5\nb;2.5\n",
        r"row 1 \(line 2\): energy_j = '1,5': .* row 2 has a point",
    ),
    "a unit in a cell": (
        "t.csv",
        "variant,energy_j\na,3 J\n",
        "energy_j = '3 J': not a number: put the unit into the name",
    ),
    "words": ("t.csv", "variant,energy_j\na,ten\n", r"row 1 \(line 2\): energy_j = 'ten': not a number"),
    "a missing cell": ("t.csv", "variant,energy_j\n\na,3\nb\n", r"row 2 \(line 4\): 1 fields under a header of 2"),
    "decimal comma unquoted": ("t.csv", "variant,energy_j\na,3,5\n", r"row 1 \(line 2\): 3 fields .* needs semicolons"),
    "open quote": ("t.csv", 'variant,energy_j\n"a,3\n', "line 2: cannot be read: .*close every quote"),
    "duplicate column": ("t.csv", "variant,energy_j,energy_j\na,1,2\n", "duplicate columns; keep one"),
    "two units": ("t.csv", "variant,energy_j,energy_wh\na,1,2\n", "mixed units or spellings; keep one"),
    "not UTF-8": ("t.csv", b"variant,energy_j\ncaf\xe9,3\n", "line 2, byte 20: not UTF-8: save it as UTF-8"),
    "no variant": ("t.csv", "model,energy_j\na,1\n", "column variant is missing"),
    "nothing at all": ("t.csv", "", "the table has no header and no rows"),
    "no rows": ("t.csv", "variant,energy_j\n", "the table has no rows"),
    "no rows of JSON": ("t.json", "[]", "column variant is missing"),
    "neither": ("t.csv", "variant,seed\na,1\n", "column energy_j is missing, and there is no column quality:<metric>"),
    "empty variant": ("t.csv", "variant,energy_j\na,1\n,2\n", r"row 2 \(line 3\): variant is empty in 1 rows"),
    "an infinite energy": ("t.jsonl", '{"variant": "a", "energy_j": Infinity}', "must be positive and finite"),
    "broken JSON": ("t.json", '[{"variant": "a",}]', "cannot be read"),
    "broken line": ("t.jsonl", '{"variant": "a", "energy_j": 1}\n{"variant"\n', "line 2: cannot be read"),
    "no object": ("t.jsonl", "[1, 2]", "line 1: not an object"),
    "nested": (
        "t.jsonl",
        '{"variant": ["a"], "energy_j": 1}',
        r"row 1 \(line 1\): variant = \[.*must be one text or number",
    ),
    "key twice": ("t.jsonl", '{"variant": "a", "variant": "b", "energy_j": 1}', "'variant' appears twice"),
    "unequal columns": ("t.json", '{"variant": ["a", "b"], "energy_j": [1]}', "columns of unequal length"),
    "half a character": ("t.jsonl", '{"variant": "\\ud800", "energy_j": 1}', "line 1: .*half a character"),
    "deep JSON": ("t.json", "[" * 100_000, "cannot be read"),
    "no table": ("t.json", "3", "not a table"),
    "not Parquet": ("t.parquet", "PAR1", "cannot be read"),
    "spreadsheet": ("t.xlsx", "", "give .csv, .tsv, .json"),
    "same image twice": (
        "t.csv",
        "variant,prompt_id,seed,energy_j\na,p,1,1\na,p,1,2\n",
        "appears 2 times: .*column block",
    ),
    "rows without prompts": (
        "t.csv",
        "variant,energy_j\na,1\na,2\n",
        r"row 2 \(line 3\): 2 rows belong to cell a, but their prompts",
    ),
    "rows without prompts, cell by cell": (
        "t.csv",
        "variant,energy_j\na,1\nb,1\na,2\nb,2\n",
        r"row 3 \(line 4\): 2 rows belong to cell a, but their prompts",
    ),
    "two texts of a prompt": (
        "t.csv",
        "variant,prompt_id,prompt,energy_j\na,p,x,1\nb,p,y,2\n",
        "prompt_id = 'p' has several prompts",
    ),
    "two roles": ("t.csv", "variant,prompt_id,role,energy_j\na,p,fixed,1\na,q,control,2\n", "several values of role"),
    "two boundaries": (
        "t.csv",
        "variant,prompt_id,boundary,energy_j\na,p,system,1\na,q,gpu-board,2\n",
        "different boundaries are not comparable",
    ),
    "one cell twice": ("t.csv", "variant,steps,energy_j\na,8,1\na-008,,2\n", "would share the cell a-008"),
    "policies that a name cannot tell apart": (
        "t.csv",
        "variant,role,policy,prompt_id,energy_j\na,predicted,p 1,x,1\na,predicted,p_1,y,2\n",
        "policies 'p 1' and 'p_1' would share the cell a@p_1: rename",
    ),
    "two step counts of a policy": (
        "t.csv",
        "variant,role,prompt_id,seed,steps,energy_j\na,predicted,p,1,4,1\na,predicted,p,1,8,2\n",
        "appears 2 times",
    ),
    "control characters": ("t.csv", 'variant,"quality:q\x1b[31m"\na,1\n', "control characters in the name of a metric"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_refused_in_words_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    file, content, words = UNREADABLE[name]
    table = write(tmp_path, file, content)
    with pytest.raises(UsageError, match=words) as caught:
        import_table(table, tmp_path / "deep" / "run")
    assert str(caught.value).startswith(str(table))
    assert [path.name for path in tmp_path.iterdir()] == [file]


def test_a_failure_after_the_table_was_read_leaves_nothing_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(run: Run) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("perjoule.importing.conversion.operating_points", fail)
    table = write(tmp_path, "t.csv", delimited())
    with pytest.raises(OSError, match="No space left on device") as caught:
        import_table(table, tmp_path / "deep" / "run")
    assert caught.value.filename == str(tmp_path / "deep" / "run")
    assert list(tmp_path.iterdir()) == [table]


def test_an_empty_directory_may_be_there_and_a_full_one_may_not(tmp_path: Path) -> None:
    table = write(tmp_path, "t.csv", delimited())
    (tmp_path / "run").mkdir()
    assert import_table(table, tmp_path / "run").path == tmp_path / "run"
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(UsageError, match="exists already"):
        import_table(table, tmp_path / "run")
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


class TestNothingIsMadeUp:
    def test_what_is_not_stated_is_absent(self, tmp_path: Path) -> None:
        run = import_table(write(tmp_path, "t.csv", delimited()), tmp_path / "run")
        trial = run.trials.row(0, named=True)
        for name in ("duration_s", "uncertainty_j", "nfe_per_image", "boundary", "net_energy_j", "idle_power_w"):
            assert trial[name] is None
        assert trial["steps"] == [None]
        assert trial["prompts"] == [None]
        assert trial["provenance"] == "not stated"
        assert trial["warnings"][0].startswith("W280: ")
        for row in run.points.iter_rows(named=True):
            for name in ("steps_mean", "nfe_mean", "duration_s_per_image", "energy_bound_j_per_image", "boundary"):
                assert row[name] is None
            assert row["provenance"] == "not stated"
        assert run.prompts == {}
        assert [v.steps for v in run.suite.variants] == [(), ()]

    def test_a_duration_that_some_rows_have_is_the_mean_of_those(self, tmp_path: Path) -> None:
        text = "variant,prompt_id,energy_j,duration_s\na,p,1,4\na,q,2,\nb,p,1,\nb,q,1,\n"
        points = import_table(write(tmp_path, "t.csv", text), tmp_path / "run").points
        assert dict(points.select("cell_id", "duration_s_per_image").iter_rows()) == {"a": 4.0, "b": None}

    def test_seeds_that_are_not_stated_are_not_counted(self, tmp_path: Path) -> None:
        text = "variant,prompt_id,energy_j,quality:q\na,p,1,0.4\na,q,2,0.5\n"
        run = import_table(write(tmp_path, "t.csv", text), tmp_path / "run")
        assert run.suite.protocol.seeds == ()
        assert run.points.select("n_prompts", "n_seeds").row(0) == (2, 0)

    def test_a_joule_that_is_absent_has_no_provenance(self, tmp_path: Path) -> None:
        text = "variant,quality:q,provenance,boundary,energy_j\na,1,measured,system,\nb,2,measured,system,3\n"
        trials = import_table(write(tmp_path, "t.csv", text), tmp_path / "run").trials
        assert trials["provenance"].to_list() == [None, "measured"]
        assert trials["boundary"].to_list() == [None, "system"]

    def test_further_columns_are_ignored_with_a_note(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        table = write(tmp_path, "t.csv", "variant,energy_j,stepz,comment,\na,3,4,x,y\n")
        code, out, err = call("import", str(table), "--out", str(tmp_path / "run"), capsys=capsys)
        assert code == 0
        assert "note: column 'stepz' was ignored: did you mean steps?" in err
        assert "note: column 'comment' was ignored\n" in err
        assert "note: column '(no name)' was ignored\n" in err
        assert "note" not in out

    def test_the_suite_of_an_imported_run_cannot_be_run(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = import_table(write(tmp_path, "t.csv", delimited()), tmp_path / "run")
        code, _, err = call("plan", str(run.path / "suite.toml"), capsys=capsys)
        assert code == 2
        assert "it cannot be run" in err
        assert call("score", str(run.path), "--metric", "lsnr", capsys=capsys)[2].endswith("import it again\n")


class TestNeverAnAverage:
    @pytest.mark.parametrize(
        ("column", "values"),
        [
            ("device", ("A100", "H100")),
            ("batch_size", ("1", "8")),
            ("model", ("x/a", "x/b")),
            ("policy", ("one", "two")),
        ],
    )
    def test_over_devices_batch_sizes_models_and_policies(
        self, tmp_path: Path, column: str, values: tuple[str, str]
    ) -> None:
        rows = [f"a,p{i},8,{1 + 9 * place},{value}" for i in range(3) for place, value in enumerate(values)]
        table = write(tmp_path, "t.csv", "\n".join([f"variant,prompt_id,steps,energy_j,{column}", *rows]))
        run = import_table(table, tmp_path / "run")
        assert sorted(run.points["energy_j_per_image"]) == [1.0, 10.0]
        assert run.points["cell_id"].n_unique() == run.points["variant"].n_unique() == 2
        assert any(
            f"several values of {column} ({values[0]}, {values[1]})" in n for n in run.environment["import_notes"]
        )

    def test_over_a_device_that_some_rows_do_not_state(self, tmp_path: Path) -> None:
        table = write(tmp_path, "t.csv", "variant,prompt_id,energy_j,device\na,p,1,A100\na,q,10,\n")
        assert import_table(table, tmp_path / "run").points["cell_id"].to_list() == ["a_A100", "a_unstated"]

    def test_repeats_are_rounds_of_the_same_image(self, tmp_path: Path) -> None:
        rows = ["a,p,1,0,10,0.5", "a,p,1,1,14,0.5", "a,q,1,0,5,0.1", "a,q,1,1,7,0.3"]
        text = "\n".join(["variant,prompt_id,seed,block,energy_j,quality:q", *rows])
        run = import_table(write(tmp_path, "t.csv", text), tmp_path / "run")
        assert run.trials["block"].to_list() == [0, 1, 0, 1]
        assert run.trials["trial_id"].n_unique() == 4
        # p was scored once; q was scored twice and differently, so it has two scores
        assert sorted(run.scores["image_id"]) == ["a.p.s1", "a.q.s1", "a.q.s1.b1"]
        point = run.points.row(0, named=True)
        assert point["energy_j_per_image"] == pytest.approx((12 + 6) / 2)
        assert point["quality"] == pytest.approx((0.5 + 0.2) / 2)

    def test_ids_with_dots_do_not_collide(self, tmp_path: Path) -> None:
        text = "variant,prompt_id,seed,energy_j,quality:q\na,b.c,1,1,0.1\na.b,c,1,2,0.9\n"
        run = import_table(write(tmp_path, "t.csv", text), tmp_path / "run")
        assert run.images["image_id"].n_unique() == run.trials["trial_id"].n_unique() == 2
        assert dict(run.points.select("cell_id", "quality").iter_rows()) == pytest.approx({"a": 0.1, "a.b": 0.9})

    def test_variants_that_a_name_cannot_tell_apart_stay_two(self, tmp_path: Path) -> None:
        text = "variant,energy_j\n模型甲,1\n模型乙,2\nSD 1.5,3\nSD_1.5,4\n"
        run = import_table(write(tmp_path, "t.csv", text), tmp_path / "run")
        assert sorted(run.points["energy_j_per_image"]) == [1.0, 2.0, 3.0, 4.0]


def test_the_weakest_provenance() -> None:
    assert weakest([]) is weakest([None]) is None
    assert [weakest(PROVENANCES[i:]) for i in range(4)] == ["simulated", "not stated", "estimated", "measured"]
    assert weakest(["measured", None, "not stated"]) == "not stated"
    assert {"W280", "W281"} < set(WARNINGS)


# -- properties --------------------------------------------------------------------------------------------------------

names = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Z", "Cn")), min_size=1, max_size=8)
prompts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=20)
energies = st.floats(1e-6, 1e9)
qualities = st.one_of(st.none(), st.floats(-1e6, 1e6))


@st.composite
def foreign_rows(draw: st.DrawFn) -> list[tuple[str, str, str, int, float, float | None]]:
    keys = draw(
        st.lists(
            st.tuples(names, names, st.integers(0, 2**64 - 1)), min_size=1, max_size=6, unique_by=lambda key: key[1:]
        )
    )
    texts = {prompt_id: draw(prompts) for _, prompt_id, _ in keys}
    return [(v, p, texts[p], s, draw(energies), draw(qualities)) for v, p, s in keys]


WIDE_HEADER = ["variant", "prompt_id", "prompt", "seed", "energy_j", "quality:q"]


@pytest.mark.slow
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(rows=foreign_rows(), data=st.data())
def test_a_written_table_reads_back_as_it_was(tmp_path: Path, rows: list[tuple[Any, ...]], data: st.DataObject) -> None:
    """CSV dialects × encodings × formats: the same names, whole numbers and floats, to the last bit."""
    kind = data.draw(st.sampled_from(["csv", "jsonl", "json", "parquet"]))
    file = tmp_path / f"table.{kind}"
    if kind == "csv":
        separator = data.draw(st.sampled_from(",;\t|"))
        comma = separator == ";" and data.draw(st.booleans())
        out = io.StringIO()
        writer = csv.writer(
            out, delimiter=separator, quoting=data.draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])),
            lineterminator=data.draw(st.sampled_from(["\n", "\r\n"])),
        )  # fmt: skip
        writer.writerow(WIDE_HEADER)
        for *texts, seed, energy, quality in rows:
            numbers = [str(seed), repr(energy), "" if quality is None else repr(quality)]
            writer.writerow([*texts, *(n.replace(".", ",") for n in numbers)] if comma else [*texts, *numbers])
        encoding = data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]))
        if encoding in ("utf-16-le", "utf-16-be"):
            file.write_bytes(("\ufeff" + out.getvalue()).encode(encoding))
        else:
            file.write_bytes(out.getvalue().encode(encoding))
    else:
        table = [dict(zip(WIDE_HEADER, row, strict=True)) for row in rows]
        if kind == "json":
            file.write_text(json.dumps(table))
        elif kind == "jsonl":
            file.write_text("\n".join(map(json.dumps, table)))
        else:
            pl.DataFrame(table, schema_overrides={"seed": pl.UInt64, "quality:q": pl.Float64}).write_parquet(file)
    found = read_table(file)
    assert found.texts("variant").to_list() == [row[0] for row in rows]
    assert found.texts("prompt_id").to_list() == [row[1] for row in rows]
    assert found.texts("prompt").to_list() == [row[2] or None for row in rows]
    assert found.whole_numbers("seed", 0, 2**64 - 1).to_list() == [row[3] for row in rows]
    decimal_comma = found.decimal_comma(["energy_j", "quality:q"])
    assert found.numbers("energy_j", decimal_comma).to_list() == [row[4] for row in rows]
    assert found.numbers("quality:q", decimal_comma).to_list() == [row[5] for row in rows]


def mutated(chance: random.Random, text: str) -> bytes:
    """A table with some harm done to it."""
    lines = text.split("\n")
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        row = chance.randrange(len(lines))
        cells = lines[row].split(",")
        place = chance.randrange(len(cells))
        harm = chance.randrange(12)
        if harm == 0:
            cells[place] = chance.choice(
                ["", "NaN", "inf", "-1", "1e400", "3 J", "1,5", '"', "'", "\0", "nul\x00l", "-"]
            )
        elif harm == 1:
            cells[place] = chance.choice(
                ["٣", "½", "\u202e1", "💡" * 50, "x" * 200_000, "=1+1", "../../etc/passwd", "*"]
            )
        elif harm == 2:
            cells.insert(place, chance.choice(["", "extra"]))
        elif harm == 3:
            del cells[place]
        elif harm == 4:
            lines.insert(row, chance.choice(["", "# a comment", ",,,,,", "sep=;", lines[row], lines[0]]))
        elif harm == 5:
            cells[place] = cells[place].upper() + " "
        elif harm == 6:
            lines[0] = lines[0].replace(
                *chance.choice(
                    [("energy_j", "energy_mj"), ("energy_j", "energy_kWh"), ("seed", "variant"), (",", ";"),
                     ("quality:q", "quality:"), ("steps", "block"), ("prompt_id", "prompt"), ("variant", "")]
                )
            )  # fmt: skip
            continue
        elif harm == 7:
            chance.shuffle(lines)
            continue
        elif harm == 8:
            lines = lines[: row + 1]
            continue
        elif harm == 9:
            lines = [line.replace(",", chance.choice([";", "\t", ", "])) for line in lines]
            continue
        elif harm == 10:
            cells[place] = str(chance.choice([2**64, 2**64 - 1, -(2**63), 10**30, 0, 1.5]))
        else:
            cells[place] = chance.choice(["simulated", "gpu-board", "predicted", "not stated", "fixed", "system"])
        if row < len(lines):
            lines[row] = ",".join(cells)
    raw = "\n".join(lines).encode(
        chance.choice(["utf-8", "utf-8", "utf-8", "utf-16", "utf-16-le", "latin-1"]), "replace"
    )
    for _ in range(chance.choice([0, 0, 0, 0, 0, 0, 1, 5])):
        at = chance.randrange(len(raw) + 1)
        raw = raw[:at] + bytes([chance.randrange(256)]) + raw[at + chance.randint(0, 3) :]
    return raw


@pytest.mark.slow
def test_mutated_tables_import_or_are_refused_in_words(tmp_path: Path) -> None:
    chance = random.Random(20_261_128)
    rows = [
        f"{variant},{prompt},{seed},{steps},{1.5 * steps + seed},0.{prompt}{steps},{role},measured,gpu-board"
        for variant, role in (("a", "fixed"), ("b", "predicted"))
        for prompt in range(3)
        for seed in (1, 2)
        for steps in ((4, 8) if role == "fixed" else (4 + 4 * (prompt % 2),))
    ]
    text = "\n".join(["variant,prompt_id,seed,steps,energy_j,quality:q,role,provenance,boundary", *rows])
    imported, refusals = 0, []
    for number in range(300):
        suffix = chance.choice([".csv", ".csv", ".csv", ".tsv", ".json"])
        table, out = write(tmp_path, f"t{number}{suffix}", mutated(chance, text)), tmp_path / f"out{number}"
        try:
            run = import_table(table, out)
        except UsageError as error:
            refusals.append((str(table), str(error), out.exists()))
            continue
        imported += 1
        assert run.trials["energy_j"].drop_nulls().is_between(0, float("inf"), closed="none").all()
        with suppress(PerjouleError):
            frontier(run, resamples=20)
    assert imported > 30
    assert len(refusals) > 50
    assert [r for r in refusals if not r[1].startswith(r[0]) or r[2]] == []
    assert not list(tmp_path.glob(".perjoule-new-*"))


@pytest.mark.slow
def test_mutated_json_and_parquet_import_or_are_refused_in_words(tmp_path: Path) -> None:
    chance = random.Random(7)
    lines = [json.dumps(row) for row in records()]
    file = tmp_path / "t.parquet"
    pl.DataFrame(records()).write_parquet(file)
    sources = {"jsonl": "\n".join(lines).encode(), "json": json.dumps(records()).encode(), "parquet": file.read_bytes()}
    refusals = []
    for number in range(210):
        suffix = ("jsonl", "json", "parquet")[number % 3]
        raw = bytearray(sources[suffix])
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(raw))
            raw[at : at + chance.randint(0, 2)] = chance.choice(
                [b"", b"[", b"}", b'"', b"null", b"1e9", b"\xff", b"NaN", b"-"]
            )
        table, out = write(tmp_path, f"m{number}.{suffix}", bytes(raw)), tmp_path / f"out{number}"
        try:
            import_table(table, out)
        except UsageError as error:
            refusals.append((str(table), str(error), out.exists()))
    assert refusals
    assert [r for r in refusals if not r[1].startswith(r[0]) or r[2]] == []
