"""The page of a study in a real browser, used as a person would: keyboard, touch, reloads, two tabs, a dead server."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page, ViewportSize

from perjoule.people.records import Answer, Study, StudyIndex, parsed_answers
from tests.support.browsing import DESK, PHONE, Visit, axe_findings, needs_chromium
from tests.support.hostile import PROMPTS
from tests.support.studies import ARMS, QUICK, Server, collected, make_study, serving

pytestmark = [pytest.mark.slow, needs_chromium]

KEYS = {"left": "ArrowLeft", "right": "ArrowRight", "equal": "="}
CHOICES = ("left", "right", "right", "equal", "left")  # what the tests press, in turn
READY = "#trial:not([hidden]):not(.blank)"
# what a browser says of a server that is gone
UNREACHABLE = re.compile("error: Failed to load resource: net::ERR_CONNECTION_")


class Person:
    """Somebody who takes part, in a browser of their own; `pressed` has what was chosen, trial by trial."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context, self.url, self.pressed = context, url, dict[str, str]()
        self.visits: list[Visit] = []
        self.page = self.open()

    def open(self) -> Page:
        """Open the study in a new tab, which the person uses from then on."""
        self.visits.append(Visit(self.context.new_page()))
        self.page = self.visits[-1].page
        self.page.goto(self.url)
        return self.page

    def state(self) -> dict[str, Any]:
        return json.loads(self.page.evaluate("JSON.stringify(state)"))

    def answers(self) -> list[dict[str, Any]]:
        return json.loads(self.page.evaluate("JSON.stringify(answers())"))

    def begin(self, press: Callable[[str], None] | None = None) -> None:
        """Agree, skip the size of the screen, and start."""
        press = press or self.page.click
        for button in ("#agree", "#skip", "#intro [data-go=next]"):
            press(button)

    def ready(self) -> str:
        """Wait for the pictures. -> trial id, or nothing at the end"""
        self.page.wait_for_selector(f"{READY}, #end:not([hidden]), #begin:not([hidden])")
        if self.page.locator("#begin").is_visible():
            self.page.click("#begin-now")
            self.page.wait_for_selector(READY)
        if self.page.locator("#end").is_visible():
            return ""
        # an answer is taken a moment after the pictures have appeared
        self.page.wait_for_timeout(self.page.evaluate("study.guard_ms") + 5)
        return self.page.evaluate("shown.trial.trial_id")

    def answer(self, choose: Callable[[str], None] | None = None, most: int = 1000) -> None:
        """Answer up to so many trials."""
        for _ in range(most):
            trial = self.ready()
            if not trial:
                return
            assert trial not in self.pressed
            self.pressed[trial] = CHOICES[len(self.pressed) % len(CHOICES)]
            (choose or (lambda choice: self.page.keyboard.press(KEYS[choice])))(self.pressed[trial])

    def tap(self, choice: str) -> None:
        self.page.locator(f"[data-choice={choice}]").tap()

    def saved(self, button: str = "#end [data-go=save]") -> tuple[Answer, ...]:
        """The answers of the file that the page saves."""
        with self.page.expect_download() as download:
            self.page.click(button)
        assert re.fullmatch("answers-[0-9a-f]{8}-[0-9a-f]{8}.json", download.value.suggested_filename)
        return parsed_answers(Path(download.value.path()).read_bytes(), "file")


