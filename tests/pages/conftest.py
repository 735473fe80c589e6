"""A headless Chromium, and a page opened in it."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.pages.looks import WIDTHS

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright

    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
    assert program, "no Chromium here: `make page-packages`, or name one in CHROMIUM"
    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=program, args=["--no-sandbox"] if os.getuid() == 0 else [])
        yield started
        started.close()


@pytest.fixture
def opened(browser, pages, kind, width):
    """The page, and what the browser complained of."""
    context = browser.new_context(viewport={"width": WIDTHS[width], "height": 800})
    context.set_offline(True)
    found = context.new_page()
    complaints = []
    found.on("console", lambda message: complaints.append(message.text))
    found.on("pageerror", lambda error: complaints.append(str(error)))
    found.on("requestfailed", lambda request: complaints.append(request.url[:200]))
    found.goto(pages[kind].as_uri())
    yield found, complaints
    context.close()
