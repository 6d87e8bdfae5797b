"""What a run was asked for, as it is stored with it, and made again from there when the run is gone on with."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from agents.cast import Cast, Seat
from envs.errors import ConfigError, clip

ARGUMENTS, READY_MADE = "arguments", "ready_made"
_DECIDE = ("topology", "env", "cast", "tasks", "samples", "seed")
"""Of a run's configuration, what its episodes depend on."""
logger = logging.getLogger("palaestra.runs")


def store_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values that `arguments_again` reads: the arguments, and the names of those that are no plain values.

    Args:
        arguments: by name. `settings` and a cast are stored value by value.
    """
    stored: dict[str, Any] = {}
    ready_made: list[str] = []
    for key, value in arguments.items():
        if key == "settings":
            stored[key] = {name: one for name, one in (value or {}).items() if _is_plain(one)}
            ready_made += [f"settings {name}" for name in value or {} if name not in stored[key]]
            continue
        value = _described(value) if isinstance(value, Cast) else value
        stored[key] = value if _is_plain(value) else None
        ready_made += [] if _is_plain(value) else [key]
    return json.loads(json.dumps({ARGUMENTS: stored, READY_MADE: ready_made}))


def arguments_again(config: Mapping[str, Any], given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The arguments that a configuration was stored with.

    Args:
        config: of the run.
        given: what was given ready-made, given again; None for nothing.
        name: of the run, for messages.

    Raises:
        ConfigError: there are none, or some that have to be given again.
    """
    if ARGUMENTS not in config:
        raise ConfigError(
            f"run {name} does not say what it was asked for (it is a fork, an import, part of a sweep or a training, "
            "served, or of an earlier version), so that it cannot be gone on with; play it anew"
        )
    arguments = dict(config[ARGUMENTS])
    for key, value in given.items():
        if key == "settings":
            arguments[key] = {**arguments.get(key, {}), **(value or {})}
        elif value is not None:
            arguments[key] = value
    for key in config[READY_MADE]:
        what, _, setting = key.partition(" ")
        if given.get(what) is None or (setting and setting not in given[what]):
            again = f"{what}={{{setting!r}: …}}" if setting else f"{what}=…"
            raise ConfigError(
                f"run {name} was given its {setting or what} ready-made in Python, which cannot be stored; give it "
                f"again there: experiments.resume({name!r}, {again})"
            )
    if isinstance(arguments.get("cast"), dict):
        arguments["cast"] = _cast(arguments["cast"])
    return arguments


def require_same(found: Mapping[str, Any], stored: Mapping[str, Any], name: str) -> None:
    """Compare what a run's arguments come to now with what they came to when it began.

    Args:
        found: the configuration now.
        stored: that of the run.
        name: of the run, for messages.

    Raises:
        ConfigError: its episodes would be others.
    """
    for key in _DECIDE:
        if found[key] != stored[key]:
            raise ConfigError(
                f"run {name} cannot be gone on with: its {key} was {clip(stored[key])}, and is now {clip(found[key])}; "
                "bring back what it was, or play it anew under another name"
            )
    for key in ("versions", "templates"):
        if found[key] != stored[key]:
            logger.warning("%s have changed since run %s began; it may go on otherwise than it would have", key, name)


def _described(cast: Cast) -> dict[str, Any] | Cast:
    """Role -> what was set of its seat, * for all others; the cast itself where a model is no name."""
    seats = cast.seats if cast.default is None else {"*": cast.default, **cast.seats}
    if any(not isinstance(seat.model, str) for seat in seats.values()):
        return cast
    return {role: seat.model_dump(mode="json", exclude_unset=True) for role, seat in seats.items()}


def _cast(described: Mapping[str, Any]) -> Cast:
    seats = {role: Seat(**fields) for role, fields in described.items()}
    return Cast(seats.pop("*", None), **seats)


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(one) for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, int, float, bool))