@pytest.fixture
def person(browser: Browser) -> Iterator[Callable[..., Person]]:
    """Make a `Person`: `person(url, viewport, **context)`; afterwards, nobody asked for anything from elsewhere."""
    people: list[Person] = []

    def arrive(url: str, viewport: ViewportSize = DESK, init: str = "", **more: Any) -> Person:
        context = browser.new_context(
            viewport=viewport, is_mobile=viewport is PHONE, has_touch=viewport is PHONE, accept_downloads=True, **more
        )
        if init:
            context.add_init_script(init)
        people.append(Person(context, url))
        return people[-1]

    yield arrive
    for one in people:
        asked = [url for visit in one.visits for url in visit.requests]
        own = one.url.rpartition("/")[0]
        assert [url for url in asked if not url.startswith((own, "data:,", "blob:"))] == []
        complaints = [text for visit in one.visits for text in visit.complaints if not UNREACHABLE.match(text)]
        assert complaints == []
        assert one.context.cookies() == []
        one.context.close()


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, str]:
    """A study with short blanks, as a file."""
    folder = tmp_path_factory.mktemp("quick")
    return make_study(folder, times_ms=QUICK), (folder / "index.html").as_uri()


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, str]:
    """A study with 12 main trials and short blanks."""
    folder = tmp_path_factory.mktemp("short")
    return make_study(folder, main=12, times_ms=QUICK), (folder / "index.html").as_uri()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, str]:
    """A short study with the times that people get."""
    folder = tmp_path_factory.mktemp("real")
    return make_study(folder, main=6), (folder / "index.html").as_uri()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Study, Server]]:
    study = make_study(tmp_path / "study")
    with serving(tmp_path / "study") as server:
        yield study, server


def check(study: Study, answers: tuple[Answer, ...], pressed: dict[str, str], main: int = 40) -> None:
    """Every answer once, as it was given, to the trials of one session of the design, with balanced sides."""
    index = StudyIndex(study)
    trials = [index.check(answer) for answer in answers]
    assert tuple(trial.trial_id for trial in trials) in study.sessions
    assert {answer.trial_id: answer.choice for answer in answers} == pressed
    assert len(answers) == len(pressed)
    assert len({answer.observer for answer in answers}) == 1
    sides = Counter()  # type: ignore[var-annotated]
    mains = [trial for trial in trials if trial.kind == "main"]
    assert len(mains) == main
    for trial in mains:
        sides[trial.left_arm] += 1
        sides[trial.right_arm] -= 1
    assert all(abs(difference) <= 2 for difference in sides.values()), sides
    ends = [(answer.shown_at_ms, answer.shown_at_ms + answer.response_ms) for answer in answers]
    assert all(before[1] < after[0] for before, after in pairwise(ends))
    assert all(answer.provenance == "simulated" for answer in answers)  # a program drove the browser, and said so


def test_forty_trials_with_the_keyboard_alone(quick: tuple[Study, str], person: Any) -> None:
    study, url = quick
    someone = person(url)

    def press(button: str) -> None:
        for _ in range(20):
            someone.page.keyboard.press("Tab")
            if someone.page.evaluate("selector => document.activeElement.matches(selector)", button):
                break
        else:
            pytest.fail(f"the keyboard does not reach {button}")
        ring = someone.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert ring == "solid"
        someone.page.keyboard.press("Enter")

    someone.begin(press)
    someone.answer()
    someone.page.wait_for_selector("#end:not([hidden])")
    assert "51 answers" in someone.page.locator("#end").inner_text()
    check(study, someone.saved(), someone.pressed)


def test_forty_trials_by_touch_on_a_phone(quick: tuple[Study, str], person: Any) -> None:
    study, url = quick
    someone = person(url, PHONE)
    someone.begin(lambda button: someone.page.locator(button).tap())
    someone.ready()
    assert someone.page.locator(".label b").all_text_contents() == ["Top", "Bottom", "No difference"]
    assert not someone.page.locator("kbd").first.is_visible()
    top, bottom = (someone.page.locator(f"#{side} img").bounding_box() for side in ("left", "right"))
    assert top["y"] + top["height"] < bottom["y"]
    assert someone.page.evaluate("document.documentElement.scrollHeight") <= PHONE["height"]
    someone.answer(someone.tap)
    someone.page.wait_for_selector("#end:not([hidden])")
    answers = someone.saved()
    check(study, answers, someone.pressed)
    assert answers[5].viewport is not None
    assert (answers[5].viewport.width_px, answers[5].viewport.height_px) == (390, 844)


