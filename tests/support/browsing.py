"""Headless Chromium for tests of pages: which one, window sizes, and what axe-core finds."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, ViewportSize

# CHROMIUM names another browser
CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH, and CHROMIUM names none")
TABLET = ViewportSize(width=768, height=1024)
PHONE, DESK = ViewportSize(width=390, height=844), ViewportSize(width=1440, height=900)


@dataclass
class Visit:
    """A loaded page with all that it asked for and complained about."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Listen to the page."""
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("dialog", lambda dialog: dialog.dismiss())


def axe_findings(page: Page) -> list[tuple[Any, ...]]:
    """All that axe-core finds, not only what it calls serious."""
    response = Axe().run(page, options={"resultTypes": ["violations"]}).response
    assert response["testEngine"]["name"] == "axe-core"
    return [
        (v["impact"], v["id"], [n["html"][:160] for n in v["nodes"][:3]], v["nodes"][0]["failureSummary"])
        for v in response["violations"]
    ]
