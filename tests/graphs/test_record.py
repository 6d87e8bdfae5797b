"""What a foreign graph's calls become: exact continuation, who read whom, the same turns whatever arrives first."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents import Cast, EngineError, Message, ScriptedEngine, open_company
from agents.cast import Seat
from agents.types import ToolCall
from graphs import Stage, Turn
from graphs.places import NOWHERE, is_visible
from graphs.record import Call, Recorder, message_id
from tests.conftest import WordEnv

TOOL = {"type": "function", "function": {"name": "add", "parameters": {}}}


def user(text: str) -> Message:
    return Message("user", text)


def said(turn: Turn) -> Message:
    return Message("assistant", turn.reply, turn.tool_calls)


def begins(recorder: Recorder, namespace: str, step: int) -> None:
    """LangGraph tells that a task begins."""
    told = {"langgraph_checkpoint_ns": namespace, "langgraph_step": step, "langgraph_path": ("pull", namespace)}
    recorder.places.on_chain_start({}, {}, run_id=UUID(int=step), metadata=told)


def record(script: Any, play: Callable[[Recorder], Awaitable[Any]], cast: Cast | None = None) -> tuple[Turn, ...]:
    """Calls within one episode; returns the recorder's turns."""

    async def run() -> tuple[Turn, ...]:
        env = WordEnv()
        async with open_company(cast or Cast.all(ScriptedEngine(script)), (), backend="local") as company:
            recorder = Recorder(Stage(company, env, env.tasks(1)[0], seed=1))
            await play(recorder)
            return recorder.turns()

    return asyncio.run(run())


class TestConversations:
    def test_the_next_call_goes_on_from_the_exact_ids(self) -> None:
        async def play(recorder: Recorder) -> None:
            one = await recorder.call(Call("a", [Message("system", "Be."), user("Hi")]))
            two = await recorder.call(Call("a", [Message("system", "Be."), user("Hi"), said(one), user("More")]))
            assert two.follows == one.id and two.messages == (user("More"),)
            assert two.prompt_ids[: len(one.prompt_ids + one.token_ids)] == one.prompt_ids + one.token_ids

        record({"a": ["first", "second"]}, play)

    def test_changed_words_another_role_or_other_tools_begin_anew(self) -> None:
        async def play(recorder: Recorder) -> None:
            one = await recorder.call(Call("a", [user("Hi")]))
            changed = [user("Hi"), Message("assistant", one.reply + "!"), user("More")]
            same = [user("Hi"), said(one), user("More")]
            for call in (Call("a", changed), Call("b", same), Call("a", same, tools=(TOOL,))):
                turn = await recorder.call(call)
                assert turn.follows is None and len(turn.messages) == 3

        record(lambda request: "a reply", play)

    def test_tool_calls_are_known_again_after_a_framework_wrote_them_anew(self) -> None:
        async def play(recorder: Recorder) -> None:
            one = await recorder.call(Call("a", [user("1 + 2?")], tools=(TOOL,)))
            rewritten = ToolCall("other-id", "add", '{"b":2,"a":1}')
            history = [user("1 + 2?"), Message("assistant", "", (rewritten,)), Message("tool", "3")]
            two = await recorder.call(Call("a", history, tools=(TOOL,)))
            assert two.follows == one.id and [m.role for m in two.messages] == ["tool"]

        call = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>'
        record({"a": [call, "3"]}, play)

    def test_the_users_instructions_replace_the_graphs(self) -> None:
        async def play(recorder: Recorder) -> None:
            one = await recorder.call(Call("a", [Message("system", "Graph."), user("Hi")], ids=["s", "u"]))
            assert one.messages == (Message("system", "Mine: Question 0?"), user("Hi"))
            history = [Message("system", "Graph."), user("Hi"), said(one), user("More")]
            assert (await recorder.call(Call("a", history))).follows == one.id

        seat = Seat(model=ScriptedEngine(lambda request: "ok"), instructions="Mine: {{ question }}")
        record(None, play, Cast(a=seat))


