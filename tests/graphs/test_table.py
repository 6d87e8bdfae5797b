"""The table and its one primitive: who is asked what, in which conversation, with which seed."""

import asyncio
from collections.abc import Sequence
from itertools import permutations
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from agents import Cast, Request, ScriptedEngine, Seat, open_company
from agents.moves import OPEN, REBUT, SOLVE, Move
from envs.types import Env
from graphs import Ask, Stage, Table, Topology, Turn, merge_turns, play, plurality, speak
from graphs.turns import in_order
from tests.conftest import PlayScripted


def one_node(*asks: Ask, retries: int = 0) -> Topology:
    async def node(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        return {"turns": await speak(state, runtime, asks, retries=retries), "stop_reason": "spoken"}

    graph = StateGraph(Table, context_schema=Stage)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    graph.add_edge("node", END)
    return Topology("one_node", graph.compile())


def turn(id: str, after: int = 0) -> Turn:
    values = {"move": "solve", "round": 1, "reads": (), "follows": None, "messages": (), "reply": "", "policy": "p"}
    values |= {"version": "1", "finish": "stop", "temperature": 1, "top_p": 1, "seed": 0}
    return Turn(id=id, role=id.split("/")[0], after=after, prompt_tokens=0, completion_tokens=0, **values)


turn_lists = st.lists(
    st.builds(
        lambda role, n, after: turn(f"{role}/{n}", after), st.sampled_from("abc"), st.integers(0, 12), st.integers(0, 3)
    ),
    max_size=6,
    unique_by=lambda t: t.id,
)


@given(turn_lists, st.randoms())
def test_merging_does_not_depend_on_arrival(turns: list[Turn], random: Any) -> None:
    merged: Sequence[Turn] = []
    for one in random.sample(turns, len(turns)):
        merged = merge_turns(merged, [one])
    assert tuple(merged) == in_order(turns)


def test_turns_are_ordered_by_number_not_by_letter() -> None:
    ids = [t.id for t in in_order([turn("a/10"), turn("a/9.1"), turn("a/9"), turn("b/0", 1), turn("b/1")])]
    assert ids == ["a/9", "a/9.1", "a/10", "b/1", "b/0"]


def test_two_nodes_may_not_ask_one_role_at_once(words: Env, play_scripted: PlayScripted) -> None:
    async def node(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        return {"turns": await speak(state, runtime, [Ask("solver", SOLVE, {"question": "q"})])}

    graph = StateGraph(Table, context_schema=Stage)
    for name in ("left", "right"):
        graph.add_node(name, node)
        graph.add_edge(START, name)
        graph.add_edge(name, END)
    episode = play_scripted(Topology("two", graph.compile()), {"solver": "\\boxed{1}"})
    assert "two nodes asked solver/0 at the same time" in (episode.failure or "")
    assert len(episode.turns) == 2


@given(st.lists(st.integers(0, 3), max_size=9))
def test_plurality_takes_the_most_frequent_and_the_first_of_equals(values: list[int]) -> None:
    groups = [values.index(value) for value in values]
    winner = plurality(groups)
    if not values:
        assert winner is None
        return
    assert winner is not None
    most = max(values.count(value) for value in values)
    assert values.count(values[winner]) == most
    assert winner == min(values.index(value) for value in values if values.count(value) == most)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6))
def test_a_vote_depends_on_order_only_in_ties(values: list[int]) -> None:
    counts = sorted((values.count(value) for value in set(values)), reverse=True)
    if len(counts) == 1 or counts[0] > counts[1]:
        winners = set()
        for order in permutations(values):
            index = plurality([order.index(value) for value in order])
            assert index is not None
            winners.add(order[index])
        assert len(winners) == 1


def test_one_role_asked_several_times_gets_its_own_seeds_and_numbers(play_scripted: PlayScripted) -> None:
    seeds: dict[str, int] = {}

    def script(request: Request) -> str:
        seeds[request.key] = request.seed
        return "\\boxed{1}"

    ask = Ask("solver", SOLVE, {"question": "q"})
    episode = play_scripted(one_node(ask, ask, ask), script, seed=3)
    assert [t.id for t in episode.turns] == ["solver/0", "solver/1", "solver/2"]
    assert len(set(seeds.values())) == 3
    again = play_scripted(one_node(ask, ask, ask), script, seed=3)
    assert again.digest() == episode.digest() and [t.seed for t in again.turns] == [t.seed for t in episode.turns]
    other = play_scripted(one_node(ask), script, seed=4)
    assert other.turns[0].seed not in {t.seed for t in episode.turns}


