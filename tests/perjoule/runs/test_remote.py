"""Runs and tables on a local S3 server: everything as on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from perjoule.commands.frontier import frontier
from perjoule.commands.gate import gate
from perjoule.commands.importing import import_
from perjoule.commands.recommend import recommend
from perjoule.commands.report import report
from perjoule.errors import RunError, UsageError
from perjoule.runs import remote
from perjoule.runs.directory import load_run
from perjoule.runs.remote import fetched_run, fetched_table
from perjoule.statistics.points import operating_points
from tests.support.object_storage import PRIVATE, s3_server
from tests.support.stored_runs import stored_run

pytest.importorskip("s3fs")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bucket with a run, a folder that is not one, and a table."""
    folder = tmp_path_factory.mktemp("storage") / "lab"
    run = folder / "runs" / "tiny"
    run.mkdir(parents=True)
    stored_run(run)
    for name in (".hidden.png", "notes.txt"):
        (run / "images" / name).write_bytes(b"picture")
    (run / "traces.jsonl").write_text("{}\n")
    (run / "notes.txt").write_text("private")
    (folder / "other").mkdir()
    (folder / "other" / "readme.txt").write_text("no run")
    table = "variant,prompt_id,seed,energy_j,quality:q\na,p1,1,10,0.5\na,p2,1,12,0.6\n"
    (folder / "measured.csv").write_text(table)
    (folder.parent / PRIVATE).mkdir()
    return folder


@pytest.fixture
def requests(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A server of the bucket, as the environment names it; the keys that were requested."""
    with s3_server(bucket.parent) as (endpoint, requests):
        for name, value in {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            monkeypatch.setenv(name, value)
        yield requests


ADDRESS = "s3://lab/runs/tiny"


def test_a_run_is_read_as_on_disk_and_its_copy_is_deleted(bucket: Path, requests: list[str]) -> None:
    local = load_run(bucket / "runs" / "tiny")
    with fetched_run(f"{ADDRESS}/") as folder:
        run = load_run(folder)
        assert run.suite == local.suite
        for name in ("trials", "images", "scores", "points"):
            assert getattr(run, name).equals(getattr(local, name))
        assert operating_points(run).equals(operating_points(local))
        assert folder.name == "tiny"
        assert not {"traces.jsonl", "notes.txt", "images"} & {path.name for path in folder.iterdir()}
    assert not folder.exists()
    assert not any("images/" in key or "traces" in key or "notes" in key for key in requests)


def test_pictures_are_fetched_if_they_are_needed(bucket: Path, requests: list[str]) -> None:
    stored = {path.name: path.read_bytes() for path in (bucket / "runs" / "tiny" / "images").glob("[!.]*.png")}
    with fetched_run(ADDRESS, pictures=True) as folder:
        assert {path.name: path.read_bytes() for path in (folder / "images").iterdir()} == stored
    assert stored


def test_a_path_is_not_copied(bucket: Path) -> None:
    with fetched_run(bucket / "runs" / "tiny") as folder:
        assert folder == bucket / "runs" / "tiny"
    with fetched_table(bucket / "measured.csv") as file:
        assert file == bucket / "measured.csv"


def test_verbs_give_the_same_for_an_address(
    bucket: Path, requests: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []
    for name in (str(bucket / "runs" / "tiny"), ADDRESS):
        frontier(name, as_json=True)
        recommend(name, max_joules=1e9)
        with pytest.raises(typer.Exit) as verdict:
            gate(baseline=name, candidate=name, margin_quality=0.1, as_json=True)
        printed.append((verdict.value.exit_code, capsys.readouterr().out))
    assert printed[0] == printed[1]
    import_("s3://lab/measured.csv", out=tmp_path / "imported")
    run = load_run(tmp_path / "imported")
    assert run.trials["energy_j"].to_list() == [10, 12]
    assert run.system.imported_from == "measured.csv"


@pytest.mark.slow
def test_a_report_is_written_to_a_file_here(requests: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{ADDRESS} is only read: name the file of the report with --out"):
        report(ADDRESS)
    report(ADDRESS, out=tmp_path / "report.html")
    assert "</html>" in (tmp_path / "report.html").read_text()
    report(ADDRESS, baseline=ADDRESS, margin_quality=0.1, out=tmp_path / "gated.html")
    assert "perjoule-" not in (tmp_path / "gated.html").read_text().split("<body")[0]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("s3://lab/runs/none", "s3://lab/runs/none does not exist: check the address"),
        ("s3://none/runs/tiny", "s3://none/runs/tiny does not exist"),
        ("s3://lab/other", "s3://lab/other is not a run directory"),
        (f"s3://{PRIVATE}/run", f"s3://{PRIVATE}/run cannot be fetched: PermissionError: .*: check the credentials"),
    ],
)
def test_what_cannot_be_fetched_is_refused_in_words(address: str, words: str, requests: list[str]) -> None:
    with pytest.raises(RunError, match=words), fetched_run(address):
        pass


@pytest.mark.parametrize(
    "address", ["s3://lab", "s3://lab/..", "gs://lab/run", "file:///tmp/run", "simplecache::s3://a/b"]
)
def test_other_addresses_are_refused(address: str) -> None:
    for fetched in (fetched_run, fetched_table):
        with pytest.raises(UsageError, match="only s3://BUCKET/PATH is read"), fetched(address):
            pass


def test_a_table_that_does_not_exist_is_a_usage_error(requests: list[str]) -> None:
    with pytest.raises(UsageError, match=r"s3://lab/none\.csv does not exist"), fetched_table("s3://lab/none.csv"):
        pass


def test_a_file_that_is_too_large_is_not_fetched(requests: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "MOST_TEXT_BYTES", 10)
    with (
        pytest.raises(RunError, match=r"s3://lab/runs/tiny/\S+ has .* MiB, but perjoule reads at most"),
        fetched_run(ADDRESS),
    ):
        pass
    assert requests == ["runs/tiny/"]


def test_no_server_is_said_so(requests: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with (
        pytest.raises(RunError, match=f"{ADDRESS} cannot be fetched: .*AWS_ENDPOINT_URL and the network"),
        fetched_run(ADDRESS),
    ):
        pass


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(UsageError, match=r"s3fs is not installed: pip install 'perjoule\[s3\]'"), fetched_run(ADDRESS):
        pass
