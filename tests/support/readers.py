"""Every reader of foreign files, with valid inputs to damage: the targets of the fuzz."""

from __future__ import annotations

import gzip
import io
import json
import random
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
from PIL import Image

from perjoule.errors import PerjouleError
from perjoule.gating import GateConfig, baselines
from perjoule.gating.history import read_history
from perjoule.gating.looks import LookPlan, LookRow, read_plan
from perjoule.gating.looks import read_rows as read_looks
from perjoule.gating.trends import courses
from perjoule.importing.checking import checked_columns, metrics_of
from perjoule.importing.metric_specs import MetricFacts
from perjoule.importing.reading import read_table
from perjoule.meters.logs import read_log
from perjoule.people.folder import _from_file
from perjoule.people.records import StudyIndex, as_object, parsed_study
from perjoule.people.store import AnswerStore
from perjoule.people.tables import table_of_choices
from perjoule.prompts.reading import Layout, read_rows
from perjoule.prompts.sampling import clean
from perjoule.runs.commit import checked_out_commit
from perjoule.runs.directory import Run, load_run
from perjoule.runs.pictures import read_picture
from perjoule.suite.reading import load_suite
from perjoule.types import Estimate
from perjoule.types.documents import document
from perjoule.work.profile import read_profile
from perjoule_reports.pages.index import read_folder
from perjoule_suites.hub import read_index
from tests.perjoule.running.test_execute import do, fresh, make_suite
from tests.support.histories import logged
from tests.support.mutations import UNWRITABLE, damaged, json_bytes, mutated
from tests.support.racing import raced_run
from tests.support.studies import answer, answer_file, make_study
from tests.support.suites import suite_text
from tests.support.tables_of_runs import imported, table

Reader = Callable[[Path], object]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Target:
    """A reader. `file`: path of its input, below an empty folder or a run; `valid`: inputs that it accepts."""

    file: str
    read: Reader
    valid: tuple[bytes, ...]


def inputs_of(target: Target, chance: random.Random) -> bytes:
    """A damaged input, of equal bytes for an equal state of `chance`."""
    content = chance.choice(target.valid)
    structured = target.file.endswith((".json", ".jsonl")) or target.file.endswith(".gz")
    packed = target.file.endswith(".gz")
    plain = gzip.decompress(content) if packed else content
    if structured and chance.random() < 0.6:
        try:
            lines = plain.splitlines() if target.file.endswith(".jsonl") else [plain]
            place = chance.randrange(len(lines))
            lines[place] = json_bytes(mutated(json.loads(lines[place]), chance))
            plain = b"\n".join(lines) + b"\n"
        except UNWRITABLE:
            plain = damaged(plain, chance)
    elif not packed or chance.random() < 0.8:
        plain = damaged(plain, chance)
    else:
        return damaged(content, chance)
    return gzip.compress(plain, 1) if packed else plain


def refusal_of(target: Target, folder: Path, content: bytes) -> PerjouleError | None:
    """Give an input to a reader; returns its refusal, and raises whatever else the reader raises."""
    file = folder / target.file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    try:
        target.read(folder)
    except PerjouleError as error:
        return error
    return None


def _of_run(attribute: str) -> Reader:
    def read(folder: Path) -> object:
        return getattr(Run(path=folder), attribute)

    return read


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def _imported(name: str) -> Reader:
    def read(folder: Path) -> object:
        foreign = read_table(folder / name)
        facts = MetricFacts()
        return checked_columns(foreign, metrics_of(foreign, facts), [])

    return read


def _prompts(name: str) -> Reader:
    return lambda folder: clean(read_rows(folder / name, Layout(), "suite.toml: prompts.source"), "suite.toml")