def test_reloads_and_closed_tabs_lose_nothing(quick: tuple[Study, str], person: Any) -> None:
    study, url = quick
    someone = person(url)
    someone.begin()
    for leave in ("reload", "close", "reload at once", "elsewhere and back"):
        someone.answer(most=10)
        if leave == "reload":
            someone.ready()
        if leave.startswith("reload"):  # at once: in the blank, before the next pictures
            someone.page.reload()
        elif leave == "close":
            someone.page.close()
            someone.open()
        else:
            someone.page.goto(url.replace("index.html", "study.json"))
            someone.page.go_back()
        someone.page.wait_for_selector("#paused:not([hidden])")
        assert f"{len(someone.pressed)} of 51" in someone.page.locator("#paused").inner_text()
        someone.page.click("#paused [data-go=next]")
    someone.answer()
    check(study, someone.saved(), someone.pressed)
    someone.page.reload()
    someone.page.wait_for_selector("#end:not([hidden])")
    check(study, someone.saved(), someone.pressed)


def test_a_server_killed_in_the_middle_loses_nothing(served: tuple[Study, Server], person: Any) -> None:
    study, server = served
    someone = person(server.url)
    someone.begin()
    someone.answer(most=15)
    ahead = "Promise.all(upcoming().slice(0, AHEAD).flatMap(parts).map(([, id]) => load(id))).then((all) => all.length)"
    someone.ready()
    someone.page.evaluate(ahead)  # as a person would wait, who takes seconds for a pair
    server.kill()
    someone.answer(most=9)
    assert "No connection" in someone.page.locator("#offline").inner_text()
    someone.ready()
    assert axe_findings(someone.page) == []
    server.start()
    someone.answer(most=2)
    someone.page.locator("#offline").wait_for(state="hidden")
    someone.answer(most=51 - len(someone.pressed) - 9)
    someone.ready()
    someone.page.evaluate(ahead)
    server.kill()
    someone.answer()
    someone.page.wait_for_selector("#end .unsent:not([hidden])")
    assert "not arrived yet" in someone.page.locator("#end").inner_text()
    assert axe_findings(someone.page) == []
    with pytest.raises(Error, match="ERR_CONNECTION_REFUSED"):
        someone.page.reload()
    server.start()
    someone.page.goto(server.url)
    someone.page.wait_for_selector("#all-sent:not([hidden])", timeout=20_000)
    check(study, collected(server.folder), someone.pressed)
    assert {a.trial_id: a.response_ms for a in collected(server.folder)} == {
        a["trial_id"]: a["response_ms"] for a in someone.answers()
    }


def test_double_clicks_and_held_keys_give_one_answer(real: tuple[Study, str], person: Any) -> None:
    _, url = real
    someone = person(url)
    keyboard = someone.page.keyboard
    someone.begin()
    someone.answer(most=3)  # practice, whose longer blanks would hide what follows

    def hold(key: str) -> None:
        """As browsers do it: repeated presses without a release, here after the longest delay that can be set."""
        keyboard.down(key)
        someone.page.wait_for_timeout(1500)
        for _ in range(20):
            keyboard.down(key)
            someone.page.wait_for_timeout(40)
        keyboard.up(key)

    def hold_remotely(key: str) -> None:
        """As remote desktops do it: many whole presses, after a delay."""
        keyboard.press(key)
        someone.page.wait_for_timeout(600)
        for _ in range(40):
            keyboard.press(key)
            someone.page.wait_for_timeout(30)

    def hold_enter(choice: str) -> None:
        someone.page.locator(f"#{choice}").focus()
        hold("Enter")

    for gesture in (
        lambda: someone.page.dblclick("#left"),
        lambda: someone.page.click("#right", click_count=3, delay=60),
        lambda: hold("ArrowLeft"),
        lambda: hold_remotely("ArrowRight"),
        lambda: hold_enter("left"),
        lambda: [keyboard.press("ArrowLeft"), keyboard.press("ArrowRight"), keyboard.press("=")],
    ):
        someone.ready()
        someone.page.wait_for_timeout(300)  # since the press before
        before = len(someone.answers())
        gesture()
        someone.page.wait_for_timeout(1200)
        assert len(someone.answers()) == before + 1
    someone.ready()
    someone.page.keyboard.press("Alt+ArrowLeft")  # the browser's way back
    someone.page.keyboard.press("Control+ArrowRight")
    assert len(someone.answers()) == before + 1


