"""One HTML file holds what the viewer's pages would ask for, as data that can be nothing else, within a bound."""

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from envs import ConfigError
from envs.types import Env
from experiments.command import main
from experiments.export import html
from experiments.export.html import export_html
from experiments.export.selection import Selection
from experiments.store import FILE
from experiments.viewer.episode_records import Exported
from tests.experiments.export.export_helpers import run_of, turn
from tests.experiments.test_store import simple
from tests.experiments.viewer.viewer_helpers import client, debate, looked

HOSTILE = "</script><script>alert(1)</script><!-- ]]> &lt; \u2028\u2029 \u202e\x1b[31m <img src=x onerror=alert(1)>"


def held(path: Path) -> dict[str, Any]:
    """The record in a file, found as a browser finds it: up to the first end tag of a script."""
    text = path.read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="palaestra-data">(.*?)</script', text, re.DOTALL)
    assert not re.search("[<>&\u2028\u2029]", data)
    Exported.model_validate_json(data)
    return json.loads(data)


def test_a_file_holds_what_the_server_answers(tmp_path: Path, words: Env) -> None:
    debate(tmp_path, words)
    assert main(["export", "talk", "--html", str(tmp_path / "talk.html"), "--runs", str(tmp_path)]) == 0
    data = held(tmp_path / "talk.html")
    browser = client(tmp_path)
    assert data["run"] == looked(browser, "talk")
    pages = [browser.get(f"/api/runs/talk/episodes/{position}").json() for position in range(5)]
    assert data["episodes"] == pages and data["left_out"] == []
    answers = {path: answer for path, answer in data["answers"].items() if path}
    prompts = [path for path in answers if path.endswith("/prompt")]
    assert len(prompts) == sum(len(page["turns"]) for page in pages) and "/api/runs/talk/grid" in answers
    for path, answer in answers.items():
        asked = f"{path}?whole=true" if path in prompts else path
        assert browser.get(asked).json() == answer, path


def test_an_episode_alone_is_what_its_file_opens_with(tmp_path: Path, words: Env) -> None:
    debate(tmp_path, words)
    command = ["export", "talk", "--html", str(tmp_path / "one.html"), "--runs", str(tmp_path), "--episode"]
    assert main([*command, "wrong"]) == 0
    data = held(tmp_path / "one.html")
    assert data["run"] is None and [page["task"]["id"] for page in data["episodes"]] == ["words-2"]
    assert data["title"] == "talk, 1 of 5 episodes"
    assert main([*command, "5", "--episode", "words-0", "--force"]) == 0
    data = held(tmp_path / "one.html")
    assert data["run"] is not None and [page["position"] for page in data["episodes"]] == [0, 4]


def test_a_summary_holds_no_episodes(tmp_path: Path, words: Env) -> None:
    debate(tmp_path, words)
    assert main(["export", "talk", "--summary", "--html", str(tmp_path / "s.html"), "--runs", str(tmp_path)]) == 0
    data = held(tmp_path / "s.html")
    assert data["episodes"] == [] and data["run"]["run"]["episodes"] == 5
    assert "I say" not in (tmp_path / "s.html").read_text(encoding="utf-8").partition('id="palaestra-data"')[2]


def test_whatever_a_reply_holds_it_stays_data(tmp_path: Path) -> None:
    said = turn(reply=HOSTILE, role=HOSTILE)
    run = run_of(tmp_path / "run", [simple(HOSTILE).model_copy(update={"turns": (said,), "answer": HOSTILE})])
    export_html(Selection.of_run(run), tmp_path / "run.html", tmp_path)
    (page,) = held(tmp_path / "run.html")["episodes"]
    assert page["turns"][0]["reply"]["text"] == page["task"]["id"] == HOSTILE


def test_what_is_beyond_the_bound_is_left_out_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = "word " * 30_000
    stored = [simple(f"task-{i}").model_copy(update={"turns": (turn(reply=long),)}) for i in range(6)]
    run_of(tmp_path / "run", stored)
    file = tmp_path / "run.html"
    command = ["export", "run", "--html", str(file), "--runs", str(tmp_path), "--json", "--force", "--max-mb"]
    assert main([*command, "0.1"]) == 0
    said = json.loads(capsys.readouterr().out)
    data = held(file)
    assert said["left_out"] == data["left_out"] and len(data["left_out"]) > 1
    assert said["episodes"] == len(data["episodes"]) in range(2, 6)
    assert f"from number {len(data['episodes']) + 1} on" in data["left_out"][0] and "0.1 MB" in data["left_out"][0]
    room = file.stat().st_size - html.TEMPLATE.stat().st_size
    assert room < 0.11e6
    assert main([*command, "25"]) == 0
    whole = held(file)
    assert whole["left_out"] == [] and len(whole["episodes"]) == 6
    assert whole["answers"]["/api/runs/run/episodes/5/turns/a%2F0/reply"]["text"] == long


