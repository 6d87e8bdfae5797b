"""An exported file in a real browser, from disk: it shows, loads nothing, and runs nothing that a model said."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.export.html import export_group, export_html
from experiments.export.selection import Selection
from tests.experiments.export.export_helpers import run_of, turn
from tests.experiments.test_store import simple

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
HOSTILE = (
    "</script><script>window.ran = 1</script><img src=http://127.0.0.1:9/x onerror='window.ran = 2'> "
    "[a link](javascript:window.ran=3) \x1b[31mred\x1b[0m \u202eright to left"
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="there is no chromium"),
]


@pytest.fixture
def file(tmp_path: Path) -> str:
    """The address of an exported run of three episodes."""
    stored = [
        simple(f"task-{i}").model_copy(
            update={"turns": (turn(reply=HOSTILE), turn("b/0", reply=f"reply {i} of b", reads=("a/0",), after=1))}
        )
        for i in range(3)
    ]
    run = run_of(tmp_path / "run", stored)
    export_html(Selection.of_run(run), tmp_path / "run.html", tmp_path)
    return (tmp_path / "run.html").as_uri()


@pytest.fixture
def page(file: str) -> Iterator[Any]:
    """A browser; made after the file, as its loop would be in the way of the store's."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 1280, "height": 900})
        browser.close()


def test_a_file_shows_its_episodes_and_runs_nothing(file: str, page: Any) -> None:
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file)
    page.get_by_text("task-1").first.wait_for()
    page.goto(f"{file}#/run/run/episode/2")
    page.get_by_text("reply 1 of b").first.wait_for()
    shown = page.locator("body").inner_text()
    assert "<script>window.ran = 1</script>" in shown and "[a link](javascript:" in shown
    assert "\x1b" not in shown and "\u202e" not in shown, "control characters are made visible"
    assert page.evaluate("window.ran") is None
    assert complaints == [] and {url.partition("#")[0] for url in asked} == {file}


def test_the_page_of_a_sweep_names_its_runs_and_leads_to_none(file: str, page: Any, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "run", tmp_path / "several" / "run")
    export_group(tmp_path / "several", tmp_path / "all.html", tmp_path)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto((tmp_path / "all.html").as_uri())
    page.get_by_role("heading", name="several").wait_for()
    row = page.get_by_role("row").filter(has_text="run").last
    row.wait_for()
    assert "the episodes of its 1 runs are left out" in page.locator("body").inner_text()
    assert row.get_by_role("link").count() == 0 and complaints == []