def _add_looks(add: Callable[..., None]) -> None:
    estimate = Estimate(value=0.1, low=0.0, high=0.2, level=0.9, n=3, method="")
    row = LookRow(
        look=1, prompts=1, nominal_alpha=0.01, alpha_spent=None, energy=estimate, quality=estimate, energy_j=1.0,
        share=0.5, outcome="continue",
    )  # fmt: skip
    plan = LookPlan(
        config=GateConfig(margin_energy=0.05, change=("models",)), metric="q", design="pocock", prompt_ids=("a", "b"),
        prompts=(1, 2), baseline="main", interleaved=True,
    )  # fmt: skip
    add("sequential.json", read_plan, json.dumps(document(plan)).encode())
    add("looks.jsonl", read_looks, json.dumps(asdict(row)).encode() + b"\n")


def make_targets(place: Path) -> dict[str, Target]:
    """All targets by name; `place` gets a run, an imported run, a study and a store of baselines."""
    suite = make_suite()
    do(suite, fresh(place / "run", suite))
    run, other = place / "run", imported(table(prompts=3, seeds=1, ladder=(2, 4)), place, "other")
    targets: dict[str, Target] = {}

    def add(file: str, read: Reader, *valid: bytes, name: str = "") -> None:
        targets[name or file] = Target(file=file, read=read, valid=valid)

    text = suite_text({"steps": [1, 3], "guidance": 3.0}, protocol={"seeds": [1, 2], "blocks": 2})
    add("suite.toml", lambda folder: load_suite(folder / "suite.toml"), text.encode(),
        (run / "suite.toml").read_bytes())  # fmt: skip
    for name, attribute in (("environment.json", "environment"), ("prompts.jsonl", "prompt_set"),
                            ("trials.jsonl", "trials"), ("devices.jsonl", "devices"), ("work.jsonl", "works"),
                            ("metrics.json", "metrics"), ("set_scores.json", "set_scores")):  # fmt: skip
        contents = [(path / name).read_bytes() for path in (run, other.path) if (path / name).is_file()]
        contents = [content for content in contents if content]
        made: dict[str, Any] = {"work.jsonl": {"trial_id": "a"}, "devices.jsonl": {"trial_id": "a", "device": "x"}}
        if not contents:
            empty = made.get(name, {"schema": 1, "scores": [], "metrics": []})
            contents = [json.dumps(empty).encode() + b"\n"]
        add(name, _of_run(attribute), *contents)
    for name, attribute in (("images.parquet", "images"), ("scores.parquet", "scores"), ("points.parquet", "points"),
                            ("trials.parquet", "trials")):  # fmt: skip
        add(name, _of_run(attribute), (other.path / name).read_bytes())
    raced = raced_run(place / "raced") if not (place / "raced").exists() else load_run(place / "raced")
    add("race.json", _of_run("race"), (raced.path / "race.json").read_bytes())
    image = next((run / "images").glob("*.png"))
    row = load_run(run).images.filter(pl.col("image_id") == image.stem)
    add("images/a.png", lambda folder: read_picture(folder, "images/a.png", row["sha256"][0]), image.read_bytes(),
        _png("P"), _png("RGBA"), _png("I;16"))  # fmt: skip
    stored = baselines.save(other, "main", place / "store")
    add("b/c/main.json.gz", lambda folder: baselines.load("main", folder / "out", folder), stored.path.read_bytes())
    runs = [logged(week, [100.0 + week, 200.0], [0.3, 0.31]) for week in range(12)]
    log = b"".join(json.dumps(asdict(run)).encode() + b"\n" for run in runs)
    line = {
        "kind": "accepted",
        "schema": 1,
        "suite": "mine",
        "since": runs[3].date,
        "reason": "a",
        "logged": runs[3].date,
    }
    add("history.jsonl", lambda folder: courses(read_history(folder / "history.jsonl")), log,
        log + json.dumps(line).encode())  # fmt: skip
    _add_looks(add)
    _add_texts(add)
    _add_people(add, place / "study")
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"], "a": [None, None]}
    add("model_index.json", lambda folder: read_index(folder, "m", "suite.toml: model"), json.dumps(index).encode())
    digest = b"0123456789abcdef" * 2 + b"01234567\n"
    add(".git/HEAD", checked_out_commit, b"ref: refs/heads/main\n", digest)
    profile = {"name": "a", "device_model": "x", "dtypes": ["float32"], "origin": "measured"}
    add("profile.json", lambda folder: read_profile(folder / "profile.json"), json.dumps(profile).encode())
    files = {path.name: path.read_bytes() for path in other.path.iterdir() if path.is_file()}

    def index_page(folder: Path) -> object:
        for name, content in files.items():
            if not (folder / "a" / name).exists():
                (folder / "a" / name).write_bytes(content)
        return read_folder(folder)

    add("a/result.json", index_page, b'{"headline": "saves 3 %"}')
    return targets