class TestWhoReadWhom:
    def read(self, words: str, message: Message, id: str | None = None) -> tuple[str, ...]:
        """What a call reads whose last message is given, after a turn that said `words`."""

        async def play(recorder: Recorder) -> None:
            await recorder.call(Call("writer", [user("Write.")]))
            await recorder.call(Call("reader", [user("Judge."), message], ids=[None, id]))

        return record({"writer": [words], "reader": ["ok"]}, play)[-1].reads

    def test_by_the_id_of_a_message(self) -> None:
        assert self.read("no", Message("assistant", "no"), "turn:writer/0") == ("writer/0",)
        assert self.read("no", Message("assistant", "changed"), "turn:writer/0") == ("writer/0",)
        assert self.read("no", Message("assistant", "yes"), "turn:writer/1") == ()

    def test_by_quotation(self) -> None:
        assert self.read("a long enough reply", user("They say: a long enough reply.")) == ("writer/0",)
        assert self.read("42", user("42")) == ("writer/0",)
        assert self.read("42", user("I have 42 apples")) == ()
        assert self.read(" ", user("a b")) == ()

    def test_words_of_the_task_are_no_quotation(self) -> None:
        assert self.read("Question 0?", user("The problem: Question 0?")) == ()

    def test_the_answer_to_a_tool_call_reads_who_made_it(self) -> None:
        async def play(recorder: Recorder) -> None:
            one = await recorder.call(Call("a", [user("1 + 2?")], tools=(TOOL,)))
            result = Message("tool", "3", tool_call_id=one.tool_calls[0].id)
            assert (await recorder.call(Call("b", [user("So?"), result]))).reads == (one.id,)

        call = '<tool_call>{"name": "add", "arguments": {}}</tool_call>'
        record({"a": [call], "b": ["ok"]}, play)

    @pytest.mark.parametrize(
        ("steps", "read"),
        [((1, 2, 3), ("a/1",)), ((1, 1, 2), ("a/0", "a/1")), ((1, 3, 3), ("a/0",)), ((2, 2, 2), ())],
    )
    def test_of_those_who_said_the_same_the_last_that_could_be_known_was_quoted(
        self, steps: tuple[int, ...], read: tuple[str, ...]
    ) -> None:
        async def play(recorder: Recorder) -> None:
            for node, step in zip(("one:1", "two:2", "three:3"), steps, strict=True):
                begins(recorder, node, step)
            for node in ("one:1", "two:2"):
                await recorder.call(Call("a", [user(node)], place=node))
            await recorder.call(Call("b", [user("the very same words")], place="three:3"))

        turns = record({"a": ["the very same words"] * 2, "b": ["ok"]}, play)
        assert next(turn.reads for turn in turns if turn.role == "b") == read


class TestOrder:
    def test_seeds_do_not_depend_on_arrival(self) -> None:
        def seeds(order: list[str]) -> dict[str, int]:
            async def play(recorder: Recorder) -> None:
                for words in order:
                    await recorder.call(Call("a", [user(words)]))

            return {turn.messages[0].content: turn.seed for turn in record(lambda request: "ok", play)}

        assert seeds(["x", "y", "z"]) == seeds(["z", "y", "x"])

    def test_the_same_question_again_is_drawn_anew(self) -> None:
        async def play(recorder: Recorder) -> None:
            await asyncio.gather(*(recorder.call(Call("a", [user("x")])) for _ in range(3)))

        assert len({turn.seed for turn in record(lambda request: "ok", play)}) == 3

    def test_nobody_comes_before_whom_he_read(self) -> None:
        async def play(recorder: Recorder) -> None:
            late = await recorder.call(Call("z", [user("x")]))
            await recorder.call(Call("a", [user("y"), said(late)], ids=[None, message_id(late)]))

        assert [turn.role for turn in record(lambda request: "ok", play)] == ["z", "a"]

    @given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["a", "b"])), max_size=3).map(tuple))
    def test_what_may_be_known_where(self, place: tuple[tuple[int, str], ...]) -> None:
        assert is_visible(place, place) and is_visible(NOWHERE, place) and is_visible(place, NOWHERE)
        for i, (step, path) in enumerate(place):
            assert is_visible((*place[:i], (step - 1, "c")), place)
            assert not is_visible((*place[:i], (step, path + "c")), place)


class TestResuming:
    def test_what_was_asked_is_answered_from_the_record_once_and_in_order(self) -> None:
        async def play(recorder: Recorder) -> None:
            async def node() -> list[str]:
                return [(await recorder.call(Call("a", [user("x")], place="n:1"))).reply for _ in range(2)]

            first = await node()
            recorder.resume()
            assert await node() == first == ["one", "two"]
            assert (await recorder.call(Call("a", [user("x")], place="n:1"))).reply == "three"
            assert (await recorder.call(Call("a", [user("x")], place="m:2"))).reply == "four"

        assert len(record({"a": ["one", "two", "three", "four"]}, play)) == 4

    def test_who_does_not_run_again_is_asked_anew(self) -> None:
        async def play(recorder: Recorder) -> None:
            for _ in range(2):
                await recorder.call(Call("human", [user("Sure?")], place="n:1", anew=True))
                recorder.resume()

        assert [turn.reply for turn in record({"human": ["no", "yes"]}, play)] == ["no", "yes"]

    def test_after_the_end_nobody_is_asked(self) -> None:
        async def play(recorder: Recorder) -> None:
            recorder.close()
            with pytest.raises(EngineError, match="when its episode had ended"):
                await recorder.call(Call("a", [user("x")]))

        assert record({}, play) == ()
