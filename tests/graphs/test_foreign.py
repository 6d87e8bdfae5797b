"""Graphs as LangGraph's own users write them play as they are."""

import asyncio
import json
import operator
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel, LanguageModelLike
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import Runnable
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command, RetryPolicy, Send, interrupt
from pydantic import BaseModel
from typing_extensions import TypedDict

from agents import Cast, Request, ScriptedEngine, open_company
from agents.types import Completion
from envs import ConfigError, Env
from experiments import Run, run
from graphs import Episode, build, chat_model, play, topology
from graphs.topology import model_parameters
from tests.conftest import PlayScripted


class Question(TypedDict):
    question: str
    answer: str


def tool_call(name: str, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def one_node(node: Any, state: Any = Question) -> Any:
    graph = StateGraph(state)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    graph.add_edge("node", END)
    return graph.compile()


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class TestGraphsOfUsers:
    def test_an_agent_with_tools(self, play_scripted: PlayScripted) -> None:
        def agent(llm: BaseChatModel) -> Any:
            return create_agent(llm, tools=[add], system_prompt="You are careful.")

        episode = play_scripted(agent, {"llm": [tool_call("add", a=1, b=2), "It is \\boxed{yes}"]})
        one, two = episode.turns
        assert [m.role for m in one.messages] == ["system", "user"] and "\\boxed{}" in one.messages[1].content
        assert one.tool_calls[0].name == "add" and two.messages[0].content == "3"
        assert two.follows == one.id and two.prompt_ids[: len(one.prompt_ids)] == one.prompt_ids
        assert episode.verdict and episode.verdict.status == "correct" and episode.answer == "yes"

    def test_a_supervisor_with_hand_offs(self, play_scripted: PlayScripted) -> None:
        async def supervisor(state: MessagesState) -> Command[Any]:
            reply = await chat_model("supervisor").ainvoke(["Who is next?", *state["messages"]])
            return Command(goto=reply.text)

        def worker(role: str) -> Callable[..., Any]:
            async def work(state: MessagesState) -> Command[Literal["supervisor"]]:
                reply = await chat_model(role).ainvoke(state["messages"])
                return Command(goto="supervisor", update={"messages": [reply]})

            return work

        def team() -> Any:
            graph = StateGraph(MessagesState)
            graph.add_node("supervisor", supervisor)
            for role in ("mathematician", "writer"):
                graph.add_node(role, worker(role))
            graph.add_edge(START, "supervisor")
            return graph.compile()

        script = {
            "supervisor": ["mathematician", "writer", "__end__"],
            "mathematician": ["42"],
            "writer": ["Well: \\boxed{42}"],
        }
        episode = play_scripted(team, script)
        assert [(turn.id, turn.reads) for turn in episode.turns] == [
            ("supervisor/0", ()),
            ("mathematician/0", ()),
            ("supervisor/1", ("mathematician/0",)),
            ("writer/0", ("mathematician/0",)),
            ("supervisor/2", ("mathematician/0", "writer/0")),
        ]
        assert episode.answer == "42"

    def test_a_subgraph_and_nodes_that_are_not_async(self, play_scripted: PlayScripted) -> None:
        def solve(state: Question) -> dict[str, str]:
            return {"answer": chat_model("solver").invoke(state["question"]).text}

        def check(state: Question) -> dict[str, str]:
            return {"answer": chat_model("critic").invoke(f"Is it right? {state['answer']}").text}

        def nested() -> Any:
            graph = StateGraph(Question)
            graph.add_node("solve", one_node(solve))
            graph.add_node("check", lambda state: one_node(check).invoke(state))
            graph.add_edge(START, "solve")
            graph.add_edge("solve", "check")
            return graph  # not compiled

        episode = play_scripted(nested, {"solver": ["I think that it is yes"], "critic": ["The answer is yes."]})
        assert episode.turn("critic/0").reads == ("solver/0",) and episode.answer == "yes"

    def test_a_node_that_is_tried_again_asks_anew(self, play_scripted: PlayScripted) -> None:
        class Verdict(BaseModel):
            answer: int

        async def decide(state: Question) -> dict[str, str]:
            found: Any = await chat_model("judge").with_structured_output(Verdict).ainvoke(state["question"])
            return {"answer": str(found.answer)}

        def patient() -> Any:
            graph = StateGraph(Question)
            graph.add_node(
                "decide", decide, retry_policy=RetryPolicy(initial_interval=0, jitter=False, retry_on=Exception)
            )
            graph.add_edge(START, "decide")
            return graph.compile()

        episode = play_scripted(patient, {"judge": ["hm", '{"answer": 7}']})
        assert len({turn.seed for turn in episode.turns}) == 2 and episode.answer == "7"

    def test_streaming_within_a_node(self, play_scripted: PlayScripted) -> None:
        async def stream(state: MessagesState) -> dict[str, Any]:
            said: Any = None
            async for chunk in chat_model("solver").astream(state["messages"]):
                said = chunk if said is None else said + chunk
            return {"messages": [said, await chat_model("critic").ainvoke([*state["messages"], said])]}

        episode = play_scripted(lambda: one_node(stream, MessagesState), {"solver": ["12"], "critic": ["A: yes"]})
        assert episode.turn("critic/0").reads == ("solver/0",) and episode.answer == "yes"

    def test_the_functional_api(self, play_scripted: PlayScripted) -> None:
        @task
        async def draft(question: str, number: int) -> str:
            return (await chat_model("writer").ainvoke(f"{number}: {question}")).text

        @entrypoint()
        async def flow(question: str) -> str:
            drafts = await asyncio.gather(*(draft(question, i) for i in range(3)))
            return (await chat_model("editor").ainvoke("\n".join(drafts))).text

        drafts = ["the first of three", "the second of three", "the third of three"]
        episode = play_scripted(build(flow), {"writer": drafts, "editor": ["A: yes"]})
        assert episode.turns[-1].reads == ("writer/0", "writer/1", "writer/2") and episode.answer == "yes"


class TestInterrupts:
    def test_the_role_human_answers_and_what_was_asked_is_not_asked_again(self, play_scripted: PlayScripted) -> None:
        def careful(llm) -> Any:
            def propose(state: MessagesState) -> dict[str, Any]:
                draft = llm.invoke(state["messages"])
                verdict = interrupt({"draft": draft.text})
                final = llm.invoke([*state["messages"], draft, HumanMessage(verdict)])
                return {"messages": [final, AIMessage(interrupt("Really?"))]}

            return one_node(propose, MessagesState)

        script = {"llm": ["a first draft", "a second draft"], "human": ["mark the answer", "\\boxed{yes}"]}
        episode = play_scripted(careful, script)
        assert [turn.id for turn in episode.turns] == ["llm/0", "human/0", "llm/1", "human/1"]
        human = episode.turn("human/0")
        assert human.reads == ("llm/0",) and human.messages[1].content == '{"draft": "a first draft"}'
        assert "Question 0?" in human.messages[0].content
        assert episode.turn("llm/1").follows == "llm/0" and episode.turn("llm/1").reads == ("human/0",)
        assert episode.answer == "yes"

    def test_within_a_subgraph_what_had_ended_does_not_run_again(self, play_scripted: PlayScripted) -> None:
        ran: list[str] = []

        def draft(state: Question) -> dict[str, str]:
            ran.append("draft")
            return {"answer": chat_model("writer").invoke("Draft.").text}

        def check(state: Question) -> dict[str, str]:
            ran.append("check")
            return {"answer": f"{state['answer']} {interrupt('Good?')} {interrupt('Sure?')}"}

        def outer() -> Any:
            inner = StateGraph(Question)
            inner.add_node("draft", draft)
            inner.add_node("check", check)
            inner.add_edge(START, "draft")
            inner.add_edge("draft", "check")
            return one_node(inner.compile())

        assert play_scripted(outer, {"writer": ["a"], "human": ["b", "c"]}).answer == "a b c"
        assert ran == ["draft", "check", "check", "check"]

    def several(self) -> Any:
        class Numbered(TypedDict):
            number: int

        class State(Question):
            replies: Annotated[list[str], operator.add]

        def join(state: State) -> dict[str, str]:
            return {"answer": "\n".join(state["replies"])}

        async def ask(state: Numbered) -> dict[str, Any]:
            drafted = await chat_model("writer").ainvoke(f"Draft {state['number']}")
            return {"replies": [f"{drafted.text}: {interrupt('Good?')}"]}

        graph = StateGraph(State)
        graph.add_node("ask", ask)
        graph.add_node("join", join)
        graph.add_conditional_edges(START, lambda state: [Send("ask", {"number": i}) for i in range(4)], ["ask"])
        graph.add_edge("ask", "join")
        return graph.compile()

    def test_several_at_once_are_answered_each_in_its_place(self) -> None:
        episodes = play_delayed(self.several, lambda request: f"{request.seed % 997}", times=6)
        assert len({episode.digest() for episode in episodes}) == 1
        assert [turn.role for turn in episodes[0].turns] == ["writer"] * 4 + ["human"] * 4
        drafts, replies = ([turn.reply for turn in episodes[0].turns[i : i + 4]] for i in (0, 4))
        assert episodes[0].answer == "\n".join(f"{d}: {r}" for d, r in zip(drafts, replies, strict=True))

    def test_a_resume_value_of_the_builders_own(self, play_scripted: PlayScripted) -> None:
        @topology(resume=lambda value: value == "Yes or no?")
        def settled() -> Any:
            return one_node(lambda state: {"answer": str(interrupt("Yes or no?"))})

        assert play_scripted(settled, {}).answer == "True"

    def test_a_graph_that_asks_for_ever_fails(self, play_scripted: PlayScripted) -> None:
        @topology(resume=lambda value: value)
        def endless() -> Any:
            def ask(state: Question) -> Command[Literal["node"]]:
                return Command(goto="node", update={"answer": interrupt("Again?")})

            return one_node(ask)

        assert "interrupted itself 200 times" in (play_scripted(endless, {}).failure or "")

    def test_state_that_nothing_can_write_down_is_kept_as_it_is(self, play_scripted: PlayScripted) -> None:
        class State(Question):
            lock: Any

        def use(state: State) -> dict[str, Any]:
            # Run again after the interrupt, it finds taken what it took itself: it is the same lock.
            return {"answer": interrupt("?") if state["lock"].acquire(blocking=False) else "taken"}

        @topology(resume=lambda value: "yes")
        def odd() -> Any:
            graph = StateGraph(State)
            graph.add_node("make", lambda state: {"lock": threading.Lock()})
            graph.add_node("use", use)
            graph.add_edge(START, "make")
            graph.add_edge("make", "use")
            return graph.compile()

        assert play_scripted(odd, {}).answer == "taken"

    def test_a_checkpointer_of_the_graphs_own_is_kept(self, play_scripted: PlayScripted) -> None:
        saver = InMemorySaver()

        def kept() -> Any:
            graph = StateGraph(Question)
            graph.add_node("node", lambda state: {"answer": "yes"})
            graph.add_edge(START, "node")
            return graph.compile(checkpointer=saver, interrupt_before=["node"])

        for _ in range(2):
            assert play_scripted(kept, {}).answer == "yes"
        assert len(saver.storage) == 2


def play_delayed(builder: Callable[[], Any], script: Callable[[Request], str], times: int) -> list[Episode]:
    """The same episode several times at once, with an engine that answers in any order."""

    class Delayed(ScriptedEngine):
        async def complete(self, request: Request) -> Completion:
            await asyncio.sleep(random.random() / 100)
            return await super().complete(request)

    async def all_at_once() -> list[Episode]:
        from tests.conftest import WordEnv

        env, played = WordEnv(), build(builder)
        async with open_company(Cast.all(Delayed(script)), (), backend="local") as company:
            one = (play(played, env, env.tasks(1)[0], company, seed=3) for _ in range(times))
            return await asyncio.gather(*one)

    return asyncio.run(all_at_once())


class Notes(TypedDict):
    question: str
    notes: Annotated[list[str], operator.add]
    answer: str


def fan_out() -> Any:
    """Branches with the same prompts, each a subgraph of calls that build on one another."""
    model = chat_model("worker")

    async def first(state: Notes) -> dict[str, Any]:
        return {"notes": [(await model.ainvoke("Begin.")).text]}

    def second(state: Notes) -> dict[str, Any]:
        return {"notes": [reply.text for reply in model.batch([f"Go on: {state['notes'][-1]}"] * 2)]}

    inner = StateGraph(Notes)
    inner.add_node("first", first)
    inner.add_node("second", second)
    inner.add_edge(START, "first")
    inner.add_edge("first", "second")
    branch = inner.compile()

    async def work(state: Notes) -> dict[str, Any]:
        found = await branch.ainvoke({"question": "", "notes": [], "answer": ""})
        again = await branch.ainvoke({"question": "", "notes": [], "answer": ""})
        return {"notes": [*found["notes"], *again["notes"]]}

    async def join(state: Notes) -> dict[str, Any]:
        return {"answer": (await model.ainvoke("\n".join(state["notes"]))).text}

    outer = StateGraph(Notes)
    outer.add_node("work", work)
    outer.add_node("join", join)
    outer.add_conditional_edges(START, lambda state: [Send("work", {"notes": []}) for _ in range(5)], ["work"])
    outer.add_edge("work", "join")
    return outer.compile()


def test_arrival_decides_nothing() -> None:
    def reply(request: Request) -> str:
        return random.Random(request.seed).choice(["one long enough reply", "two long enough replies", "a third"])

    episodes = play_delayed(fan_out, reply, times=8)
    assert len({episode.digest() for episode in episodes}) == 1 and len(episodes[0].turns) == 31
    assert len({episode.answer for episode in episodes}) == 1
    # Not because all branches are alike: they draw replies of their own.
    assert len({turn.seed for turn in episodes[0].turns}) == 31
    orders = [[(turn.round, turn.reply) for turn in episode.turns] for episode in episodes]
    assert all(order == orders[0] for order in orders)


@pytest.mark.model
def test_with_a_real_model_from_a_run_to_its_store(tmp_path: Any) -> None:
    def talk(solver: BaseChatModel, critic: BaseChatModel) -> Any:
        async def converse(state: MessagesState) -> dict[str, Any]:
            one = await solver.ainvoke(state["messages"])
            two = await solver.ainvoke([*state["messages"], one, HumanMessage("Check every step.")])
            return {"messages": [await critic.ainvoke([*state["messages"], two]), two]}

        return one_node(converse, MessagesState)

    def go(concurrency: int) -> Run:
        options: dict[str, Any] = {"tasks": 4, "seed": 7, "backend": "local", "root": tmp_path}
        return run(
            talk,
            "arithmetic",
            settings={"solver.max_tokens": 40, "critic.max_tokens": 8},
            concurrency=concurrency,
            **options,
        )

    played = go(8)
    assert played.summary().failed == 0 and played.summary().digest == go(1).summary().digest
    for episode in played.episodes():
        one, two = (episode.turn(f"solver/{i}") for i in range(2))
        assert two.follows == one.id and two.token_ids and len(two.token_ids) == len(two.logprobs)
        assert two.prompt_ids[: len(one.prompt_ids) + len(one.token_ids)] == one.prompt_ids + one.token_ids
        assert episode.turn("critic/0").reads == ("solver/1",)
    assert played.config["cast"].keys() == {"solver", "critic"}


class TestBuilding:
    def test_models_are_known_by_annotation_and_by_name(self) -> None:
        def build_it(
            llm,
            judge: BaseChatModel,
            maybe: BaseChatModel | None = None,
            like: LanguageModelLike = None,  # pyright: ignore[reportArgumentType]
            any_: Runnable[Any, Any] = None,  # pyright: ignore[reportArgumentType]
            rounds: int = 2,
            model: str = "x",
            chat_model=None,
        ): ...

        assert model_parameters(build_it) == ("llm", "judge", "maybe", "like", "any_")
        build_it.__annotations__["judge"] = "NowhereImported[ChatThis]"
        assert "judge" in model_parameters(build_it)

    def test_they_are_the_roles_and_the_rest_are_settings(self) -> None:
        def mine(llm, rounds: int = 1) -> Any:
            assert llm.role == "llm"
            return one_node(lambda state: {"answer": str(rounds)})

        built = build(mine, {"rounds": "3"})
        assert built.roles == ("llm",) and built.settings == {"rounds": 3} and built.may_ask == ("human",)
        with pytest.raises(ConfigError, match="unknown setting of topology mine: 'llm'"):
            build(mine, {"llm": "x"})

    def test_the_human_may_have_a_seat_of_its_own(self, tmp_path: Any, words: Env) -> None:
        def mine(llm) -> Any:
            return one_node(lambda state: {"answer": interrupt(llm.invoke("x").text)})

        human = ScriptedEngine({"human": "yes"})
        options: dict[str, Any] = {"settings": {"human.model": human}, "tasks": 2, "backend": "local", "root": tmp_path}
        played = run(mine, words, Cast.all(ScriptedEngine({"llm": "Well?"}, policy="other")), **options)
        assert played.summary().accuracy == 1 and set(played.config["cast"]) == {"llm", "human"}

    def test_what_a_graph_that_takes_no_task_is_told(self) -> None:
        class Odd(TypedDict):
            number: int
            task: list[str]

        with pytest.raises(ConfigError, match=r"topology .*; found number, task; say how it is asked: @topology\(ask="):
            build(one_node(lambda state: {}, Odd))

        @topology(ask=lambda question: {"number": len(question)}, answer=lambda state: str(state["number"]))
        def odd() -> Any:
            return one_node(lambda state: {}, Odd)

        assert build(odd).foreign

    def test_a_context_without_defaults_is_refused(self) -> None:
        @dataclass
        class Needs:
            key: str

        @dataclass
        class Has:
            words: list[str] = field(default_factory=lambda: ["yes"])

        def with_context(schema: Any) -> Any:
            def node(state: Question, runtime: Runtime[Any]) -> dict[str, str]:
                return {"answer": runtime.context.words[0]}

            graph = StateGraph(Question, context_schema=schema)
            graph.add_node("node", node)
            graph.add_edge(START, "node")
            return graph.compile()

        with pytest.raises(ConfigError, match="its context schema has fields without a default"):
            build(with_context(Needs))
        assert build(with_context(Has)).foreign

    def test_a_graph_that_cannot_be_compiled_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="the graph cannot be compiled"):
            build(StateGraph(Question), name="empty")


