"""What a real browser makes of the pages: headless Chromium, driven by playwright, judged by axe-core.

One browser for all tests. Where no Chromium is installed these tests are skipped and say so; CHROMIUM names another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import polars as pl
import pytest
from playwright.sync_api import Browser, Page, ViewportSize
from tests.support.boards import traced_run
from tests.support.browsing import DESK, PHONE, TABLET, Visit, axe_findings, needs_chromium
from tests.support.hostile import PROMPTS, hostile_run

from perjoule.gating import GateConfig
from perjoule.importing.conversion import import_table
from perjoule.pytest_energy.page import Results, render_page
from perjoule.pytest_energy.records import Judgement, Measured, Outcome
from perjoule.running.reporting import ReportRequest
from perjoule.runs.directory import load_run
from perjoule.testing.nvml_simulator import compiler
from perjoule_reports import build_report, render_html, render_index
from perjoule_reports.pages.payload import to_json

pytestmark = [pytest.mark.slow, needs_chromium]

# the part of a run of the demo that its report needs
DEMO = Path(__file__).parents[2] / "docs" / "demo-run.zip"
KINDS = ("small", "hostile", "traced", "empty", "gate", "index", "tests")


OVERLAPS = """() => [...document.querySelectorAll('svg')].flatMap(svg => {
  const texts = [...svg.querySelectorAll('text')].filter(e => e.getClientRects().length);
  const boxes = texts.map(e => [e.getBoundingClientRect(), e.textContent]);
  return boxes.flatMap(([a, one], i) => boxes.slice(0, i).filter(([b]) =>
    Math.min(a.right, b.right) - Math.max(a.left, b.left) > 0.5 &&
    Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 0.5).map(([, other]) => [svg.ariaLabel, one, other]));
})"""
CUT = """() => [...document.querySelectorAll('svg')].flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].map(e => [e.getBoundingClientRect(), e.textContent]).filter(([box]) =>
    box.width && (box.right > frame.right + 1 || box.left < frame.left - 1 || box.bottom > frame.bottom + 1
      || box.top < frame.top - 1));
})"""


def page_of_tests() -> str:
    """The page of pytest's `--energy-report`."""
    sides = [
        {
            f"tests/test_a.py::test_{name}": Measured(
                nodeid=name,
                energy_j=(joules, joules),
                uncertainty_j=(0.1, 0.1),
                duration_s=(1.0, 1.0),
                iterations=1,
                boundary="gpu-board",
                provenance="estimated",
                method="counter",
            )
            for name in ("short", "a_much_longer_name_of_a_test[with-parameters]", "hopeless")
        }
        for joules in (1.0, 1.2)
    ]
    outcomes: tuple[Outcome, ...] = ("fail", "pass", "inconclusive")
    judged = {
        name: Judgement(outcome=outcome, reason="why; because", change=0.2, low=0.1, high=0.3)
        for name, outcome in zip(sides[1], outcomes, strict=True)
    }
    results = Results(
        measured=sides[1], baseline=sides[0], judged=judged, baseline_name="main", missing=["x"], margin=0.05
    )
    return render_page(results, provenance="estimated", facts=[("boundary", "gpu-board")], beware=["missing: x"])


