"""Each command that prints JSON is run, and what it prints is compared with its JSON Schema, in both directions."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jsonschema
import polars as pl
import pytest
from tests.perjoule.runs.test_merging import PROMPTS as PARTS
from tests.perjoule.runs.test_merging import run_of
from tests.support import driving
from tests.support.forge_server import FakeForge, github_environment, serving
from tests.support.histories import logged
from tests.support.observers import answer_file, answers
from tests.support.odd_boards import OddBoard, honest_board
from tests.support.racing import raced_run
from tests.support.routes import route_run, route_table, with_routed
from tests.support.stored_runs import stored_run
from tests.support.tables_of_runs import as_own, imported, rewrite, rewrite_table, table
from tests.support.work import counted_run, counted_windows, with_work, work_of

from perjoule.gating.history import log_run
from perjoule.meters.proving import prove
from perjoule.people.folder import read_study
from perjoule.runs.directory import load_run, write_set_scores
from perjoule.statistics.grid import Grid
from perjoule.testing import ConstantPower, NvmlSimulator, SimulatedBoard
from perjoule.testing.nvml_simulator import compiler
from perjoule.text import as_json
from perjoule.types import SetScore
from perjoule.types.documents import document

SUITE = """
name = "mine"
title = "Mine"
description = "Two captions."
[prompts]
source = "prompts.txt"
[protocol]
seeds = [1, 2]
idle_s = 0.1
[metrics]
primary = "lsnr"
names = ["lsnr"]
[[variants]]
name = "tiny"
model = "builtin:sd-tiny"
steps = [2, 4]
"""
CURVES = """
name = "{name}"
title = "Curves"
description = "A ladder to learn from."
[prompts]
source = "{name}.txt"
[protocol]
seeds = [1]
batch_size = 10
idle_s = 0.0
warmup_iterations = 0
[metrics]
primary = "lsnr"
names = ["lsnr"]
[[variants]]
name = "tiny"
model = "builtin:sd-tiny"
steps = [1, 2, 3]
"""
ADAPTIVE = """
[[variants]]
name = "policy"
model = "builtin:sd-tiny"
family = "tiny"
role = "predicted"
policy = "budgetfusion"
levels = [{level}]
policy_args = {{ predictor = "./predictor", rule = "quality-floor", miss_rate = 0.4 }}
"""
BOARD = SimulatedBoard(wave=ConstantPower(100.0), counter_period_s=0.02)
Outputs = dict[str, list[Any]]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(compiler() is None, reason="no C compiler: no simulated board")]


def printed(*arguments: str | Path, codes: tuple[int, ...] = (0,)) -> Any:
    """What a command prints with --json."""
    ended = driving.drive(*arguments, *([] if arguments[0] == "schema" else ["--json"]))
    assert ended.code in codes, ended
    return json.loads(ended.out)


@pytest.fixture(scope="module")
def schemas() -> dict[str, Any]:
    found: dict[str, Any] = printed("schema")
    return found


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outputs]:
    place = tmp_path_factory.mktemp("outputs")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(place)
        with driving.counted_joules():
            curves = of_curves(place)
        outputs = {
            **of_tables(place),
            **of_shards(place),
            **of_a_run(place),
            **of_nothing(place),
            **of_a_board(place),
            **of_logs(place),
            **of_routes(place),
            **curves,
        }
        for more in (of_a_study(place), of_looks(place), of_a_race(place)):
            for name, documents in more.items():
                outputs[name] = [*outputs.get(name, []), *documents]
        yield outputs


def of_tables(place: Path) -> Outputs:
    """What is printed of runs that come from tables: every arm that there is, and one without a prompt in common."""
    frame = table(prompts=30, variants=(("ladder", 1.0), ("quick", 0.8), ("policy", 0.8), ("shuffled", 0.85)))
    roles = {"ladder": "fixed", "quick": "distilled", "policy": "predicted", "shuffled": "control"}
    frame = frame.with_columns(role=pl.col("variant").replace_strict(roles), model=pl.lit("m"))
    frame = frame.filter((pl.col("variant").is_in(["ladder", "quick"])) | (pl.col("steps") == 16))
    crossed = pl.when(pl.col("variant") == "quick").then(0.5 + 0.001 * pl.col("steps")).otherwise(pl.col("quality:q"))
    frame = frame.with_columns(crossed.alias("quality:other"))
    imported(frame.with_columns(family=pl.lit("m")), place, "table")
    more = imported(table(prompts=30, seed=1), place, "more")
    rewrite(more, "metrics.json", lambda m: [spec.update(margin=0.1) for spec in m["metrics"]])
    apart = frame.filter(pl.col("variant") == "quick").with_columns(prompt_id=pl.lit("z") + pl.col("prompt_id"))
    imported(pl.concat([frame.filter(pl.col("variant") == "ladder"), apart]), place, "apart")
    joules = imported(frame.drop("quality:q", "quality:other"), place, "joules")
    failure = pl.when(pl.int_range(pl.len()) == 0).then(pl.lit("out of memory"))
    rewrite_table(joules, "trials", failure.alias("failure"))
    table(prompts=2).write_parquet(place / "t.parquet")
    gate = ("gate", "--baseline", place / "more", "--candidate")
    report = printed("report", place / "table", "--out", place / "r" / "report.html")
    odd = pl.when((pl.col("variant") == "ladder") & (pl.col("steps") == 8)).then(0.1).otherwise(pl.col("energy_j"))
    imported(frame.with_columns(energy_j=odd), place, "odd")
    of_one = frame.with_columns(family=pl.lit("m"))
    cut = imported(of_one.filter((pl.col("variant") != "quick") | (pl.col("steps") < 64)), place, "cut")
    rewrite(cut, "environment.json", lambda e: e["comparability"].update(device="another"))
    own = [as_own(imported(table(prompts=4, ladder=(2,), seeds=1, factor=f), place, f"own{f}")) for f in (1, 2)]
    with_work(own[0], work_of(2))
    with_work(own[1], work_of(4))
    found: Outputs = {
        "error": [printed("frontier", place / "nowhere", codes=(4,))],
        "compare": [printed("compare", place / "table", place / "cut")],
        "frontier": [
            printed("frontier", place / "table", "--metric", "other"),
            *(printed("frontier", place / name) for name in ("table", "apart", "joules")),
        ],
        "recommend": [
            printed("recommend", place / "table", "--min-quality", "0.5"),
            printed("recommend", place / "table", "--min-quality", "9", codes=(4,)),
            printed("recommend", place / "odd", "--min-quality", "0.5"),
        ],
        "gate": [
            printed(*gate, place / "more", "--joules-per-quality", "9"),
            printed(*gate, place / "table", codes=(4,)),
            printed("gate", "--baseline", place / "table", "--candidate", place / "more", codes=(4,)),
            printed("gate", "--baseline", own[0].path, "--candidate", own[1].path, "--margin-quality", "1", codes=(1,)),
            printed("gate", "--baseline", "main", "--baseline-optional", "--candidate", place / "more"),
        ],
        "import": [printed("import", place / "t.parquet", "--out", place / "t")],
        "report": [report],
        "result": [json.loads((place / "r" / "result.json").read_text())],
        "baseline": [
            printed("baseline", "save", "main", place / "more"),
            printed("baseline", "promote", "main", "release-1"),
            printed("baseline", "list"),
            printed("baseline", "prune", "--keep", "1"),
        ],
    }
    found["frontier"].append(printed("baseline", "show", "main"))
    damaged = Path(found["baseline"][1]["baselines"][0]["path"])
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-9])
    found["baseline"].append(printed("baseline", "list", codes=(4,)))
    damaged.write_bytes(whole)
    rewrite(more, "environment.json", lambda e: e.update(created_utc="2026-01-31T12:00:00+00:00"))
    for week in range(12):  # a step of energy between two versions
        log_run(logged(week, [100.0 + week % 3 + 20 * (week > 5)], [0.3], conditions={"torch": str(week > 5)}))
    found["baseline-log"] = [printed("baseline", "log"), printed("baseline", "log", place / "more")]
    printed("report", place / "more", "--baseline", place / "more", "--out", place / "g" / "report.html")
    found["result"].append(json.loads((place / "g" / "result.json").read_text()))
    return found


def of_a_race(place: Path) -> Outputs:
    """What is printed of a race that dropped cells."""
    raced_run(place / "raced")
    printed("report", place / "raced", "--out", place / "raced" / "report.html")
    return {
        "frontier": [printed("frontier", place / "raced")],
        "result": [json.loads((place / "raced" / "result.json").read_text())],
    }


def of_shards(place: Path) -> Outputs:
    """What is printed of two runs that did parts of one plan."""
    parts = [run_of(place / f"part{n}", prompts).path for n, prompts in enumerate((PARTS[:2], PARTS[2:]))]
    return {"merge": [printed("merge", *parts, "--out", place / "merged")]}


def of_a_run(place: Path) -> Outputs:
    """What is printed of a run that is drawn here, by pipelines and a meter that are not real."""
    (place / "prompts.txt").write_text("a red circle\na blue star\n")
    suite = place / "suite.toml"
    suite.write_text(SUITE)
    with driving.fakes(), patch.object(Grid, "drawn", autospec=True, side_effect=Grid.drawn) as drawn:
        ran = printed("run", suite, "--out", place / "run", "--quiet")
    assert drawn.call_count == 1  # points, report and table are from one bootstrap
    of_set = SetScore(cell_id="tiny-002", metric="fid", image_count=4, value=1.5, notes=("few",))
    write_set_scores(load_run(place / "run"), [of_set], [])
    with driving.fakes():
        scored = printed("score", place / "run", "--quiet")
    counted_run(place / "counted", counted_windows())
    published = place / "published.toml"
    published.write_text(SUITE.replace("builtin:sd-tiny", "stable-diffusion-v1-5/stable-diffusion-v1-5"))
    with driving.fakes():
        printed("run", published, "--out", place / "published", "--quiet")
    selecting = place / "selecting.toml"
    wanted = '[prompts]\nselect = "clip-farthest"\nselect_model = "builtin:clip-tiny"\nlimit = 2'
    selecting.write_text(SUITE.replace("[prompts]", wanted))
    return {
        "run": [ran],
        "score": [scored],
        "plan": [
            printed("plan", suite, "--from", place / "run"),
            printed("plan", suite),
            printed("plan", published, "--from", place / "published"),
            printed("plan", selecting),
        ],
        "doctor-suite": [printed("doctor", "--suite", suite, codes=(0, 4))],
        "calibrate-work": [printed("calibrate", "--work", place / "counted", "--out", place / "mine.json")],
    }


def of_looks(place: Path) -> Outputs:
    """What is printed of a sequential gate: the suite of `of_a_run` against itself."""
    suite, out = place / "suite.toml", place / "until"
    against = ("--baseline", suite, "--suite", suite, "--sequential", "--out", out, "--margin-quality", "1", "--quiet")
    with driving.fakes():
        verdict = printed("gate", *against, codes=(0, 1, 2, 3))
    return {
        "gate": [verdict],
        "gate-looks": [printed("gate", out, "--replay-looks", codes=(0, 1, 3))],
        "result": [json.loads((out / "result.json").read_text())],
    }


def of_nothing(place: Path) -> Outputs:
    """What is printed without a run."""
    lists = [printed("list", what) for what in ("suites", "variants", "prompts", "metrics", "meters")]
    lists.append(printed("list", "runs", place))
    return {
        "list": lists,
        "explain": [printed("explain", "W203")],
        "init": [printed("init", place / "new"), printed("init", place / "new")],
        "comment": commented(place),
    }


def commented(place: Path) -> list[Any]:
    """What `comment` prints in a job of a pull request, and in one without permission."""
    event = place / "event.json"
    event.write_text(json.dumps({"pull_request": {"number": 5}}))
    with serving(FakeForge()) as forge, patch.dict(os.environ, github_environment(forge, str(event))):
        found = [printed("comment", place / "gate.md")]
        forge.writable = False
        return [*found, printed("comment", place / "gate.md")]


def measured(meter: str, environment: Mapping[str, str]) -> Any:
    """What `measure` prints, which runs its command in a process of its own."""
    measure = ["measure", "--meter", meter, "--co2-country", "FRA", "--json", "--", "sleep", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "perjoule", *measure], capture_output=True, text=True, check=True, env=environment
    )
    return json.loads(done.stdout)


def of_a_board(place: Path) -> Outputs:
    """What is printed on a machine with an NVIDIA board, and what without it."""
    without = [printed("doctor", "--quiet", codes=(0, 4))]
    with NvmlSimulator([BOARD], place / "nvml") as simulator, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        simulator.load()
        doctor = [*without, printed("doctor", "--quiet")]
        boards = os.environ | simulator.environment()
        measure = [measured("estimate", os.environ), measured("nvml", boards)]
    with OddBoard(board=honest_board()).opened(place / "nvml") as (open_meter, load):  # virtual time
        proof = json.loads(as_json(document(prove(open_meter, load))))
    return {"doctor": doctor, "measure": measure, "doctor-prove": [proof]}


def of_logs(place: Path) -> Outputs:
    """What is printed of power logs: an external meter's, and one of a board with a gain and an offset."""
    chance = random.Random(1)
    for name, interval_s, gain, offset_w in (("meter", 0.02, 1.0, 0.0), ("board", 0.1, 0.9, 5.0)):
        rows = ["t_s,power_w"]
        for i in range(int(40 / interval_s)):
            true_w = (60, 300, 60, 200)[int(i * interval_s / 5) % 4]
            rows.append(f"{i * interval_s:.3f},{gain * true_w + offset_w + chance.gauss(0, 0.5):.3f}")
        (place / f"{name}.csv").write_text("\n".join(rows) + "\n")
    board = place / "board.csv"
    return {
        "integrate": [
            printed("integrate", board, "--from", "4", "--to", "12"),
            printed("integrate", board, "--sensor", "1.1,-5"),
        ],
        "calibrate": [
            printed("calibrate", place / "meter.csv", board),
            printed("calibrate", place / "meter.csv", board, "--store", "board-0123456789ab"),
        ],
    }


