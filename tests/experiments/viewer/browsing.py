"""Debian's Chromium on a server of the viewer, for tests that look at its pages as people do."""

import asyncio
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from experiments.gateway.server import bind, listening, url_of
from experiments.viewer.guard import ViewerGuard
from experiments.viewer.server import create_app

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="there is no chromium")
"""Where tests must be complete there has to be one: they fail without."""
START_S = 60
WAIT_S = 60
"""For anything that a page is to show: long, as tests share their machine with others."""


@contextmanager
def served(root: Path, page: "Page") -> Iterator[str]:
    """The viewer over a folder of runs, in a thread of its own, on a free port of loopback, for one page."""
    ready, at = threading.Event(), bind("127.0.0.1", 0)
    ends: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        ends.append((asyncio.get_running_loop(), asyncio.Event()))
        async with listening(create_app(root), at, None, ViewerGuard):
            ready.set()
            await ends[0][1].wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="viewer")
    thread.start()
    try:
        assert ready.wait(START_S), "the viewer does not start"
        yield url_of(at)
    finally:
        # It follows what is stored: a server that stops would wait for it.
        page.goto("about:blank")
        loop, end = ends[0]
        loop.call_soon_threadsafe(end.set)
        thread.join()


@contextmanager
def chromium() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Its sandbox cannot be had by root, who runs tests in containers.
        browser = playwright.chromium.launch(executable_path=CHROMIUM or "chromium", args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def watched(browser: "Browser", **options: Any) -> Iterator["Page"]:
    """A page that must not complain: no error on its console, nothing thrown, nothing asked of another server."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
    context.set_default_timeout(1000 * WAIT_S)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(f"a dialog: {dialog.message}"))
    page.on("request", lambda asked: None if "//127.0.0.1" in asked.url else complaints.append(asked.url))
    try:
        yield page
    finally:
        context.close()
    assert complaints == [], complaints
