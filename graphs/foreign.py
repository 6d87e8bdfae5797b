"""Graphs that know nothing of Palaestra: how they are asked a task, how their answer is read, who answers their
interrupts. Called from graphs.play; models in them are graphs.chat_model's.

A graph is asked by its state's own keys: `messages` gets the task as a message; `question`, `input`, `task`, `problem`
or `query` gets it as text. Its answer is the key `answer`, else its last AI message, else a text that it returns.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints, is_typeddict

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel import Pregel
from langgraph.types import Command

from agents.moves import SOLVE
from agents.types import EngineError, Message
from envs.errors import ConfigError, clip
from envs.types import final_answer
from graphs.messages import closed_schema
from graphs.record import Call, Recorder
from graphs.table import Stage

HUMAN = "human"
"""The role that answers interrupts."""
INSTRUCTIONS = (
    "You are the person who gave an assistant the problem below. The assistant stops to ask you something; reply to it "
    "in one line, as that person would.\n\nProblem: {question}"
)
THREADS = 256
"""Most nodes at once, in a run, that are not async."""
ASKED = ("question", "input", "task", "problem", "query")
ANSWERED = ("output", "result", "response", "report", "solution", "final")
AnyGraph = Pregel[Any, Any, Any, Any]


@dataclass(frozen=True)
class Hooks:
    """What a builder says of its graph where the state's keys do not."""

    ask: Callable[[str], Any] | None = None
    """The task's question -> the graph's input."""
    answer: Callable[[Any], str | None] | None = None
    """The graph's output -> the answer."""
    resume: Callable[[Any], Any] | None = None
    """An interrupt's value -> what the graph goes on with; None asks the role human."""


class Foreign:
    """A graph, ready to be asked."""

    def __init__(self, graph: AnyGraph, name: str, hooks: Hooks):
        """
        Raises:
            ConfigError: the graph takes no task that we know how to give, or a context that has no default.
        """
        self._graph, self._hooks = copy(graph), hooks
        # Breakpoints are for debuggers: nobody would go on from them.
        self._graph.interrupt_before_nodes = self._graph.interrupt_after_nodes = ()
        self._fields = _fields(graph)
        if not hooks.ask and not _is_askable(self._fields):
            keys = ", ".join(self._fields) if isinstance(self._fields, Mapping) else clip(self._fields)
            raise ConfigError(
                f"topology {name}: expected a graph whose input has the key messages, or one of {', '.join(ASKED)} as "
                f"text; found {keys or 'no keys'}; say how it is asked: @topology(ask=lambda question: {{…}})"
            )
        try:
            self._context()
        except Exception as error:  # noqa: BLE001 - whatever the user's schema raises
            problem = " ".join(str(error).split())
            raise ConfigError(f"topology {name}: its context schema has fields without a default: {problem}") from None

    async def play(self, recorder: Recorder, limit: int) -> dict[str, Any]:
        """Play one episode. Returns its `answer` and `stop_reason`.

        Args:
            recorder: of the episode.
            limit: supersteps between two interrupts, and interrupts.
        """
        graph, durability = copy(self._graph), None
        if not isinstance(graph.checkpointer, BaseCheckpointSaver):
            # Written when the graph stops alone: nobody else looks into it.
            graph.checkpointer, durability = InMemorySaver(serde=_Memory()), "exit"
        config: RunnableConfig = {
            "recursion_limit": limit,
            "callbacks": [recorder.places],
            "configurable": {"thread_id": f"palaestra-{uuid.uuid4().hex}"},
        }
        given = self._input(recorder.stage.task.question)
        for _ in range(limit):
            state = await graph.ainvoke(given, config, context=self._context(), durability=durability)
            if not isinstance(state, Mapping) or not state.get("__interrupt__"):
                return {"answer": self._answer(state), "stop_reason": "ended"}
            given = Command(resume=await self._replies(graph, config, recorder))
            recorder.resume()
        raise EngineError(f"the graph interrupted itself {limit} times without coming to an end")

    def _context(self) -> Any:
        schema = self._graph.context_schema
        return {} if is_typeddict(schema) else schema() if isinstance(schema, type) else None

    def _input(self, question: str) -> Any:
        if self._hooks.ask:
            return self._hooks.ask(question)
        text = SOLVE.render(question=question)
        if not isinstance(self._fields, Mapping):
            return text if _may_be_text(self._fields) else [HumanMessage(text)]
        given: dict[str, Any] = {"messages": [HumanMessage(text)]} if "messages" in self._fields else {}
        asked = next((key for key in ASKED if _may_be_text(self._fields.get(key))), None)
        return {**given, asked: text} if asked else given

    def _answer(self, state: Any) -> str | None:
        if self._hooks.answer:
            return self._hooks.answer(state)
        if not isinstance(state, Mapping):
            return final_answer(_last_words(state if isinstance(state, list) else [state]))
        answer = state.get("answer", getattr(state.get("structured_response"), "answer", None))
        if isinstance(answer, (int, float)) and not isinstance(answer, bool):
            return str(answer)
        if isinstance(answer, str):
            return final_answer(answer) or answer.strip() or None
        words = _last_words(state.get("messages") or [])
        if not words:
            texts = [value for key, value in state.items() if isinstance(value, str) and key not in ASKED]
            known = [value for key in ANSWERED if isinstance(value := state.get(key), str)]
            words = next(iter([*known, *reversed(texts)]), "")
        return final_answer(words)

    async def _replies(self, graph: AnyGraph, config: RunnableConfig, recorder: Recorder) -> dict[str, Any]:
        """A reply to each open interrupt, by its id; asked in the order of tasks, so that arrival decides nothing."""
        snapshot = await graph.aget_state(config)
        open_ = [
            (f"{task.name}:{task.id}", interrupt)
            for task in snapshot.tasks
            for interrupt in sorted(task.interrupts, key=lambda found: _text(found.value))
        ]
        return {interrupt.id: await self._reply(interrupt, place, recorder) for place, interrupt in open_}

    async def _reply(self, interrupt: Any, place: str, recorder: Recorder) -> Any:
        if self._hooks.resume:
            return self._hooks.resume(interrupt.value)
        wanted = getattr(interrupt, "response_schema", None)
        opening = Message("system", INSTRUCTIONS.format(question=recorder.stage.task.question))
        asked = (opening, Message("user", _text(interrupt.value)))
        schema = closed_schema(wanted) if isinstance(wanted, dict) else None
        turn = await recorder.call(Call(HUMAN, asked, schema=schema, place=place, anew=True))
        return turn.reply if schema is None else json.loads(turn.reply)