@pytest.fixture(scope="session")
def pages(small: Any, synthetic: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages as files, by kind; that of the twelve arms is in its run directory."""
    folder = tmp_path_factory.mktemp("pages")
    hostile = hostile_run(folder / "runs" / "hostile")
    empty = replace(
        small, points=small.points.clear(), scores=small.scores.clear(), trials=small.trials.clear(),
        images=small.images.clear(), metrics={},
    )  # fmt: skip
    texts = {
        "small": render_html(build_report(small)),
        "hostile": render_html(build_report(hostile)),
        "empty": render_html(build_report(empty)),
    }
    if compiler() is not None:
        texts["traced"] = render_html(build_report(traced_run(folder / "runs" / "traced")))
    rows: list[dict[str, Any]] = [
        {"variant": v, "prompt_id": p, "seed": 1, "steps": s, "energy_j": s * 2.0, "quality:q": 1 - 1 / s}
        for v in ("a", "<b>")
        for p in PROMPTS[:9]
        for s in (2, 5)
    ]
    pl.DataFrame(rows).write_parquet(folder / "t.parquet")
    for number in range(3):
        import_table(folder / "t.parquet", folder / "runs" / f"import {number} <i>")
    (folder / "runs" / "torn").mkdir()
    (folder / "runs" / "torn" / "trials.jsonl").write_text("{")
    (folder / "runs" / "import 1 <i>" / "report.html").write_text(
        render_html(build_report(load_run(folder / "runs" / "import 1 <i>"))), "utf-8"
    )
    sides = []
    for name, more, loss in (("before", 1.0, 0.0), ("worse", 1.2, 0.1)):
        changed = [
            row | {"energy_j": row["energy_j"] * (more + i % 5 / 100), "quality:q": row["quality:q"] - loss - i % 3 / 9,
                   "prompt_id": f"{row['prompt_id']}-{i // len(rows)}",
                   "provenance": "measured", "boundary": "gpu-board", "device": "H100"}
            for i, row in enumerate(rows * 2)
        ]  # fmt: skip
        pl.DataFrame(changed).write_parquet(folder / f"{name}.parquet")
        sides.append(import_table(folder / f"{name}.parquet", folder / "runs" / name))
    gate = build_report(sides[1], ReportRequest(baseline=sides[0], gate=GateConfig(margin_quality=0.05)))
    assert gate.stamp.word == "FAIL", gate.stamp.sentence
    texts["gate"] = render_html(gate)
    (folder / "runs" / "worse" / "result.json").write_text(to_json(gate.payload), "utf-8")
    texts["index"] = render_index(folder / "runs")
    texts["tests"] = page_of_tests()
    twelve = synthetic.make_run(
        folder / "twelve", prompts=4, ladder=(1, 4, 25), seeds=(1,), metrics=("scene", "iclip"),
        variants=tuple(f"{name}-{n}" for n in (1, 2) for name in ("plain", "student", "cut", "cached", "int8", "fast")),
    )  # fmt: skip
    with ZipFile(DEMO) as archive:
        archive.extractall(folder / "demo")
    texts["demo"] = render_html(build_report(load_run(folder / "demo"), page=folder / "demo.html"))
    files = {"twelve": twelve.path / "report.html"}
    files["twelve"].write_text(render_html(build_report(twelve, page=files["twelve"])), "utf-8")
    for kind, text in texts.items():
        files[kind] = folder / ("runs/index.html" if kind == "index" else f"{kind}.html")
        files[kind].write_text(text, "utf-8")
    return files


@pytest.fixture
def visit(browser: Browser, pages: dict[str, Path]) -> Iterator[Any]:
    """Open a page: `visit(kind, viewport, **context)`."""
    contexts = []

    def open_(kind: str, viewport: ViewportSize = DESK, **more: Any) -> Visit:
        if kind not in pages:
            pytest.skip("the NVML simulator needs a C compiler")
        context = browser.new_context(
            viewport=viewport, is_mobile=viewport is PHONE, reduced_motion="reduce", **more
        )  # fmt: skip
        contexts.append(context)
        found = Visit(context.new_page())
        found.page.goto(pages[kind].as_uri())
        return found

    yield open_
    for context in contexts:
        context.close()


def unfold(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_asked_for_and_nothing_complained_about(visit: Any, kind: str) -> None:
    found = visit(kind)
    unfold(found.page)
    for control in found.page.locator("thead button, .arms input, #copy").all()[:40]:
        if control.is_visible():
            control.click()
    found.page.wait_for_timeout(50)
    asked = [url for url in found.requests if not url.startswith("data:image/webp;base64,")]
    assert len(asked) == 1  # the file itself
    assert asked[0].startswith("file:")
    assert found.complaints == []


def test_the_policy_stops_what_is_not_ours(visit: Any) -> None:
    """The test above could not fail if the policy were not in force."""
    found = visit("small")
    found.page.evaluate(
        """() => {
          const script = document.createElement('script');
          script.textContent = 'document.documentElement.dataset.pwned = 1';
          document.body.append(script);
          document.body.setAttribute('style', 'color: red');
          document.body.append(Object.assign(new Image(), { src: 'https://example.com/x.png' }));
        }"""
    )
    found.page.wait_for_timeout(100)
    assert found.page.evaluate("document.documentElement.dataset.pwned") is None
    said = " ".join(found.complaints)
    assert re.search("Executing inline script violates.*script-src", said)
    assert re.search("Applying inline style violates.*style-src", said)
    assert re.search("Loading the image 'https://example.com/x.png' violates.*img-src", said)


@pytest.mark.parametrize("kind", ["hostile", "index"])
def test_hostile_texts_run_nothing_and_are_shown_as_text(visit: Any, kind: str) -> None:
    page = visit(kind).page
    unfold(page)
    assert page.evaluate("document.documentElement.dataset.pwned") is None
    count = "selector => document.querySelectorAll(selector).length"
    assert page.evaluate(count, "script") == (3 if kind == "hostile" else 1)
    assert page.evaluate(count, "iframe, object, embed, form, base, link, body body, main b, main i") == 0
    assert page.evaluate("[...document.querySelectorAll('*')].every(e => e.getAttributeNames().every("
                         "n => !n.startsWith('on') && (n !== 'style' || e.matches('.stage'))))")  # fmt: skip
    assert page.evaluate("[...document.images].every(i => i.src.startsWith('data:') && i.complete && i.naturalWidth)")
    shown = page.locator("body").inner_text()
    if kind == "hostile":
        assert "onerror=document" in shown  # the title, as text
        assert "Traceback" not in shown
        data = page.evaluate("JSON.parse(document.getElementById('perjoule-result').textContent).prompts")
        assert set(data.values()) == set(PROMPTS)
    else:
        assert "import 1 <i>" in shown


@pytest.mark.parametrize("kind", KINDS)
def test_axe_finds_nothing_in_light_and_dark(visit: Any, kind: str) -> None:
    """Not only nothing serious or critical: nothing."""
    page = visit(kind).page
    unfold(page)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert axe_findings(page) == []


@pytest.mark.parametrize("viewport", [PHONE, TABLET, DESK], ids=["phone", "tablet", "desk"])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_sticks_out_and_nothing_is_tiny(visit: Any, kind: str, viewport: ViewportSize) -> None:
    page = visit(kind, viewport).page
    unfold(page)
    width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= viewport["width"] == width[1]
    outside = page.evaluate(
        """() => [...document.querySelectorAll('main *, header *')].filter(e => {
          const box = e.getBoundingClientRect();
          return box.width && box.right > innerWidth + 1 && !e.closest('.scroll, pre, svg');
        }).map(e => e.outerHTML.slice(0, 120))"""
    )
    assert outside == []
    small = page.evaluate(
        """() => [...document.querySelectorAll('svg text')].filter(e => e.getClientRects().length).map(e => {
          const scale = e.getCTM ? e.getCTM().a || Math.abs(e.getCTM().b) : 1;
          return [parseFloat(getComputedStyle(e).fontSize) * scale, e.textContent];
        }).filter(([size]) => size < 7.5)"""
    )
    assert small == []
    assert page.evaluate(CUT) == []
    page.wait_for_timeout(50)  # for the observer of sizes
    without_cue = page.evaluate(
        """() => [...document.querySelectorAll('body *')].filter(e => e.scrollWidth > e.clientWidth + 2 && e.clientWidth
          && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX) && getComputedStyle(e).maskImage === 'none'
        ).map(e => e.outerHTML.slice(0, 120))"""
    )
    assert without_cue == []


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_the_value_of_a_slider_is_next_to_its_label(visit: Any, viewport: ViewportSize) -> None:
    page = visit("small", viewport).page
    tops = "e => e.map(one => Math.round(one.getBoundingClientRect().top))"
    labels, values = (page.locator(f"#chooser {part}").evaluate_all(tops) for part in ("label", "output"))
    assert len(set(labels)) == 2
    assert np.allclose(labels, values, atol=3)


def test_what_is_scrolled_fades_only_where_there_is_more(visit: Any) -> None:
    page = visit("small", PHONE).page
    links = page.locator("nav .page")
    faded = "e => [e.classList.contains('more-left'), e.classList.contains('more-right')]"
    page.wait_for_function("document.querySelector('nav .more-right')")
    assert links.evaluate(faded) == [False, True]
    links.evaluate("e => { e.scrollLeft = e.scrollWidth; }")
    page.wait_for_function("document.querySelector('nav .more-left')")
    assert links.evaluate(faded) == [True, False]


def test_a_failed_run_is_one_red_card_on_a_phone(visit: Any) -> None:
    row = visit("index", PHONE).page.locator(".runs .failed").first
    grounds = row.evaluate("e => [e, ...e.children].map(one => getComputedStyle(one).backgroundColor)")
    assert grounds[0] != "rgba(0, 0, 0, 0)"
    assert set(grounds[1:]) == {"rgba(0, 0, 0, 0)"}


def test_complete_without_javascript(visit: Any) -> None:
    with_script, without = visit("small").page, visit("small", java_script_enabled=False).page

    def words(page: Page) -> list[str]:
        texts = page.locator("section p, section td, section th, section figcaption, section li").all_text_contents()
        return [" ".join(text.split()) for text in texts]

    kept = words(without)
    assert len(kept) > 100
    assert not set(kept) - set(words(with_script)) - {""}
    for summary in without.locator("main summary").all()[:3]:
        if summary.is_visible():
            summary.click()
    assert without.locator("details[open]").count() > 0
    assert without.locator("button:visible").count() == 0  # nothing that would do nothing
    assert without.locator("svg:visible").count() >= 2


def test_the_keyboard_reaches_everything_in_reading_order(visit: Any) -> None:
    page = visit("small").page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.evaluate("window.passed = [document.activeElement]")
    for _ in range(200):
        page.keyboard.press("Tab")
        ringed = page.evaluate(
            """() => {
              const now = document.activeElement;
              if (now === document.body) return null;
              passed.push(now);
              const style = getComputedStyle(now);
              return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2;
            }"""
        )
        if ringed is None:
            break
        assert ringed, page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
    else:
        pytest.fail("the keyboard is caught")
    assert page.evaluate(
        "passed.every((e, i) => !i || passed[i - 1].compareDocumentPosition(e) & Node.DOCUMENT_POSITION_FOLLOWING)"
    )
    missed = page.evaluate(
        """() => [...document.querySelectorAll('a[href], button, summary, input, .scroll')].filter(e =>
          e.checkVisibility() && !passed.includes(e)).map(e => e.outerHTML.slice(0, 120))"""
    )
    assert missed == []
    assert page.evaluate("passed.filter(e => e.matches('svg [data-cell]')).length") >= 1


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_a_term_is_explained_from_the_keyboard(visit: Any, viewport: ViewportSize) -> None:
    page = visit("small", viewport).page
    unfold(page)
    shown = "e => { const style = getComputedStyle(e, '::after'); return [style.content, style.display]; }"
    terms = page.locator(".term").all()
    assert len(terms) > 10
    for term in terms[:25]:
        assert term.evaluate(shown)[0] == "none"
        term.focus()
        assert term.evaluate(shown)[0].strip('"') == term.get_attribute("title")
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def test_a_column_is_sorted_from_the_keyboard(visit: Any) -> None:
    page = visit("small").page
    table = page.locator("#arms table").first
    column = table.locator("th.num", has_text="energy").first
    index = column.evaluate("e => e.cellIndex")

    def values() -> list[float]:
        return [float(v) for v in table.locator("tbody tr").evaluate_all(
            "(rows, i) => rows.map(r => r.cells[i].dataset.sort).filter(v => v !== undefined)", index)]  # fmt: skip

    column.locator("button").focus()
    for way, direction in ((1, "ascending"), (-1, "descending")):
        page.keyboard.press("Enter")
        assert column.get_attribute("aria-sort") == direction
        assert values() == sorted(values(), reverse=way < 0)
    assert len(values()) == 6


def test_a_point_shows_its_joules_and_pictures(visit: Any) -> None:
    page = visit("small").page
    page.locator("svg:visible [data-cell]").first.focus()
    texts = {page.locator("#peek").inner_text()}
    for _ in range(3):
        page.keyboard.press("ArrowRight")
        texts.add(page.locator("#peek").inner_text())
    assert len(texts) == 4
    assert all(re.search(r"J/image est\..*attributes drawn", text) for text in texts)
    page.keyboard.press("Escape")
    assert page.locator("#peek").count() == 0
    pictured = page.locator("li[data-cell]").first.get_attribute("data-cell")
    page.locator(f'svg:visible [data-cell="{pictured}"]').first.hover()
    assert page.locator("#peek img").count() >= 1


def test_an_arm_can_be_hidden_and_shown(visit: Any) -> None:
    page = visit("small").page
    shown = page.locator("svg:visible [data-cell]:visible").count()
    rows = page.locator("#arms table").first.locator("tbody tr:visible").count()
    boxes = page.locator(".arms input")
    assert boxes.count() == 2
    boxes.first.focus()
    page.keyboard.press("Space")
    assert page.locator("svg:visible [data-cell]:visible").count() == shown / 2
    assert page.locator("#arms table").first.locator("tbody tr:visible").count() == rows / 2
    page.keyboard.press("Space")
    assert page.locator("svg:visible [data-cell]:visible").count() == shown


def test_sliders_name_the_cheapest_point_that_keeps_both(visit: Any) -> None:
    page = visit("small").page
    data = page.evaluate("JSON.parse(document.getElementById('perjoule-result').textContent).choices")
    options = data["options"]
    chosen = next(option for option in options if option["cell_id"] == data["chosen"])
    assert page.locator("#chooser .answer").inner_text() == chosen["sentence"]
    assert page.locator("#chooser pre").inner_text().strip() == chosen["code"].strip()
    quality, budget = page.locator("#chooser input").all()
    for place in (0.0, 0.3, 0.7, 1.0):
        floor = min(o["quality_kept"] for o in options) * (1 - place) + max(o["quality_kept"] for o in options) * place
        quality.evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }", floor)
        good = next(option for option in options if option["quality_kept"] >= floor - 1e-6)
        assert page.locator("#chooser .answer").inner_text() == good["sentence"]
    budget.evaluate("e => { e.value = e.min; e.dispatchEvent(new Event('input')); }")
    assert "No operating point keeps both" in page.locator("#chooser .answer").inner_text()


@pytest.mark.parametrize(
    ("direction", "kept", "shown"),
    [
        ("higher", 0.67867, "0.678"),
        ("higher", 0.678, "0.678"),
        ("higher", -0.1004, "\N{MINUS SIGN}0.101"),
        ("higher", 0.099961, "0.0999"),
        ("lower", 12.341, "12.4"),
        ("lower", -0.10067, "\N{MINUS SIGN}0.1"),
        ("lower", 1234.0, "1240"),
    ],
)
def test_the_floor_of_the_slider_is_kept(
    pages: dict[str, Path], visit: Any, tmp_path: Path, direction: str, kept: float, shown: str
) -> None:
    """It is rounded towards the worse side, as in the text and the table."""
    text, end = pages["small"].read_text(), "</script>"
    head, begin, rest = text.partition(re.search(r"<script[^>]*perjoule-result[^>]*>", text)[0])
    stored, end, tail = rest.partition(end)
    data = json.loads(stored)
    data["metrics"][data["choices"]["metric"]]["direction"] = direction
    data["choices"] |= {"options": [{**data["choices"]["options"][0], "quality_kept": kept}], "floor": kept}
    made = tmp_path / "page.html"
    made.write_text("".join((head, begin, json.dumps(data).replace("<", "\\u003c"), end, tail)))
    page = visit("small").page
    page.goto(made.as_uri())
    assert page.locator("#chooser output").first.inner_text() == shown
    assert page.locator("#chooser .answer").inner_text() == data["choices"]["options"][0]["sentence"]


@pytest.mark.parametrize(("viewport", "limit"), [(PHONE, 1400), (DESK, 700)], ids=["phone", "desk"])
def test_the_first_image_and_the_first_figure_are_at_the_top(visit: Any, viewport: ViewportSize, limit: int) -> None:
    page = visit("small", viewport).page
    for part in (".glance img", ".glance svg"):
        assert page.locator(part).first.evaluate("e => e.getBoundingClientRect().bottom") <= limit


def test_the_result_is_copied(visit: Any) -> None:
    page = visit("small", permissions=["clipboard-read", "clipboard-write"]).page
    unfold(page)
    page.locator("#copy").click()
    page.get_by_text("Copied").wait_for(timeout=2000)
    assert '"kind": "perjoule-result"' in page.evaluate("navigator.clipboard.readText()")


@pytest.mark.parametrize(("viewport", "most_px"), [(DESK, 700), (PHONE, 1400)])
def test_the_report_of_the_demo_begins_with_pictures(visit: Any, viewport: ViewportSize, most_px: int) -> None:
    page = visit("demo", viewport).page
    for first in ("img", "figure svg"):
        places = page.locator(first).evaluate_all("all => all.map(e => e.getBoundingClientRect()).filter(r => r.width)")
        assert min(place["top"] for place in places) <= most_px


def test_the_report_of_the_demo_is_short(visit: Any) -> None:
    page = visit("demo").page
    paper = page.pdf(prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", paper)) <= 8
    page.evaluate("document.querySelectorAll('select').forEach(e => e.remove())")  # closed lists are not seen
    assert len(page.inner_text("body").split()) <= 4000


LINKED = """() => {
  const shown = selector => [...document.querySelectorAll(selector)].filter(e => e.checkVisibility());
  const bodies = shown('main :is(img, .picture, tr, .prose, pre)');
  return shown('main :is(h2, h3, h4)').map((head, i) => {
    const body = bodies.find(e => head.compareDocumentPosition(e) & Node.DOCUMENT_POSITION_FOLLOWING) || head;
    for (const e of [head, body]) {
      e.id ||= `target-${i}-${e.tagName}`;
      document.body.append(Object.assign(document.createElement('a'), { textContent: '.', href: `#${e.id}` }));
    }
    return [head.textContent, head.id, body.id];
  });
}"""


@pytest.mark.parametrize("kind", ["small", "demo"])
def test_no_heading_is_alone_at_the_foot_of_a_page(visit: Any, kind: str) -> None:
    """Chromium writes where each target of a link is printed."""
    page = visit(kind).page
    page.emulate_media(media="print")
    headings = page.evaluate(LINKED)
    paper = page.pdf(prefer_css_page_size=True)
    sheets = dict(re.findall(rb"/(\S+) \[(\d+) 0 R /XYZ", paper))
    parted = [name for name, head, body in headings if sheets[head.encode()] != sheets[body.encode()]]
    assert len(headings) > 5
    assert len(set(sheets.values())) > 2
    assert parted == []


@pytest.mark.parametrize("kind", ["small", "hostile", "demo"])
def test_paper_is_light_and_leaves_out_what_is_folded(visit: Any, kind: str) -> None:
    page = visit(kind, color_scheme="dark").page
    folded = page.locator("details:not([open])").count()
    paper = page.pdf(prefer_css_page_size=True)
    assert paper.startswith(b"%PDF")
    assert folded > 3
    assert page.locator("details:not([open])").count() == folded
    page.emulate_media(media="print", color_scheme="dark")
    ground = page.evaluate("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")
    assert ground[0] == "rgb(255, 255, 255)"
    assert sum(map(int, re.findall(r"\d+", ground[1])[:3])) < 150
    cut = page.evaluate(
        "[...document.querySelectorAll('.picture, article, tr')].filter(e => "
        "getComputedStyle(e).breakInside !== 'avoid').length"
    )
    assert cut == 0
    page.set_viewport_size({"width": round(182 / 25.4 * 96), "height": 900})  # A4 less the margins
    wide = page.evaluate(
        "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 2)"
        ".map(e => e.getAttribute('aria-label'))"
    )
    assert wide == []


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("kind", ["small", "traced", "twelve", "gate"])
def test_no_text_of_a_figure_covers_another(visit: Any, kind: str, viewport: ViewportSize) -> None:
    page = visit(kind, viewport).page
    unfold(page)
    assert page.locator("svg:visible text").count() > 20
    assert page.evaluate(OVERLAPS) == []
    if page.locator(".arms input").count():
        page.locator(".arms input").first.uncheck()
        assert page.evaluate(OVERLAPS) == []


@pytest.mark.parametrize("kind", ["small", "twelve", "demo"])
def test_each_label_of_a_frontier_is_nearest_to_what_it_names(visit: Any, kind: str) -> None:
    """A number at a point of another variant is worse than none."""
    page = visit(kind).page
    wrong = page.evaluate(
        """() => [...document.querySelectorAll('svg')].flatMap(svg => {
          const seen = selector => [...svg.querySelectorAll(selector)].filter(e => e.getClientRects().length);
          const centre = e => {
            const b = e.getBoundingClientRect();
            return [b.left + b.width / 2, b.top + b.height / 2];
          };
          const points = seen('[data-cell]').map(e => ({ id: e.id, arm: e.dataset.arm, at: centre(e) }));
          const middles = points.flatMap((a, i) => points[i + 1]?.arm !== a.arm ? [] : // along its line
            [{ arm: a.arm, at: [0, 1].map(k => (a.at[k] + points[i + 1].at[k]) / 2) }]);
          const led = new Set(seen('[id*=-lead-]').map(e => e.id.replace('-lead-', '-steps-')));
          return seen('[id*=-steps-], [id*=-name-]').filter(e => !led.has(e.id)).filter(label => {
            const far = one => Math.hypot(...one.at.map((v, i) => v - centre(label)[i]));
            const named = label.id.includes('-name-');
            const nearest = [...points, ...(named ? middles : [])].reduce((a, b) => far(b) < far(a) ? b : a);
            return named ? nearest.arm !== label.dataset.arm : nearest.id !== label.id.replace('-steps-', '-point-');
          }).map(e => e.id);
        })"""
    )
    assert page.locator(".glance [id*=-steps-]").count() >= (0 if kind == "twelve" else 2)  # it compares no cells
    assert page.locator(".glance [id*=-name-]").count() >= 2
    assert wrong == []


@pytest.mark.parametrize("kind", ["small", "twelve"])
def test_every_point_shows_itself_under_the_mouse(visit: Any, kind: str) -> None:
    """Whatever lies on it: lines, intervals, rings and other points."""
    page = visit(kind).page
    points = page.locator("svg:visible [data-cell]").all()
    assert len(points) == (12 if kind == "small" else 108)  # the figure at the top has each cell as well
    for point in points[:: 1 if kind == "small" else 5]:
        point.evaluate("e => e.scrollIntoView({block: 'center', behavior: 'instant'})")
        box = point.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        assert point.get_attribute("aria-label") in page.locator("#peek").inner_text()
    covering = page.evaluate(
        "[...document.querySelectorAll('.picture svg *')].filter(e => !e.closest('.point') && "
        "getComputedStyle(e).pointerEvents !== 'none').length"
    )
    assert covering == 0


def test_hiding_an_arm_stretches_the_figures_to_the_others(visit: Any) -> None:
    page = visit("twelve").page
    figure = page.locator("#frontier svg:visible").first
    small = page.locator(".glance figure svg")
    state = """svg => {
      const box = svg.querySelector('[id$=-frame]').getBoundingClientRect();
      const spots = [...svg.querySelectorAll('.point:not(.off)')].map(e => e.getBoundingClientRect());
      const share = (s, from, length) => (s[from] + s[length] / 2 - box[from]) / box[length];
      const at = spots.map(s => [share(s, 'left', 'width'), share(s, 'top', 'height')]);
      const ticks = [...svg.querySelectorAll('[id*="ytick"] text, .ytick text')].filter(e => e.getClientRects().length);
      return [at, ticks.map(e => [e.getBoundingClientRect().top - box.top, Number(e.textContent)])];
    }"""
    whole, whole_small = figure.evaluate(state), small.evaluate(state)
    boxes = page.locator(".arms input").all()
    for box in boxes[2:]:
        box.uncheck()
    left, ticks = figure.evaluate(state)
    assert len(left) == 6
    assert all(0 <= v <= 1 for spot in left for v in spot)
    tall = [max(at[1] for at in part) - min(at[1] for at in part) for part in (left, whole[0])]
    assert tall[0] > 0.6
    at_the_top = small.evaluate(state)[0]
    assert len(at_the_top) == 6
    assert max(at[1] for at in at_the_top) - min(at[1] for at in at_the_top) > 0.6
    assert len(ticks) >= 3
    assert [value for _, value in sorted(ticks)] == sorted((value for _, value in ticks), reverse=True)
    for box in boxes[2:]:
        box.check()
    for again, before in zip(figure.evaluate(state), whole, strict=True):
        assert np.allclose(again, before, atol=0.01)
    assert np.allclose(small.evaluate(state)[0], whole_small[0], atol=0.01)


def stage_of(page: Page) -> list[Any]:
    """Mode, zoom, prompt, and which of the two images can be seen."""
    return page.evaluate(
        """() => { const stage = document.querySelector('.stage'); return [
          stage.className, stage.style.getPropertyValue('--zoom'), document.querySelector('.viewer select').value,
          [...stage.querySelectorAll('.view')].map(e => getComputedStyle(e).visibility === 'visible')]; }"""
    )


def test_two_images_are_compared_from_the_keyboard(visit: Any) -> None:
    found = visit("twelve")
    page = found.page
    assert stage_of(page) == ["stage side", "1", "0", [True, True]]
    page.locator(".stage").focus()
    for key in ("ArrowRight", "+", "+", "-", "f"):
        page.keyboard.press(key)
    assert stage_of(page) == ["stage flicker", "2", "1", [True, False]]
    page.keyboard.press("Space")
    assert stage_of(page)[3] == [False, True]
    for key in ("s", "0", "ArrowLeft"):
        page.keyboard.press(key)
    assert stage_of(page) == ["stage slide", "1", "0", [True, True]]
    cut = "() => getComputedStyle(document.querySelectorAll('.view')[1]).clipPath"
    page.locator(".viewer input[type=range]").fill("20")
    assert page.evaluate(cut) == "inset(0px 0px 0px 20%)"
    line = page.locator(".view").nth(1).evaluate("e => getComputedStyle(e, '::before').left")
    assert float(line.removesuffix("px")) == pytest.approx(0.2 * 340, abs=1)
    assert "F flicker" in page.locator(f"#{page.locator('.stage').get_attribute('aria-describedby')}").inner_text()
    page.locator(".sheet li").nth(2).click()
    assert stage_of(page)[2] == "2"
    assert len(found.requests) == len([url for url in found.requests if url.startswith("data:")]) + 1


def test_files_are_read_only_when_a_reader_asks_for_an_image(
    visit: Any, pages: dict[str, Path], tmp_path: Path
) -> None:
    """The demo's tiles are smaller than its images, so the viewer has files to read."""
    files = lambda found: [url for url in found.requests[1:] if not url.startswith("data:")]  # noqa: E731
    alone = tmp_path / "sent.html"
    alone.write_bytes(pages["demo"].read_bytes())
    for place in (pages["demo"], alone):
        found = visit("demo")
        found.requests.clear()
        found.page.goto(place.as_uri())
        assert found.page.evaluate("[...document.querySelectorAll('.view img')].every(e => e.naturalWidth > 0)")
        assert files(found) == found.complaints == []
        assert found.page.locator(".view .note:not(:empty)").count() == 0
        found.page.get_by_title("next prompt").click()
        found.page.wait_for_timeout(100)
        assert all("/images/" in url for url in files(found))
        assert len(files(found)) == 2