def of_a_study(place: Path) -> Outputs:
    """What is printed of a study that simulated observers answered, and a report that is judged by it."""
    stored_run(place / "shown", prompts=2, variants=("tiny-teacher",))
    made = printed("study", "new", "shown", "--out", "study", "--observers", "10")
    study = read_study(place / "study")
    given = answers(study, {arm: float(arm[-3:]) / 6 for arm in study.arms}, careless=3)
    (place / "answers.json").write_text(answer_file(study, given))
    added = printed("study", "add", "study", "answers.json")
    printed("report", "shown", "--study", "study", "--out", place / "judged" / "report.html")
    return {
        "study-new": [made],
        "frontier": [printed("frontier", "shown", "--study", "study")],
        "study-plan": [printed("study", "plan", "study")],
        "study-add": [added],
        "study-scale": [printed("study", "scale", "study", "--run", "shown")],
        "result": [json.loads((place / "judged" / "result.json").read_text())],
    }


def of_curves(place: Path) -> Outputs:
    """What budgetfusion prints of tiny pictures that are drawn here, with a meter that counts steps."""
    shapes = ("circle", "star", "ring", "square")
    captions = [f"a {colour} {shape}" for colour in ("red", "blue", "green", "white", "pink") for shape in shapes]
    budgetfusion: dict[str, list[Any]] = {}

    def record(verb: str, *arguments: str | Path) -> Any:
        budgetfusion.setdefault(f"budgetfusion-{verb}", []).append(printed("budgetfusion", verb, *arguments))

    for name, ground in (("curves", "grey"), ("known", "checkered grey")):
        (place / f"{name}.txt").write_text("\n".join(f"{caption} on a {ground} ground" for caption in captions))
        (place / f"{name}.toml").write_text(CURVES.format(name=name))
        record("collect", f"{name}.toml", "--out", name, "--quiet")
    record("train", "curves", "--calibration", "known", "--out", "predictor", "--quiet")
    record("predict", "predictor", captions[0])
    level = load_run(place / "known").scores["value"].min()  # a floor that the predictor can promise
    (place / "curves.toml").write_text(CURVES.format(name="curves") + ADAPTIVE.format(level=level))
    ran = driving.drive("run", "curves.toml", "--out", "adaptive", "--limit", "5", "--quiet")
    assert ran.code == 0, ran
    record("evaluate", "adaptive")
    plateau = ("--rule", "plateau", "--combine", "mean", "--rule-metric", "lsnr", "--level", "0.2")
    record("evaluate", "known", "--predictor", "predictor", *plateau, "--figures", "figures")
    return budgetfusion


