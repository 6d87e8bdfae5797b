"""What is damaged, half-written or hostile opens with what can be read of it, and says what cannot."""

import json
import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agents import ScriptedEngine
from envs.types import Env
from experiments.benchmarks.viewer import make_large
from experiments.runs import CONFIG, RESULT
from experiments.store import FILE, StoreReader
from tests.experiments.viewer.viewer_helpers import client, debate, looked

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202eevil\u2066 [a](javascript:alert(1)) \x00\\boxed{yes}"


def changed(path: Path, query: str, *values: Any) -> None:
    """A store as something else than its writer left it."""
    with closing(sqlite3.connect(path / FILE)) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(query, values)
        connection.commit()


def test_hostile_text_arrives_as_it_is_and_as_text_alone(tmp_path: Path, words: Env) -> None:
    debate(tmp_path, words, engine=ScriptedEngine(lambda _: HOSTILE))
    browser = client(tmp_path)
    answer = browser.get("/api/runs/talk/episodes/0")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["turns"][0]["reply"]["text"] == HOSTILE
    assert "".join(browser.get("/api/runs/talk/episodes/0/turns/debater_1%2F0/tokens").json()["pieces"]) == HOSTILE


def test_a_reply_of_a_megabyte_comes_clipped_and_whole_on_demand(tmp_path: Path, words: Env) -> None:
    debate(tmp_path, words, engine=ScriptedEngine(lambda _: "long " * 200_000), tasks=1)
    browser = client(tmp_path)
    answer = browser.get("/api/runs/talk/episodes/0")
    assert len(answer.content) < 1_000_000
    reply = answer.json()["turns"][0]["reply"]
    assert reply["length"] == 1_000_000 and len(reply["text"]) <= 20_000
    whole = browser.get("/api/runs/talk/episodes/0/turns/debater_1%2F0/reply").json()["text"]
    assert whole == "long " * 200_000


def test_an_episode_of_500_turns_and_a_long_run_come_in_pages(tmp_path: Path, words: Env) -> None:
    small = debate(tmp_path, words)
    make_large(list(small.episodes(0, 2)), small.config, tmp_path / "large", 700)
    browser = client(tmp_path)
    answer = browser.get("/api/runs/large/episodes/0")
    assert len(answer.json()["turns"]) == 500 and len(answer.content) < 1_000_000
    assert len(browser.get("/api/runs/large/episodes/1").content) < 1_000_000
    page = browser.get("/api/runs/large/episodes", params={"offset": 650, "limit": 100}).json()
    assert (page["total"], len(page["rows"]), page["rows"][0]["position"]) == (700, 50, 650)
    assert looked(browser, "large")["looked"] == 700


def test_damaged_turns_and_bodies_cost_themselves_alone(tmp_path: Path, words: Env) -> None:
    run = debate(tmp_path, words)
    changed(run.path, 'UPDATE turns SET body = \'{"reply": "half\' WHERE episode = 1 AND place = 2')
    changed(run.path, 'UPDATE turns SET body = \'{"reply": "\\ud83d"}\' WHERE episode = 1 AND place = 3')
    changed(run.path, "UPDATE episodes SET body = 'no json' WHERE position = 2")
    browser = client(tmp_path)
    page = browser.get("/api/runs/talk/episodes/1").json()
    assert [turn["id"] for turn in page["turns"]][2] == "debater_3/0" and page["turns"][2]["reply"]["text"] == ""
    assert page["turns"][0]["reply"]["text"] == "I say\n\\boxed{no}"
    assert [problem["where"] for problem in page["problems"]] == ["turn debater_3/0", "turn debater_1/1"]
    other = browser.get("/api/runs/talk/episodes/2").json()
    assert other["status"] == "incorrect" and len(other["turns"]) == 6 and other["problems"]
    assert looked(browser, "talk")["looked"] == 5
    rows = browser.get("/api/runs/talk/episodes").json()["rows"]
    assert [row["question"]["text"] for row in rows] == ["Question 0?", "Question 1?", "", "Question 3?", "Question 4?"]


def test_episodes_that_hold_what_they_should_not_are_left_out(tmp_path: Path, words: Env) -> None:
    run = debate(tmp_path, words)
    changed(run.path, "UPDATE episodes SET sample = 'many', seconds = x'00' WHERE position = 1")
    changed(
        run.path, "UPDATE episodes SET status = 'splendid', seconds = 9e999, sample = 1000000000 WHERE position = 2"
    )
    changed(run.path, "UPDATE episodes SET score = 9e999, seconds = -1e308 WHERE position = 4")
    changed(run.path, "UPDATE turns SET id = x'00', round = 'x' WHERE episode = 0 AND place = 1")
    browser = client(tmp_path)
    page = looked(browser, "talk")
    assert page["run"]["episodes"] == 4 and page["problems"][0]["what"] == "1 episodes hold what they should not"
    rows = browser.get("/api/runs/talk/episodes").json()["rows"]
    assert [row["status"] for row in rows] == ["correct", "unscorable", "failed", "unparsed"]
    assert browser.get("/api/runs/talk/grid").status_code == 200
    for position in (0, 1, 2):
        assert browser.get(f"/api/runs/talk/episodes/{position}").status_code in (200, 404)


