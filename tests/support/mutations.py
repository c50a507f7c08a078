"""Valid inputs of perjoule, and seeded ways of damaging them: what `test_mutated_inputs` and the long fuzz feed it."""

from __future__ import annotations

import io
import json
import random
import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import tomli_w

# written into JSON and TOML as a bare number with more digits than Python converts
_HUGE = "@huge@"
_DIGITS = "1" * 5000


# what is raised while an input is made that its format cannot hold; such cases are left out
UNWRITABLE = (RecursionError, TypeError, ValueError, OverflowError, pl.exceptions.PolarsError)

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 7, 0.5, -0.5, 1e308, -1e308, 1e-320, float("nan"), float("inf"), float("-inf"),
    2**31, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**40, -(2**63) - 1, _HUGE,
    "", " ", "\t", "\n", "\0", "a\0b", "\ud800", "é", "😀", "\u202eabc", "\x1b[31mred", "x" * 70_000, "a\nb", "../up",
    "/etc/passwd", "~nobody-here/x", ".", "..", "a/b/c/d", "builtin:", "builtin:sd-tiny", "builtin:nope",
    "hub:", "hub:a/b",
    "public:", "public:nope", "http://", "file:///etc", "1", "nan", "inf", "-inf", "1e400", "=1+1", "<script>",
    "{}", "{0}",
    "%s", "[", "]]", "'", '"', "\\", "auto", "none", "imported", "measured", "not stated", "W203", "*",
    [], {}, [[]], [None], [1, 1], ["a", 1], {"a": 1}, {"": ""}, {"a": {"b": [1]}}, [[1, 2], [3]], [0.1] * 3,
    ["a"] * 50,
)  # fmt: skip


def odd(chance: random.Random) -> Any:
    """A value that fits few places."""
    if chance.random() < 0.02:
        value: Any = 1
        for _ in range(chance.choice((60, 400, 3000))):
            value = [value] if chance.random() < 0.5 else {"a": value}
        return value
    return deepcopy(chance.choice(ODD))


def _places(value: Any, limit: int = 400) -> list[tuple[Any, Any]]:
    """(container, key) of every value inside."""
    found: list[tuple[Any, Any]] = []
    todo = [value]
    while todo and len(found) < limit:
        here = todo.pop(0)
        keys = list(here) if isinstance(here, dict) else range(len(here)) if isinstance(here, list) else ()
        for key in keys:
            found.append((here, key))
            todo.append(here[key])
    return found


def mutated(value: Any, chance: random.Random) -> Any:
    """A copy of a JSON value with one to three changes somewhere inside."""
    root = [deepcopy(value)]
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        places = _places(root)
        here, key = chance.choice(places[1:] or places) if chance.random() < 0.97 else places[0]
        other, key2 = chance.choice(places)
        match chance.randrange(9):
            case 0 if here is not root:
                del here[key]
            case 1 if isinstance(here, list):
                here.insert(key, deepcopy(here[key]))
            case 2 if isinstance(here, dict):
                name = odd(chance)
                here[name if isinstance(name, str) else str(key) + "x"] = here.pop(key)
            case 3:
                here[key] = chance.choice(([here[key]], {"a": here[key]}, [here[key], here[key]], str(here[key])[:99]))
            case 4:
                here[key] = deepcopy(other[key2]) if other is not root else odd(chance)
            case 5 if isinstance(here[key], dict):
                here[key]["extra"] = odd(chance)
            case 6 if isinstance(here[key], int | float) and not isinstance(here[key], bool):
                here[key] = chance.choice(
                    (-here[key], here[key] * 1000, here[key] / 3, str(here[key]), 0, here[key] + 0.5)
                )
            case _:
                here[key] = odd(chance)
    return root[0]


def json_bytes(value: Any, indent: int | None = None) -> bytes:
    """JSON, with lone surrogates escaped and huge integers written out."""
    return json.dumps(value, indent=indent).replace(json.dumps(_HUGE), _DIGITS).encode()


