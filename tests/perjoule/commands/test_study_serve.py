"""`perjoule study serve`, as an operator starts and ends it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from tests.perjoule.test_cli import call
from tests.support.studies import answer, answer_file, collected, make_study

from perjoule.people.records import AnswerFile, Study, as_object, parsed_answers

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "perjoule", "study", "serve"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    folder = tmp_path_factory.mktemp("study") / "study"
    return make_study(folder, main=4), folder


@pytest.mark.parametrize(("number", "host"), [(signal.SIGINT, "127.0.0.1"), (signal.SIGTERM, "127.0.0.2")])
def test_ctrl_c_ends_it_with_everything_stored(study: tuple[Study, Path], number: signal.Signals, host: str) -> None:
    ours, folder = study
    observer = f"{number:032x}"
    command = [*COMMAND, str(folder), "--host", host, "--port", "0", "--provenance", "simulated"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert re.fullmatch(rf"http://{re.escape(host)}:\d+/", url)
        body = json.dumps(answer_file(ours, [answer(ours, t, observer=observer) for t in ours.sessions[0]])).encode()
        request = Request(f"{url}api/answers", body, {"Content-Type": "application/json"})
        with urlopen(request, timeout=30) as reply:
            assert len(json.load(reply)["stored"]) == len(ours.sessions[0])
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert out == ""
    assert re.search(r"answers\.sqlite: answers: \d+, observers: \d$", err.strip())
    assert "Traceback" not in err
    assert len([a for a in collected(folder) if a.observer == observer]) == len(ours.sessions[0])
    assert not list(folder.glob("answers.sqlite-*"))  # the log is folded into the database


def test_answers_are_exported_in_the_format_of_the_page(
    study: tuple[Study, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = study
    code, out, err = call("study", "serve", str(folder), "--export", str(tmp_path / "a.json"), capsys=capsys)
    assert (code, out) == (0, "")
    assert re.search(r"a\.json: answers: \d+, observers: \d", err)
    answers = parsed_answers((tmp_path / "a.json").read_bytes(), "a.json")
    assert set(answers) == set(collected(folder))
    exported = AnswerFile(schema=1, study_id=study[0].study_id, answers=answers)
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == as_object(exported)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{folder}/pictures"], 2, "no study.json"),
        (["{folder}", "--host", "0.0.0.0"], 2, "others can reach this address, so a token is needed: --token "),
        (["{folder}", "--token", "short"], 2, "--token: give 16 to 200 letters"),
        (["{folder}", "--host", "no-such-host.invalid"], 2, "--host no-such-host.invalid --port 8000"),
        (["{folder}", "--provenance", "robots"], 2, "--provenance"),
        (["{folder}", "--port", "65536"], 2, "less than or equal to 65535"),
        (["{tampered}"], 4, "not the picture of the study"),
        (["{foreign}"], 4, "answers.sqlite: answers to study"),
    ],
)
def test_what_cannot_be_served_is_one_error(
    study: tuple[Study, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    for name in ("tampered", "foreign"):
        made = make_study(tmp_path / name, main=4, seed=1)
    (tmp_path / "tampered" / made.pictures[0].file).write_bytes(
        (tmp_path / "tampered" / made.pictures[1].file).read_bytes()
    )
    from perjoule.people.store import AnswerStore

    AnswerStore(tmp_path / "foreign" / "answers.sqlite", "b" * 64).close()
    places = {"folder": study[1], "tampered": tmp_path / "tampered", "foreign": tmp_path / "foreign"}
    before = sorted(study[1].rglob("*"))
    status, out, err = call("study", "serve", *(a.format(**places) for a in arguments), capsys=capsys)
    assert (status, out) == (code, "")
    assert words in " ".join(err.split())
    assert "Traceback" not in err
    assert sorted(study[1].rglob("*")) == before