def _png(mode: str) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (9, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def _add_texts(add: Callable[..., None]) -> None:
    """Prompt files, tables and logs."""
    rows = [{"prompt": "a red disc", "category": "a"}, {"prompt": "a blue ring", "category": "b"}]
    captions = {"annotations": [{"id": i, "image_id": i % 2, "caption": "a"} for i in range(3)]}
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    for name, *valid in (
        ("prompts.txt", b"a red disc\na blue ring\n"),
        ("prompts.csv", b'prompt,category\n"a, b",a\nc,b\n'),
        ("prompts.tsv", b"Prompt\tcategory\na b\ta\nc\tb\n"),
        ("prompts.json", json.dumps(rows).encode(), json.dumps(captions).encode(), b'["a", "b"]'),
        ("prompts.jsonl", lines),
        ("prompts.parquet", _parquet(pl.DataFrame(rows))),
    ):
        add(f"p/{name}", _prompts(f"p/{name}"), *valid)
    frame = table(prompts=2, seeds=1, ladder=(2,))
    records = frame.write_ndjson().encode()
    whole = frame.write_json().encode()
    for suffix, content in (("csv", frame.write_csv().encode()), ("jsonl", records), ("json", whole),
                            ("parquet", _parquet(frame))):  # fmt: skip
        add(f"table.{suffix}", _imported(f"table.{suffix}"), content)
    choices = b"observer,prompt_id,arm_a,arm_b,choice\no,p,a,b,a\no,q,a,b,tie\n"
    ratings = b"observer,variant,prompt_id,rating\no,a,p,3\no,b,p,4\n"
    add("choices.csv", lambda folder: table_of_choices(folder / "choices.csv"), choices, ratings)
    smi = b"timestamp, power.draw [W]\n" + b"".join(
        b"2026/01/02 03:04:%02d.000, %d.00 W\n" % (second, 100 + second) for second in range(8)
    )
    plain = b"t_s,power_w\n" + b"".join(b"%d,%d\n" % (second, 100 + second) for second in range(8))
    add("log.csv", lambda folder: read_log(folder / "log.csv"), smi, plain)
    samples = pl.DataFrame({"t_s": [0.0, 1.0, 2.0], "power_w": [1.0, 2.0, 3.0], "source": ["a"] * 3})
    add("log.parquet", lambda folder: read_log(folder / "log.parquet"), _parquet(samples))


def _add_people(add: Callable[..., None], folder: Path) -> None:
    study = make_study(folder, main=4, observers=1, prompts=("a", "b", "c", "d", "e", "f"))
    index = StudyIndex(study)
    answers = [answer(study, trial_id) for trial_id in study.sessions[0][:3]]
    add("study.json", lambda place: parsed_study((place / "study.json").read_bytes(), "study.json"),
        json.dumps(as_object(study)).encode())  # fmt: skip
    with AnswerStore(folder / "made.sqlite", study.study_id):
        pass
    with closing(sqlite3.connect(folder / "made.sqlite")) as database:
        database.executemany("INSERT INTO answers VALUES (?, ?, ?)",
                             [("o", one["trial_id"], json.dumps(one)) for one in answers])  # fmt: skip
        database.commit()
    contents: Mapping[str, bytes] = {
        "answers.json": json.dumps(answer_file(study, answers)).encode(),
        "answers.jsonl": b"".join(json.dumps(one).encode() + b"\n" for one in answers),
        "answers.sqlite": (folder / "made.sqlite").read_bytes(),
    }
    for name, content in contents.items():
        add(name, lambda place, name=name: _from_file(place / name, index), content)