def test_an_episode_that_cannot_be_read_is_left_out_and_told(
    tmp_path: Path, words: Env, capsys: pytest.CaptureFixture[str]
) -> None:
    run = debate(tmp_path, words)
    with closing(sqlite3.connect(run.path / FILE)) as store, store:
        store.execute("DROP TRIGGER turns_stay")
        store.execute("UPDATE turns SET body = '{' WHERE episode = 1 AND place = 0")
    assert main(["export", "talk", "--parquet", str(tmp_path / "out"), "--runs", str(tmp_path), "--json"]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["episodes"] == 4 and "episode 2 cannot be read" in said.err
    assert main(["export", "talk", "--html", str(tmp_path / "talk.html"), "--runs", str(tmp_path)]) == 0
    assert held(tmp_path / "talk.html")["episodes"][1]["problems"], "the page shows what can be read of it"


@pytest.mark.parametrize("pages", [None, "<html></html>", '<script type="application/json" id="palaestra-data">{}'])
def test_pages_that_are_not_built_are_said_to_be(
    tmp_path: Path, words: Env, pages: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = debate(tmp_path, words)
    monkeypatch.setattr(html, "TEMPLATE", tmp_path / "standalone.html")
    if pages is not None:
        (tmp_path / "standalone.html").write_text(pages)
    with pytest.raises(ConfigError, match=r"standalone\.html"):
        export_html(Selection.of_run(run), tmp_path / "talk.html", tmp_path)
    assert not (tmp_path / "talk.html").exists()


def test_a_sweep_is_one_page_without_episodes_and_a_run_within_it_has_its_own(
    tmp_path: Path, words: Env, capsys: pytest.CaptureFixture[str]
) -> None:
    debate(tmp_path / "several", words)
    command = ["--html", str(tmp_path / "talk.html"), "--runs", str(tmp_path)]
    assert main(["export", "several", "--parquet", str(tmp_path / "tables"), "--runs", str(tmp_path)]) == 2
    assert "several is a sweep" in (said := capsys.readouterr().err) and "such as several/talk" in said
    assert main(["export", "several", "--html", str(tmp_path / "all.html"), "--runs", str(tmp_path)]) == 0
    page, browser = held(tmp_path / "all.html"), client(tmp_path)
    assert [row["key"] for row in page["runs"]["runs"]] == ["several"] and page["episodes"] == []
    assert page["left_out"] == ["the episodes of its 1 runs are left out: export one of these runs to see them"]
    assert list(page["answers"]) == ["/api/runs?under=several"]
    assert page["answers"]["/api/runs?under=several"] == browser.get("/api/runs?under=several").json()
    assert main(["export", "several/talk", *command]) == 0
    data = held(tmp_path / "talk.html")
    assert data["run"]["run"]["key"] == "several~talk" and "/api/runs/several~talk/grid" in data["answers"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "expected one of --html"),
        (["--html", "a.html", "--parquet", "a"], "expected one of --html"),
        (["--parquet", "a", "--max-mb", "3"], "--max-mb does not go with --parquet"),
        (["--html", "a.html", "--contents"], "--contents does not go with --html"),
        (["--html", "a.html", "--summary", "--episode", "1"], "--summary is without episodes"),
        (["--html", "a.html", "--episode", "99"], "has no episode '99'"),
        (["--inspect", "a.log"], ".eval"),
        (["--html", "no/such/a.html"], "there is no folder"),
    ],
)
def test_options_that_cannot_be_are_refused(
    tmp_path: Path,
    words: Env,
    options: list[str],
    problem: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    debate(tmp_path, words)
    monkeypatch.chdir(tmp_path)
    assert main(["export", "talk", *options, "--runs", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert problem in said or "pip install 'palaestra[inspect]'" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["talk"]
