"""Where in a LangGraph graph a call is made, told without clocks: what orders and seeds the turns of parallel branches.

LangGraph names a running task by an id that holds a time-stamp. Here a task is named by its superstep and by its path
in the graph, for the graph and for each subgraph down to it, so that the same run has the same places again.
"""

from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler

Place = tuple[tuple[int, str], ...]
"""From the outermost graph inwards: the superstep and path of a task, then the number of the subgraph's call in it."""

NOWHERE: Place = ()


class Places(BaseCallbackHandler):
    """Listens as tasks of a graph begin."""

    run_inline = True  # before the node's first line, also where the graph is asynchronous

    def __init__(self) -> None:
        self._tasks: dict[str, Place] = {}

    @property
    def ignore_llm(self) -> bool:
        return True

    @property
    def ignore_chat_model(self) -> bool:
        return True

    def on_chain_start(
        self,
        serialized: dict[str, Any],
        inputs: dict[str, Any],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        namespace = (metadata or {}).get("langgraph_checkpoint_ns")
        if metadata and namespace and namespace not in self._tasks:
            self._tasks[namespace] = _levels(metadata["langgraph_step"], metadata["langgraph_path"])

    def of(self, namespace: str) -> Place:
        """The place of the task that LangGraph calls so; a task that was not heard of goes by its node's name."""
        place: Place = NOWHERE
        parts = namespace.split("|") if namespace else []
        for i, part in enumerate(parts):
            if part.isdigit():  # the subgraph's second call within its task, or a later one
                place += ((int(part), ""),)
                continue
            if i and not parts[i - 1].isdigit():
                place += ((0, ""),)
            place += self._tasks.get("|".join(parts[: i + 1]), ((0, part.partition(":")[0]),))
        return place


def is_visible(earlier: Place, later: Place) -> bool:
    """Whether what was said at one place may be known at another: not in a parallel branch of the same superstep."""
    for (before, path), (after, other) in zip(earlier, later, strict=False):
        if before != after or path != other:
            return before < after
    return True


def shared(one: Place, other: Place) -> int:
    """How many levels two places have in common."""
    pairs = list(zip(one, other, strict=False))
    return next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))


def _levels(step: int, path: tuple[Any, ...]) -> Place:
    if len(path) > 2 and isinstance(path[1], (tuple, list)):
        # A task of the functional API: the third part counts its caller's calls.
        return (*_levels(step, tuple(path[1])), (int(path[2]), ""))
    return ((step, "/".join(f"{part:06d}" if isinstance(part, int) else str(part) for part in path)),)
