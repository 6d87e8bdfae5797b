"""Fork: an episode played again from a turn on, with something changed. The branch is a run of its own.

The topology is played from its beginning; turns before the changed one, and those asked together with it, are answered
as recorded, so that ids and prompts are the same. From that turn on real models answer. Called by the command, by the
viewer in a process of its own, and from Python.
"""

import itertools
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from agents.cast import Cast, Seat, base_role
from agents.company import Company, open_company
from agents.serving import SCOPES, Serving
from agents.types import EngineError
from envs.errors import ConfigError, clip, unknown
from envs.types import Env
from experiments.arguments import ARGUMENTS, READY_MADE
from experiments.folder import claim_folder
from experiments.plan import open_topology, reopen_env, versions
from experiments.runner import in_event_loop, kept_if_played, store
from experiments.runs import CONFIG, RESULT, RUNS, Run
from experiments.store import StoreWriter
from experiments.viewer.keys import at, int_at, key_of, text_at
from experiments.viewer.replaying import Edit, Replaying
from experiments.viewer.trained import trained_seats
from graphs import Builder, Graph, Topology, play
from graphs.turns import Episode, Turn

NOT_OF_A_BRANCH = ("weights", "gaps", ARGUMENTS, READY_MADE)
"""Of its run's configuration; nor is it gone on with: one episode is there or not."""


@dataclass(frozen=True)
class _Branch:
    """What a fork's arguments come to."""

    position: int
    episode: Episode
    turn: Turn
    topology: Topology
    env: Env
    cast: Cast
    recast: frozenset[str]
    instructed: frozenset[str]
    serving: Serving
    seed: int
    edit: Edit


def fork(
    run: str | Path,
    episode: str | int,
    turn: str,
    *,
    model: Any = None,
    settings: Mapping[str, Any] | None = None,
    seed: int | None = None,
    message: str | None = None,
    reply: str | None = None,
    models: list[str] | None = None,
    topology: str | Builder | Graph | Topology | None = None,
    env: Env | None = None,
    name: str | None = None,
    root: Path | str = RUNS,
) -> Run:
    """Play an episode again from a turn on, and return the branch.

    Args:
        run: its name under `root`, or its path.
        episode: as in `Run.find`; a number that is no text is its position, from 0.
        turn: id of the turn that is changed.
        model: plays the turn's role from it on.
        settings: `ROLE.KEY` from it on, as with `--set`; `engine.KEY`, `pool.KEY`, … too.
        seed: of what is drawn from it on; None keeps the run's.
        message: in place of the turn's last message.
        reply: in place of the turn's reply.
        models: that may be asked; None: any. Another is refused before it is asked.
        topology: what the run was given ready-made, given again.
        env: see above.
        name: of the branch.
        root: the folder of runs, where the branch is stored too.

    Raises:
        ConfigError: no such run, episode or turn; a change that cannot be; a model that cannot be opened again.
        EngineError: a model could not be loaded, or the topology does not come to the turn again.
    """
    root = Path(root)
    parent = Run.open(run, root)
    branch = _branch(parent, episode, turn, model, settings or {}, seed, Edit(message, reply), topology, env)
    asked = {seat.model for role, seat in _seats(branch).items()}
    refused = sorted(str(one) for one in asked if models is not None and one not in models)
    if refused:
        raise ConfigError(f"expected none but {', '.join(models or []) or 'no models'} to be asked, found {refused[0]}")
    branch.cast.models(_seats(branch), branch.serving)
    changes = _changes(branch.turn, model, settings or {}, seed, message, reply)
    origin = {
        "run": _key(root, parent.path),
        "position": branch.position,
        "turn": turn,
        "changes": list(changes.values()) or ["nothing"],
        "kinds": list(dict.fromkeys(kind.partition(" ")[0] for kind in changes)),
    }
    directory = _directory(root, parent, name)
    with kept_if_played(directory):
        in_event_loop(lambda: _play(branch, parent, directory, origin))
    return Run(directory)


def _branch(
    parent: Run,
    episode: str | int,
    turn: str,
    model: Any,
    settings: Mapping[str, Any],
    seed: int | None,
    edit: Edit,
    topology: Any,
    env: Env | None,
) -> _Branch:
    config, (position, found) = parent.config, _found(parent, episode)
    changed = next((one for one in found.turns if one.id == turn), None)
    if changed is None:
        raise unknown(f"turn of episode {position + 1} of {parent.name}:", turn, [one.id for one in found.turns])
    if edit.message is not None and (not changed.messages or edit.reply is not None):
        raise ConfigError(f"{turn}: expected a message or a reply to be edited, and a message that is there")
    own = None if topology is not None else dict(at(config, "topology", "settings") or {})
    played = open_topology(topology if topology is not None else text_at(config, "topology", "name"), own or {})
    serving, seated = stored_cast(parent)
    cast = seated
    known = {*cast.seats, *played.roles, *(one.role for one in found.turns)}
    for key, value in settings.items():
        role, _, setting = key.partition(".")
        if role in SCOPES:
            serving = serving.set({key: value})
        elif not setting or role not in known | {base_role(one) for one in known}:
            raise unknown("role in setting", key, {f"{one}.{setting or 'model'}" for one in known})
        else:
            for each in sorted(one for one in known if role in (one, base_role(one))):
                cast = cast.set(each, setting, value)
    cast = cast if model is None else cast.set(changed.role, "model", model)

    def differ(what: Callable[[Seat], Any]) -> frozenset[str]:
        return frozenset(role for role in known if what(_seat(cast, role)) != what(_seat(seated, role)))

    return _Branch(
        position,
        found,
        changed,
        played,
        env or reopen_env(config),
        cast,
        differ(lambda seat: (seat.model, seat.adapter)),
        differ(lambda seat: seat.instructions),
        serving,
        int_at(config, "seed") or 0 if seed is None else seed,
        edit,
    )


