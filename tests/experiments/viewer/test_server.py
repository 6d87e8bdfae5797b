"""Who may look, what browsers are held to, and what addresses may name."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pytest

from envs.types import Env
from experiments.viewer import server
from tests.experiments.viewer.viewer_helpers import client, debate

TOKEN = "a-token-of-this-test"


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pages, as if built."""
    static = tmp_path / "static"
    (static / "assets").mkdir(parents=True)
    (static / "index.html").write_text("<!doctype html><title>the app</title>")
    (static / "assets" / "app-1.js").write_text("0")
    (tmp_path / "secret.txt").write_text("secret")
    monkeypatch.setattr(server, "STATIC", static)
    return tmp_path


def test_deep_links_open_the_application_and_files_are_files(built: Path) -> None:
    browser = client(built)
    for path in ("/", "/run/talk", "/run/first~rollouts~0003/episode/4/turn/judge%2F0", "/compare?runs=a,b"):
        answer = browser.get(path)
        assert answer.status_code == 200 and "the app" in answer.text and answer.headers["cache-control"] == "no-cache"
    assert "immutable" in browser.get("/assets/app-1.js").headers["cache-control"]
    assert browser.get("/assets/app-2.js").status_code == 404
    assert browser.get("/api/no/such").status_code == 404
    for path in ("/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/assets/../../secret.txt"):
        assert "secret" not in browser.get(path).text


def test_every_answer_keeps_pages_to_our_own_scripts(built: Path) -> None:
    browser = client(built)
    for path in ("/", "/assets/app-1.js", "/api/runs", "/api/runs/none"):
        headers = browser.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    assert browser.get("/api/runs").headers["cache-control"] == "no-store"


def test_other_names_and_other_sites_are_refused(built: Path) -> None:
    browser = client(built)
    assert browser.get("/api/runs", headers={"host": "evil.example:7600"}).status_code == 403
    assert browser.get("/api/runs", headers={"origin": "http://evil.example"}).status_code == 403
    assert browser.post("/api/fork", json={}, headers={"origin": "http://evil.example"}).status_code == 403
    for host in ("localhost:7600", "127.0.0.1", "[::1]:7600"):
        assert browser.get("/api/runs", headers={"host": host}).status_code == 200


def test_beyond_loopback_a_token_is_shown_once_and_kept_in_a_cookie(built: Path) -> None:
    browser = client(built, TOKEN, loopback=False)
    assert browser.get("/api/runs").status_code == 401 and browser.get("/").status_code == 401
    assert browser.get("/?token=wrong").status_code == 401
    assert browser.get("/api/runs", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert browser.get("/api/runs", headers=[(b"authorization", b"Bearer \xfc")]).status_code == 401
    entered = browser.get(f"/run/a?x=1&token={TOKEN}")
    assert (entered.status_code, entered.headers["location"]) == (303, "/run/a?x=1")
    cookie = entered.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert browser.get("/api/runs").status_code == 200, "the cookie is shown from now on"
    assert browser.get(f"{browser.base_url}//evil.example/?token={TOKEN}").headers["location"] == "/evil.example/"
    others = client(built, "another-token", loopback=False)
    assert others.get("/api/runs", headers={"cookie": cookie.partition(";")[0]}).status_code == 401


@pytest.mark.parametrize(
    "key", ["..", "..~talk", "~talk", "talk~", ".hidden", "out", "talk~..~..~etc", "a" * 300, "no\x00ne", "inside~out"]
)
def test_a_key_leads_nowhere_out_of_the_root(tmp_path: Path, words: Env, key: str) -> None:
    root = tmp_path / "runs"
    debate(root, words)
    debate(tmp_path, words, "outside")
    debate(root, words, "inside")
    (root / "out").symlink_to(tmp_path / "outside")
    (root / "inside" / "out").symlink_to(tmp_path / "outside")
    (root / ".hidden").mkdir()
    browser = client(root)
    answer = browser.get("/api/runs/" + quote(key).replace(".", "%2e"))
    assert answer.status_code == 404 and str(tmp_path) not in answer.text
    assert sorted(row["key"] for row in browser.get("/api/runs").json()["runs"]) == ["inside", "talk"]


def test_a_tilde_in_a_name_is_no_way_down(tmp_path: Path, words: Env) -> None:
    debate(tmp_path, words, "a~b")
    debate(tmp_path / "a", words, "b")
    browser = client(tmp_path)
    keys = {row["name"]: row["key"] for row in browser.get("/api/runs").json()["runs"]}
    assert keys == {"a~b": "a~.b", "a": "a"}
    assert browser.get("/api/runs/a~.b").json()["run"]["under"] is None
    assert browser.get("/api/runs/a~b").json()["run"]["under"] == "a"
    assert [row["key"] for row in browser.get("/api/runs", params={"under": "a"}).json()["runs"]] == ["a~b"]


def test_what_is_asked_wrongly_is_said_in_one_line(tmp_path: Path, words: Env) -> None:
    debate(tmp_path, words)
    browser = client(tmp_path)
    for path in (
        "episodes/99",
        "episodes/-1",
        f"episodes/{2**70}",
        "episodes/0/turns/nobody%2F0/reply",
        "training",
        "episodes/0/diff",
    ):
        answer = browser.get(f"/api/runs/talk/{path}")
        assert answer.status_code == 404 and "\n" not in answer.json()["detail"], path
    assert browser.get("/api/events", params={"under": "nothing"}).status_code == 404
    assert browser.get("/api/runs/talk/episodes", params={"filter": "sideways"}).status_code == 422
    assert browser.get("/api/runs/talk/episodes", params={"limit": 10**6}).status_code == 422


def test_a_folder_that_is_not_there_is_an_empty_list(tmp_path: Path) -> None:
    page = client(tmp_path / "none").get("/api/runs").json()
    assert page["runs"] == [] and "no such folder" in page["problems"][0]["what"]


def test_the_command_says_where_it_is_and_stops_when_told(tmp_path: Path, words: Env) -> None:
    debate(tmp_path, words)
    view = [sys.executable, "-m", "palaestra", "view", "--runs", str(tmp_path), "--no-browser", "--port", "0"]
    wrong = subprocess.run([*view, "tlak"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "did you mean 'talk'" in wrong.stderr
    environment = {**os.environ, "VIEW_TOKEN": TOKEN}
    asked = [*view, "talk", "--json", "--token-env", "VIEW_TOKEN"]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout and process.stderr
        where = json.loads(process.stdout.readline())
        assert where["url"].endswith("/run/talk") and where["token"] and TOKEN not in str(where)
        api = where["url"].replace("/run/talk", "/api/runs")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(api)
        with urllib.request.urlopen(
            urllib.request.Request(api, headers={"Authorization": f"Bearer {TOKEN}"})
        ) as answer:
            assert json.load(answer)["runs"][0]["key"] == "talk"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
