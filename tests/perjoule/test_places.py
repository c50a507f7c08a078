"""The command as a user starts it, where the place or the encoding is not the usual one: no traceback, nothing lost."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import perjoule
from perjoule.errors import FILE_ERROR, READER_GONE
from perjoule.runs.directory import load_run
from tests.perjoule.running.test_execute import do, fresh, make_suite
from tests.perjoule.test_cli import SUITE, call
from tests.support.tables_of_runs import imported, table, with_margin

pytestmark = pytest.mark.slow

PERJOULE = [sys.executable, "-c", "from perjoule.cli import main; main()"]
ASCII: dict[str, Any] = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
TRACES = ("Traceback", "Exception ignored", "internal error")


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path if entry)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GITHUB_", "PYTHON", "LC_", "LANG"))}
    return kept | {"PYTHONPATH": path} | more


def shell(command: str, at: Path, prefix: tuple[str, ...] = (), **more: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command line in which $P is perjoule."""
    done = subprocess.run(
        [*prefix, "bash", "-c", 'P() { "$@"; }; ' + command.replace("$P", '"$PYTHON" -c "$MAIN"')],
        cwd=at,
        env=environment(PYTHON=PERJOULE[0], MAIN=PERJOULE[2], **more),
        capture_output=True,
        check=False,
    )
    for trace in TRACES:
        assert trace.encode() not in done.stderr, done.stderr.decode(errors="replace")
    return done


def without_rights(*, needed: bool = True) -> tuple[str, ...]:
    """What a command starts with so that the permissions of files hold for it even if the tests run as root."""
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("root without setpriv: permissions stop nothing")
    prefix = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--inh-caps=-all")
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("setpriv may not drop rights here")
    return prefix


def in_namespace(setup: str, folder: Path) -> tuple[str, ...]:
    """What a command starts with so that `setup` (a mount at $1) holds for it alone; skips where it is not allowed."""
    prefix = ("unshare", "-m", "sh", "-c", f'{setup} && shift && exec "$@"', "sh", str(folder))
    if (
        shutil.which("unshare") is None
        or subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no mount namespaces here")
    return prefix


MARGIN = ("--margin-quality", "0.15")
READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1"'
FULL = 'mount -t tmpfs -o size=256k tmpfs "$1"'


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder with `base` and `candidate`, imported, and `drawn`, with pictures and one cheap metric."""
    folder = tmp_path_factory.mktemp("runs")
    with_margin(imported(table(prompts=6, seeds=1, ladder=(2, 4)), folder, "base"))
    with_margin(imported(table(prompts=6, seeds=1, ladder=(2, 4), seed=1), folder, "candidate"))
    suite = make_suite()
    do(replace(suite, title="± × … 日本"), fresh(folder / "drawn", replace(suite, title="± × … 日本")))
    return folder


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "prompts.txt").write_text("a large red circle on a white ground\nun café × 2\n", encoding="utf-8")
    (tmp_path / "suite.toml").write_text(SUITE, encoding="utf-8")
    return tmp_path / "suite.toml"


def calls_of(file: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(file.read_bytes())) if isinstance(node, ast.Call)]


def takes_the_locale(call: ast.Call) -> bool:
    """Whether a call reads or writes text and names no encoding."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if any(keyword.arg in ("encoding", "opener") for keyword in call.keywords):
        return False
    if name in ("read_text", "write_text") and isinstance(call.func, ast.Attribute):
        return len(call.args) < (2 if name == "write_text" else 1)
    if name not in ("open", "fdopen"):
        return False
    place = int(isinstance(call.func, ast.Name) or name == "fdopen")
    if len(call.args) <= place:
        return isinstance(call.func, ast.Name) or (name == "open" and not call.args and _is_of_a_path(call.func))
    mode = call.args[place]
    return isinstance(mode, ast.Constant) and re.fullmatch("[rwax+t]+", str(mode.value)) is not None


def _is_of_a_path(function: ast.expr) -> bool:
    return isinstance(function, ast.Attribute) and ast.unparse(function.value).endswith(("path", "file"))


def test_calls_in_the_encoding_of_the_locale_are_recognised():
    wrong = ["a.read_text()", "(a / b).write_text(c)", "open(a)", "open(a, 'w')", "file.open()", "p.open('a')"]
    right = [
        "a.read_text('utf-8')",
        "a.write_text(b, encoding=c)",
        "open(a, 'rb')",
        "p.open('r+b')",
        "Image.open(file)",
    ]
    for source in (*wrong, *right):
        (node,) = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call)]
        assert takes_the_locale(node) == (source in wrong), source


