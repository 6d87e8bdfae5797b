"""What makes a function a topology: it returns a compiled LangGraph graph, and says beforehand which roles it asks.

`@topology` attaches the roles (so that a cast is checked before any model loads) and, where it is known, the number of
calls. `build` makes a graph from a name of the registry or `module:function` of the user's own.
"""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from envs.errors import ConfigError, bind_settings, clip
from graphs.table import Stage, Table

Graph = CompiledStateGraph[Any, Any, Any, Any]
Builder = Callable[..., Graph]


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


def topology(
    roles: Callable[..., Sequence[str]], calls: Callable[..., int] | None = None
) -> Callable[[Builder], Builder]:
    """Mark a function that builds a graph; `roles` and `calls` take the same keyword arguments as it does."""

    def mark(function: Builder) -> Builder:
        function.roles, function.calls = roles, calls  # pyright: ignore[reportFunctionMemberAccess]
        return function

    return mark


def chain(*nodes: Callable[..., Any], state: type[Table] = Table) -> Graph:
    """A graph whose nodes run one after another, under their functions' names."""
    graph = StateGraph(state, context_schema=Stage)
    for node in nodes:
        graph.add_node(node.__name__, node)
    for before, after in pairwise([START, *(node.__name__ for node in nodes), END]):
        graph.add_edge(before, after)
    return graph.compile()


def loop(
    first: Callable[..., Any], again: Callable[..., Any], last: Callable[..., Any], done: Callable[[Any], bool]
) -> Graph:
    """A graph that runs `first`, then `again` until the table is `done`, then `last`."""
    graph = StateGraph(Table, context_schema=Stage)
    names = [node.__name__ for node in (first, again, last)]
    for name, node in zip(names, (first, again, last), strict=True):
        graph.add_node(name, node)
    graph.add_edge(START, names[0])
    for name in names[:2]:
        graph.add_conditional_edges(name, lambda table: names[2] if done(table) else names[1], names[1:])
    graph.add_edge(names[2], END)
    return graph.compile()


def build(function: Builder, settings: Mapping[str, Any] | None = None, name: str = "") -> Topology:
    """Build a topology from its function.

    Args:
        function: returns a compiled LangGraph graph.
        settings: its keyword arguments; text is converted to the annotated types.
        name: for records; the function's when empty.

    Raises:
        ConfigError: an unknown or unusable setting, or a function that returns something else.
    """
    name = name or function.__name__
    bound = bind_settings(function, settings or {}, f"topology {name}")
    graph = function(**bound)
    if not isinstance(graph, CompiledStateGraph):
        raise ConfigError(
            f"topology {name}: expected a compiled LangGraph graph, found {clip(graph)}; return graph.compile()"
        )
    roles = getattr(function, "roles", None)
    calls = getattr(function, "calls", None)
    return Topology(name, graph, tuple(roles(**bound)) if roles else (), calls(**bound) if calls else None, bound)


def load_function(path: str, what: str) -> Callable[..., Any]:
    """The function that `module:function` names; modules of the working directory are found too.

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
    function = getattr(module, function_name, None)
    if not callable(function):
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise ConfigError(
            f"{what} {clip(path)}: {module_name} has no function {function_name}; it has {', '.join(names)}"
        )
    return function
