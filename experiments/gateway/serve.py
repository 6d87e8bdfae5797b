"""Serving from start to end: the address, the token, the run behind it, and what a signal does."""

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agents.company import Backend
from envs.errors import ConfigError, clip
from envs.types import Split
from experiments.folder import held
from experiments.gateway.app import make_app
from experiments.gateway.episodes import Gateway
from experiments.gateway.guard import is_loopback
from experiments.gateway.served import Handout, alone, routes, served_topology
from experiments.gateway.server import bind, listening, url_of
from experiments.plan import Plan, make_plan
from experiments.runner import claim_directory, in_event_loop, opened


def token_for(at: socket.socket, variable: str | None) -> tuple[str | None, bool]:
    """The token that clients must show, and whether it was made just now.

    Args:
        at: where the server listens; elsewhere than on loopback there is always a token.
        variable: names the environment variable that holds the token.

    Raises:
        ConfigError: the variable holds none.
    """
    if variable is None:
        return (None, False) if is_loopback(at.getsockname()[0]) else (secrets.token_urlsafe(32), True)
    token = os.environ.get(variable, "")
    if not token or not token.isascii() or not token.isprintable() or token != token.strip():
        raise ConfigError(f"--token-env {variable}: expected a token in printable ASCII in that environment variable")
    return token, False


def serve_run(
    *,
    env: str,
    model: str,
    tasks: int | None,
    samples: int,
    seed: int,
    split: Split,
    concurrency: int,
    settings: Mapping[str, Any],
    backend: Backend,
    address: str | None,
    name: str | None,
    root: Path,
    roles: str,
    host: str,
    port: int,
    token_env: str | None,
    idle_s: float,
    announce: Callable[[dict[str, Any], str | None], None],
) -> tuple[Path, bool]:
    """Make a run of the options of `palaestra serve`, and serve it until a signal ends that.

    Args:
        roles: names with commas between.
        announce: gets, once the server is up, where it is, and the token if one was made.

    Returns:
        the run's directory, and whether SIGINT ended it.

    Raises:
        ConfigError: an option that cannot be used; nothing has been loaded or written then.
        EngineError: a model could not be loaded.
    """
    named = tuple(dict.fromkeys(role.strip() for role in roles.split(",") if role.strip()))
    if not named:
        raise ConfigError(f"--roles {clip(roles)}: expected names with commas between, such as solver,critic")
    plan = make_plan(
        served_topology(named), env, model, tasks, samples, seed, split, concurrency, settings, backend, address
    )
    if plan.cluster.rollout_workers:
        raise ConfigError("cluster.rollout_workers play a graph, and here agents outside play; leave them out")
    at = bind(host, port)
    token, is_made = token_for(at, token_env)
    directory = claim_directory(plan, name, root)

    def up(gateway: Gateway) -> None:
        where = {"url": gateway.url, "base_url": f"{gateway.url}/v1", "run": directory.name, "roles": list(named)}
        announce({**where, "episodes": plan.episodes, "token": token is not None}, token if is_made else None)

    with held(directory):
        received = in_event_loop(lambda: serve(plan, directory, at, token, idle_s, up))
    return directory, received is signal.SIGINT


async def serve(
    plan: Plan,
    directory: Path,
    at: socket.socket,
    token: str | None,
    idle_s: float,
    announce: Callable[[Gateway], None],
) -> signal.Signals:
    """Serve until SIGINT or SIGTERM, and return which it was; see `serving`. `announce` is called once it is up."""
    stopped: asyncio.Future[signal.Signals] = asyncio.get_running_loop().create_future()
    async with serving(plan, directory, at, token, idle_s) as gateway:
        on_signals(stopped)
        announce(gateway)
        await stopped
    return stopped.result()


@asynccontextmanager
async def serving(
    plan: Plan, directory: Path, at: socket.socket, token: str | None, idle_s: float
) -> AsyncIterator[Gateway]:
    """Serve until the block ends; what is open then is stored as failed.

    Args:
        plan: of served.served_topology.
        directory: of the run.
        at: where to listen.
        token: what clients must show, if anything.
        idle_s: seconds without a call after which an episode is given up.
    """
    async with opened(plan, directory) as (company, writer), asyncio.TaskGroup() as group:
        gateway = Gateway(plan.topology.roles, token, alone(plan, company), url=url_of(at))
        handout = Handout(plan, company, writer, gateway, idle_s, group)
        async with listening(make_app(gateway, routes(handout, gateway)), at, token):
            try:
                yield gateway
            finally:
                gateway.closing = True
                await handout.close()


def on_signals(stopped: "asyncio.Future[signal.Signals]") -> None:
    """Have SIGINT and SIGTERM end a wait in place of the process."""
    loop = asyncio.get_running_loop()

    def stop(received: signal.Signals) -> None:
        # A second signal does what it does by default.
        loop.remove_signal_handler(received)
        if not stopped.done():
            stopped.set_result(received)

    for which in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(which, stop, which)
