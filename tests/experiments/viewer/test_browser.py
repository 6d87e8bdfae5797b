"""The viewer's pages in a real browser: what people read there, and what the keys, links and buttons do."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agents import Cast, Request, ScriptedEngine
from envs.types import Env
from experiments import run
from experiments.benchmarks.viewer import make_large
from tests.experiments.viewer.browsing import chromium, needs_chromium, served, watched
from tests.experiments.viewer.test_damage import HOSTILE, changed
from tests.experiments.viewer.viewer_helpers import debate, say

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.slow, needs_chromium]


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser: "Browser") -> "Iterator[Page]":
    with watched(browser) as opened:
        yield opened


@pytest.fixture
def talk(tmp_path: Path, words: Env, page: "Page") -> Iterator[str]:
    """A server over one debate: five tasks, of which `words-2` ends wrong after a right opening."""
    debate(tmp_path, words)
    with served(tmp_path, page) as url:
        yield url


def test_runs_are_found_sorted_picked_and_compared(tmp_path: Path, words: Env, page: "Page") -> None:
    debate(tmp_path, words, "talk")
    debate(tmp_path, words, "yes-men", ScriptedEngine(lambda _: "\\boxed{yes}"))
    with served(tmp_path, page) as url:
        page.goto(url)
        page.get_by_role("link", name="yes-men").wait_for()
        page.get_by_role("button", name="accuracy %").click()
        assert page.locator("tbody tr a").first.inner_text() == "yes-men"
        page.get_by_label("Find runs").fill("talk")
        assert page.locator("tbody tr").count() == 1
        page.get_by_label("Find runs").fill("")
        page.get_by_label("compare talk").check()
        page.get_by_label("compare yes-men").check()
        page.get_by_role("button", name="Compare 2 runs").click()
        forest = page.get_by_role("img", name="Paired differences: yes-men +50.0")
        forest.wait_for()
        assert page.url.endswith("/compare?runs=talk,yes-men")
        page.locator(".differing").get_by_role("link", name="✗ 0").first.click()
        page.get_by_role("heading", name="Round 1").wait_for()
        assert "/run/talk/episode/3" in page.url


def test_filters_keep_their_episodes_and_travel_in_the_address(talk: str, page: "Page") -> None:
    page.goto(f"{talk}/run/talk")
    page.get_by_role("link", name="flipped to wrong").click()
    row = page.locator(".elist a")
    page.locator(".elist").get_by_text("to wrong").wait_for()
    assert row.count() == 1 and page.url.endswith("?filter=flipped%20to%20wrong")
    page.goto(f"{talk}/run/talk?filter=disagreement&sort=longest")
    page.locator(".elist a").nth(1).wait_for()
    assert row.count() == 3 and page.get_by_label("order").input_value() == "longest"
    row.first.click()
    page.get_by_text("1 of 3 disagreement").wait_for()
    page.keyboard.press("j")
    page.get_by_text("2 of 3 disagreement").wait_for()
    page.keyboard.press("k")
    page.get_by_text("1 of 3 disagreement").wait_for()
    page.keyboard.press("u")
    page.locator(".elist").wait_for()
    assert page.url.endswith("/run/talk?filter=disagreement&sort=longest")
    page.go_back()
    page.get_by_text("1 of 3 disagreement").wait_for()


def test_a_cell_of_the_outcome_grid_opens_its_episode(talk: str, page: "Page") -> None:
    page.goto(f"{talk}/run/talk")
    grid = page.get_by_label("Outcomes of 5 tasks")
    grid.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.get_by_text("incorrect · words-2").wait_for()
    page.keyboard.press("Enter")
    page.wait_for_url("**/run/talk/episode/3")
    page.go_back()
    grid.click(position={"x": 5, "y": 5})
    page.wait_for_url("**/run/talk/episode/1")


def test_an_episode_is_a_graph_beside_its_transcript(talk: str, page: "Page") -> None:
    page.goto(f"{talk}/run/talk/episode/2")
    page.locator(".turnbox").nth(5).wait_for()
    assert page.locator(".turnbox").count() == page.locator("article.turn").count() == 6
    # Each of three reads the two others and goes on from itself.
    assert (page.locator("path.turnline.reads").count(), page.locator("path.turnline.follows").count()) == (6, 3)
    changed_mind = page.get_by_label("turn debater_1/1")
    assert "changed its mind: no → yes" in changed_mind.inner_text() and "to right" in changed_mind.inner_text()
    page.locator(".turnbox").nth(4).click()
    page.wait_for_url("**/run/talk/episode/2/turn/debater_2%2F1")
    assert page.locator("article[aria-current]").get_attribute("aria-label") == "turn debater_2/1"
    page.reload()
    page.locator(".turnbox.selected").wait_for()
    page.keyboard.press("ArrowUp")
    page.wait_for_url("**/turn/debater_1%2F1")
    page.keyboard.press("c")
    assert page.get_by_label("turn debater_1/1").locator("del").inner_text() == "no"
    page.keyboard.press("Home")
    page.keyboard.press("p")
    page.get_by_label("turn debater_1/0").get_by_text("prompt tokens").wait_for()
    page.keyboard.press("t")
    page.get_by_label("turn debater_1/0").locator(".token").first.wait_for()
    assert "".join(page.locator(".token").all_inner_texts()) == "I say\n\\boxed{no}"


def test_keys_go_to_the_next_disagreement_and_replay_the_episode(talk: str, page: "Page") -> None:
    page.goto(f"{talk}/run/talk/episode/3")
    page.locator(".turnbox").first.wait_for()
    page.keyboard.press("d")
    page.wait_for_url("**/turn/debater_1%2F0")
    page.get_by_label("Turns unfolded").focus()
    page.keyboard.press("Home")
    page.locator("article.turn.folded").nth(5).wait_for()
    page.keyboard.press("ArrowRight")
    page.get_by_text("1 / 6").wait_for()
    assert page.locator("article.turn.folded").count() == 5
    page.locator("h3").first.click()
    page.keyboard.press(" ")
    page.get_by_text("6 / 6").wait_for()
    page.get_by_role("button", name="Play").wait_for()
    assert page.locator("article.turn.folded").count() == 0
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Keys and signs").wait_for()
    page.keyboard.press("Escape")
    assert page.get_by_role("dialog").count() == 0


def test_a_run_is_followed_while_it_is_played(tmp_path: Path, words: Env, page: "Page") -> None:
    go_on = threading.Event()

    def halting(request: Request) -> str:
        assert not request.key.startswith("words-2/") or go_on.wait(60)
        return say(request)

    with served(tmp_path, page) as url:
        page.goto(url)
        page.get_by_text("There are no runs yet").wait_for()
        player = threading.Thread(
            target=debate, args=(tmp_path, words, "talk", ScriptedEngine(halting)), kwargs={"concurrency": 1}
        )
        player.start()
        try:
            page.get_by_text("2 / 5").wait_for()
            assert page.locator("tbody").get_by_text("running").count() == 1
            page.get_by_role("link", name="talk").click()
            page.locator(".elist a").nth(1).wait_for()
            assert page.locator(".elist a").count() == 2
        finally:
            go_on.set()
            player.join()
        page.locator(".elist a").nth(4).wait_for()


SEEN = """seen => {
    Object.defineProperty(document, 'hidden', { value: !seen, configurable: true })
    document.dispatchEvent(new Event('visibilitychange'))
}"""


def test_more_tabs_than_a_browser_has_connections_can_be_open(talk: str, page: "Page") -> None:
    """Each followed what is stored by a connection of its own, and the seventh never opened."""
    page.goto(talk)
    page.get_by_role("link", name="talk").wait_for()
    tabs = [page]
    for _ in range(7):
        tabs[-1].evaluate(SEEN, False)  # a browser without a screen shows all its tabs
        tabs.append(page.context.new_page())
        tabs[-1].goto(talk, timeout=20_000)
        tabs[-1].get_by_role("link", name="talk").wait_for()
    tabs[-1].evaluate(SEEN, False)
    with page.expect_response(lambda answer: answer.url.endswith("/api/runs")):
        page.evaluate(SEEN, True)  # what it may have missed is asked for
    for tab in tabs[1:]:
        tab.close()


def test_hostile_text_is_text(tmp_path: Path, words: Env, page: "Page") -> None:
    debate(tmp_path, words, "<img src=x onerror=alert(1)>", ScriptedEngine(lambda _: HOSTILE))
    with served(tmp_path, page) as url:
        answer = page.goto(url)
        assert answer is not None and "script-src 'self'" in answer.headers["content-security-policy"]
        page.get_by_role("link", name="<img src=x onerror=alert(1)>").click()
        page.locator(".elist a").first.click()
        reply = page.get_by_label("turn debater_1/0").locator("pre.text")
        reply.wait_for()
        shown = reply.inner_text()
        assert shown.startswith("<script>alert(1)</script>ESC[31mRLOevilLRI [a](javascript:alert(1)) NUL")
        page.keyboard.press("Home")
        for key in "ptc":
            page.keyboard.press(key)
        page.locator(".token").first.wait_for()
        everything = page.locator("body").inner_text()
        assert not any(character in everything for character in "\x1b\u202e\u2066\x00")
        assert page.locator("main script, main img, main a[href^='javascript']").count() == 0


def test_a_damaged_run_shows_what_can_be_read(tmp_path: Path, words: Env, page: "Page") -> None:
    made = debate(tmp_path, words)
    changed(made.path, "UPDATE turns SET body = '{' WHERE episode = 1 AND id = 'debater_2/0'")
    with served(tmp_path, page) as url:
        page.goto(f"{url}/run/talk/episode/2")
        page.get_by_text("could not be read").first.wait_for()
        assert "I say" in page.get_by_label("turn debater_1/1").inner_text()


def test_long_episodes_and_long_replies_stay_usable(tmp_path: Path, words: Env, page: "Page") -> None:
    small = debate(tmp_path, words)
    with ThreadPoolExecutor() as beside:  # the browser has an event loop in this thread
        beside.submit(make_large, list(small.episodes(0, 2)), small.config, tmp_path / "large", 700).result()
    with served(tmp_path, page) as url:
        page.goto(f"{url}/run/large")
        page.locator(".elist a").first.wait_for()
        page.locator(".elist").evaluate("list => list.scrollTop = list.scrollHeight")
        page.locator(".elist a").get_by_text("700", exact=True).wait_for()
        assert page.locator(".elist a").count() < 60, "only what is in view is in the page"
        grid = page.get_by_label("Outcomes of 700 tasks")
        grid.evaluate("grid => grid.scrollTop = grid.scrollHeight")
        room = grid.bounding_box()
        assert room is not None
        across = int(room["width"] // 13)
        grid.click(position={"x": 13 * (699 % across) + 5, "y": room["height"] - 8})
        page.wait_for_url("**/run/large/episode/700")
        page.goto(f"{url}/run/large/episode/1")
        page.locator("article.turn").first.wait_for()
        page.keyboard.press("End")
        page.locator("article.turn.selected").wait_for()
        assert page.locator("article.turn").count() < 60
        page.goto(f"{url}/run/large/episode/2")
        page.get_by_role("button", name="Show all 1.00 M characters").click()
        whole = page.locator(".windowed").first
        whole.wait_for()
        assert whole.evaluate("text => text.textContent.length") < 50_000
        page.keyboard.press("j")
        page.get_by_text("3 of 700").wait_for()


@pytest.mark.model
def test_a_fork_from_the_page_is_shown_against_its_parent(tmp_path: Path, page: "Page") -> None:
    run("mad", "arithmetic", Cast.all("embedded"), tasks=1, seed=7, backend="local", root=tmp_path, name="mad")
    with served(tmp_path, page) as url:
        page.goto(f"{url}/run/mad/episode/1/turn/negative%2F0")
        page.locator(".turnbox.selected").wait_for()
        page.keyboard.press("f")
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Seed of all").fill("x")
        dialog.get_by_role("button", name="Play on").click()
        dialog.get_by_text("a seed is a whole number").wait_for()
        dialog.get_by_label("an edited reply").check()
        dialog.get_by_role("textbox").fill("It is seven. \\boxed{7}")
        dialog.get_by_role("button", name="Play on").click()
        page.wait_for_url("**/run/mad-fork-1/episode/1/turn/negative%2F0", timeout=60_000)
        page.get_by_role("tab", name="Against its parent").wait_for()
        assert "\\boxed{7}" in page.get_by_label("turn negative/0").inner_text()
        assert page.get_by_label("turn affirmative/0").get_by_text("as in the parent").count() == 1
        page.locator(".pair ins").first.wait_for()
        page.goto(f"{url}/run/mad")
        page.get_by_role("link", name="mad-fork-1").wait_for()
