"""What a user did wrong, said in one line: expected, found, where, what to do.

Raised while a configuration is read, before any model is loaded; the command turns it into exit status 2.
"""

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping
from inspect import Parameter, signature
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

CLIP = 200


class ConfigError(ValueError):
    """A setting, name or file that cannot be used. The message is one line and says how to mend it."""


def clip(value: object, limit: int = CLIP) -> str:
    """The repr of what was found, cut to `limit` characters and never more than one line."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint that names the closest valid name, or lists them all: ends an 'unknown name' message."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"one of: {', '.join(names) or '(none)'}"


def unknown(kind: str, name: str, valid: Iterable[str]) -> ConfigError:
    return ConfigError(f"unknown {kind} {clip(name)}; {nearest(name, valid)}")


def bind_settings(
    function: Callable[..., Any], settings: Mapping[str, Any], where: str, given: Collection[str] = ()
) -> dict[str, Any]:
    """Check settings against a function's signature and convert text such as '3' to the annotated types.

    Args:
        function: its keyword parameters and annotations are the schema.
        settings: keys and values as given in Python, in a file or on the command line.
        where: what is being configured, for the message ("env arithmetic", "topology society").
        given: parameters that the caller fills.

    Raises:
        ConfigError: an unknown key (with the nearest valid one), a value of the wrong type, a missing key.
    """
    try:
        hints = get_type_hints(function.__init__ if isinstance(function, type) else function, include_extras=True)
    except NameError as error:
        if settings:
            raise ConfigError(f"{where}: its annotations cannot be read: {error}; import what they name") from None
        hints = {}
    parameters = {
        name: parameter
        for name, parameter in signature(function).parameters.items()
        if parameter.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY) and name not in given
    }
    bound = {}
    for key, value in settings.items():
        if key not in parameters:
            raise unknown(f"setting of {where}:", key, parameters)
        try:
            bound[key] = TypeAdapter(hints.get(key, Any)).validate_python(value)
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            raise ConfigError(f"{where}: {key} cannot be {clip(value)}: {problem}") from None
    missing = [name for name, p in parameters.items() if p.default is Parameter.empty and name not in bound]
    if missing:
        raise ConfigError(f"{where} needs {', '.join(missing)}; give --set {missing[0]}=… or the keyword argument")
    return bound
