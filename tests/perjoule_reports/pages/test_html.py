from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from perjoule_reports import build_report, records, render_html, render_markdown, write_report
from perjoule_reports.pages.html import scripts

pytestmark = pytest.mark.slow

FETCHING = {"src", "href", "srcset", "action", "formaction", "data", "poster", "background", "ping", "manifest"}
VOID = {"meta", "img", "br", "hr", "link", "input", "path", "use", "rect"}


class Page(HTMLParser):
    """Every start tag with its attributes, and the text inside style and script elements."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        assert len({k for k, _ in attrs}) == len(attrs), f"attribute twice in <{tag}>"
        self.tags.append((tag, dict(attrs)))
        if tag in {"style", "script"}:
            self.raw.append((tag, dict(attrs), ""))

    def handle_data(self, data):
        if self.lasttag in {"style", "script"} and self.raw and not self.raw[-1][2]:
            tag, attrs, _ = self.raw[-1]
            self.raw[-1] = (tag, attrs, data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def text(usual_report):
    return render_html(usual_report)


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_equal_runs_give_equal_bytes(synthetic, tmp_path):
    size = {"prompts": 4, "ladder": (1, 4), "metrics": ("scene",)}
    one, two = (synthetic.make_run(tmp_path / name, **size) for name in ("one", "two"))
    assert render_html(build_report(one)) == render_html(build_report(two))
    assert render_markdown(build_report(one)) == render_markdown(build_report(two))


def test_policy_names_exactly_the_style_and_the_script_of_the_page(page):
    meta = next(m for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    policy = dict(part.strip().split(" ", 1) for part in meta["content"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["img-src"] == "data:"

    def digest(body: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()}'"

    styles = [body for tag, _, body in page.raw if tag == "style"]
    scripts = [body for tag, attrs, body in page.raw if tag == "script" and attrs.get("type") != "application/json"]
    assert [policy["style-src"]] == [digest(s) for s in styles]
    assert [policy["script-src"]] == [digest(s) for s in scripts]


def test_nothing_is_fetched_and_no_style_or_handler_attribute_is_used(page, text):
    for tag, attrs in page.tags:
        assert "style" not in attrs, tag
        assert not [name for name in attrs if name.startswith("on")], tag
        for name in FETCHING & attrs.keys():
            assert attrs[name].startswith(("#", "data:image/webp;base64,")), (tag, name, attrs[name][:40])
    assert not page.all("link")
    assert not page.all("iframe")
    css = next(body for tag, _, body in page.raw if tag == "style")
    assert "@import" not in css
    assert "http:" not in text
    assert "https:" not in text
    assert not re.search(r"url\((?!#)", text)


def test_page_is_small_and_script_is_smaller(text):
    assert len(text.encode()) <= 2_000_000
    assert len(scripts().encode()) <= 19_000


def test_large_photographs_keep_to_the_budget(synthetic, tmp_path):
    from PIL import Image

    run = synthetic.make_run(tmp_path, prompts=6, seeds=(1,), variants=("big",), metrics=("scene",))
    Image.effect_noise((256, 256), 90).convert("RGB").save(tmp_path / "noise.png")
    for file in (tmp_path / "images").iterdir():
        file.write_bytes((tmp_path / "noise.png").read_bytes())
    assert len(render_html(build_report(run)).encode()) <= 2_000_000


def test_of_many_prompts_the_first_are_shown_and_all_are_there(usual_report, monkeypatch):
    monkeypatch.setattr(records, "MOST_TILES", 20)
    text = render_html(usual_report)
    shown, folded = text[text.index('<ol class="sheet">') :].split("<summary>4 more prompts</summary>")
    folded = folded[: folded.index("</details>")]
    assert [part.count('<li><span class="two">') for part in (shown, folded)] == [20, 4]


def test_ids_are_unique_and_references_resolve(page, text):
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    wanted = set(re.findall(r"url\(#([^)]+)\)", text))
    wanted |= {attrs["href"][1:] for _, attrs in page.tags if (attrs.get("href") or "").startswith("#")}
    wanted |= {i for _, attrs in page.tags for i in (attrs.get("aria-labelledby") or "").split()}
    assert wanted <= set(ids)


def test_pictures_can_be_read_without_seeing_them(page, usual):
    svgs = page.all("svg")
    assert len(svgs) >= 7  # frontier and phases, each wide and narrow; three other metrics
    assert all(svg["role"] == "img" and svg["aria-labelledby"] for svg in svgs)
    images = page.all("img")
    assert 0 < len(images) <= 24 + 2 * len(usual.prompts) + 2  # rows, all prompts, and the pair at the top
    prompts = set(usual.prompts.values())
    assert all(any(image["alt"].startswith(p) for p in prompts) for image in images)


def test_colours_follow_the_theme(text):
    css = text[text.index("<style>") : text.index("</style>")]
    figures = text[text.index('<div class="picture') :]
    assert ":root" in css
    assert "prefers-color-scheme: dark" in css
    assert not re.search(r'(?:fill|stroke)="#', figures)
    rules = "\n".join(re.findall(r"^\.k[0-9a-f]{7}\{.*\}$", css, re.M))
    assert "var(--ink)" in rules
    assert "var(--s1)" in rules
    assert not re.search(r"#0[1-5]0[1-5]0[1-5]", rules)


@pytest.mark.parametrize(("provenance", "word"), [("estimated", "est."), ("simulated", "sim.")])
def test_joules_that_were_not_measured_say_so(synthetic, tmp_path, provenance, word):
    run = synthetic.make_run(tmp_path, prompts=4, ladder=(1, 4), provenance=provenance, metrics=("scene",))
    report = build_report(run)
    text = render_html(report)
    assert f"<strong>{provenance.upper()}</strong>" in text
    assert f"(J, {provenance.upper()})" in text
    assert report.headline.tiles[0].brand == word
    arms = next(s for s in report.sections if s.anchor == "arms").tables[0]
    # estimated joules have no sensor of power
    branded = {"energy", "Δ energy"} | ({"power"} if provenance == "simulated" else set())
    for row in arms.rows:
        for column, cell in zip(arms.columns, row, strict=True):
            number = cell.text != "anchor"
            assert (cell.brand == word) == (column.title in branded and number)


def test_measured_joules_are_calm(synthetic, tmp_path):
    text = render_html(
        build_report(synthetic.make_run(tmp_path, prompts=4, ladder=(1, 4), provenance="measured", metrics=("scene",)))
    )
    assert 'class="band"' not in text
    assert 'class="brand"' not in text


def test_hostile_prompts_stay_text(synthetic, tmp_path):
    run = synthetic.make_run(tmp_path, prompts=synthetic.HOSTILE, ladder=(1, 4), seeds=(1,), metrics=("scene",))
    run = replace(
        run,
        suite=replace(run.suite, title=synthetic.HOSTILE[0], name="a</title><b>"),
        trials=run.trials.with_columns(failure=None).with_columns(
            failure=run.trials["prompts"].list.first()  # a failure message that quotes the prompt
        ),
    )
    text = render_html(build_report(run))
    page = Page(text)
    assert {tag for tag, _ in page.tags}.isdisjoint({"b", "iframe", "object"})
    assert len(page.all("script")) == 3
    assert len(page.all("style")) == 1
    assert all(image["src"].startswith("data:") for image in page.all("img"))
    assert not [a for _, attrs in page.tags for a in attrs if a.startswith("on")]
    assert "<!-- comment" not in text
    assert "49" not in re.findall(r"\{\{.*?\}\}", text)
    assert "{{ 7*7 }}" in text
    assert not re.search("[\x00-\x08\u202a-\u202e\u2066-\u2069\u200b]", text)


def test_embedded_result_is_the_result_file(synthetic, tmp_path):
    run = synthetic.make_run(tmp_path / "run", prompts=synthetic.HOSTILE, ladder=(1, 4), seeds=(1,), metrics=("scene",))
    files = write_report(run, tmp_path / "out")
    assert [f.name for f in files] == ["report.html", "report.md", "result.json"]
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == sorted(f.name for f in files)
    page = Page(files[0].read_text("utf-8"))
    body = next(body for _, attrs, body in page.raw if attrs.get("id") == "perjoule-result")
    assert not re.search("[<>&]", body)
    embedded, beside = json.loads(body), json.loads(files[2].read_text("utf-8"))
    assert embedded == beside
    assert embedded["schema"] == 1
    assert set(synthetic.HOSTILE) == set(embedded["prompts"].values())
    assert len(embedded["cells"]) == 4


def test_a_page_of_another_name_takes_its_twins_along(synthetic, tmp_path):
    run = synthetic.make_run(tmp_path / "run", prompts=2, ladder=(1, 4), seeds=(1,), metrics=("scene",))
    files = write_report(run, tmp_path / "demo.html")
    assert [f.name for f in files] == ["demo.html", "demo.md", "demo.json"]
