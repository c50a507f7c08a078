"""Whatever a command ends with becomes one message and an exit code that no verdict has."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import jsonschema
import pytest
import typer
from tests.perjoule.test_cli import call
from tests.support.tables_of_runs import imported, table, with_margin

from perjoule import cli, errors
from perjoule.commands import outcome
from perjoule.commands.options import print_json
from perjoule.commands.outcome import in_words, status_of
from perjoule.commands.schemas import schemas
from perjoule.errors import FILE_ERROR, INTERNAL_ERROR, READER_GONE, Interrupted, PerjouleError, RunError

MARGIN = ("--margin-quality", "0.15")
VERDICTS = {0, 1, 3}


@pytest.fixture(autouse=True)
def signals_and_traceback(monkeypatch):
    monkeypatch.delenv("PERJOULE_TRACEBACK", raising=False)
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def ending(error: BaseException):
    def command():
        raise error

    return command


class Panic(BaseException):
    """As polars raises it: not an Exception."""


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (RunError("runs/x: no"), 4, "perjoule: runs/x: no\n"),
        (
            RunError("a\x1b]0;t\x07b\u202e.toml\r: no"),
            4,
            "perjoule: a\ufffd]0;t\ufffdb\ufffd.toml\ufffd: no\n",
        ),
        (Interrupted("stopped"), 130, "perjoule: stopped\n"),
        (KeyboardInterrupt(), 130, "perjoule: interrupted\n"),
        (typer.Abort(), 130, "perjoule: interrupted\n"),
        (KeyError("a"), INTERNAL_ERROR, "internal error, please report it: KeyError: 'a'; PERJOULE_TRACEBACK=1 shows"),
        (AssertionError(), INTERNAL_ERROR, "internal error, please report it: AssertionError"),
        (RecursionError("deep\nmore"), INTERNAL_ERROR, "RecursionError: deep;"),
        (Panic("out of range"), INTERNAL_ERROR, "Panic: out of range"),
        (MemoryError(), INTERNAL_ERROR, "out of memory"),
        (
            PermissionError(errno.EACCES, "Permission denied", "a/b"),
            FILE_ERROR,
            "a/b: Permission denied: change its perm",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "a"), FILE_ERROR, "a: No space left on device: make room"),
        (OSError(errno.EFBIG, "File too large", "a"), FILE_ERROR, "a: File too large: raise the limit of file sizes"),
        (
            OSError(errno.ENOTEMPTY, "Directory not empty", "a", None, "b"),
            FILE_ERROR,
            "b: Directory not empty: choose another place, or remove it",
        ),
        (OSError("as polars has it (os error 13): a"), FILE_ERROR, "perjoule: as polars has it (os error 13): a\n"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), READER_GONE, ""),
        (SystemExit(7), 7, ""),
        (SystemExit(), 0, ""),
        (SystemExit("words"), INTERNAL_ERROR, "perjoule: words\n"),
    ],
)
def test_every_ending_has_its_code_and_one_line(capsys, error, status, words):
    assert status_of(ending(error)) == status
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == bool(words)
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RunError("runs/x: no run: give a run directory"), (4, "RunError", "give a run directory")),
        (Interrupted("stopped; continue with: perjoule run x"), (130, "Interrupted", "continue with: perjoule run x")),
        (
            errors.UnknownNameError("metric", "scne", ["scene"]),
            (2, "UnknownNameError", "did you mean 'scene'? known: scene"),
        ),
        (OSError(errno.ENOSPC, "No space left on device", "a"), (74, "OSError", "make room, or choose another place")),
        (ModuleNotFoundError("No module", name="pyiqa"), (2, "UsageError", "pip install 'perjoule[pyiqa]'")),
        (KeyError("a"), (INTERNAL_ERROR, "KeyError", None)),
        (RunError("a: no"), (4, "RunError", None)),
    ],
)  # fmt: skip
def test_with_json_a_failure_is_an_object_on_stdout(capsys, monkeypatch, error, expected):
    monkeypatch.setattr(sys, "argv", ["perjoule", "frontier", "x", "--json"])
    assert status_of(ending(error)) == expected[0]
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    jsonschema.validate(document, schemas()["error"])
    assert (document["error"]["code"], document["error"]["kind"], document["error"]["remedy"]) == expected
    assert document["error"]["message"] in shown.err


def test_bad_arguments_are_an_object_too(capsys):
    code, out, _ = call("frontier", "x", "--nonsense", "--json", capsys=capsys)
    assert (code, json.loads(out)["error"]["code"]) == (2, 2)
    assert json.loads(out)["error"]["remedy"].endswith(" frontier --help")  # after the name of the program
    code, out, _ = call("frontier", "nowhere", "--format", "json", capsys=capsys)
    assert (code, json.loads(out)["error"]["kind"]) == (4, "RunError")


@pytest.mark.parametrize(
    "arguments", [("frontier", "x"), ("measure", "--", "tool", "--json"), ("frontier", "--format", "csv")]
)
def test_without_json_stdout_stays_empty(capsys, monkeypatch, arguments):
    monkeypatch.setattr(sys, "argv", ["perjoule", *arguments])
    assert status_of(ending(RunError("x"))) == 4
    assert capsys.readouterr().out == ""


def test_a_result_is_followed_by_no_second_object(capsys, monkeypatch):
    def command():
        print_json({"chosen": None})
        raise RunError("x")

    monkeypatch.setattr(sys, "argv", ["perjoule", "recommend", "x", "--json"])
    assert status_of(command) == 4
    assert json.loads(capsys.readouterr().out) == {"chosen": None}
    assert status_of(ending(RunError("x"))) == 4  # a later command of this process starts anew
    assert json.loads(capsys.readouterr().out)["error"]["message"] == "x"


def test_no_fault_has_the_code_of_a_verdict():
    def below(kind):
        return {kind}.union(*map(below, kind.__subclasses__()))

    codes = {kind.exit_code for kind in below(PerjouleError)} | {INTERNAL_ERROR, FILE_ERROR, READER_GONE}
    assert not codes & VERDICTS


def test_the_traceback_can_be_had(capsys, monkeypatch):
    monkeypatch.setenv("PERJOULE_TRACEBACK", "1")
    assert status_of(ending(KeyError("a"))) == INTERNAL_ERROR
    err = capsys.readouterr().err
    assert "raise error\nKeyError: 'a'" in err.replace("    ", "")
    assert "PERJOULE_TRACEBACK" not in err


def test_what_an_application_returns_is_its_code():
    assert [status_of(Mock(return_value=value)) for value in (None, 0, 3, "text")] == [0, 0, 3, 0]


def test_typers_own_errors_are_usage_errors(capsys):
    assert call("plan", capsys=capsys)[0] == 2
    code, _, err = call("plan", "demo", "--nonsense", capsys=capsys)
    assert (code, "No such option" in err) == (2, True)
    assert call("budgetfusion", "predict", capsys=capsys)[0] == 2


def test_an_end_of_input_and_a_broken_pipe_inside_typer_are_no_verdict(monkeypatch, capsys):
    """Typer makes both an exit with 1."""
    for error, code in ((EOFError(), 130), (BrokenPipeError(errno.EPIPE, "Broken pipe"), READER_GONE)):
        monkeypatch.setattr("perjoule.commands.schemas.schemas", ending(error))
        assert call("schema", capsys=capsys)[0] == code


@pytest.mark.parametrize(
    "part", ["perjoule.gating.examine", "perjoule.gating.render.terminal", "perjoule.gating.baselines.opened"]
)
@pytest.mark.parametrize("error", [ValueError("x"), AttributeError("x"), Panic("x"), OSError(5, "Input/output error")])
def test_an_internal_error_of_the_gate_is_not_a_fail(tmp_path, capsys, monkeypatch, part, error):
    run = with_margin(imported(table(prompts=4, seeds=1, ladder=(2, 4)), tmp_path))
    monkeypatch.setattr(part, lambda *arguments, **options: ending(error)())
    code, _, err = call("gate", "--baseline", str(run.path), "--candidate", str(run.path), *MARGIN, capsys=capsys)
    assert code in {INTERNAL_ERROR, FILE_ERROR}
    assert "Traceback" not in err


def test_words_of_the_operating_system_name_the_file_that_was_meant():
    assert in_words(OSError(errno.ENOENT, "No such file", "tmp", None, "target")).startswith("target: ")
    assert in_words(OSError(errno.EROFS, "Read-only", b"caf\xe9")) == (
        "caf\ufffd: Read-only: choose another place for the output, e.g. with --out"
    )


def test_every_remedy_is_one_the_reader_can_take():
    for number, remedy in outcome._REMEDIES.items():
        words = in_words(OSError(number, os.strerror(number), "the-file"))
        assert words.startswith("the-file: ")
        assert words.endswith(remedy)


@pytest.mark.parametrize("pause_s", [0.0, 0.05, 0.3])
def test_two_interrupts_leave_no_traceback(tmp_path, pause_s):
    """The second one comes while the first is being handled, or while the interpreter ends."""
    code = (
        "import signal, sys, time\n"
        "from perjoule.commands.outcome import status_of\n"
        # a child of a shell's background job ignores SIGINT
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def command():\n"
        "    try:\n        print('ready', flush=True); time.sleep(60)\n"
        "    finally:\n        print('cleaning', flush=True); time.sleep(0.2)\n"
        "import atexit; atexit.register(time.sleep, 0.5)\n"
        "sys.exit(status_of(command))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "cleaning\n"
    time.sleep(pause_s)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT)  # a shell says 130 for both
    assert err in ("perjoule: interrupted\n", "")


def test_the_codes_are_documented():
    text = Path(errors.__file__).read_text(encoding="utf-8") + (outcome.__doc__ or "")
    for code in (INTERNAL_ERROR, FILE_ERROR, READER_GONE):
        assert str(code) in text
    assert cli.main.__doc__


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_that_end_a_process_stop_a_command_as_ctrl_c_does(number, capsys):
    outside = signal.signal(number, signal.SIG_DFL)  # under nohup it is ignored
    before = signal.getsignal(number)

    def command():
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            raise Interrupted("stopped: 3 of 4 trials are kept") from None

    try:
        assert status_of(command) == 130
        assert capsys.readouterr().err == "perjoule: stopped: 3 of 4 trials are kept\n"
        assert signal.getsignal(number) is before
    finally:
        signal.signal(number, outside)


def test_a_hangup_that_is_ignored_stays_ignored(capsys):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        assert status_of(lambda: signal.raise_signal(signal.SIGHUP)) == 0
    finally:
        signal.signal(signal.SIGHUP, before)