def test_a_double_click_does_not_press_a_button_of_the_next_screen(short: tuple[Study, str], person: Any) -> None:
    _, url = short
    someone = person(url)
    someone.page.evaluate(
        """() => { for (const e of document.querySelectorAll('#agree, #skip, #intro button')) {
          Object.assign(e.style, { position: 'fixed', left: 0, top: 0, margin: 0, width: '200px' });
        } }"""
    )
    for button, screen in (("#agree", "#size"), ("#skip", "#intro")):
        someone.page.dblclick(button)
        assert someone.page.locator(screen).is_visible()
        someone.page.wait_for_timeout(600)
    someone.page.click("#intro button")
    someone.ready()


def test_two_tabs_ask_each_trial_once(short: tuple[Study, str], person: Any) -> None:
    study, url = short
    someone = person(url)
    someone.begin()
    someone.answer(most=5)
    first, second = someone.page, someone.open()
    assert second.locator("#paused").is_visible()
    second.click("#paused [data-go=next]")
    first.wait_for_selector("#elsewhere:not([hidden])")
    first.keyboard.press("ArrowLeft")
    someone.answer(most=8)
    someone.page = first
    first.bring_to_front()
    first.click("#elsewhere [data-go=next]")
    second.wait_for_selector("#elsewhere:not([hidden])")
    someone.answer(most=5)
    # even if the word of the other tab does not arrive: a tab does not hear of its own changes
    someone.ready()
    before = someone.answers()
    first.evaluate("store.set('tab', 'other')")
    first.keyboard.press("ArrowLeft")
    first.wait_for_selector("#elsewhere:not([hidden])")
    assert someone.answers() == before
    first.click("#elsewhere [data-go=next]")
    someone.answer()
    second.click("#elsewhere [data-go=next]")
    second.wait_for_selector("#end:not([hidden])")
    check(study, someone.saved(), someone.pressed, main=12)
    someone.page = second
    check(study, someone.saved(), someone.pressed, main=12)


def test_the_clock_of_the_machine_does_not_matter(short: tuple[Study, str], person: Any) -> None:
    study, url = short
    jumping = "{ const now = Date.now; let n = 0; Date.now = () => now() - 3600e3 * (n += 1); }"
    someone = person(url, init=jumping)
    someone.begin()
    someone.answer(most=10)
    someone.page.reload()
    someone.page.click("#paused [data-go=next]")
    someone.answer()
    answers = someone.saved()
    check(study, answers, someone.pressed, main=12)  # which compares the times
    assert max(answer.response_ms for answer in answers) < 60_000
    assert not re.search(r"\bDate\b", Path(url.removeprefix("file://")).read_text("utf-8"))


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("question", ["preference", "reference"])
def test_axe_finds_nothing_on_any_screen(tmp_path: Path, person: Any, viewport: ViewportSize, question: str) -> None:
    make_study(tmp_path, main=8, times_ms=QUICK, question=question, ties=question == "preference")
    someone = person((tmp_path / "index.html").as_uri(), viewport)
    page = someone.page
    seen = set()

    def look() -> None:
        (screen,) = page.evaluate("[...document.querySelectorAll('main > section:not([hidden])')].map(e => e.id)")
        seen.add("sure" if page.locator("dialog[open]").count() else screen)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert axe_findings(page) == [], screen
            assert page.locator("h1:visible").count() == 1
        page.emulate_media(color_scheme="light")
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
        small = page.evaluate(
            """() => [...document.querySelectorAll('button, input')].filter(e => {
              const box = e.getBoundingClientRect();
              return box.width && (box.width < 44 || box.height < 44);
            }).map(e => e.outerHTML)"""
        )
        assert small == []

    look()
    page.click("#decline")
    look()
    page.click("#declined button")
    page.click("#agree")
    look()
    page.click("#fits")
    look()
    page.click("#intro button")
    someone.ready()
    look()
    for _ in range(3):
        page.wait_for_selector(READY)
        page.wait_for_timeout(30)
        page.keyboard.press("ArrowLeft")
    page.wait_for_selector("#begin:not([hidden])")
    look()
    page.click("#begin-now")
    someone.ready()
    page.click("#pause")
    look()
    page.click("#paused [data-go=ask-delete]")
    look()
    page.click("#keep")
    page.evaluate("show('elsewhere')")
    look()
    page.click("#elsewhere button")
    someone.answer(lambda _: page.keyboard.press("ArrowRight"))
    look()
    page.click("#end [data-go=ask-delete]")
    page.click("#delete")
    look()
    assert seen == {
        "consent", "declined", "size", "intro", "trial", "begin", "paused", "sure", "elsewhere", "end", "deleted"
    }  # fmt: skip


