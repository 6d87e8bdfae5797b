"""The viewer from start to end: the address, the token, and what a signal does."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from envs.errors import ConfigError, nearest
from experiments.gateway.serve import on_signals, token_for
from experiments.gateway.server import bind, listening, url_of
from experiments.viewer.command import PORT
from experiments.viewer.guard import ViewerGuard
from experiments.viewer.keys import NotThereError, below
from experiments.viewer.server import create_app


def view_runs(
    run: str | None,
    root: Path,
    host: str,
    port: int | None,
    token_env: str | None,
    announce: Callable[[dict[str, Any], str], None],
) -> bool:
    """Serve the viewer until a signal ends it. Returns whether it was SIGINT.

    Args:
        run: whose page the address opens; None for the list of all.
        root: the folder of runs.
        host: where to listen.
        port: of it; None takes the usual one where it is free.
        token_env: names the environment variable that holds the token.
        announce: gets, once the server is up, where it is, and the address to open, which holds the token.

    Raises:
        ConfigError: no such run, an address that cannot be had.
    """
    app = create_app(root)
    library = app.state.library
    page = "/" if run is None else f"/run/{quote(_key(library, run), safe='~')}"
    at = _bound(host, port)
    token, _ = token_for(at, token_env)
    url = url_of(at)
    where = {"url": f"{url}{page}", "runs": str(root), "token": token is not None}
    address = where["url"] if token is None else f"{url}{page}?token={quote(token, safe='')}"

    async def serve() -> signal.Signals:
        stopped: asyncio.Future[signal.Signals] = asyncio.get_running_loop().create_future()
        async with listening(app, at, token, ViewerGuard):
            on_signals(stopped)
            announce(where, address)
            await stopped
        return stopped.result()

    try:
        return asyncio.run(serve()) is signal.SIGINT
    finally:
        library.close()


def _key(library: Any, run: str) -> str:
    """The key of a run that is named as in the other verbs."""
    name = Path(run)
    if library.root in name.absolute().parents and not (library.root / run).is_dir():
        name = name.absolute().relative_to(library.root)
    try:
        key = library.key(library.root / name)
        library.find(key)
    except (ValueError, NotThereError):
        names = [path.name for path in below(library.root, library.root, None)]
        raise ConfigError(f"no run {run!r} in {library.root.name}/; {nearest(run, names)}") from None
    return key


def _bound(host: str, port: int | None) -> Any:
    if port is not None:
        return bind(host, port)
    try:
        return bind(host, PORT)
    except ConfigError:
        return bind(host, 0)
