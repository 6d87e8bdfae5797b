"""The viewer's HTTP application: records under /api, the built pages everywhere else.

Nothing is written but by a fork, which plays in a process of its own. Errors are `{"detail": one line}`.
"""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import ValidationError
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response

from agents.types import EngineError
from envs.errors import ConfigError
from experiments.viewer import compare_page, diff_page, episode_page, fork_page, run_page, runs_page, training_page
from experiments.viewer.episode_records import (
    DiffPage,
    EpisodePage,
    ForkChoices,
    Forked,
    ForkWish,
    PromptView,
    TextView,
    TokensView,
)
from experiments.viewer.keys import NotThereError
from experiments.viewer.library import Library
from experiments.viewer.live import Live
from experiments.viewer.records import (
    ComparePage,
    EpisodesPage,
    Filter,
    GridPage,
    RunPage,
    RunsPage,
    Sort,
    TrainingPage,
)

STATIC = Path(__file__).parent / "static"
MOST = 500
"""Rows that one page may ask for."""

Offset = Annotated[int, Query(ge=0, le=2**53)]
Limit = Annotated[int, Query(ge=1, le=MOST)]
Text = Annotated[str, Query(max_length=200)]


def create_app(root: Path, may_fork: bool = True) -> FastAPI:
    """The application over a folder of runs. Who may ask it is for `experiments.viewer.guard` to check.

    Args:
        root: the folder of runs; it may be read-only.
        may_fork: whether the page may have episodes played again.
    """
    app = FastAPI(title="Palaestra viewer", openapi_url=None, docs_url=None, redoc_url=None)
    library = Library(root)
    app.state.library, app.state.may_fork, app.state.live = library, may_fork, Live(library)
    for kind in (ConfigError, EngineError, OSError, sqlite3.Error, ValidationError):
        app.add_exception_handler(kind, _said_plainly)
    _runs(app, library)
    _episodes(app, library)
    _forks(app, library)
    _events(app, library)
    _pages(app)
    return app


def _runs(app: FastAPI, library: Library) -> None:
    @app.get("/api/runs")
    def runs(under: str | None = None) -> RunsPage:
        return runs_page.read_runs(library, under)

    @app.get("/api/compare")
    def compare(runs: Annotated[list[str], Query(min_length=1, max_length=20)]) -> ComparePage:
        return compare_page.compare(library, runs)

    @app.get("/api/runs/{run}")
    def run(run: str) -> RunPage:
        return run_page.read_run(library, run)

    @app.get("/api/runs/{run}/training")
    def training(run: str) -> TrainingPage:
        return training_page.read_training(library, run)

    @app.get("/api/runs/{run}/grid")
    def grid(run: str, offset: Offset = 0, limit: Annotated[int, Query(ge=1, le=20_000)] = 1000) -> GridPage:
        return run_page.read_grid(library, run, offset, limit)

    @app.get("/api/runs/{run}/episodes")
    def episodes(
        run: str,
        filter: Filter = "all",
        sort: Sort = "position",
        task: Text = "",
        offset: Offset = 0,
        limit: Limit = 100,
    ) -> EpisodesPage:
        """`task` keeps the tasks whose id holds it."""
        return run_page.read_episodes(library, run, filter, sort, task, offset, limit)


def _episodes(app: FastAPI, library: Library) -> None:
    base = "/api/runs/{run}/episodes/{position}"

    @app.get(base)
    def episode(
        run: str, position: int, filter: Filter = "all", sort: Sort = "position", task: Text = ""
    ) -> EpisodePage:
        return episode_page.read_episode(library, run, position, filter, sort, task)

    @app.get(f"{base}/question")
    def question(run: str, position: int) -> TextView:
        return episode_page.read_question(library, run, position)

    @app.get(f"{base}/turns/{{turn:path}}/reply")
    def reply(run: str, position: int, turn: str) -> TextView:
        return episode_page.read_reply(library, run, position, turn)

    @app.get(f"{base}/turns/{{turn:path}}/tokens")
    def tokens(run: str, position: int, turn: str) -> TokensView:
        return episode_page.read_tokens(library, run, position, turn)

    @app.get(f"{base}/turns/{{turn:path}}/prompt")
    def prompt(run: str, position: int, turn: str, whole: bool = False) -> PromptView:
        """Long messages are clipped unless `whole`."""
        return episode_page.read_prompt(library, run, position, turn, whole)

    @app.get(f"{base}/diff")
    def diff(run: str, position: int) -> DiffPage:
        """Of a fork's episode, against its parent's."""
        return diff_page.read_diff(library, run, position)


def _forks(app: FastAPI, library: Library) -> None:
    @app.get("/api/runs/{run}/episodes/{position}/fork")
    def fork_choices(run: str, position: int) -> ForkChoices:
        return fork_page.choices(library, run, position, app.state.may_fork)

    @app.post("/api/fork")
    async def fork(wish: ForkWish) -> Forked:
        """Answers when the branch has been played, which may take as long as its models take."""
        return await fork_page.fork(library, wish, app.state.may_fork)


def _events(app: FastAPI, library: Library) -> None:
    def known(under: str | None = None) -> str | None:
        if under is not None:
            library.find(under)
        return under

    @app.get("/api/events", response_class=EventSourceResponse)
    async def events(under: Annotated[str | None, Depends(known)]) -> AsyncIterator[ServerSentEvent]:
        """Event `changed` with a `Changed`: of the runs at the root, or of those in a training or sweep, and of it."""
        async for changed in app.state.live.follow(under):
            yield ServerSentEvent(event="changed", data=changed)


def _pages(app: FastAPI) -> None:
    @app.get("/api/{rest:path}", include_in_schema=False)
    def no_such(rest: str) -> Response:
        return JSONResponse({"detail": "no such path under /api"}, 404)

    @app.get("/{path:path}", include_in_schema=False)
    def page(path: str) -> Response:
        """A file of the built pages; for every other path the application itself, which reads it."""
        file = (STATIC / path).resolve()
        if path and file.is_relative_to(STATIC.resolve()) and file.is_file():
            kept = "public, max-age=31536000, immutable" if path.startswith("assets/") else "no-cache"
            return FileResponse(file, headers={"Cache-Control": kept})
        if path.startswith("assets/"):
            return PlainTextResponse("no such file\n", 404)
        if not (STATIC / "index.html").is_file():
            return PlainTextResponse(
                "the pages are not built: npm ci && npm run build in experiments/viewer/web\n", 500
            )
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})


async def _said_plainly(_: Request, problem: Exception) -> Response:
    status = 404 if isinstance(problem, NotThereError) else 400 if isinstance(problem, ConfigError) else 500
    if isinstance(problem, ValidationError):  # of a record: what is stored is of no form that can be shown
        problem = ConfigError(f"what is stored cannot be shown: {problem.errors()[0]['msg']}")
    said = str(problem) if isinstance(problem, (ConfigError, EngineError)) else f"{type(problem).__name__}: {problem}"
    return JSONResponse({"detail": " ".join(said.split())}, status)