def of_routes(place: Path) -> Outputs:
    """What route prints of a world with a known truth."""
    for name, start in (("route-arms", 0), ("route-dev", 40)):
        route_run(place, name, 40, start)
    routed = with_routed(route_table(40, 80, seeds=8)).with_columns((2 * pl.col("quality:q")).alias("quality:v"))
    imported(routed, place, "route-test")
    # the counted work of an arm, so that the cost of a decision has an upper limit
    part = {"name": "UNet", "calls": 9, "flops": 10**9, "bytes_moved": 10**8, "operators": 10**3}
    trial = load_run(place / "route-test").trials["trial_id"][0]
    work = {"trial_id": trial, "parts": [part], "devices": ["cpu"], "dtypes": ["float32"], "unknown": []}
    (place / "route-test" / "work.jsonl").write_text(json.dumps(work) + "\n")
    train = ("route", "train", "route-arms", "--calibration", "route-dev", "--reader", "builtin:sd-tiny")
    return {
        "route-train": [printed(*train, "--floor", "0.3", "--miss", "20%", "--out", "router", "--quiet")],
        "route-evaluate": [
            printed("route", "evaluate", "route-test", "--router", "router"),
            printed(
                "route",
                "evaluate",
                "route-test",
                "--router",
                "router",
                "--at-quality",
                "0.8",
                "--metric",
                "q",
                "--verifier",
                "v",
                "--verifier-joules",
                "0.1",
            ),
        ],
        "route-predict": [printed("route", "predict", "router", "a red circle")],
    }