def test_the_viewer_shows_the_largest_copy_in_a_page_sent_alone(
    visit: Any, pages: dict[str, Path], tmp_path: Path
) -> None:
    page = visit("demo").page
    (tmp_path / "sent.html").write_bytes(pages["demo"].read_bytes())
    page.goto((tmp_path / "sent.html").as_uri())
    widths = page.evaluate(
        """() => {
          const width = new Map();
          for (const image of document.querySelectorAll('img[data-key]')) {
            width.set(image.dataset.key, Math.max(width.get(image.dataset.key) ?? 0, image.naturalWidth));
          }
          const keys = [...document.querySelector('.strip.paired').querySelectorAll('img')].slice(0, 2).map(
            e => e.dataset.key);
          const [id, seed] = keys[0].split('/').slice(2);
          const at = JSON.parse(document.getElementById('perjoule-images').textContent).prompts.findIndex(
            one => one[0] === id && String(one[1]) === seed);
          document.querySelector('.viewer select').value = at;
          document.querySelector('.viewer select').dispatchEvent(new Event('change'));
          return keys.map(key => width.get(key));
        }"""
    )
    page.wait_for_timeout(100)
    assert widths == page.evaluate("[...document.querySelectorAll('.view img')].map(e => e.naturalWidth)")
    assert page.locator(".view .note:not(:empty)").count() == 0


