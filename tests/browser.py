"""A real browser, without a screen: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
# It runs as root, in a container perhaps, and is to ask nobody for anything.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


@contextmanager
def started_browser() -> Iterator[Browser]:
    """Start Chromium with a profile of its own. Without one: skip; in CI, fail."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        say = pytest.fail if os.environ.get("CI") else pytest.skip
        say("no Chromium: make browser installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Browser,
    path: Path,
    viewport: dict[str, int] = DESKTOP,
    scheme: str = "light",
    **options: object,
) -> Iterator[Page]:
    """Open a page; fails when it says anything on the console or asks for anything else."""
    context = browser.new_context(viewport=viewport, color_scheme=scheme, **options)
    page = context.new_page()
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(f"console {message.type}: {message.text}"))
    page.on("pageerror", lambda error: trouble.append(f"error: {error}"))
    page.on("request", lambda request: trouble.append(f"request: {request.url}"))
    page.goto(path.as_uri())
    page.evaluate("document.fonts.ready")
    yield page
    context.close()
    assert trouble == [f"request: {path.as_uri()}"]


def accessibility_violations(page: Page) -> list[str]:
    """Return what axe-core, with all its rules, has to say against a page."""
    found = Axe().run(page).response["violations"]
    return [f"{v['id']}: {v['help']}: {node['html']}" for v in found for node in v["nodes"]]