def _found(parent: Run, episode: str | int) -> tuple[int, Episode]:
    """An episode and its position."""
    position = parent.position(episode) if isinstance(episode, str) else episode
    found = parent.store.episode(position)
    if found is None:
        raise ConfigError(f"run {parent.name} has no episode at position {position}")
    return position, found


async def _play(branch: _Branch, parent: Run, directory: Path, origin: dict[str, Any]) -> None:
    """Play the branch and store it."""
    started = time.monotonic()
    async with open_company(branch.cast, _seats(branch), "local", branch.serving) as company, branch.topology.opened():
        replaying = Replaying(
            company,
            branch.episode,
            branch.turn,
            branch.edit,
            branch.recast,
            branch.instructed,
            by_id=branch.topology.foreign is None,
        )
        task, sample = branch.episode.task, branch.episode.sample
        played = await play(branch.topology, branch.env, task, cast(Company, replaying), branch.seed, sample)
    if replaying.reached is None:
        why = played.failure or "the topology took another way; it or its settings have changed since"
        raise EngineError(f"{branch.turn.id} was not asked again: {why}")
    seats = branch.cast.describe(_seats(branch))
    config = {
        **{key: value for key, value in parent.config.items() if key not in NOT_OF_A_BRANCH},
        **json.loads(json.dumps({"cast": seats, **asdict(branch.serving)}, default=str)),
        "tasks": 1,
        "samples": 1,
        "seed": branch.seed,
        "concurrency": 1,
        "backend": "local",
        "versions": versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "fork": {**origin, "turn": branch.turn.id, "now": replaying.reached, "replayed": sorted(replaying.replayed)},
    }
    (directory / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    writer = StoreWriter(directory)
    try:
        await store(writer, 0, replaying.episode_of(played))
    finally:
        writer.close()
    seconds = round(time.monotonic() - started, 3)
    (directory / RESULT).write_text(json.dumps({"seconds": seconds}) + "\n", encoding="utf-8")


def _seats(branch: _Branch) -> dict[str, Seat]:
    """Role -> seat, of the roles that may be asked from the turn on."""
    roles = branch.topology.roles or tuple(dict.fromkeys(turn.role for turn in branch.episode.turns))
    return {role: branch.cast.seat(role) for role in roles}


def _seat(cast: Cast, role: str) -> Seat:
    try:
        return cast.seat(role)
    except ConfigError:
        return Seat()


def stored_cast(parent: Run) -> tuple[Serving, Cast]:
    """The settings of engines and pools, and the cast, as the run's configuration has them."""
    config, defaults = parent.config, Seat().model_dump(mode="json")
    given = {f"{scope}.{key}": value for scope in SCOPES for key, value in (at(config, scope) or {}).items()}
    seats: dict[str, dict[str, Any]] = {}
    for role, stored in (at(config, "cast") or {}).items():
        seats[role] = {key: value for key, value in stored.items() if key == "model" or value != defaults.get(key)}
    seats |= {role: {**seats.get(role, {}), **own} for role, own in trained_seats(parent).items()}
    cast = Cast(None)
    for role, stored in seats.items():
        for key, value in stored.items():
            cast = Cast(Seat(**stored), **cast.seats) if role == "*" else cast.set(role, key, value)
    return Serving().set(given), cast


def _changes(
    turn: Turn,
    model: Any,
    settings: Mapping[str, Any],
    seed: int | None,
    message: str | None,
    reply: str | None,
) -> dict[str, str]:
    """Kind of change (and for settings its key) -> the change in words."""
    found = {} if model is None else {"model": f"model of {turn.role}: {_said(model)}"}
    found |= {f"settings {key}": f"{key}: {_said(value)}" for key, value in settings.items()}
    found |= {} if seed is None else {"seed": f"seed: {seed}"}
    found |= {} if message is None else {"message": f"message of {turn.id}, edited"}
    return found | ({} if reply is None else {"reply": f"reply of {turn.id}, edited"})


def _said(value: Any) -> str:
    return clip(value)[1:-1] if isinstance(value, str) else type(value).__name__


def _key(root: Path, path: Path) -> str:
    try:
        return key_of(root.resolve(), path.resolve())
    except ValueError:
        return path.name


def _directory(root: Path, parent: Run, name: str | None) -> Path:
    if name is None:
        base = _key(root, parent.path).replace("~.", "~").replace("~", "-").removeprefix(".")
        names = (f"{base}-fork-{number}" for number in itertools.count(1))
        name = next(one for one in names if not (root / one).exists())
    return claim_folder(root, name, "fork")
