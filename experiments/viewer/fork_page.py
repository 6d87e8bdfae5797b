"""Forks from the page: what one can change, and the fork itself, which plays in a process of its own.

A run's files may come from anybody. So the page forks only what needs no code that they name, and asks only the models
that it has shown to the user.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from agents.engines import FORMS
from agents.types import EngineError
from envs import ENVS
from envs.errors import ConfigError
from experiments.runs import Run
from experiments.viewer.episode_records import ForkChoices, Forked, ForkWish
from experiments.viewer.keys import text_at
from experiments.viewer.library import Library
from experiments.viewer.run_page import open_run
from experiments.viewer.stored import read_stored
from graphs import TOPOLOGIES

AT_ONCE = 2
"""Forks that are played at once; others wait."""
_gate = asyncio.Semaphore(AT_ONCE)


def choices(library: Library, key: str, position: int, may_fork: bool) -> ForkChoices:
    """What a fork of an episode can change, and whom it would ask.

    Raises:
        NotThereError: there is no such run or episode.
    """
    path, _, _ = open_run(library, key)
    stored, config = read_stored(path, position), library.config(path)
    roles: list[tuple[str, str]] = []
    why_not = None if may_fork else "forks are switched off"
    try:
        from experiments.viewer.fork import stored_cast

        cast = stored_cast(Run(path))[1]
        played = dict.fromkeys(entry.turn.role for entry in stored.turns)
        roles = [(role, str(cast.seat(role).model)) for role in dict.fromkeys((*cast.seats, *played))]
    except (ConfigError, TypeError, ValueError) as error:
        why_not = why_not or f"its cast cannot be filled again: {error}"
    return ForkChoices(
        possible=(why_not := why_not or _why_not(config, roles, path)) is None,
        why_not=why_not,
        roles=roles,
        models=list(FORMS.values()),
        seed=text_at(config, "seed"),
    )


async def fork(library: Library, wish: ForkWish, may_fork: bool) -> Forked:
    """Play an episode again from a turn on, as the page wishes.

    Raises:
        ConfigError: it cannot be: no such turn, a change that cannot be, a model that was not shown.
        EngineError: it was tried, and failed.
    """
    found = await asyncio.to_thread(choices, library, wish.run, wish.position, may_fork)
    if not found.possible:
        raise ConfigError(f"this episode cannot be forked from the page: {found.why_not}")
    path, _ = library.find(wish.run)
    change = wish.model_dump(include={"position", "model", "settings", "seed", "message", "reply", "models"})
    named = [str(path.relative_to(library.root)), str(wish.position + 1), wish.turn]
    async with _gate:
        branch = await _palaestra(
            ["fork", "--runs", str(library.root), "--json", "--change", "-", "--", *named], change
        )
    return Forked(run=branch["key"], position=0, turn=branch["now"], changes=branch["kinds"])


def _why_not(config: Any, roles: list[tuple[str, str]], path: Path) -> str | None:
    topology, env = text_at(config, "topology", "name"), text_at(config, "env", "opened_as")
    made = [role for role, model in roles if model.startswith("python:")]
    if topology not in TOPOLOGIES or env not in ENVS:
        what = f"topology {topology}" if topology not in TOPOLOGIES else f"env {text_at(config, 'env', 'name')}"
        return (
            f"{what} is code of its own, which the page does not run; in a terminal: palaestra fork {path.name} "
            "EPISODE TURN"
        )
    if made:
        return f"{made[0]} was played by an engine that was made in Python; fork it there: experiments.viewer.fork.fork"
    return None


async def _palaestra(arguments: list[str], change: dict[str, Any]) -> dict[str, Any]:
    """Run the command with a change on its standard input, and return the object that it prints."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "palaestra", *arguments, stdin=pipe, stdout=pipe, stderr=pipe
    )
    try:
        printed, said = await process.communicate(json.dumps(change).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        return json.loads(printed)
    except ValueError:
        lines = [line for line in said.decode("utf-8", "replace").splitlines() if line.startswith("palaestra: ")]
        reason = lines[-1].removeprefix("palaestra: ") if lines else "the fork ended without a word"
        raise (ConfigError if process.returncode == 2 else EngineError)(reason) from None
