"""A stored baseline comes from git, and so from anybody's pull request."""

from __future__ import annotations

import copy
import gzip
import json
import os
import random
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from perjoule.errors import EvidenceError, RunError, UnknownNameError, UsageError
from perjoule.gating import baselines
from perjoule.gating.baselines import find, listed, load, promote, prune, require_readable, save
from perjoule.runs.directory import Run, load_run
from perjoule.statistics.frontier import frontier
from tests.perjoule.test_cli import call
from tests.support.tables_of_runs import as_own, imported, table
from tests.support.work import with_work, work_of


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return imported(table(prompts=4, seeds=1, ladder=(2, 4)), tmp_path_factory.mktemp("baselines"))


@pytest.fixture
def root(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store of a repository, with the baseline `main` in it; the working directory is the repository."""
    monkeypatch.chdir(tmp_path)
    save(run, "main")
    return tmp_path / baselines.FOLDER


def record_of(path: Path) -> dict[str, Any]:
    return json.loads(gzip.decompress(path.read_bytes()))


def rewrite(path: Path, record: Any) -> None:
    path.write_bytes(gzip.compress(json.dumps(record).encode()))


@pytest.mark.parametrize(
    "name",
    [
        "../planted",
        "../../../planted",
        "{absolute}",
        "sub/planted",
        ".",
        "..",
        "",
        "suite.toml/../../planted",
        "points.txt",
    ],
)
def test_a_baseline_writes_no_file_but_its_own(root, run, tmp_path, capsys, name):
    path = find("main", root).path
    record = record_of(path)
    record["files"][name.format(absolute=tmp_path / "planted")] = "planted"
    rewrite(path, record)
    before = snapshot(tmp_path)
    with pytest.raises(RunError, match="not a baseline that perjoule wrote; delete it"):
        load("main", tmp_path / "a" / "b" / "run", root)
    for arguments in (
        ["gate", "--baseline", "main", "--candidate", str(run.path)],
        ["report", str(run.path), "--baseline", "main", "--out", "page.html"],
        ["baseline", "show", "main"],
        ["baseline", "list"],
        ["baseline", "promote", "main", "release-1"],
    ):
        code, _, err = call(*arguments, capsys=capsys)
        assert code == 4
        assert str(path.relative_to(tmp_path)) in err
    assert snapshot(tmp_path) == before


def snapshot(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_link_in_the_folder_that_a_baseline_is_unpacked_into_is_not_followed(root, tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "out").mkdir()
    for name in ("suite.toml", "trials.jsonl", "environment.json", "metrics.json", "points.parquet"):
        (tmp_path / "out" / name).symlink_to(tmp_path / "precious")
    load("main", tmp_path / "out", root)
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.slow
def test_a_small_file_that_unpacks_to_gigabytes_is_refused_within_bounded_memory(root):
    """3 MB of it unpacked to 6.4 GB."""
    path = find("main", root).path
    chunk = bytes(2**24)
    with gzip.open(path, "wb", compresslevel=6) as file:
        for _ in range(2 * baselines.MOST_BYTES // len(chunk)):
            file.write(chunk)
    assert path.stat().st_size < 2**20
    code = (
        "import resource\nfrom pathlib import Path\nfrom perjoule import errors\n"
        "from perjoule.gating import baselines\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"try:\n    baselines.describe(Path({str(path)!r}))\nexcept errors.RunError as error:\n    print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    words, grown_kib = done.stdout.splitlines()
    assert "unpacks to more than 256 MiB" in words
    assert int(grown_kib) * 1024 < 2.5 * baselines.MOST_BYTES


def test_what_could_not_be_read_again_is_not_saved(root, run, monkeypatch):
    monkeypatch.setattr(baselines, "MOST_BYTES", 1000)
    with pytest.raises(RunError, match="keep the run directory itself"):
        save(run, "large")
    assert [b.name for b in root.glob("*/*/large*")] == []


def test_a_key_that_is_a_path_stays_in_the_store(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for key in ("..", ".", "../../x", "/etc", "", "a/b"):
        monkeypatch.setitem(run.environment, "comparability_key", key)
        stored = save(run, "main")
        assert stored.path.resolve().parent.parent.parent == (tmp_path / baselines.FOLDER).resolve()
        assert len(listed().baselines) == 1
        stored.path.unlink()


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_numbers_that_cannot_be_written_are_not_read(root, tmp_path, capsys, number):
    path = find("main", root).path
    text = json.dumps(record_of(path) | {"metrics": {"metrics": ["number"]}})
    path.write_bytes(gzip.compress(text.replace('["number"]', number).encode()))
    with pytest.raises(RunError, match=f"{path.name}: cannot be read: {number} is not a finite number"):
        load("main", tmp_path / "run", root)
    code, _, err = call("baseline", "promote", "main", "release-1", capsys=capsys)
    assert (code, "internal error" in err) == (4, False)


def test_lists_in_lists_are_refused_before_polars_looks_for_their_type(root, tmp_path):
    path = find("main", root).path
    record = record_of(path)
    table = next(iter(record["tables"]))
    column = next(iter(record["tables"][table]))
    nested = json.loads("[" * 400 + "]" * 400)  # minutes of CPU time
    record["tables"][table][column][0] = nested
    path.write_bytes(gzip.compress(json.dumps(record).encode()))
    with pytest.raises(RunError, match=f"table {table}: cannot be read: {column} contains a list"):
        load("main", tmp_path / "run", root)


def test_one_damaged_baseline_keeps_no_other_from_being_used(root, run, tmp_path):
    save(run, "other")
    find("other", root).path.write_bytes(b"not gzip")
    assert load("main", tmp_path / "out", root).trials.height == run.trials.height
    with pytest.raises(RunError, match=r"other\.json\.gz: cannot be read"):
        load("other", tmp_path / "out2", root)
    with pytest.raises(RunError, match=r"other\.json\.gz: cannot be read"):
        promote("other", "release-1", root)


@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"not gzip", lambda raw: b""])
def test_a_damaged_baseline_is_named_and_the_others_are_listed(root, run, capsys, damage):
    save(run, "other")
    path = find("other", root).path
    path.write_bytes(damage(path.read_bytes()))
    code, out, err = call("baseline", "list", "--json", capsys=capsys)
    record = json.loads(out)
    assert (code, [baseline["name"] for baseline in record["baselines"]]) == (4, ["main"])
    (unreadable,) = record["unreadable"]
    place = str(path.relative_to(root.parents[1]))
    assert (unreadable["path"], unreadable["reason"] in err) == (place, True)
    assert unreadable["reason"].startswith(f"{place}: cannot be read: ")
    assert "restore the file from git or from the CI system, or delete it" in unreadable["reason"]
    code, out, err = call("baseline", "list", capsys=capsys)
    assert (code, "main" in out, place in err) == (4, True, True)
    code, out, _ = call("gate", "--baseline", "other", "--candidate", str(run.path), "--json", capsys=capsys)
    failure = json.loads(out)["error"]
    assert (code, place in failure["message"]) == (4, True)
    assert failure["remedy"].startswith("restore the file from git")
    with pytest.raises(RunError, match="cannot be read"):
        prune(0, root)


def test_errors_name_the_baseline_and_not_the_folder_it_is_unpacked_into(root, run, tmp_path, capsys):
    path = find("main", root).path
    place = str(path.relative_to(tmp_path))
    whole = record_of(path)
    for file, text, words in (
        ("trials.jsonl", "3\n", f"{place}: trials.jsonl"),
        ("suite.toml", "name = 3", f"{place}: suite.toml"),
    ):
        rewrite(path, whole | {"files": whole["files"] | {file: text}})
        code, _, err = call("gate", "--baseline", "main", "--candidate", str(run.path), capsys=capsys)
        assert (code in (2, 4), words in err) == (True, True), err
        code, _, err = call("baseline", "show", "main", capsys=capsys)
        assert (code in (2, 4), words in err) == (True, True), err
    rewrite(path, whole | {"environment": whole["environment"] | {"schema": 99}})
    with pytest.raises(RunError, match=r"a later version of perjoule wrote it.*: update perjoule") as caught:
        load("main", tmp_path / "out", root)
    assert str(caught.value).startswith(f"{path}: environment.json: schema = 99")
    rewrite(path, whole | {"schema": 2})
    with pytest.raises(RunError, match=r"schema = 2: a later version of perjoule wrote it.*: update perjoule, or save"):
        load("main", tmp_path / "out2", root)


def test_words_of_a_baseline_are_read_as_utf8_whatever_the_locale(run, tmp_path):
    """`metrics.json` was read in the encoding of the locale."""
    frame = table(prompts=4, seeds=1, ladder=(2, 4)).rename({"quality:q": "quality:qualité"})
    french = imported(frame, tmp_path, "french")
    code = (
        "from pathlib import Path\nfrom perjoule.gating.baselines import load, save\n"
        "from perjoule.runs.directory import load_run\n"
        f"save(load_run({str(french.path)!r}), 'main')\nprint(ascii(sorted(load('main', Path('out')).metrics)))\n"
    )
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment["PYTHONPATH"] = os.pathsep.join(str(Path(p).resolve()) for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout.strip() == ascii(["qualité"])


def mutated(record: Any, chance: random.Random) -> Any:
    """The record with one part, anywhere in it, gone or of another kind."""
    record = copy.deepcopy(record)
    node = record
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return record
        key = chance.choice(keys)
        if isinstance(node[key], dict | list) and node[key] and chance.random() < 0.75:
            node = node[key]
            continue
        if chance.random() < 0.3:
            del node[key]
        else:
            node[key] = chance.choice(
                [None, 0, -1, 2**70, 1e308, "", "x" * 300, [], {}, [[]], {"a": {}}, True, "\ud800"]
            )
        return record


@pytest.mark.slow
def test_three_hundred_damaged_baselines_are_read_or_refused(root, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)
    path = find("main", root).path
    whole = record_of(path)
    chance = random.Random(7)
    refused = 0
    for number in range(300):
        if number % 3:
            rewrite(path, mutated(whole, chance))
        else:
            content = bytearray(gzip.decompress(gzip.compress(json.dumps(whole).encode())))
            content[chance.randrange(len(content))] = chance.randrange(256)
            path.write_bytes(gzip.compress(bytes(content)))
        try:
            with ExitStack() as stack:
                stored = load("main", Path(stack.enter_context(TemporaryDirectory())), root)
                assert stored.trials.height >= 0
                assert stored.suite.name
        except (EvidenceError, UsageError) as error:
            refused += bool(str(error))
    assert refused > 50


def test_what_was_saved_comes_back(root, run, tmp_path):
    stored = load("main", tmp_path / "out", root)
    assert stored.scores.equals(run.scores)
    assert stored.points.equals(run.points)
    assert load_run(tmp_path / "out").trials["energy_j"].to_list() == run.trials["energy_j"].to_list()


class TestBaselines:
    def test_saved_and_loaded_it_is_the_same_run(self, tmp_path: Path) -> None:
        run = imported(table(prompts=8), tmp_path)
        kept = save(run, "main", tmp_path / "store")
        assert kept.bytes < 100_000
        again = load("main", tmp_path / "again", tmp_path / "store")
        assert frontier(again, resamples=200) == frontier(run, resamples=200)

    def test_promote_list_prune(self, tmp_path: Path) -> None:
        run, store = imported(table(prompts=4), tmp_path), tmp_path / "store"
        for name in ("main", "a", "b", "c"):
            save(run, name, store)
        promote("a", "release-1.2", store)
        assert {b.name for b in prune(1, store)} < {"a", "b", "c"}
        assert {"main", "release-1.2"} < {b.name for b in listed(store).baselines}
        with pytest.raises(UnknownNameError, match="did you mean 'main'"):
            find("mian", store)
        with pytest.raises(UsageError, match="letters"):
            save(run, "../x", store)

    def test_the_verbs(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = imported(table(prompts=64, ladder=(4, 16), variants=(("ladder", 1.0),)), tmp_path)
        monkeypatch.chdir(tmp_path)
        assert call("baseline", "save", "main", str(run.path), capsys=capsys)[0] == 0
        assert "main" in call("baseline", "list", capsys=capsys)[1]
        assert "ladder-004" in call("baseline", "show", "main", capsys=capsys)[1]
        assert call("baseline", "promote", "main", "release-1", capsys=capsys)[0] == 0
        assert call("baseline", "prune", "--keep", "0", "--json", capsys=capsys)[0] == 0
        options = ("--margin-quality", "0.1")
        gated = call("gate", "--baseline", "main", "--candidate", str(run.path), *options, capsys=capsys)
        assert gated[0] == 0
        assert call("gate", "--baseline", "none", "--candidate", str(run.path), capsys=capsys)[0] == 2


def test_a_baseline_of_a_version_without_races_is_read(root: Path, run: Run, tmp_path: Path) -> None:
    path = find("main", root).path
    record = record_of(path)
    del record["tables"]["points"]["dropped"]
    rewrite(path, record)
    loaded = load("main", tmp_path / "out", root)
    assert loaded.points["dropped"].null_count() == len(run.points)


def test_a_run_without_scores_is_kept_without_them(tmp_path: Path) -> None:
    bare = imported(table(prompts=2, ladder=(4,)).drop("quality:q"), tmp_path)
    (bare.path / "metrics.json").unlink(missing_ok=True)
    save(bare, "bare", tmp_path / "store")
    again = load("bare", tmp_path / "again", tmp_path / "store")
    assert again.metrics == {}
    assert not (tmp_path / "again" / "metrics.json").exists()
    assert again.trials.equals(bare.trials)


@pytest.mark.parametrize("kind", ["files", "tables"])
def test_what_a_record_lacks_is_named(root: Path, tmp_path: Path, kind: str) -> None:
    (path,) = root.glob("*/*/main.json.gz")
    record = record_of(path)
    name, _ = record[kind].popitem()
    rewrite(path, record)
    with pytest.raises(RunError, match=f"{kind} lack {name}"):
        load("main", tmp_path / "out", root)


def test_the_folder_of_a_system_has_at_most_64_characters(tmp_path: Path) -> None:
    run = imported(table(prompts=2, ladder=(4,)), tmp_path)
    vars(run).update(environment=run.environment | {"comparability_key": "k" * 100})
    assert save(run, "long", tmp_path / "store").key == "k" * 64
    vars(run).update(environment=run.environment | {"comparability_key": ".." + "k" * 100})
    assert len(save(run, "dots", tmp_path / "store").key) == 64


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "suite", "store", "repository"])
def test_a_store_with_links_is_neither_read_nor_written_nor_pruned(root, run, tmp_path, kind):
    """A repository can contain links, as the file and as the folders above it."""
    path = find("main", root).path
    outside = tmp_path / "outside"
    folders = dict(zip(("folder", "suite", "store", "repository"), path.parents, strict=False))
    if kind in folders:
        folders[kind].rename(outside)
        folders[kind].symlink_to(outside)
        with pytest.raises(RunError, match="is a symbolic link: replace it by a folder"):
            save(run, "other")
    elif kind == "link":
        path.rename(outside)
        path.symlink_to(outside)
    else:
        path.unlink()
        os.mkfifo(path)
    before = snapshot(tmp_path)
    for use in (
        lambda: load("main", tmp_path / "out", root),
        lambda: prune(0, root),
        lambda: require_readable(listed(root)),
        lambda: promote("main", "release-1", root),
    ):
        with pytest.raises(RunError, match=r"is a symbolic link: replace it|not a regular file"):
            use()
    assert snapshot(tmp_path) == before


def test_a_record_of_millions_of_lists_is_not_parsed(root):
    path = find("main", root).path
    path.write_bytes(gzip.compress(b'{"schema": 1, "tables": [' + b"[]," * 5_100_000 + b"[]]}"))
    with pytest.raises(RunError, match="more than 5,000,000 lists and objects"):
        load("main", root / "out", root)


def test_counted_work_is_stored_with_a_baseline(tmp_path: Path) -> None:
    own = with_work(as_own(imported(table(prompts=2, seeds=1, ladder=(2,)), tmp_path)), work_of(2))
    save(own, "main", tmp_path)
    loaded = load("main", tmp_path / "loaded", tmp_path)
    assert loaded.works == own.works != {}
    without = as_own(imported(table(prompts=2, seeds=1, ladder=(2,)), tmp_path, "without"))
    save(without, "other", tmp_path)
    assert load("other", tmp_path / "other", tmp_path).works == {}
