"""Kinds of damaged inputs: each takes a seeded generator and a folder, and yields commands with what is wrong there."""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import shutil
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.support.driving import Ended, drive, fakes, left_behind
from tests.support.mutations import (
    UNWRITABLE,
    base_table,
    damage_file,
    damaged,
    files_below,
    json_bytes,
    mutate_table,
    mutated,
    odd,
    toml_bytes,
    write_table,
)
from tests.support.suites import suite_text

TEXTS = "a large red circle on a white ground\na blue star left of a green ring\n"
SUITE = suite_text(
    {
        "steps": [1, 3],
        "guidance": 3.0,
        "width_px": 32,
        "height_px": 32,
        "scheduler": "DDIMScheduler",
        "family": "sd",
    },
    {"name": "other", "steps": [2], "guidance_mode": "none", "guidance": 1.0, "negative_prompt": "grey"},
    protocol={
        "seeds": [1, 2],
        "batch_size": 2,
        "blocks": 1,
        "iterations": 1,
        "warmup_iterations": 0,
        "idle_s": 0.0,
        "cooldown_s": 0.0,
        "order_seed": 0,
        "threads": 1,
        "max_uncertainty": 0.05,
    },
)
TINY = (
    SUITE.split("[[variants]]")[0] + '[[variants]]\nname = "tiny"\nmodel = "{model}"\nsteps = [1, 2]\nguidance = 3.0\n'
)