def test_labels_do_not_disclose_the_arms(short: tuple[Study, str], person: Any) -> None:
    _, url = short
    someone = person(url)
    someone.begin()
    someone.ready()
    tree = someone.page.locator("body").aria_snapshot()
    assert 'button "Left picture: choose ← Left"' in tree
    assert 'button "Right picture: choose Right →"' in tree
    assert 'button "= No difference"' in tree
    assert 'heading "Which is the better picture of this text?"' in tree
    assert "Practice 1 of 3. Text: a large" in tree
    visible = tree + someone.page.evaluate("[...document.images].map(e => e.outerHTML).join() + document.title")
    assert not any(arm in visible for arm in ARMS)


@pytest.mark.parametrize("way", ["file", "served"])
def test_hostile_texts_run_nothing(tmp_path: Path, person: Any, way: str) -> None:
    make_study(
        tmp_path, main=9, times_ms=QUICK, prompts=PROMPTS, arms=(PROMPTS[0], PROMPTS[1], PROMPTS[3]),
        title=PROMPTS[3], contact=PROMPTS[1],
    )  # fmt: skip
    if way == "file":
        take_part(person((tmp_path / "index.html").as_uri(), PHONE))
        return
    with serving(tmp_path) as server:
        someone = person(server.url)
        take_part(someone)
        someone.page.wait_for_selector("#all-sent:not([hidden])")
        assert len(collected(tmp_path)) == len(someone.pressed) == 20


def take_part(someone: Person) -> None:
    page = someone.page
    assert "onerror=" in page.locator("#consent").inner_text()
    someone.begin()
    texts = set()
    for _ in range(30):
        if not someone.ready():
            break
        texts.add(page.locator("#prompt").inner_text())
        assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
        someone.answer(most=1)
    assert any("dataset.pwned" in text for text in texts)
    assert len(someone.saved()) == 20
    assert page.evaluate("document.documentElement.dataset.pwned") is None
    count = "selector => document.querySelectorAll(selector).length"
    assert page.evaluate(count, "script") == 2
    assert page.evaluate(count, "iframe, object, embed, form, base, main svg, body body") == 0


def test_the_policy_stops_what_is_not_ours(short: tuple[Study, str], browser: Browser) -> None:
    """The test above could not fail if the policy were not in force."""
    _, url = short
    visit = Visit(browser.new_page())
    visit.page.goto(url)
    visit.page.evaluate(
        """() => {
          const script = document.createElement('script');
          script.textContent = 'document.documentElement.dataset.pwned = 1';
          document.body.append(script);
          document.body.append(Object.assign(new Image(), { src: 'https://example.com/x.png' }));
          fetch('https://example.com/').catch(() => {});
        }"""
    )
    visit.page.wait_for_timeout(100)
    assert visit.page.evaluate("document.documentElement.dataset.pwned") is None
    said = " ".join(visit.complaints)
    assert re.search("Executing inline script violates.*script-src", said)
    assert re.search("Loading the image 'https://example.com/x.png' violates.*img-src", said)
    assert re.search("Connecting to 'https://example.com/' violates.*connect-src", said)
    visit.page.close()