def test_a_role_may_have_a_dot_in_its_name(play_scripted: PlayScripted) -> None:
    asks = [Ask("gpt-4.1", SOLVE, {"question": "?"})]
    graph = StateGraph(Table, context_schema=Stage)

    async def node(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        return {"turns": await speak(state, runtime, asks)}

    for name in ("first", "second"):
        graph.add_node(name, node)
    graph.add_edge(START, "first")
    graph.add_edge("first", "second")
    graph.add_edge("second", END)
    episode = play_scripted(Topology("dotted", graph.compile()), {"gpt-4.1": ["\\boxed{1}", "\\boxed{2}"]})
    assert [turn.id for turn in episode.turns] == ["gpt-4.1/0", "gpt-4.1/1"]


def test_a_parser_that_raises_costs_its_turn_nothing_but_the_result(play_scripted: PlayScripted) -> None:
    broken = Move("solve", lambda reply: reply.missing)  # pyright: ignore[reportAttributeAccessIssue]
    episode = play_scripted(one_node(Ask("solver", broken, {"question": "?"})), {"solver": "hm"})
    failure = episode.turns[0].failure
    assert failure is not None and "AttributeError" in failure.expected and episode.failure is None


def test_a_reply_that_cannot_be_read_is_asked_again_and_kept(play_scripted: PlayScripted) -> None:
    def script(request: Request) -> str:
        return "\\boxed{5}" if request.key.endswith(".2") else "hm"

    ask = Ask("solver", SOLVE, {"question": "q"})
    episode = play_scripted(one_node(ask, retries=3), script)
    assert [(t.id, t.failure is not None, t.answer) for t in episode.turns] == [
        ("solver/0", True, None),
        ("solver/0.1", True, None),
        ("solver/0.2", False, "5"),
    ]
    assert len({t.seed for t in episode.turns}) == 3
    hopeless = play_scripted(one_node(ask, retries=1), {"solver": "hm"})
    assert [t.id for t in hopeless.turns] == ["solver/0", "solver/0.1"]
    assert hopeless.failure is None, "a reply that cannot be read fails the turn, not the episode"


def test_a_conversation_goes_on_from_the_exact_tokens(words: Env) -> None:
    requests: list[Request] = []

    def script(request: Request) -> str:
        requests.append(request)
        return f"reply {len(requests)} \\boxed{{1}}"

    async def first(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        return {"turns": await speak(state, runtime, [Ask("solver", OPEN, {"question": "q"})])}

    async def second(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        ask = Ask("solver", REBUT, {"opponent": "no"}, follows=state.last("solver"))
        return {"turns": await speak(state, runtime, [ask])}

    graph = StateGraph(Table, context_schema=Stage)
    graph.add_node("first", first)
    graph.add_node("second", second)
    graph.add_edge(START, "first")
    graph.add_edge("first", "second")
    graph.add_edge("second", END)

    async def run() -> Any:
        async with open_company(Cast.all(ScriptedEngine(script)), [], backend="local") as company:
            return await play(Topology("chat", graph.compile()), words, words.tasks(1)[0], company)

    episode = asyncio.run(run())
    one, two = episode.turns
    assert [m.role for m in one.messages] == ["system", "user"]
    assert [m.role for m in two.messages] == ["user"], "instructions are given once"
    assert two.prompt_ids[: len(one.prompt_ids + one.token_ids)] == one.prompt_ids + one.token_ids
    assert requests[1].prefix == one.prompt_ids + one.token_ids
    assert [m.content for m in requests[1].history] == [*(m.content for m in one.messages), one.reply]


def test_the_cast_may_replace_instructions_and_sampling(words: Env) -> None:
    seen: list[Request] = []

    def script(request: Request) -> str:
        seen.append(request)
        return "\\boxed{1}"

    seat = Seat(model=ScriptedEngine(script), instructions="Be brief about {{ question }}", temperature=0.3)
    silent = Seat(model=ScriptedEngine(script), instructions="")
    asks = [Ask(role, SOLVE, {"question": "q"}) for role in ("solver", "critic")]

    async def run() -> Any:
        async with open_company(Cast(solver=seat, critic=silent), ["solver", "critic"], backend="local") as company:
            return await play(one_node(*asks), words, words.tasks(1)[0], company)

    episode = asyncio.run(run())
    assert episode.failure is None
    by_role = {request.key.split("/")[2]: request for request in seen}
    assert by_role["solver"].messages[0].content == "Be brief about q"
    assert by_role["solver"].sampling.temperature == 0.3
    assert [m.role for m in by_role["critic"].messages] == ["user"]


def test_agreed_compares_the_last_answers() -> None:
    from agents.results import Solution

    def answered(id: str, answer: str) -> Turn:
        return turn(id).model_copy(update={"result": Solution(answer=answer)})

    assert not Table("q").agreed
    assert Table("q", [answered("a/0", "1"), answered("b/0", "1")]).agreed
    assert not Table("q", [answered("a/0", "1"), answered("b/0", "2")]).agreed
    assert Table("q", [answered("a/0", "3"), answered("a/1", "1"), answered("b/0", "1"), turn("c/0")]).agreed