def printed(arguments: list[str], encoding: str, capsys, monkeypatch) -> tuple[int, str]:
    """(exit code, stdout) of a command whose stdout has another encoding."""
    buffer = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding=encoding))
        code, _, err = call(*arguments, capsys=capsys)
        # typer itself writes UTF-8 where stdout is said to be ASCII
        text = buffer.getvalue().decode("utf-8" if encoding == "ascii" else encoding)
    assert "perjoule:" not in err
    return code, text


class TestEncodings:
    @pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
    def test_a_suite_with_a_byte_order_mark(self, suite, capsys, mark):
        suite.write_bytes(mark + suite.read_bytes())
        suite.with_name("prompts.txt").write_bytes(mark + suite.with_name("prompts.txt").read_bytes())
        code, out, _ = call("plan", str(suite), "--json", capsys=capsys)
        assert code == 0
        assert json.loads(out)["prompts"] == 2

    def test_a_suite_in_another_encoding_says_where(self, suite, capsys):
        suite.write_bytes(SUITE.replace("Mine", "Café").encode("latin-1"))
        code, _, err = call("plan", str(suite), capsys=capsys)
        assert (code, "line 2" in err, "save it as UTF-8" in err) == (2, True, True)
        suite.write_bytes(SUITE.encode("utf-16"))
        code, _, err = call("plan", str(suite), capsys=capsys)
        assert (code, "it is UTF-16; save it as UTF-8" in err) == (2, True)

    @pytest.mark.parametrize("encoding", ["cp437", "koi8-r", "ascii", "latin-1", "utf-16"])
    def test_every_result_can_be_printed_and_json_loses_nothing(self, suite, runs, capsys, monkeypatch, encoding):
        gate = ["gate", "--baseline", str(runs / "base"), "--candidate", str(runs / "candidate"), *MARGIN]
        for arguments in (
            ["plan", str(suite)],
            ["frontier", str(runs / "base")],
            ["list", "metrics"],
            ["--help"],
            gate,
        ):
            code, text = printed(arguments, encoding, capsys, monkeypatch)
            assert (code, bool(text.strip())) == (0, True)
        for arguments in (["plan", str(suite), "--json"], [*gate, "--json"], ["list", "suites", "--json"], ["schema"]):
            code, text = printed(arguments, encoding, capsys, monkeypatch)
            assert code == 0
            assert json.loads(text) == json.loads(call(*arguments, capsys=capsys)[1])

    def test_a_locale_without_utf8(self, suite, runs):
        done = shell(
            f"$P plan {suite} && $P frontier {runs}/base && $P report {runs}/base --out o.html", suite.parent, **ASCII
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"o.html" in done.stdout

    def test_signs_are_written_by_their_look_and_the_rest_as_json_escapes(self):
        from perjoule.text import PLAIN

        assert "0.4 ± 0.1 × 2 → 日本 \ud800 😀".encode("ascii", PLAIN).decode() == (
            "0.4 +/- 0.1 x 2 -> \\u65e5\\u672c \\ud800 \\ud83d\\ude00"
        )
        # in JSON, the escapes mean the signs that they stand for
        assert json.loads('"日本 😀"'.encode("ascii", PLAIN)) == "日本 😀"

    def test_no_text_file_is_read_or_written_in_the_encoding_of_the_locale(self):
        sources = Path(perjoule.__file__).parents[2]
        files = [file for room in ("bench", "suites", "reports") for file in (sources / room).rglob("*.py")]
        assert len(files) > 100
        assert [f"{file}:{call.lineno}" for file in files for call in calls_of(file) if takes_the_locale(call)] == []

    def test_a_name_that_is_not_utf8(self, runs, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        odd = os.fsencode(tmp_path) + b"/caf\xe9"
        shutil.copytree(runs / "base", os.fsdecode(odd))
        name = os.fsdecode(odd)
        assert call("frontier", name, capsys=capsys)[0] == 0
        assert call("report", name, "--json", capsys=capsys)[0] == 0
        assert call("baseline", "save", "main", name, "--json", capsys=capsys)[0] == 0
        assert Path(name, "report.html").exists()


class TestMissingFolders:
    def test_every_output_of_the_gate_makes_its_folder(self, runs, tmp_path, capsys, monkeypatch):
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "s" / "t" / "summary.md"))
        outputs = [tmp_path / "a" / "b" / "junit.xml", tmp_path / "c" / "d" / "comment.md"]
        options = ["--junit", str(outputs[0]), "--markdown", str(outputs[1])]
        base = str(runs / "base")
        assert call("gate", "--baseline", base, "--candidate", base, *options, *MARGIN, capsys=capsys)[0] == 0
        for file in (*outputs, tmp_path / "s" / "t" / "summary.md"):
            assert file.read_text(encoding="utf-8")

    def test_report_import_init_and_baseline_make_theirs(self, runs, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        base = str(runs / "base")
        assert call("report", base, "--out", "a/b/c.html", capsys=capsys)[0] == 0
        assert call("report", str(runs), "--out", "d/e/index.html", capsys=capsys)[0] == 0
        assert call("import", str(runs / "base.parquet"), "--out", "f/g/run", capsys=capsys)[0] == 0
        assert call("init", "h/i", capsys=capsys)[0] == 0
        assert call("baseline", "save", "main", base, capsys=capsys)[0] == 0
        for file in ("a/b/c.html", "d/e/index.html", "f/g/run/environment.json", "h/i/perjoule.toml", ".perjoule"):
            assert Path(file).exists()


class TestUnwritable:
    @pytest.mark.parametrize("how", ["permissions", "mount"])
    def test_a_read_only_run_can_be_read_and_reported_elsewhere(self, runs, tmp_path, how):
        run = tmp_path / "runs"
        shutil.copytree(runs, run)
        folders = [run, run / "base", run / "drawn", run / "drawn" / "images"]
        prefix = without_rights() if how == "permissions" else in_namespace(READ_ONLY, run)
        for folder in folders if how == "permissions" else ():
            folder.chmod(0o555)
        before = {str(path): path.stat().st_mtime_ns for path in run.rglob("*")}
        gate = f"gate --baseline {run}/base --candidate {run}/base --margin-quality 0.15"
        for command in (f"frontier {run}/base", f"report {run}/base --out {tmp_path}/o.html", gate):
            done = shell(f"$P {command}", tmp_path, prefix)
            assert (done.returncode, done.stderr) == (0, b"")
        for command, file in (
            (f"report {run}/base", "base/report.html"),
            (f"score {run}/drawn", "drawn/scores.partial.jsonl"),
            (f"{gate} --junit {run}/base/junit.xml", "base/junit.xml"),
            (f"init {run}/base", "base/perjoule.toml"),
            (f"import {run}/base.parquet --out {run}/new", "new"),
        )[:: 1 if how == "permissions" else 2]:
            done = shell(f"$P {command}", tmp_path, prefix)
            words = done.stderr.decode().strip().splitlines()[-1]
            assert done.returncode == FILE_ERROR, (command, words)
            assert file in words
            assert "choose another place" in words
        for folder in folders:
            folder.chmod(0o755)
        assert {str(path): path.stat().st_mtime_ns for path in run.rglob("*")} == before

    def test_a_full_disk(self, runs, tmp_path):
        disk = tmp_path / "disk"
        disk.mkdir()
        prefix = in_namespace(FULL, disk)
        fill = f"cp -r {runs}/base {disk}/run; head -c 1M /dev/zero > {disk}/filler 2>/dev/null; "
        for command in ("$P report disk/run", f"cd disk && $P baseline save main {runs}/base"):
            done = shell(fill + command, tmp_path, prefix)
            assert done.returncode == FILE_ERROR, done.stderr
            assert b"No space left on device: make room, or choose another place" in done.stderr

    def test_the_verdict_is_printed_and_is_no_verdict_if_its_file_cannot_be_written(
        self, runs, tmp_path, capsys, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "file").write_text("")
        gate = ["gate", "--baseline", str(runs / "base"), "--candidate", str(runs / "base"), *MARGIN]
        for target in ("/dev/full", "file/junit.xml", "."):
            code, out, err = call(*gate, "--junit", target, capsys=capsys)
            assert code == FILE_ERROR
            assert "PASS" in out
            assert err.startswith(f"perjoule: {target}")
            assert err.count("\n") == 1
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", "/dev/full")
        code, out, err = call(*gate, capsys=capsys)
        assert (code, "PASS" in out) == (0, True)
        assert "warning: GITHUB_STEP_SUMMARY: No space left on device" in err

    @pytest.mark.parametrize("verb", ["frontier {}/base --format json", "--help"])
    def test_stdout_that_takes_nothing(self, runs, tmp_path, verb):
        command = f"$P {verb.format(runs)}"
        done = shell(f"{command} > /dev/full", tmp_path)
        assert done.returncode == FILE_ERROR
        assert done.stderr == b"perjoule: stdout: No space left on device: make room, or choose another place\n"
        assert shell(f"{command} >&-", tmp_path).returncode == 0

    def test_a_gate_whose_reader_has_gone_is_no_verdict(self, runs, tmp_path):
        gate = f"$P gate --baseline {runs}/base --candidate {runs}/base --margin-quality 0.15"
        done = shell(f'{gate} | true; exit "${{PIPESTATUS[0]}}"', tmp_path)
        assert (done.returncode, done.stderr) == (READER_GONE, b"")
        done = shell(f"{gate} > /dev/full", tmp_path)
        assert done.returncode == FILE_ERROR


class TestLinks:
    def test_a_dangling_link_where_a_run_belongs(self, suite, tmp_path, capsys, runs):
        (tmp_path / "out").symlink_to("nowhere")
        code, _, err = call("run", str(suite), "--out", str(tmp_path / "out"), "--quiet", capsys=capsys)
        assert code == 2
        assert "out is a link to nowhere, which does not exist: make that folder, or remove it" in err
        code, _, err = call("import", str(runs / "base.parquet"), "--out", str(tmp_path / "out"), capsys=capsys)
        assert (code, "is a link to nowhere" in err) == (2, True)
        assert not (tmp_path / "nowhere").exists()

    @pytest.mark.parametrize("target", ["nowhere", "loop"])
    def test_links_that_lead_nowhere_are_named_by_every_verb(self, suite, tmp_path, capsys, target, runs, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("loop").symlink_to(target)
        for arguments in (
            ["frontier", "loop"], ["score", "loop"], ["report", "loop"],
            ["gate", "--baseline", "x", "--candidate", "loop"],
            ["recommend", "loop", "--min-quality", "1"], ["baseline", "save", "main", "loop"], ["plan", "loop"],
            ["plan", str(suite), "--from", "loop"], ["import", "loop", "--out", "out"],
            ["run", str(suite), "--out", "loop"],
            ["run", str(suite), "--out", "loop", "--resume"], ["doctor", "--suite", "loop"],
            ["frontier", "a" * 300], ["plan", "b" * 300], ["report", str(runs / "base"), "--out", "c" * 300 + ".html"],
        ):  # fmt: skip
            code, _, err = call(*arguments, capsys=capsys)
            assert code in (2, 4, FILE_ERROR), (arguments, err)
            assert "internal error" not in err
            assert any(name in err for name in ("loop", "a" * 300, "b" * 300, "c" * 300))

    def test_init_writes_through_no_link(self, tmp_path, capsys):
        (tmp_path / "repo").mkdir()
        (tmp_path / "repo" / "perjoule.toml").symlink_to(tmp_path / "planted")
        assert call("init", str(tmp_path / "repo"), capsys=capsys)[0] == 0
        assert not (tmp_path / "planted").exists()

    def test_a_report_replaces_a_link_and_does_not_follow_it(self, runs, tmp_path, capsys):
        run = tmp_path / "run"
        shutil.copytree(runs / "base", run)
        (tmp_path / "precious").write_text("mine")
        for name in ("report.html", "report.md", "result.json", "report.html.tmp", "report.md.tmp", "result.json.tmp"):
            (run / name).unlink(missing_ok=True)
            (run / name).symlink_to(tmp_path / "precious")
        assert call("report", str(run), capsys=capsys)[0] == 0
        assert (tmp_path / "precious").read_text() == "mine"
        assert (run / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
        assert load_run(run).points.height
