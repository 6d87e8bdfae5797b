"""What makes a function a topology: it returns a LangGraph graph, and says beforehand which roles it asks.

`@topology` attaches the roles (so that a cast is checked before any model loads) and, where it is known, the number of
calls. `build` makes a topology of a function of ours or of anybody's: a graph whose runtime context is not the Stage
is foreign, and graphs.foreign plays it.
"""

import importlib
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from inspect import Parameter, signature
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from langchain_core.language_models import BaseLanguageModel
from langchain_core.runnables import Runnable, RunnableSerializable
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel

from envs.errors import ConfigError, bind_settings, clip
from graphs.chat_model import chat_model
from graphs.foreign import HUMAN, AnyGraph, Foreign, Hooks, is_native, threads
from graphs.python_tool import sandboxes

Graph = AnyGraph
Builder = Callable[..., Graph]
Opens = Callable[[], AbstractAsyncContextManager[None]]
_Function = TypeVar("_Function", bound=Callable[..., Any])
GRAPHS = (Pregel, StateGraph)
"""What a module may export ready-made, as `graph = builder.compile()`."""


@dataclass(frozen=True)
class Topology:
    """A graph, ready to play, with what is known of it beforehand."""

    name: str
    graph: Graph
    roles: tuple[str, ...] = ()
    """The roles it asks; empty when unknown (a user's own graph): any role of the cast may then be asked."""
    calls: int | None = None
    """Most model calls an episode makes, when it is known."""
    settings: Mapping[str, Any] | None = None
    foreign: Foreign | None = None
    """How the graph is asked, when it is not written for our moves."""
    opened: Opens = nullcontext
    """Opens what the graph needs for the time of a run; entered and left in the task that plays."""
    again: "Callable[[], Topology] | None" = None
    """Builds it once more; None for a graph that was given ready-made."""

    def __reduce__(self) -> tuple[Any, ...]:
        # A compiled graph is told apart from others by objects that a copy of it does not share: it is built anew.
        if self.again is None:
            raise TypeError(f"the graph of {self.name} was given ready-made; give the function that builds it")
        return self.again, ()

    @property
    def may_ask(self) -> tuple[str, ...]:
        """Roles that may be asked beside `roles`: the one that answers a foreign graph's interrupts."""
        return (HUMAN,) if self.foreign and self.roles else ()


def topology(
    roles: Callable[..., Sequence[str]] | None = None,
    calls: Callable[..., int] | None = None,
    *,
    opens: Callable[..., AbstractAsyncContextManager[None]] | None = None,
    ask: Callable[[str], Any] | None = None,
    answer: Callable[[Any], str | None] | None = None,
    resume: Callable[[Any], Any] | None = None,
) -> Callable[[_Function], _Function]:
    """Mark a function that builds a graph, or an agent function (experiments.gateway.agent).

    Args:
        roles: the roles it asks; takes the function's keyword arguments, those filled with models left out.
        calls: most model calls of an episode; takes the same.
        opens: opens what the nodes need for the time of a run, such as a sandbox, and hands it to them by a context
            variable; takes the same.
        ask: for a foreign graph: the task's question -> its input.
        answer: for a foreign graph: its output -> the answer.
        resume: for a foreign graph: an interrupt's value -> what it goes on with; else the role human is asked.
    """

    def mark(function: _Function) -> _Function:
        function.roles, function.calls = roles, calls  # pyright: ignore[reportFunctionMemberAccess]
        function.opens = opens  # pyright: ignore[reportFunctionMemberAccess]
        function.hooks = Hooks(ask, answer, resume)  # pyright: ignore[reportFunctionMemberAccess]
        return function

    return mark


def build(function: Builder | Any, settings: Mapping[str, Any] | None = None, name: str = "") -> Topology:
    """Build a topology from its function.

    Args:
        function: returns a LangGraph graph, or is one. Its parameters for language models are filled with the roles of
            their names.
        settings: its keyword arguments; text is converted to the annotated types.
        name: for records; the function's when empty.

    Raises:
        ConfigError: an unknown or unusable setting, a function that returns something else, a graph that takes no task.
    """
    if isinstance(function, GRAPHS):
        if settings:
            raise ConfigError(
                f"{next(iter(settings))}: the graph is given ready-made; pass the function that builds it"
            )
        graph = _compiled(function, name)
        return _topology(name or graph.get_name(), graph, Hooks())
    name = name or function.__name__
    models = model_parameters(function)
    bound = bind_settings(function, settings or {}, f"topology {name}", given=models)
    graph = _compiled(function(**bound, **{role: chat_model(role) for role in models}), name)
    roles = getattr(function, "roles", None)
    calls = getattr(function, "calls", None)
    opens = getattr(function, "opens", None)
    return _topology(
        name,
        graph,
        getattr(function, "hooks", Hooks()),
        partial(opens, **bound) if opens else None,
        roles=tuple(roles(**bound)) if roles else models,
        calls=calls(**bound) if calls else None,
        settings=bound,
        again=partial(build, function, settings, name),
    )


