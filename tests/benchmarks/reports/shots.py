"""Take the pictures of a report in the README anew.


python -m tests.benchmarks.reports.shots RUN docs/images
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from perjoule.runs.directory import load_run
from perjoule_reports import build_report, render_html

WIDE, PHONE = {"width": 1280, "height": 1790}, {"width": 390, "height": 1700}


def shot(browser: Browser, page: Path, out: Path, *, dark: bool, phone: bool = False, part: str = "") -> None:
    """Take one picture: of the top of the page, or of a part of it."""
    context = browser.new_context(
        viewport=PHONE if phone else WIDE,
        is_mobile=phone,
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    tab = context.new_page()
    tab.goto(page.as_uri())
    if part:
        box = tab.evaluate(
            "s => { const b = document.querySelector(s).getBoundingClientRect();"
            "return { x: b.x, y: b.y + scrollY, width: b.width, height: b.height }; }",
            part,
        )
        tab.screenshot(path=out, full_page=True, clip=box)
    else:
        tab.screenshot(path=out)
    context.close()
    with Image.open(out) as image:
        # of the quantisers the one that spares rare colours: no pixel of the README's pictures is off by more than 16
        image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            out, optimize=True
        )


def main(run: str, folder: str) -> None:
    """Render the run and take all pictures."""
    out = Path(folder)
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        page = Path(temporary) / "report.html"
        page.write_text(render_html(build_report(load_run(run))), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium") or shutil.which("google-chrome"))
        shot(browser, page, out / "report-wide-light.png", dark=False)
        shot(browser, page, out / "report-wide-dark.png", dark=True)
        shot(browser, page, out / "report-phone-dark.png", dark=True, phone=True)
        shot(browser, page, out / "report-pictures.png", dark=False, part="#pictures")
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:3])
