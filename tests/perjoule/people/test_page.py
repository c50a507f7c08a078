"""The page of a study as text: what it contains, and what it must not."""

from __future__ import annotations

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from perjoule.people.page import TIMES_MS, render_page
from perjoule.people.records import Study, StudyIndex
from tests.support.hostile import CONTROL, PROMPTS
from tests.support.studies import ARMS, make_study


class Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_study(tmp_path_factory.mktemp("study"), main=12)


def data_of(page: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="study">(.*?)</script>', page, re.S)
    data: dict[str, Any] = json.loads(text)
    return data


def test_the_page_contains_the_sessions_of_the_design(study: Study) -> None:
    data = data_of(render_page(study))
    index = StudyIndex(study)
    assert [tuple(session) for session in data["sessions"]] == list(study.sessions)
    for session in data["sessions"]:
        for trial_id in session:
            trial, ours = data["trials"][trial_id], index.trial_of(trial_id)
            sides = ("left", "right", "left_arm", "right_arm", "reference")
            assert [trial[side] for side in sides] == [getattr(ours, side) for side in sides]
            assert data["pictures"][trial["left"]]["file"] == index.pictures[ours.left].file


def test_a_served_page_has_no_trials_and_may_talk_to_its_server_only(study: Study) -> None:
    page = render_page(study, served=True, active=True)
    data = data_of(page)
    assert {"sessions", "trials"} & data.keys() == set()
    assert (data["served"], data["active"]) == (True, True)
    assert "connect-src 'self';" in unescape(page)
    assert "connect-src 'none';" in unescape(render_page(study))
    assert data_of(render_page(study))["served"] is False


def test_nothing_is_loaded_from_elsewhere(study: Study) -> None:
    for page in (render_page(study), render_page(study, served=True)):
        assert "://" not in re.sub(r"<script type=.*?</script>", "", page, flags=re.S)
        for tag, attributes in Elements(page).found:
            assert attributes.get("src") is None
            assert attributes.get("href") in (None, "data:,"), tag


def test_file_names_and_labels_do_not_disclose_the_arms(study: Study) -> None:
    page = re.sub(r"<script.*?</script>", "", render_page(study), flags=re.S)
    assert not any(arm in page for arm in ARMS)
    assert not any(arm in picture.file for arm in ARMS for picture in study.pictures)


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    study = make_study(
        tmp_path, main=4, prompts=PROMPTS, arms=(PROMPTS[0], PROMPTS[1]), title=PROMPTS[3], contact=PROMPTS[1]
    )
    page = render_page(study)
    elements = Elements(page).found
    tags = [tag for tag, _ in elements]
    assert tags.count("script") == 2
    assert tags.count("body") == tags.count("style") == tags.count("html") == 1
    assert not {"iframe", "object", "svg", "base", "form", "textarea"} & set(tags)
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on") or name == "style"]
    assert not CONTROL.search(page)
    texts = data_of(page)["prompts"].values()
    assert "</script><script>document.documentElement.dataset.pwned=1</script>" in texts
    assert not any(CONTROL.search(text) for text in texts)


@pytest.mark.parametrize(("pairs", "minutes"), [(2, "About 2 minutes"), (12, "About 3 minutes")])
def test_the_consent_says_how_long_it_takes(tmp_path: Path, pairs: int, minutes: str) -> None:
    page = render_page(make_study(tmp_path, main=pairs))
    assert minutes in page
    assert "3 pairs for practice" in page


def test_a_press_cannot_follow_a_double_click_or_the_delay_of_a_held_key() -> None:
    # 500 ms: the double click of Windows and of GNOME; 660 ms: the delay before keys repeat in X
    assert TIMES_MS["blank_ms"] + TIMES_MS["guard_ms"] > 660
    assert TIMES_MS["quiet_ms"] > 1000 / 10  # slow repeats: 10 per second