def test_pictures_have_the_declared_size_in_whole_pixels(tmp_path: Path, person: Any) -> None:
    make_study(tmp_path / "small", times_ms=QUICK, main=4, prompts=("a", "b"))  # 64 pixels; 40 mm are 151.2 CSS pixels
    make_study(tmp_path / "wide", times_ms=QUICK, main=4, prompts=("a", "b"), size=(512, 256))

    def widths(url: str, calibrate: bool = False, **more: Any) -> list[tuple[float, float, str]]:
        someone = person(url, **more)
        someone.page.click("#agree")
        if calibrate:  # a bank card of 85.6 mm covers 640 CSS pixels
            someone.page.locator("#card-size").fill("640")
            box = someone.page.locator("#bank-card").bounding_box()
            assert box["width"] == pytest.approx(640, abs=1)
            assert box["height"] == pytest.approx(640 * 53.98 / 85.6, abs=1)
        someone.page.click("#fits" if calibrate else "#skip")
        someone.page.click("#intro button")
        someone.ready()
        return someone.page.locator("#left img, #right img").evaluate_all(
            "all => all.map(e => [e.getBoundingClientRect().width, e.getBoundingClientRect().height, "
            "getComputedStyle(e).imageRendering])"
        )

    small, wide = ((tmp_path / name / "index.html").as_uri() for name in ("small", "wide"))
    assert widths(small) == [[128, 128, "pixelated"]] * 2
    assert widths(small, device_scale_factor=1.5) == [[pytest.approx(128), pytest.approx(128), "pixelated"]] * 2
    assert widths(small, device_scale_factor=2) == [[128, 128, "pixelated"]] * 2
    assert widths(small, calibrate=True) == [[256, 256, "pixelated"]] * 2  # 299 CSS pixels are 40 mm
    mm = pytest.approx(40 / 25.4 * 96, rel=1e-3)
    assert widths(wide) == [[mm, pytest.approx(20 / 25.4 * 96, rel=1e-3), "auto"]] * 2


def test_a_browser_without_storage_can_finish_and_says_so(short: tuple[Study, str], person: Any) -> None:
    study, url = short
    refuses = "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no'); } });"
    someone = person(url, init=refuses)
    someone.begin()
    assert "does not keep data" in someone.page.locator("#notice").inner_text()
    someone.answer()
    check(study, someone.saved(), someone.pressed, main=12)


def test_damaged_storage_is_a_fresh_start(short: tuple[Study, str], person: Any) -> None:
    study, url = short
    someone = person(url)
    for damage in ("{", '"text"', "[]", '{"observer": 1}', '{"observer": "a", "trials": [{}], "clock": 0}'):
        someone.page.evaluate(f"localStorage.setItem('perjoule-study:{study.study_id}:state', {json.dumps(damage)})")
        someone.page.reload()
        assert someone.page.locator("#consent").is_visible(), damage
    someone.begin()
    someone.answer()
    check(study, someone.saved(), someone.pressed, main=12)


def test_a_picture_that_does_not_load_can_be_tried_again(served: tuple[Study, Server], person: Any) -> None:
    _, server = served
    someone = person(server.url)
    someone.page.click("#agree")
    someone.page.click("#skip")
    someone.context.route("**/pictures/*", lambda route: route.abort())
    someone.page.click("#intro button")
    someone.page.wait_for_selector("#picture-problem:not([hidden])")
    someone.page.keyboard.press("ArrowLeft")
    assert someone.answers() == []
    someone.context.unroute("**/pictures/*")
    someone.ready()  # by itself
    assert not someone.page.locator("#picture-problem").is_visible()
    someone.answer(most=2)
    assert len(someone.answers()) == 2
    someone.visits[0].complaints = [c for c in someone.visits[0].complaints if "net::ERR_FAILED" not in c]


