"""The server of a study, over HTTP: who may ask, what is stored, what is refused, what a crash leaves."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from perjoule.errors import UsageError
from perjoule.people import server as serve
from perjoule.people.folder import add_answers
from perjoule.people.records import Study, StudyIndex
from tests.support.hostile import PROMPTS
from tests.support.studies import OBSERVER, Server, answer, answer_file, collected, make_study, serving

pytestmark = pytest.mark.slow

TOKEN = "a-token_of_16_or_more"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Study, Server]]:
    folder = tmp_path_factory.mktemp("served") / "study"
    study = make_study(folder)
    with serving(folder) as server:
        yield study, server
        assert server.stop() == ""  # nothing of all this was an error of the server


def test_an_answer_is_stored_once_and_the_first_counts(served: tuple[Study, Server]) -> None:
    study, server = served
    first, second = study.sessions[0][:2]
    status, reply = server.post("api/answers", answer_file(study, [answer(study, first), answer(study, second)]))
    assert (status, reply) == (200, {"stored": [first, second], "refused": {}})
    for choice in ("left", "right"):  # sent again, e.g. because the reply was lost
        status, reply = server.post("api/answers", answer_file(study, [answer(study, first, choice)]))
        assert (status, reply) == (200, {"stored": [first], "refused": {}})
    stored = [(a.trial_id, a.choice) for a in collected(server.folder)]
    assert sorted(stored) == sorted([(first, "left"), (second, "left")])


def test_one_bad_answer_does_not_hold_back_the_others(served: tuple[Study, Server]) -> None:
    study, server = served
    good, *others = study.sessions[1][:7]
    someone = "f" * 32
    bad = [answer(study, other, observer=someone) for other in others]
    bad[0]["left"] = "sd-99"
    bad[1]["trial_id"] = "main-p0-p1"
    bad[2]["study_id"] = "0" * 64
    bad[3]["observer"] = PROMPTS[0]
    bad[4]["trial_id"] = PROMPTS[1]
    bad[5]["provenance"] = "people"  # a server of simulated answers; one of people refuses simulated ones
    status, reply = server.post("api/answers", answer_file(study, [*bad, answer(study, good, observer=someone)]))
    assert status == 200
    assert reply["stored"] == [good]
    assert reply["refused"].keys() == {one["trial_id"] for one in bad}
    assert "no such trial" in reply["refused"]["main-p0-p1"]
    assert reply["refused"][others[5]] == "provenance = 'people': this study takes 'simulated' only"
    assert [a.trial_id for a in collected(server.folder) if a.observer == someone] == [good]


NO_LISTS: tuple[Any, ...] = (1, [1], [{}], "x")
NO_OBSERVERS: tuple[Any, ...] = ("", "x", OBSERVER.upper(), OBSERVER + "\n", 1, PROMPTS[1])


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"null", b"[]", b"\xff\xfe", b'{"schema": 1}', b"[" * 100_000, b'{"observer": NaN}'),
        b"x" * 1_000_001,
        *(json.dumps({"schema": 1, "study_id": "s", "answers": answers}).encode() for answers in NO_LISTS),
        *(json.dumps({"observer": observer}).encode() for observer in NO_OBSERVERS),
    ],
    ids=lambda body: body[:20].decode(errors="replace"),
)
def test_what_is_no_answer_is_refused_in_words(served: tuple[Study, Server], body: bytes) -> None:
    _, server = served
    before = collected(server.folder)
    for path in ("api/answers", "api/session", "api/next", "api/delete"):
        try:
            status, reply = server.post(path, body)
        except URLError:  # closed while the body was still being sent
            assert len(body) > 1_000_000
            continue
        assert status in (413, 422)
        assert 0 < len(reply["error"]) < 500
    assert collected(server.folder) == before


def test_a_page_elsewhere_cannot_use_the_server(served: tuple[Study, Server]) -> None:
    study, server = served
    body = answer_file(study, [answer(study, study.sessions[2][0], observer="e" * 32)])
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):  # sent without asking
        assert server.post("api/answers", body, Content_Type=kind)[0] == 415
    assert server.get("", Host="study.example.org")[0] == 400  # a name that was made to lead here
    assert not [a for a in collected(server.folder) if a.observer == "e" * 32]
    with urlopen(server.url, timeout=10) as reply:
        names = {name.lower() for name in reply.headers}
        assert not {name for name in names if name.startswith(("set-cookie", "access-control", "server"))}
        assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "no-referrer"


def test_only_the_pictures_of_the_study_are_served(served: tuple[Study, Server]) -> None:
    study, server = served
    file = study.pictures[3].file
    assert server.get(file) == (200, (server.folder / file).read_bytes())
    (server.folder / "pictures" / "other.png").write_bytes(b"secret")
    for path in ("pictures/other.png", "pictures/..%2fstudy.json", "pictures/%2e%2e/study.json", "study.json",
                 "answers.sqlite", "pictures/", "%2e%2e/%2e%2e/etc/passwd", "docs", "api/answers"):  # fmt: skip
        assert server.get(path)[0] in (404, 405), path


def test_sessions_are_those_of_the_design(served: tuple[Study, Server]) -> None:
    study, server = served
    index = StudyIndex(study)
    given = []
    for number in range(3):
        status, reply = server.post("api/session", {"observer": f"{number:032x}"})
        assert status == 200
        given.append(tuple(trial["trial_id"] for trial in reply["trials"]))
        for trial in reply["trials"]:
            ours = index.trial_of(trial["trial_id"])
            assert (trial["left"], trial["right"]) == (ours.left, ours.right)
            assert trial["expected"] == (ours.expected if ours.kind == "practice" else None)
    assert set(given) == set(study.sessions)


def test_who_deletes_is_forgotten_in_merged_answers_too(tmp_path: Path) -> None:
    study = make_study(tmp_path, main=4)
    with serving(tmp_path) as server:
        for observer in (OBSERVER, "b" * 32):
            server.post("api/answers", answer_file(study, [answer(study, study.sessions[0][3], observer=observer)]))
        add_answers(tmp_path, [tmp_path / "answers.sqlite"])
        assert server.post("api/delete", {"observer": OBSERVER}) == (200, {"deleted": True})
    assert [a.observer for a in collected(tmp_path)] == ["b" * 32]
    assert OBSERVER not in (tmp_path / "answers.jsonl").read_text("utf-8")


def test_nothing_is_stored_of_where_people_are(served: tuple[Study, Server]) -> None:
    study, server = served
    server.post("api/answers", answer_file(study, [answer(study, study.sessions[0][0])]), User_Agent="A-Browser/1")
    content = b"".join(path.read_bytes() for path in server.folder.glob("answers.sqlite*"))
    assert OBSERVER.encode() in content
    assert b"127.0.0.1" not in content
    assert b"A-Browser" not in content


def test_everything_is_below_the_token(tmp_path: Path) -> None:
    study = make_study(tmp_path, main=4)
    with serving(tmp_path, TOKEN) as server:
        assert server.get("")[0] == 200
        assert server.get(study.pictures[0].file)[0] == 200
        assert server.post("api/session", {"observer": OBSERVER})[0] == 200
        assert server.get("", Host="study.example.org")[0] == 200  # the token protects it
        outside = Server(tmp_path, server.port)
        for path in (
            "",
            TOKEN,
            f"{TOKEN}x/",
            f"x{TOKEN}/",
            f"{TOKEN.upper()}/",
            f"/{TOKEN}/",
            study.pictures[0].file,
            "é/",
        ):
            assert outside.get(path.replace("é", "%C3%A9"))[0] == 404, path
        assert outside.post("api/session", {"observer": OBSERVER})[0] == 404
        assert server.stop() == ""


def test_other_addresses_need_a_token() -> None:
    for host in ("0.0.0.0", "::"):
        with pytest.raises(UsageError, match=r"a token is needed: --token [\w-]{16,}"):
            serve.bind(host, 0, None)
    for weak in ("", "short", "with space " * 3, "ü" * 20, "../" * 8):
        with pytest.raises(UsageError, match="--token: give 16 to 200 letters"):
            serve.bind("127.0.0.1", 0, weak)
    with serve.bind("0.0.0.0", 0, TOKEN) as listening:
        assert re.fullmatch(rf"http://[^/]+:\d+/{TOKEN}/", serve.address(listening, TOKEN))
        port = listening.getsockname()[1]
        with pytest.raises(UsageError, match=rf"--host 127.0.0.1 --port {port}: .*in use.*choose another"):
            serve.bind("127.0.0.1", port, None)
    with pytest.raises(UsageError, match=r"--host no-such-host\.invalid --port 1: "):
        serve.bind("no-such-host.invalid", 1, None)


def test_fifty_observers_at_once_and_a_kill_in_the_middle(tmp_path: Path) -> None:
    """Every answer that was acknowledged is there, and what is sent again is there once."""
    study = make_study(tmp_path, main=12, observers=50)
    acknowledged: set[tuple[str, str]] = set()
    enough = threading.Event()

    def take_part(server: Server, number: int) -> None:
        """Send one answer after the other; what fails is sent again later, as the page does."""
        observer = f"{number:032x}"
        waiting = [answer(study, trial_id, observer=observer) for trial_id in study.sessions[number]]
        while waiting:
            try:
                status, reply = server.post("api/answers", answer_file(study, waiting[:2]))
            except (OSError, HTTPException):  # killed
                time.sleep(0.2)
                continue
            assert (status, reply["refused"]) == (200, {})
            acknowledged.update((observer, trial_id) for trial_id in reply["stored"])
            if len(acknowledged) > 300:
                enough.set()
            waiting = [one for one in waiting if one["trial_id"] not in reply["stored"]]

    with serving(tmp_path) as server, ThreadPoolExecutor(50) as pool:
        people = [pool.submit(take_part, server, number) for number in range(50)]
        assert enough.wait(120)
        server.kill()
        before = set(acknowledged)
        with closing(sqlite3.connect(tmp_path / "answers.sqlite")) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert before <= set(database.execute("SELECT observer, trial_id FROM answers"))
        server.start()
        for person in people:
            person.result(timeout=240)
    expected = {(f"{number:032x}", trial_id) for number in range(50) for trial_id in study.sessions[number]}
    found = [(a.observer, a.trial_id) for a in collected(tmp_path)]
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_the_next_trials_are_chosen_from_all_answers(tmp_path: Path) -> None:
    study = make_study(tmp_path, main=12, observers=8)
    index = StudyIndex(study)
    with serving(tmp_path, active=True) as server:
        for number in range(6):  # everybody sees that sd-01 is worse, and nobody compares the other two
            someone = f"{number:032x}"
            seen = [index.trial_of(t) for t in study.sessions[number] if t.startswith("main-")]
            answers = [
                answer(study, t.trial_id, "right" if t.left_arm == "sd-01" else "left", someone)
                for t in seen
                if "sd-01" in (t.left_arm, t.right_arm)
            ]
            assert server.post("api/answers", answer_file(study, answers))[1]["refused"] == {}
        status, reply = server.post("api/session", {"observer": OBSERVER})
        session = [trial["trial_id"] for trial in reply["trials"]]
        soon = [trial_id for trial_id in session if trial_id.startswith("main-")][:3]
        status, reply = server.post("api/next", {"observer": OBSERVER, "soon": soon})
        assert status == 200
        mains = [trial for trial in reply["trials"] if trial["kind"] == "main"]
        assert len(mains) == 12 - 3
        assert not {trial["trial_id"] for trial in mains} & set(soon)
        assert all({t["left_arm"], t["right_arm"]} == {"sd-04", "sd-16"} for t in mains[:5])
        for bad in (None, "x", ["no such trial"], [1], ["main-p0-p1"], soon * 10):
            status, reply = server.post("api/next", {"observer": OBSERVER, "soon": bad})
            assert status == 422
            assert reply["error"]
        assert server.stop() == ""
    with serving(tmp_path) as server:  # --balanced
        assert server.post("api/next", {"observer": OBSERVER, "soon": []}) == (200, {"trials": None})


def test_a_disk_that_is_full_is_an_error_that_the_page_outlives(tmp_path: Path) -> None:
    study = make_study(tmp_path, main=12)
    with serving(tmp_path) as server:
        database = tmp_path / "answers.sqlite"
        with closing(sqlite3.connect(database)) as other:
            other.execute("CREATE TRIGGER full BEFORE INSERT ON answers BEGIN SELECT RAISE(FAIL, 'disk full'); END")
            other.commit()
            body: Any = answer_file(study, [answer(study, study.sessions[0][0])])
            assert server.post("api/answers", body) == (503, {"error": "the answers could not be stored now"})
            other.execute("DROP TRIGGER full")
            other.commit()
        assert server.post("api/answers", body)[1]["stored"] == [study.sessions[0][0]]
        said = server.stop()
    assert "answers could not be stored, the pages will send them again: disk full" in said
    assert "Traceback" not in said


def test_half_a_character_is_refused_in_words(served: tuple[Study, Server]) -> None:
    """The reply would contain it, and could not be encoded."""
    _, server = served
    status, reply = server.post("api/next", b'{"observer": "' + OBSERVER.encode() + b'", "soon": ["\\ud800"]}')
    assert (status, reply) == (422, {"error": "not JSON"})


def test_a_picture_that_became_a_link_is_not_served(served: tuple[Study, Server], tmp_path: Path) -> None:
    """After `study serve` has checked the pictures."""
    study, server = served
    name = study.pictures[5].file
    file = server.folder / name
    moved = file.rename(tmp_path / "moved.png")
    file.symlink_to(moved)
    assert server.get(name)[0] == 404
    moved.rename(file)
    assert server.get(name)[0] == 200