def test_an_image_outside_the_page_is_read_from_the_run_or_missed_in_words(
    visit: Any, pages: dict[str, Path], tmp_path: Path
) -> None:
    found = visit("twelve")
    page = found.page

    def choose() -> str:
        label = page.locator(".viewer label", has_text="Right").locator("select")
        inlined = set(page.locator("img[data-key]").evaluate_all("e => e.map(i => i.dataset.key.split('/')[1])"))
        cells = page.evaluate("JSON.parse(document.getElementById('perjoule-images').textContent).cells")
        number, name = next((i, cell["cell"]) for i, cell in enumerate(cells) if cell["cell"] not in inlined)
        label.select_option(str(number))
        assert str(name) not in label.locator("option").nth(number).inner_text()  # cells have names for readers
        return str(name)

    choose()
    shown = page.locator(".view img").nth(1)
    page.wait_for_function("document.querySelectorAll('.view img')[1].naturalWidth === 64")
    assert shown.get_attribute("src").startswith("images/")
    assert found.complaints == []
    alone = tmp_path / "sent.html"
    alone.write_bytes(pages["twelve"].read_bytes())
    page.goto(alone.as_uri())
    name = choose()
    page.get_by_text("This image is not part of the page").wait_for(timeout=5000)
    assert f"images/{name}." in page.locator(".view .note").nth(1).inner_text()
    assert not shown.is_visible()