Faults = Iterator[tuple[Ended, list[str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """Valid inputs, made once: all cases damage copies of them."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Stock:
        """A suite, a run of it by fakes, a stopped run, an imported run, stored baselines, a model."""
        (folder / "prompts.txt").write_text(TEXTS)
        (folder / "suite.toml").write_text(SUITE)
        with fakes():
            done = drive("run", folder / "suite.toml", "--out", folder / "own", "--quiet")
            assert done.code == 0, done
            cut = drive("run", folder / "suite.toml", "--out", folder / "cut", "--quiet", "--max-joules", "60")
            assert cut.code == 130, cut
        header, rows = base_table(random.Random(3))
        table = folder / "table.csv"
        table.write_text("\n".join(",".join(row) for row in (header, *rows)) + "\n")
        done = drive("import", table, "--out", folder / "imported")
        assert done.code == 0, done
        from perjoule.gating.baselines import save
        from perjoule.runs.directory import load_run

        for name in ("own", "imported"):
            save(load_run(folder / name), name, folder / "store" / ".perjoule" / "baselines")
        from perjoule.weights.models import resolve_model

        shutil.copytree(resolve_model("builtin:sd-tiny", ""), folder / "model", copy_function=shutil.copyfile)
        return cls(folder=folder)

    def run(self, name: str, place: Path) -> Path:
        """A copy of a run."""
        return Path(shutil.copytree(self.folder / name, place / name))

    def suite(self, place: Path) -> Path:
        """A copy of the suite and its prompts."""
        shutil.copyfile(self.folder / "prompts.txt", place / "prompts.txt")
        return Path(shutil.copyfile(self.folder / "suite.toml", place / "suite.toml"))


def judged(ended: Ended, where: Path | None = None, *more: str) -> tuple[Ended, list[str]]:
    """The faults of a command; with `where`, an error has to name a file or folder below it."""
    found = [*ended.faults(), *more]
    # what a sound input may end with names no file
    elsewhere = ("recommend: no cell", "trials failed", "images of one model only", "declares no margin")
    names = where is None or where.name in ended.err + ended.out or any(words in ended.err for words in elsewhere)
    if ended.code in (2, 4) and "perjoule: " in ended.err and where is not None and not names:
        found.append(f"the message does not name {where.name}")
    return ended, found


def used(run: Path, chance: random.Random, place: Path, stock: Stock, count: int = 3) -> Faults:
    """Some commands that read a run."""
    commands: list[tuple[str | Path, ...]] = [
        ("frontier", run),
        ("frontier", run, "--json"),
        ("frontier", run, "--format", chance.choice(("md", "csv"))),
        ("gate", "--baseline", run, "--candidate", run, "--margin-quality", "0.2"),
        ("gate", "--baseline", run, "--candidate", stock.folder / chance.choice(("own", "imported")), "--json"),
        ("gate", "--baseline", stock.folder / chance.choice(("own", "imported")), "--candidate", run, "--session-sd",
         "3%"),
        ("gate", "--baseline", chance.choice(("own", "imported")), "--candidate", run, "--markdown", place / "v.md",
         "--junit", place / "v.xml", "--joules-per-quality", "3"),
        ("recommend", run, "--max-joules", "30"),
        ("recommend", run, "--min-quality", "0.1", "--json"),
        ("recommend", run, "--min-quality", "0.1", "--by-point"),
        ("report", run),
        ("report", run, "--baseline", stock.folder / chance.choice(("own", "imported")), "--out", place / "page.html"),
        ("plan", stock.folder / "suite.toml", "--from", run),
        ("plan", stock.folder / "suite.toml", "--from", run, "--json"),
        ("baseline", "save", "kept", run),
    ]  # fmt: skip
    for command in chance.sample(commands, count):
        yield judged(drive(*command), place)


def table(chance: random.Random, place: Path, stock: Stock) -> Faults:
    """(a) Tables for import."""
    header, rows = base_table(chance)
    mutate_table(header, rows, chance)
    file = write_table(header, rows, place, chance)
    before = left_behind(place)
    options = chance.choice(((), (), (), ("--lower", "q"), ("--bounds", "q=0:1"), ("--fidelity", "q"), ("--json",)))
    ended = drive("import", file, "--out", place / "made" / "run", *options)
    rest = left_behind(place) - before
    yield judged(ended, file, *([f"left behind: {sorted(rest)}"] if ended.code and rest else []))
    if ended.code == 0:
        yield from used(place / "made" / "run", chance, place, stock, 4)


def suite(chance: random.Random, place: Path, stock: Stock) -> Faults:
    """(b) Suite files."""
    file = stock.suite(place)
    if chance.random() < 0.75:
        file.write_bytes(toml_bytes(mutated(tomllib.loads(SUITE), chance)))
    else:
        file.write_bytes(damaged(file.read_bytes(), chance))
    command = chance.choice(("plan", "plan", "doctor", "run", "dry"))
    more = chance.choice(((), (), (), ("--limit", "1"), ("--json",)))
    match command:
        case "plan":
            yield judged(drive("plan", file, "--offline", *more), place)
        case "doctor":
            yield judged(drive("doctor", "--suite", file, *(m for m in more if m == "--json")), place)
        case "dry":
            yield judged(drive("run", file, "--dry-run", "--offline", *more), place)
        case "run":
            yield from rehearsed(file, place)


def rehearsed(file: Path, place: Path) -> Faults:
    """`run --smoke` by fakes; a run that is refused leaves no directory."""
    with fakes():
        ended = drive("run", file, "--smoke", "--offline", "--out", place / "out" / "run")
    rest = ended.code in (2,) and (place / "out").exists()
    yield judged(ended, place, *(["a refused run left its directory"] if rest else []))


def prompts(chance: random.Random, place: Path, stock: Stock) -> Faults:
    """(c) Prompt files."""
    file = stock.suite(place)
    texts = TEXTS.splitlines() * chance.choice((1, 2))
    texts = [
        chance.choice((t, t, str(odd(chance)), t + chance.choice(("\0", "\r", "\x0b", "\u2028", " " * 99))))
        for t in texts
    ]
    suffix = chance.choice((".txt", ".tsv", ".csv", ".json", ".jsonl", ".parquet", ".prompts", ".TXT"))
    path = place / f"prompts{suffix}"
    rows: list[Any] = [{"prompt": t, "category": chance.choice(("a", "b", "")), "challenge": "c"} for t in texts]
    if chance.random() < 0.4:
        rows = mutated(rows, chance)
    match suffix:
        case ".json":
            value = chance.choice(
                (rows, texts, {"annotations": [{"id": i, "image_id": 1, "caption": t} for i, t in enumerate(texts)]})
            )
            content = json_bytes(mutated(value, chance) if chance.random() < 0.4 else value)
        case ".jsonl":
            content = b"".join(json_bytes(row) + b"\n" for row in (rows if isinstance(rows, list) else [rows]))
        case ".parquet":
            import io

            import polars as pl

            columns = {"prompt": chance.choice((texts, [1] * len(texts), [[t] for t in texts], [None] * len(texts)))}
            columns["category"] = chance.choice((["a"] * len(texts), [None] * len(texts), list(range(len(texts)))))
            try:
                frame = pl.DataFrame(columns, strict=False)
            except (ValueError, TypeError, UnicodeError):
                return
            out = io.BytesIO()
            frame.write_parquet(out)
            content = out.getvalue()
        case ".tsv" | ".csv":
            mark = "\t" if suffix == ".tsv" else ","
            head = chance.choice(
                ("prompt", "Prompt", "text", "prompt" + mark + "category", "", "category", "prompt" + mark + "prompt")
            )
            content = "\n".join([head, *(t + chance.choice(("", mark + "b", mark * 3)) for t in texts)]).encode(
                "utf-8", "surrogatepass"
            )
        case _:
            content = "\n".join(texts).encode("utf-8", "surrogatepass")
    if chance.random() < 0.6:
        content = damaged(content, chance)
    path.write_bytes(content)
    text = SUITE.replace('"prompts.txt"', json.dumps(path.name))
    if chance.random() < 0.3:
        text = text.replace(
            "[protocol]", chance.choice(("limit = 1", "limit = 3", 'column = "text"', 'split = "x"')) + "\n[protocol]"
        )
    file.write_text(text)
    if chance.random() < 0.5:
        yield judged(drive("plan", file, "--offline", *chance.choice(((), ("--json",)))), place)
    else:
        yield from rehearsed(file, place)


def model(chance: random.Random, place: Path, stock: Stock) -> Faults:
    """(d) Model folders."""
    folder = Path(shutil.copytree(stock.folder / "model", place / "model", copy_function=_linked))
    for _ in range(chance.choice((1, 1, 2))):
        files = files_below(folder)
        small = [path for path in files if path.suffix == ".json"]
        path = chance.choice(small if small and chance.random() < 0.7 else files)
        match chance.randrange(8):
            case 0:  # swapped with another
                other = chance.choice(files)
                one, two = path.read_bytes(), other.read_bytes()
                _replaced(path, two)
                _replaced(other, one)
            case 1:
                path.unlink()
            case 2:
                shutil.rmtree(path.parent)
                if chance.random() < 0.3:
                    path.parent.touch()
            case 3:
                path.rename(
                    path.with_name(chance.choice(("x.json", path.name + ".bak", "config.json", "fp16." + path.name)))
                )
            case 4 if path.name == "model_index.json":
                value = json.loads(path.read_text())
                value["_class_name"] = chance.choice(CLASSES)
                value[chance.choice(("unet", "vae", "scheduler"))] = chance.choice(
                    (
                        ["diffusers", "DDIMScheduler"],
                        ["os", "system"],
                        [None, None],
                        ["transformers", "CLIPTextModel"],
                        ["x"],
                        "y",
                    )
                )
                _replaced(path, json_bytes(value))
            case 4 | 5 if path.suffix == ".safetensors":
                size = chance.choice((0, 5, 8, 100, 5000, path.stat().st_size - 1))
                content = path.read_bytes()[:size]
                _replaced(path, content if chance.random() < 0.6 else damaged(content, chance))
            case _:
                content = path.read_bytes()
                if path.suffix != ".json":
                    _replaced(path, damaged(content[:20_000], chance))
                else:
                    _replaced(path, content)
                    damage_file(path, chance)
        if not folder.is_dir():
            break
    (place / "prompts.txt").write_text(TEXTS)
    file = place / "suite.toml"
    file.write_text(TINY.format(model="model"))
    match chance.choice(("plan", "doctor", "run")):
        case "plan":
            yield judged(drive("plan", file, "--offline", *chance.choice(((), ("--json",)))), place)
        case "doctor":
            yield judged(drive("doctor", "--suite", file, *chance.choice(((), ("--json",)))), place)
        case _:
            yield judged(real_rehearsal(file, place), place)


def real_rehearsal(file: Path, place: Path) -> Ended:
    """`run --smoke` with the real pipelines and a virtual meter."""
    import pytest

    from perjoule.running import device

    real = device.generators_of
    with fakes(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "generators_of", real)
        return drive("run", file, "--smoke", "--offline", "--out", place / "out", "--quiet")


def _linked(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


def _replaced(path: Path, content: bytes) -> None:
    """Write a file anew, not through its hard link."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def run_directory(chance: random.Random, place: Path, stock: Stock) -> Faults:
    """(e) Damaged run directories."""
    name = chance.choice(("own", "own", "cut", "imported"))
    run = stock.run(name, place)
    for _ in range(chance.choice((1, 1, 2))):
        files = files_below(run, lambda path: path.suffix in (".json", ".jsonl", ".toml", ".parquet", ".png"))
        if files:
            damage_file(chance.choice(files), chance)
    if chance.random() < 0.35:
        yield from used(run, chance, place, stock, 3)
        return
    with fakes():
        match chance.choice(("score", "resume", "retry")):
            case "score":
                yield judged(drive("score", run, "--quiet"), place)
            case "resume":
                shutil.copyfile(stock.folder / "prompts.txt", place / "prompts.txt")
                yield judged(drive("run", stock.folder / "suite.toml", "--resume", "--out", run, "--quiet"), place)
            case _:
                command = ("run", stock.folder / "suite.toml", "--resume", "--retry-failed", "--out", run, "--quiet")
                yield judged(drive(*command), place)
    yield from used(run, chance, place, stock, 2)


def baseline(chance: random.Random, place: Path, stock: Stock) -> Faults:
    """(f) Stored baselines."""
    shutil.copytree(stock.folder / "store", place, dirs_exist_ok=True)
    path = chance.choice(files_below(place))
    content = gzip.decompress(path.read_bytes())
    match chance.randrange(4):
        case 0:
            path.write_bytes(damaged(path.read_bytes(), chance))
        case 1:
            path.write_bytes(gzip.compress(damaged(content, chance)))
        case 2:
            record = json.loads(content)
            part = chance.choice(("files", "environment", "metrics", "tables"))
            record[part] = mutated(record[part], chance)
            path.write_bytes(gzip.compress(json_bytes(record)))
        case _:
            path.write_bytes(gzip.compress(json_bytes(mutated(json.loads(content), chance))))
    name = path.name.removesuffix(".json.gz")
    run = stock.folder / name
    commands: list[tuple[str | Path, ...]] = [
        ("gate", "--baseline", name, "--candidate", run, "--session-sd", "3%", "--margin-quality", "0.2"),
        ("gate", "--baseline", name, "--candidate", run, "--json"),
        ("report", run, "--baseline", name, "--out", place / "page.html"),
        ("baseline", "list"),
        ("baseline", "list", "--json"),
        ("baseline", "show", name, "--json"),
        ("baseline", "promote", name, "release-1"),
        ("baseline", "prune", "--keep", "0"),
    ]
    for command in chance.sample(commands, 2):
        yield judged(drive(*command))


def energy_baseline(chance: random.Random, place: Path, stock: Stock) -> Faults:
    """(g) Energy baselines of pytest: read, compared and saved again."""
    import pytest

    from perjoule.pytest_energy.records import Measured
    from perjoule.pytest_energy.session import FOLDER, EnergySession

    def measured(name: str) -> Measured:
        return Measured(
            nodeid=f"test_a.py::{name}", iterations=3, energy_j=(1.0, 1.1, 1.05), uncertainty_j=(0.1, 0.1, None),
            duration_s=(0.5, 0.5, 0.6), boundary="gpu", provenance="measured", method="m",
            warnings=("W203 x",), call="f()",
        )  # fmt: skip

    options: dict[str, Any] = {
        "--energy-save": "kept", "--energy-baseline": None, "--energy-gate": False,
        "--energy-sequential": False, "--energy-margin": "5%", "--energy-meter": "auto",
        "--energy-session-sd": "3%", "--energy-report": str(place / chance.choice(("r.json", "r.md", "r.html"))),
        "--energy-rounds": 3, "--energy-window": 0.5, "--energy-max-joules": None,
    }  # fmt: skip
    config: Any = SimpleNamespace(rootpath=place, args=["."], getoption=lambda name: options[name])
    session = EnergySession.open(config)
    session.system = {"device": "x", "driver": "1"}
    for name in ("test_1", "test_2"):
        session.add(measured(name))
    assert session.finish(0)
    path = place / FOLDER / "kept.json"
    damage_file(path, chance)
    options |= {"--energy-baseline": "kept", "--energy-save": "again", "--energy-gate": True}
    lines: list[str] = []
    terminal = SimpleNamespace(section=lambda *a, **k: None, write_line=lines.append, isatty=True)
    import traceback

    arguments, code, err, trace = ("pytest", "--energy-baseline", "kept"), 0, "", ""
    try:
        session = EnergySession.open(config)
        session.system = {"device": "x", "driver": "1"}
        for name in ("test_1", "test_3"):
            session.add(measured(name))
        session.finish(0)
        session.print_summary(terminal)
    except pytest.UsageError as error:
        code, err = 2, f"perjoule: {error}\n"
    except Exception as error:
        code, trace = 70, "".join(traceback.format_exception(error))
    yield judged(Ended(arguments=arguments, code=code, out="\n".join(lines), err=err, trace=trace), path)


CLASSES = (
    "StableDiffusionXLPipeline", "FluxPipeline", "DDPMPipeline", "os.system", "../x", "", "DiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
)  # fmt: skip

KINDS: dict[str, Callable[[random.Random, Path, Stock], Faults]] = {
    "table": table,
    "suite": suite,
    "prompts": prompts,
    "model": model,
    "run": run_directory,
    "baseline": baseline,
    "energy baseline": energy_baseline,
}


def case(kind: str, seed: int, place: Path, stock: Stock) -> tuple[int, list[str]]:
    """Run one case in an empty folder, which becomes the working directory.

    Returns:
        How many commands were run; the faults of the case as text.
    """
    place.mkdir(parents=True)
    shutil.copytree(stock.folder / "store", place / "here")
    found = []
    commands = 0
    work = place / "work"
    work.mkdir()
    with contextlib.chdir(work if kind == "baseline" else place / "here"), contextlib.suppress(*UNWRITABLE):
        for ended, faults in KINDS[kind](random.Random(f"{kind} {seed}"), work, stock):
            commands += 1
            if faults:
                found.append(f"{kind} {seed}: {'; '.join(faults)}\n{ended}")
    temporary = [path for path in place.rglob(".perjoule-*") if path.is_file()]
    if temporary:
        found.append(f"{kind} {seed}: temporary files stay: {temporary}")
    return commands, found