def test_a_store_with_a_damaged_page_shows_the_episodes_before_and_behind_it(tmp_path: Path, words: Env) -> None:
    run = debate(tmp_path, words, engine=ScriptedEngine(lambda _: "\\boxed{yes}"), tasks=200)
    with closing(sqlite3.connect(run.path / FILE)) as connection:
        size = connection.execute("PRAGMA page_size").fetchone()[0]
        query = "SELECT pageno FROM dbstat WHERE name = 'episodes' AND pagetype = 'leaf' ORDER BY path"
        try:
            pages = [row[0] for row in connection.execute(query)]
        except sqlite3.OperationalError:
            pytest.skip("this SQLite does not say where its pages are")
    with (run.path / FILE).open("r+b") as file:
        file.seek((pages[len(pages) // 2] - 1) * size)
        file.write(b"\xff" * size)
    page = client(tmp_path).get("/api/runs/talk").json()
    assert 100 < page["run"]["episodes"] < 200
    assert f"{page['run']['episodes']} episodes can be read" in page["problems"][0]["what"]


@pytest.mark.parametrize("name", [FILE, CONFIG, RESULT])
@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff{not this", b"[1, 2]", b'{"topology": [], "cast": 7, "seconds": {}}']
)
def test_files_that_are_something_else_are_problems_and_no_error(
    tmp_path: Path, words: Env, name: str, content: bytes
) -> None:
    run = debate(tmp_path, words)
    debate(tmp_path, words, "whole")
    (run.path / name).write_bytes(content)
    browser = client(tmp_path)
    rows = {row["key"]: row for row in browser.get("/api/runs").json()["runs"]}
    assert rows["whole"]["problems"] == [] and set(rows) == {"talk", "whole"}
    answer = browser.get("/api/runs/talk")
    assert answer.status_code == 200
    assert answer.json()["problems"] or content.startswith((b"[", b'{"')) or name == FILE
    assert browser.get("/api/runs/talk/episodes").status_code == 200


def test_nothing_is_wrong_with_a_run_that_was_resumed(tmp_path: Path, words: Env) -> None:
    run = debate(tmp_path, words)
    (run.path / RESULT).write_text('{"seconds": null}')
    (row,) = client(tmp_path).get("/api/runs").json()["runs"]
    assert (row["state"], row["seconds"], row["problems"]) == ("ended", None, [])


def test_a_run_that_has_stored_nothing_yet_is_starting(tmp_path: Path, words: Env) -> None:
    run = debate(tmp_path, words)
    (run.path / FILE).unlink()
    (run.path / RESULT).unlink()
    browser = client(tmp_path)
    page = browser.get("/api/runs/talk").json()
    assert page["run"]["state"] == "starting" and page["run"]["accuracy"] is None and page["scores"] is None
    assert browser.get("/api/runs/talk/grid").json()["rows"] == []
    long_ago = 1_000_000_000
    for path in run.path.iterdir():
        os.utime(path, (long_ago, long_ago))
    assert browser.get("/api/runs").json()["runs"][0]["state"] == "cut short"


def test_weights_in_a_folder_are_no_run(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / CONFIG).write_text('{"model_type": "llama"}')
    assert client(tmp_path).get("/api/runs").json()["runs"] == []


def test_a_damaged_training_shows_the_lines_that_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "training.json").write_text('{"recipe": "grpo", "schedule": {"iterations": 3}}')
    lines = [
        {"kind": "update", "updates": 1, "rewards": {"solver": {"outcome": 0.5}}, "policies": {"main": {"kl": 0.1}}},
        {"updates": "two"},
        {"kind": "update", "updates": 2, "attack": {"rate": 0.25}, "policies": {"main": {"kl": float("nan")}}},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "upd'
    (tmp_path / "first" / "metrics.jsonl").write_text(text)
    page = client(tmp_path).get("/api/runs/first/training").json()
    series = {(one["panel"], one["name"]): (one["x"], one["y"]) for one in page["series"]}
    assert series["KL", "main · kl"] == ([1, 2], [0.1, None])
    assert series["reward", "solver · outcome"] == ([1], [0.5])
    assert series["attack and detection", "attack · rate"] == ([2], [0.25])
    assert page["problems"][0]["what"] == "2 lines cannot be read" and page["run"]["episodes"] == 2


def test_a_read_only_folder_can_be_looked_at(words: Env) -> None:
    # Not below tmp_path, whose parents are closed to other users.
    with tempfile.TemporaryDirectory() as open_to_all:
        Path(open_to_all).chmod(0o755)
        run = debate(Path(open_to_all), words)
        run.path.chmod(0o555)
        user = os.geteuid()
        if user == 0:  # to whom everything may be written
            os.seteuid(65534)
        try:
            with pytest.raises(PermissionError):
                (run.path / "new").touch()
            assert len(StoreReader(run.path).outcomes()) == 5
        finally:
            os.seteuid(user)
            run.path.chmod(0o755)