def toml_bytes(value: Any) -> bytes:
    """TOML; null is left out, as TOML has none."""

    def plain(part: Any) -> Any:
        if isinstance(part, dict):
            return {str(k): plain(v) for k, v in part.items() if v is not None}
        if isinstance(part, list):
            return [plain(v) for v in part if v is not None]
        return part

    text = tomli_w.dumps(plain(value) if isinstance(value, dict) else {"a": plain(value)})
    return text.replace(json.dumps(_HUGE), _DIGITS).encode("utf-8", "surrogatepass")


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Bytes with one or two changes, as a crash, an editor, another program or a hand makes them."""
    for _ in range(chance.choice((1, 1, 2))):
        size = len(content)
        start = chance.randrange(size + 1)
        end = min(size, start + chance.choice((1, 2, 10, 100, 1000)))
        lines = content.splitlines(keepends=True)
        line = chance.randrange(len(lines)) if lines else 0
        match chance.randrange(17):
            case 0:
                content = content[:start]
            case 1:
                content = content[:start] + content[end:]
            case 2:
                content = content[:end] + content[start:end] + content[end:]
            case 3:
                content = content[:start] + chance.randbytes(end - start) + content[end:]
            case 4:
                content = content[:start] + b"\0" * chance.choice((1, 16)) + content[start:]
            case 5:
                content = (
                    content[:start] + chance.choice((b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf5\xbf")) + content[start:]
                )
            case 6:
                content = chance.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\n\n", b"#", b" ")) + content
            case 7:
                content = content.decode("utf-8", "replace").encode(
                    chance.choice(("utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252", "utf-7")),
                    "replace",
                )
            case 8:
                content = content.replace(
                    b"\n", chance.choice((b"\r\n", b"\r", b"\n\n", b"\x0b", "\u2028".encode(), b" "))
                )
            case 9:
                content = b""
            case 10:
                content += chance.choice((b"garbage", b"\0", b"{", b"}", b'"', b"\n\n", b",", b"\xff", b"\x1a"))
            case 11:
                content = b"".join(lines[:line] + lines[line + 1 :])
            case 12:
                content = b"".join(lines[:line] + lines[line : line + 1] * 2 + lines[line + 1 :])
            case 13:
                chance.shuffle(lines)
                content = b"".join(lines)
            case 14:
                content = content[:start] + b"x" * 100_000 + content[start:]
            case 15:  # a number becomes another
                numbers = list(re.finditer(rb"\d+(\.\d+)?", content[:20_000]))
                if numbers:
                    found = chance.choice(numbers)
                    new = chance.choice(
                        (b"-1", b"0", b"1e999", b"NaN", _DIGITS.encode(), b"18446744073709551616", b"null")
                    )
                    content = content[: found.start()] + new + content[found.end() :]
            case 16:
                content = chance.choice((b"[" * 3000, b'{"a":' * 3000, b"a." * 3000, b"a = " + b"[" * 3000)) + content
    return content


# -- tables ------------------------------------------------------------------------------------------------------------

CELLS = (
    "", " ", "nan", "NaN", "NA", "null", "None", "inf", "-inf", "1e400", "-1", "0", "1,5", "1.5", "1 000", "1.000,5",
    "1_000", "0x10", "\u0661\u0662", "=1+1", '"', "'", "a\nb", "\0", "\x1b[1m", "\u202eb", "é", "😀",
    "x" * 5000, "TRUE",
    "2024", "007", "1.10", "1e001", "18446744073709551615", "18446744073709551616", "-0", "5 J", "5%", "measured",
    "estimated", "not stated", "gpu", "system", "machine", "fixed", "predicted", "control", "peek",
    "distilled", "*", "#", ";",
    "..", "a/b", "<b>", "|", "1e-320", "1e308", "9" * 400,
)  # fmt: skip
HEADERS = (
    "variant", "prompt_id", "seed", "energy_j", "energy_kWh", "energy_Wh", "Energy (J)", "energy_mJ",
    "ENERGY_MJ", "duration_s",
    "duration_ms", "uncertainty_j", "quality:q", "quality:r", "quality:", "Quality: Q ", "quality:a/b",
    "quality:\x1b[1m",
    "quality:=1", "n", "block", "batch_size", "device", "model", "role", "policy", "steps", "nfe_per_image",
    "provenance",
    "boundary", "family", "prompt", "category", "challenge", "", " ", "é", "Seed", "notes", "trial_id", "cell_id",
)  # fmt: skip


def base_table(chance: random.Random) -> tuple[list[str], list[list[str]]]:
    """A header and rows that import."""
    header = ["variant", "prompt_id", "seed", "steps", "energy_j", "duration_s", "quality:q"]
    prompts, seeds = chance.choice((2, 5, 24)), chance.choice((1, 2))
    rows = [
        [name, f"p{prompt:02d}", str(seed), str(steps), f"{cost * steps * chance.uniform(0.9, 1.1):.4f}",
         f"{steps / 10}", f"{1 - 1 / steps + chance.gauss(0, 0.05):.4f}"]
        for name, cost in (("base", 2.0), ("new", 1.5))
        for steps in (2, 8)
        for prompt in range(prompts)
        for seed in range(seeds)
    ]  # fmt: skip
    for name in chance.sample(
        ("prompt", "device", "model", "provenance", "boundary", "policy", "role"), chance.choice((0, 0, 1, 2))
    ):
        header.append(name)
        value = {"prompt": None, "provenance": "measured", "boundary": "gpu", "role": "fixed"}.get(name, "one")
        for row in rows:
            row.append(f"the prompt {row[1]}" if value is None else value)
    return header, rows


def mutate_table(header: list[str], rows: list[list[str]], chance: random.Random) -> None:
    """Change cells, rows and columns in place."""
    for _ in range(chance.choice((0, 1, 1, 2, 3))):
        column = chance.randrange(len(header)) if header else 0
        match chance.randrange(12):
            case 0 | 1 | 2 if rows:
                chance.choice(rows)[column] = chance.choice(CELLS)
            case 3:
                value = chance.choice(CELLS)
                for row in rows:
                    row[column] = value
            case 4 if len(header) > 1:
                del header[column]
                for row in rows:
                    del row[column]
            case 5:
                header[column] = chance.choice(HEADERS)
            case 6:
                header.append(chance.choice(HEADERS))
                value = chance.choice(CELLS)
                for row in rows:
                    row.append(value if chance.random() < 0.9 else chance.choice(CELLS))
            case 7:
                header[column] = chance.choice((header[column].upper(), f" {header[column]} ", header[column].title()))
            case 8 if rows:
                rows.append(list(chance.choice(rows)))
            case 9:
                chance.shuffle(rows)
            case 10:
                del rows[chance.choice((0, 1, 3)) :]
            case 11:
                for row in rows:
                    row[column] = str(hash((row[column], 1)) % 97)


def write_table(header: Sequence[str], rows: Sequence[Sequence[str]], folder: Path, chance: random.Random) -> Path:
    """The table in some dialect, encoding and format."""
    kind = chance.choice((".csv", ".csv", ".csv", ".tsv", ".json", ".jsonl", ".parquet", ".txt", ".CSV"))
    path = folder / f"table{kind}"
    records = [{name: _typed(cell, chance) for name, cell in zip(header, row, strict=True)} for row in rows]
    match kind:
        case ".json":
            shape = chance.randrange(4)
            columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}
            value: Any = (
                records,
                columns,
                {"columns": list(header), "data": [list(row) for row in rows]},
                {"rows": records},
            )[shape]
            path.write_bytes(json_bytes(mutated(value, chance) if chance.random() < 0.3 else value))
        case ".jsonl":
            content = b"".join(json_bytes(mutated(r, chance) if chance.random() < 0.02 else r) + b"\n" for r in records)
            path.write_bytes(content)
        case ".parquet":
            frame = pl.DataFrame({name: [row[i] for row in rows] for i, name in enumerate(header)}, strict=False)
            for name in frame.columns:
                if chance.random() < 0.7:
                    kind_of = chance.choice(
                        (pl.Float64, pl.Int64, pl.Float32, pl.Categorical, pl.String, pl.UInt64, pl.Boolean)
                    )
                    try:
                        frame = frame.with_columns(pl.col(name).cast(kind_of))
                    except pl.exceptions.PolarsError:
                        frame = frame.with_columns(pl.col(name).cast(pl.Float64, strict=False))
            if chance.random() < 0.1:
                frame = frame.with_columns(pl.Series(chance.choice(frame.columns), [[1]] * len(frame)))
            if chance.random() < 0.1:
                dated = pl.Series(chance.choice(frame.columns), [datetime(2026, 1, 1, tzinfo=UTC)] * len(frame))
                frame = frame.with_columns(dated)
            frame.write_parquet(path)
        case _:
            separator = chance.choice((",", ",", ";", "\t", "|", " "))
            quote = chance.random() < 0.3
            text = "\n".join(
                separator.join(f'"{c}"' if quote or separator in c or "\n" in c else c for c in row)
                for row in (header, *rows)
            )
            if separator == ";" and chance.random() < 0.5:
                text = re.sub(r"(\d)\.(\d)", r"\1,\2", text)
            if chance.random() < 0.1:
                text = f"sep={separator}\n{text}"
            if chance.random() < 0.1:
                text = "# a comment\n" + text
            if chance.random() < 0.1:
                text = text.replace(separator, separator + " ")
            encoding = chance.choice(
                ("utf-8",) * 5 + ("utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252", "utf-32")
            )
            end = chance.choice(("\n", "\n", "\r\n", "\r"))
            path.write_bytes((text + "\n").replace("\n", end).encode(encoding, "replace"))
    if chance.random() < 0.2:
        path.write_bytes(damaged(path.read_bytes(), chance))
    return path


def _typed(cell: str, chance: random.Random) -> Any:
    try:
        return float(cell) if "." in cell else int(cell)
    except ValueError:
        return cell if chance.random() < 0.95 else odd(chance)


# -- files of a run ----------------------------------------------------------------------------------------------------


def damage_file(path: Path, chance: random.Random) -> None:
    """Damage one file of a run, model folder or store, as its format suggests."""
    content = path.read_bytes()
    if chance.random() < 0.05:
        path.unlink()
        if chance.random() < 0.3:
            path.mkdir()
        return
    if chance.random() < 0.35:
        path.write_bytes(damaged(content, chance))
        return
    match path.suffix:
        case ".json":
            path.write_bytes(json_bytes(mutated(json.loads(content), chance), 1))
        case ".jsonl":
            rows = [json.loads(line) for line in content.splitlines()]
            if rows and chance.random() < 0.6:
                at = chance.randrange(len(rows))
                rows[at] = mutated(rows[at], chance)
            elif rows:
                rows = mutated(rows, chance)
            path.write_bytes(b"".join(json_bytes(row) + b"\n" for row in (rows if isinstance(rows, list) else [rows])))
        case ".toml":
            import tomllib

            path.write_bytes(toml_bytes(mutated(tomllib.loads(content.decode()), chance)))
        case ".parquet":
            path.write_bytes(_odd_parquet(content, chance))
        case _:
            path.write_bytes(damaged(content, chance))


_NUMBERS = (None, 0, -1, 1e308, float("nan"), float("inf"), float("-inf"), 2**40, 0.5)
_TEXTS = (
    None,
    "",
    "x",
    "../../etc/passwd",
    "/etc/passwd",
    "\0",
    "a" * 9000,
    "\x1b[31m",
    "😀",
    "gpu",
    "measured",
    "lower",
)


def _odd_parquet(content: bytes, chance: random.Random) -> bytes:
    frame = pl.read_parquet(content)
    for _ in range(chance.choice((1, 1, 2))):
        if not frame.columns:
            break
        name = chance.choice(frame.columns)
        kind = frame.schema[name]
        match chance.randrange(9):
            case 0:
                frame = frame.drop(name)
            case 1:
                frame = frame.rename({name: name + "x"})
            case 2:
                frame = frame.with_columns(pl.lit(None, kind).alias(name))
            case 3:
                frame = frame.clear() if chance.random() < 0.5 else frame.head(len(frame) // 2)
            case 4:
                frame = pl.concat([frame, frame.head(3)])
            case 5:
                frame = frame.with_columns(pl.lit(chance.choice((1, "a", 1.5, True))).alias(name))
            case 6:
                frame = frame.with_columns(pl.col(name).reverse())
            case _:
                value = chance.choice(_TEXTS if kind == pl.String else _NUMBERS)
                row = chance.randrange(max(1, len(frame)))
                every = chance.random() < 0.3
                new = (
                    pl.lit(value)
                    if every
                    else pl.when(pl.int_range(pl.len()) == row).then(pl.lit(value)).otherwise(name)
                )
                try:
                    frame = frame.with_columns(new.cast(kind, strict=False).alias(name))
                except pl.exceptions.PolarsError:
                    frame = frame.with_columns(pl.lit(None, kind).alias(name))
    out = io.BytesIO()
    frame.write_parquet(out)
    return out.getvalue()


def files_below(folder: Path, wanted: Callable[[Path], bool] = lambda path: True) -> list[Path]:
    """All files, in a fixed order."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and wanted(path))