def parts(schema: Any, whole: dict[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    """The objects that a value may be: (name of the record, its schema)."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        yield from parts(whole["$defs"][name], whole, name)
    for one in schema.get("anyOf", ()):
        yield from parts(one, whole, name)
    if {"properties", "additionalProperties", "items", "prefixItems"} & set(schema):
        yield name, schema


def keys(value: Any, schema: Any, whole: dict[str, Any], name: str) -> Iterator[tuple[str, str, bool]]:
    """The keys of a printed value: (record, key, whether its schema knows it)."""
    found = list(parts(schema, whole, name))
    if isinstance(value, list):
        for record, part in found:
            inner = part.get("items", {})
            for i, one in enumerate(value):
                place = part["prefixItems"][i] if "prefixItems" in part else inner
                yield from keys(one, place, whole, record)
    elif isinstance(value, dict) and found:
        fits = [one for one in found if set(value) <= set(one[1].get("properties", ()))]
        record, part = (fits or found)[0]
        for key, one in value.items():
            if "properties" in part:
                yield record, key, key in part["properties"]
                yield from keys(one, part["properties"].get(key, {}), whole, record)
            elif isinstance(part.get("additionalProperties"), dict):
                yield from keys(one, part["additionalProperties"], whole, record)


def documented(whole: dict[str, Any], name: str) -> set[tuple[str, str]]:
    """All keys that a schema knows."""
    records = {name: whole, **whole.get("$defs", {})}
    return {(record, key) for record, part in records.items() for key in part.get("properties", ())}


def differences(outputs: Outputs, schemas: dict[str, Any]) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """(keys that are printed and not documented, keys that are documented and never printed)."""
    unknown: set[tuple[str, str]] = set()
    seen, known = set(unknown), set(unknown)
    for name, documents in outputs.items():
        title = "frontier" if name == "run" else name
        whole = schemas.get(title, {"properties": {}})
        known |= documented(whole, title)
        for shown in documents:
            for record, key, is_known in keys(shown, whole, whole, title):
                (seen if is_known else unknown).add((record, key))
    return unknown, known - seen


def test_every_document_is_as_its_schema_says(outputs: Outputs, schemas: dict[str, Any]) -> None:
    assert set(schemas) == {"schema", "suite", *outputs} - {"run"}
    for name, documents in outputs.items():
        for shown in documents:
            jsonschema.validate(shown, schemas["frontier" if name == "run" else name])


def test_no_key_is_printed_or_documented_alone(outputs: Outputs, schemas: dict[str, Any]) -> None:
    undocumented, unprinted = differences(outputs, schemas)
    assert undocumented == set()
    assert unprinted == set()
