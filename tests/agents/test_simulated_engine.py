"""The simulated engine as an engine: what it answers, and when, on a clock that waits for nothing."""

import asyncio
import json
from pathlib import Path

import pytest

from agents.engines import make_engine, parse_model
from agents.engines.simulated import SimulatedEngine
from agents.serving import Serving, SimulatedSettings
from agents.types import Completion, EngineError, Message, Request, Sampling
from envs.errors import ConfigError
from tests.virtual_time import VirtualTime

HARDWARE = """
[engines."tiny@desk"]
pass_s = 1.0
prompt_s = 0.1
rows = {rows}
cache = 1000
source = "made up"
"""


def engine(folder: Path, rows: int = 8, **settings) -> SimulatedEngine:
    (folder / "hardware.toml").write_text(HARDWARE.format(rows=rows), encoding="utf-8")
    return SimulatedEngine("tiny@desk", SimulatedSettings(hardware=str(folder / "hardware.toml"), **settings))


def request(n: int = 0, text: str = "abcdef" * 5, **given) -> Request:
    return Request(f"t/0/solver/{n}", (Message("user", text),), Sampling(max_tokens=512), n, **given)


def answers(engine: SimulatedEngine, *requests: Request, every: float = 0.0) -> list[tuple[float, Completion]]:
    """(When, what) it answers requests that come at intervals."""

    async def ask(loop: asyncio.AbstractEventLoop, number: int, asked: Request) -> tuple[float, Completion]:
        await asyncio.sleep(number * every)
        completion = await engine.complete(asked)
        return round(loop.time(), 6), completion

    async def all_of_them() -> list[tuple[float, Completion]]:
        loop = asyncio.get_running_loop()
        found = await asyncio.gather(*(ask(loop, n, asked) for n, asked in enumerate(requests)))
        await engine.close()
        return found

    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        return runner.run(all_of_them())


@pytest.fixture
def replies(tmp_path: Path) -> str:
    """Two recorded replies of 4 and 2 tokens."""
    path = tmp_path / "replies.jsonl"
    said = ["\\boxed{12}\n ", "\\boxed"]
    path.write_text(json.dumps({"task": "t", "role": "solver", "replies": said}), encoding="utf-8")
    return str(path)


def test_recorded_replies_come_when_they_should(tmp_path: Path, replies: str) -> None:
    # Each prompt 10 tokens: together a step of 3 s, then as many more as there are tokens.
    (first, said), (second, _) = answers(engine(tmp_path, replies=replies), request(0), request(1))
    assert (first, second) == (6.0, 4.0)
    assert said.text == "\\boxed{12}\n " and (said.prompt_tokens, said.completion_tokens) == (10, 4)
    assert said.finish == "stop" and said.compute_s == pytest.approx(6.0)


def test_a_request_joins_at_the_next_step(tmp_path: Path, replies: str) -> None:
    # The first is in its second step of decoding (3 to 4 s) when the other comes.
    (first, _), (second, _) = answers(engine(tmp_path, replies=replies), request(0), request(1), every=3.5)
    assert (first, second) == (6.0, 7.0)


def test_it_can_run_faster_than_the_clock(tmp_path: Path, replies: str) -> None:
    assert answers(engine(tmp_path, replies=replies, speed=100), request(0))[0][0] == 0.05
    assert answers(engine(tmp_path, replies=replies, speed=float("inf")), request(0))[0][0] == 0


def test_lengths_are_drawn_by_the_seed(tmp_path: Path) -> None:
    asked = [request(n) for n in range(60)]
    drawn = [completion for _, completion in answers(engine(tmp_path, reply_tokens=40), *asked)]
    again = [completion for _, completion in answers(engine(tmp_path, reply_tokens=40, rows=2), *asked)]
    assert [c.token_ids for c in drawn] == [c.token_ids for c in again]
    assert 30 < sum(c.completion_tokens for c in drawn) / 60 < 50
    assert all(c.text.endswith("\\boxed{0}") and c.finish == "stop" for c in drawn)


def test_what_is_too_long_is_cut_or_refused(tmp_path: Path) -> None:
    short = Request("t/0/solver/0", (Message("user", "a"),), Sampling(max_tokens=5), 0)
    (_, completion), *_ = answers(engine(tmp_path, reply_tokens=400), short)
    assert completion.finish == "length" and completion.completion_tokens == 5
    with pytest.raises(EngineError, match="does not fit into a cache of 1000"):
        answers(engine(tmp_path), request(text="a" * 9000))


def test_a_conversation_goes_on_from_its_tokens(tmp_path: Path, replies: str) -> None:
    played = engine(tmp_path, replies=replies, prefix_caching=True)

    async def two_turns() -> None:
        first = await played.complete(request(0, "abcdef" * 20))
        prefix = first.prompt_ids + first.token_ids
        second = await played.complete(request(1, "abc", prefix=prefix))
        assert second.prompt_ids[: len(prefix)] == prefix and second.prompt_tokens == len(prefix) + 1
        await played.close()

    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        runner.run(two_turns())
    assert played.batch.counts["cached"] == 32


def test_a_choice_is_made(tmp_path: Path) -> None:
    ((_, completion),) = answers(engine(tmp_path), request(choices=("yes", "no")))
    assert completion.text == "yes" and len(completion.choice_logprobs) == 2


@pytest.mark.parametrize(
    ("name", "settings", "complaint"),
    [
        ("simulated:qwen2.5-7b", {}, "expected simulated:MODEL@GPU"),
        ("simulated:qwen2.5-7b@h1000", {}, "did you mean 'h100'"),
        ("simulated:qwen2.5@h100", {}, "unknown model to be simulated"),
        ("simulated:qwen2.5-7b@h100", {"simulated.speed": "0"}, "speed cannot be '0'"),
        ("simulated:qwen2.5-7b@h100", {"simulated.replies": "none.jsonl"}, "there is no file none.jsonl"),
        ("simulated:qwen2.5-7b@h100", {"simulated.hardware": "none.toml"}, "cannot read the hardware file none.toml"),
        ("simulated:llama-3.3-70b@h100", {"simulated.tensor_parallel": "1"}, "take a larger GPU"),
    ],
)
def test_a_name_that_cannot_be_is_refused_at_once(name: str, settings: dict[str, str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse_model(name, Serving().set(settings))


def test_it_is_made_by_its_name() -> None:
    made = make_engine(parse_model("simulated:qwen2.5-7b@h100", Serving().set({"simulated.max_batch": "4"})))
    assert isinstance(made, SimulatedEngine) and made.policy == "qwen2.5-7b@h100" and made.batch.limits.rows == 4