def test_a_person_deletes_what_is_theirs(served: tuple[Study, Server], person: Any) -> None:
    _, server = served
    someone, other = person(server.url), person(server.url)
    for one in (someone, other):
        one.begin()
        one.answer(most=5)
        one.ready()
    someone.page.click("#pause")
    server.kill()
    someone.page.click("#paused [data-go=ask-delete]")
    someone.page.click("#delete")
    assert "now being deleted" in someone.page.locator("#deleted").inner_text()
    assert [key.rpartition(":")[2] for key in someone.page.evaluate("Object.keys(localStorage)")] == ["delete"]
    server.start()
    someone.page.get_by_text("Your answers are deleted.", exact=True).wait_for()
    assert someone.page.evaluate("Object.keys(localStorage)") == []
    assert {answer.observer for answer in collected(server.folder)} == {other.state()["observer"]}


def test_an_answer_under_way_is_deleted_too(served: tuple[Study, Server], person: Any) -> None:
    _, server = served
    someone = person(server.url)
    someone.begin()
    someone.answer(most=3)
    someone.ready()
    under_way: list[Any] = []
    someone.context.route("**/api/answers", lambda route: under_way.append(route))
    someone.page.keyboard.press("ArrowLeft")
    someone.page.wait_for_selector(READY)
    someone.page.click("#pause")
    someone.page.click("#paused [data-go=ask-delete]")
    someone.page.click("#delete")
    assert len(under_way) == 1
    under_way[0].continue_()
    someone.page.get_by_text("Your answers are deleted.", exact=True).wait_for(timeout=5_000)
    assert collected(server.folder) == ()


def test_two_people_get_different_sessions(served: tuple[Study, Server], person: Any) -> None:
    study, server = served
    people = [person(server.url) for _ in range(3)]
    for one in people:
        one.begin()
    assert {tuple(t["trial_id"] for t in one.state()["trials"]) for one in people} == set(study.sessions)


def test_active_choice_keeps_the_shape_of_a_session(tmp_path: Path, person: Any) -> None:
    study = make_study(tmp_path, times_ms=QUICK, prompts=("a", "b", "c", "d"), main=8)
    with serving(tmp_path, active=True) as server:
        someone = person(server.url)
        someone.begin()
        planned = [trial["trial_id"] for trial in someone.state()["trials"]]
        for _ in planned:
            someone.answer(most=1)
            someone.page.wait_for_timeout(60)  # as long as it takes to choose
        someone.page.wait_for_selector("#all-sent:not([hidden])")
    answers = collected(tmp_path)
    index = StudyIndex(study)
    trials = [index.check(answer) for answer in answers]
    assert {answer.trial_id: answer.choice for answer in answers} == someone.pressed
    assert [trial.kind for trial in trials] == [trial_id.partition("-")[0] for trial_id in planned]
    assert [trial.trial_id for trial in trials] != planned
    mains = [frozenset((trial.left, trial.right)) for trial in trials if trial.kind == "main"]
    assert len(set(mains)) == len(mains) == 8
    assert {frozenset((trial.left, trial.right)) for trial in trials if trial.kind == "repeat"} <= set(mains)


def test_a_link_names_the_session(short: tuple[Study, str], person: Any) -> None:
    study, url = short
    for number in (1, 2, 3, 4):
        someone = person(f"{url}#{number}")
        someone.page.click("#agree")
        trials = tuple(trial["trial_id"] for trial in someone.state()["trials"])
        assert trials == study.sessions[(number - 1) % 3]


def test_a_person_without_a_driver_counts_as_people(short: tuple[Study, str], person: Any) -> None:
    _, url = short
    someone = person(url, init="Object.defineProperty(navigator, 'webdriver', { get: () => false });")
    someone.begin()
    someone.answer(most=1)
    assert someone.answers()[0]["provenance"] == "people"
