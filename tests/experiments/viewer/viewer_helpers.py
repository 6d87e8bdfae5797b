"""A debate over words whose every turn is known, and a client of the viewer that stands for a browser."""

from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from agents import Cast, EngineError, Request, ScriptedEngine
from envs.types import Env
from experiments import Run, run
from experiments.viewer.guard import ViewerGuard
from experiments.viewer.server import create_app

SAID = {
    "words-0": ("yes yes yes", "yes yes yes"),
    "words-1": ("no no yes", "yes yes yes"),
    "words-2": ("yes yes no", "no no no"),
    "words-3": ("yes no yes", "gone"),
    "words-4": ("? ? ?", "? ? ?"),
}
"""Task -> what three debaters say in each of two rounds. words-1 ends right, words-2 wrong; `yes` is right."""


def say(request: Request) -> str:
    task, _, role, number = request.key.split("/")
    round = SAID[task][int(number)]
    if round == "gone":
        raise EngineError("the server is gone")
    word = round.split()[int(role[-1]) - 1]
    return word if word == "?" else f"I say\n\\boxed{{{word}}}"


def debate(root: Path, words: Env, name: str = "talk", engine: Any = None, **options: Any) -> Run:
    """Five tasks, three debaters, two rounds."""
    cast = Cast.all(engine or ScriptedEngine(say))
    options = {"tasks": 5, "settings": {"rounds": 2}, "backend": "local", **options}
    return run("society", words, cast, root=root, name=name, **options)


def client(root: Path, token: str | None = None, loopback: bool = True) -> TestClient:
    app: Any = ViewerGuard(create_app(root), token, loopback)
    return TestClient(app, base_url="http://127.0.0.1:7600", follow_redirects=False)


def looked(browser: TestClient, run: str) -> dict[str, Any]:
    """The run's page, once all turns have been looked through."""
    library = browser.app._app.state.library  # pyright: ignore
    library.looked(library.find(run)[0])
    return browser.get(f"/api/runs/{run}").json()