def fit(function: Builder, calls: int, settings: Mapping[str, Any] | None = None, name: str = "") -> dict[str, Any]:
    """Settings of a topology under which an episode takes at most `calls` model calls, and as many as that allows.

    What is fitted is the size of the topology: the first whole number among its settings on which its calls depend,
    unless it is set.

    Args:
        function: builds the topology; `@topology(calls=…)` has to say what it takes.
        calls: most model calls of an episode.
        settings: those that are set; they stay.
        name: for messages.

    Raises:
        ConfigError: a topology that does not say what it takes, or that takes more whatever its size.
    """
    name, settings = name or function.__name__, dict(settings or {})
    if getattr(function, "calls", None) is None:
        raise ConfigError(f"topology {name} does not say how many calls it takes; mark it with @topology(calls=…)")
    taken = _sizes(function, settings, calls + 2, name)
    within = [count for count in taken if count <= calls]
    if not within:
        fixed = ", ".join(f"{key}={value}" for key, value in settings.items())
        raise ConfigError(
            f"topology {name}{f' ({fixed})' if fixed else ''} takes at least {min(taken)} calls an episode, and the "
            f"budget is {calls}; raise it or leave the topology out"
        )
    return taken[max(within)]


def _sizes(function: Builder, settings: dict[str, Any], most: int, name: str) -> dict[int, dict[str, Any]]:
    """Calls of an episode -> the settings that take so many, for sizes up to `most`."""

    def counted(candidates: Iterable[dict[str, Any]]) -> dict[int, dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        for candidate in candidates:
            with suppress(ConfigError):  # a size that the topology does not have
                found.setdefault(function.calls(**bind_settings(function, candidate, name)), candidate)  # pyright: ignore[reportFunctionMemberAccess]
        return found

    for key, parameter in signature(function).parameters.items():
        if type(parameter.default) is int and key not in settings:
            found = counted({**settings, key: size} for size in range(most + 1))
            if len(found) > 1:
                return found
    bind_settings(function, settings, f"topology {name}")
    return counted([settings])


def _topology(name: str, graph: Graph, hooks: Hooks, opens: Opens | None = None, **known: Any) -> Topology:
    if is_native(graph):
        return Topology(name, graph, **known, opened=opens or nullcontext)
    return Topology(name, graph, **known, foreign=Foreign(graph, name, hooks), opened=partial(_all_opened, opens))


@asynccontextmanager
async def _all_opened(opens: Opens | None) -> AsyncIterator[None]:
    async with threads(), sandboxes(), (opens or nullcontext)():
        yield


def model_parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    """The parameters of a builder that take a language model: by annotation, else by a name that says so."""
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError):
        hints = getattr(function, "__annotations__", {})
    parameters = signature(function).parameters.values()
    return tuple(
        p.name
        for p in parameters
        if (_is_model(hints[p.name]) if p.name in hints else p.name in _NAMED_MODELS and p.default is Parameter.empty)
    )


_NAMED_MODELS = ("llm", "model", "chat_model")


def _is_model(hint: Any) -> bool:
    if isinstance(hint, str):  # it names what is imported for type checkers alone
        return re.search(r"\b(Base\w*Model|LanguageModelLike|Chat\w+)\b", hint) is not None
    if get_origin(hint) in (Union, UnionType, Annotated):
        return any(_is_model(part) for part in get_args(hint))
    kind = get_origin(hint) or hint
    return kind in (Runnable, RunnableSerializable) or (isinstance(kind, type) and issubclass(kind, BaseLanguageModel))


def _compiled(graph: Any, name: str) -> Graph:
    if isinstance(graph, StateGraph):
        try:
            return graph.compile()
        except ValueError as error:
            raise ConfigError(f"topology {name}: the graph cannot be compiled: {error}") from None
    if not isinstance(graph, Pregel):
        raise ConfigError(
            f"topology {name}: expected a compiled LangGraph graph, found {clip(graph)}; return graph.compile()"
        )
    return graph


def load_function(path: str, what: str, also: tuple[type, ...] = ()) -> Callable[..., Any]:
    """The function that `module:function` names; modules of the working directory are found too.

    Args:
        path: what the user wrote.
        what: it is to be, for messages.
        also: types of objects that do as well.

    Raises:
        ConfigError: no such module or function, or one that fails to import.
    """
    module_name, _, function_name = path.partition(":")
    if not module_name or not function_name:
        raise ConfigError(f"{what} {clip(path)}: expected module:function")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # noqa: BLE001 - whatever a user's module raises belongs in the message
        raise ConfigError(
            f"{what} {clip(path)}: cannot import {module_name}: {type(error).__name__}: {error}"
        ) from None
    function: Any = getattr(module, function_name, None)
    if not callable(function) and not isinstance(function, also):
        names = [
            name
            for name, value in vars(module).items()
            if (callable(value) or isinstance(value, also)) and not name.startswith("_")
        ]
        raise ConfigError(
            f"{what} {clip(path)}: {module_name} has no function {function_name}; it has {', '.join(names)}"
        )
    return function
