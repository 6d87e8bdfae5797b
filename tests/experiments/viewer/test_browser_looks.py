"""The viewer's pages can be read by everyone: contrast, names and roles, dark and light, on a desk and on a phone."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agents import ScriptedEngine
from envs.types import Env
from experiments.training.league import Game, League
from tests.experiments.viewer.browsing import chromium, needs_chromium, served, watched
from tests.experiments.viewer.test_training_page import training
from tests.experiments.viewer.viewer_helpers import debate

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.slow, needs_chromium]

PAGES = {
    "/": "table.runs a",
    "/compare?runs=talk,yes-men": ".scatter circle",
    "/run/talk": ".elist a",
    "/run/first": ".matrix",
    "/run/talk/episode/3": ".turnbox",
    "/run/talk/episode/3/turn/debater_1%2F1": ".turnbox.selected",
    "/nowhere": ".problems",
}
"""Address -> what is there once the page has been read."""
UPDATES = (
    '{"kind": "update", "updates": 1, "accuracy": 0.4, "seconds": {"play": 2.0}}\n'
    '{"kind": "update", "updates": 2, "accuracy": 0.5, "seconds": {"play": 2.0}}\n'
)


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    with chromium() as started:
        yield started


@pytest.fixture
def root(tmp_path: Path, words: Env) -> Path:
    debate(tmp_path, words, "talk")
    debate(tmp_path, words, "yes-men", ScriptedEngine(lambda _: "\\boxed{yes}"))
    training(tmp_path, words)
    League.open(tmp_path / "first").record([Game("solver@2", "solver@1", 1.0)])
    (tmp_path / "first" / "metrics.jsonl").write_text(UPDATES)
    return tmp_path


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_pages_are_accessible_and_fit(root: Path, browser: "Browser", scheme: str, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    found: dict[str, list[str]] = {}
    screen = {"width": width, "height": 800}
    with watched(browser, color_scheme=scheme, viewport=screen) as page, served(root, page) as url:
        for path, there in PAGES.items():
            page.goto(url + path)
            if width < 400 and path.endswith("/episode/3"):
                page.get_by_role("tab", name="Graph").click()
            page.locator(".turn.selected" if width < 400 and "turn" in path else there).first.wait_for()
            results = Axe().run(page).response["violations"]
            found[path] = [f"{broken['id']}: {broken['nodes'][0]['html'][:200]}" for broken in results]
            over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert over <= 0, f"{path} is {over} px wider than a screen of {width}"
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        page.get_by_role("button", name="Dark colours" if scheme == "light" else "Light colours").click()
        page.reload()
        assert page.evaluate("document.documentElement.dataset.theme") != scheme, "the reader's choice is kept"
    assert found == {path: [] for path in PAGES}, json.dumps(found, indent=1)