@asynccontextmanager
async def threads() -> AsyncIterator[None]:
    """Room for nodes that are not async: each holds a thread while its model answers, and with the event loop's few
    episodes would wait for one another."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "palaestra node"))
    yield


def is_native(graph: AnyGraph) -> bool:
    """Whether the graph is written for our moves: its runtime context is the Stage."""
    schema = graph.context_schema
    return isinstance(schema, type) and issubclass(schema, Stage)


class _Memory(JsonPlusSerializer):
    """LangGraph's own form where a value has one; else the value itself: nothing leaves the process."""

    def __init__(self) -> None:
        super().__init__(allowed_msgpack_modules=True)
        self._kept: list[Any] = []

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        try:
            return super().dumps_typed(obj)
        except Exception:  # noqa: BLE001 - whatever keeps it from being written
            self._kept.append(obj)
            return "kept", str(len(self._kept) - 1).encode()

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        return self._kept[int(data[1])] if data[0] == "kept" else super().loads_typed(data)


def _fields(graph: AnyGraph) -> Mapping[str, Any] | Any:
    """The keys of the graph's input with their types; or its type, where it is no mapping."""
    if not isinstance(graph, CompiledStateGraph):
        schema = graph.InputType
        return _hints(schema) if isinstance(schema, type) and schema.__module__ != "builtins" else schema
    hints = _hints(graph.builder.input_schema)
    return {key: hints.get(key, Any) for key in graph.builder.schemas[graph.builder.input_schema]}


def _hints(schema: Any) -> dict[str, Any]:
    try:
        return get_type_hints(schema)
    except (NameError, TypeError):
        return {}


def _is_askable(fields: Mapping[str, Any] | Any) -> bool:
    if isinstance(fields, Mapping):
        return "messages" in fields or any(_may_be_text(fields.get(key)) for key in ASKED)
    return fields is str or fields is list or get_origin(fields) is list


def _may_be_text(hint: Any) -> bool:
    """Whether text may be put under a key of this type; None for a key that is not there."""
    if get_origin(hint) in (Annotated, Union, UnionType):
        return any(_may_be_text(part) for part in get_args(hint) if part is not NoneType)
    return hint is Any or hint is str


def _last_words(said: list[Any]) -> str:
    """The last message of a model, or text."""
    for message in reversed(said):
        if isinstance(message, str):
            return message
        if isinstance(message, AIMessage):
            return message.text
    return ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