class TestAnswers:
    @pytest.mark.parametrize(
        ("state", "answer"),
        [
            ({"answer": "yes"}, "yes"),
            ({"answer": "so \\boxed{yes}"}, "yes"),
            ({"answer": 7}, "7"),
            ({"answer": None, "messages": [AIMessage("A: yes")]}, "yes"),
            ({"messages": [AIMessage("A: yes"), HumanMessage("A: no")]}, "yes"),
            ({"messages": [AIMessage("A: yes"), AIMessage("I cannot tell.")]}, None),
            ({"other": "A: no", "report": "A: yes"}, "yes"),
            ({"question": "A: no", "summary": "A: yes"}, "yes"),
            ({"messages": []}, None),
        ],
    )
    def test_where_they_are_looked_for(self, play_scripted: PlayScripted, state: Any, answer: str | None) -> None:
        class Wide(MessagesState):
            question: str
            answer: Any
            other: str
            summary: str
            report: str

        episode = play_scripted(lambda: one_node(lambda _: state, Wide), {})
        assert episode.answer == answer and episode.failure is None

    def test_a_failed_episode_keeps_its_turns(self, play_scripted: PlayScripted) -> None:
        async def fail(state: Question) -> dict[str, Any]:
            await chat_model("solver").ainvoke("x")
            raise KeyError("oops")

        episode = play_scripted(lambda: one_node(fail), {"solver": ["ok"]})
        assert episode.failure == "KeyError: 'oops'" and [turn.id for turn in episode.turns] == ["solver/0"]

    def test_waiting_on_the_event_loop_is_refused(self, play_scripted: PlayScripted) -> None:
        async def block(state: Question) -> dict[str, Any]:
            return {"answer": chat_model("solver").invoke("x").text}

        failure = play_scripted(lambda: one_node(block), {"solver": "ok"}).failure
        assert failure and "await its ainvoke()" in failure
