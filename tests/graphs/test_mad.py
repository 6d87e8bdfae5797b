"""MAD against its checkable statements (Liang et al., arXiv:2305.19118), and against 150 recorded debates."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from agents import Cast, open_company
from agents.engines.scripted import ReplayEngine
from envs import make_env
from envs.types import Env, Task
from graphs import Episode, build, mad, play
from graphs.mad import EXTRACTED
from tests.conftest import PlayScripted

NO = '{"reason": "", "preference": "No", "side": "", "answer": ""}'
YES = '{"reason": "so", "preference": "Yes", "side": "Negative", "answer": "yes"}'


def script(moderations: list[str], rounds: int, extracted: bool = False, base: bool = False) -> dict[str, list[str]]:
    replies = {
        "affirmative": [f"affirmative in round {r}" for r in range(0 if base else 1, rounds + 1)],
        "negative": [f"negative in round {r}" for r in range(1, rounds + 1)],
        "moderator": moderations,
    }
    return {**replies, "judge": ["1. yes\n2. no", '{"reason": "r", "answer": "yes"}']} if extracted else replies


def prompt(episode: Episode, id: str) -> str:
    return "\n".join(message.content for message in episode.turn(id).messages)


@pytest.mark.parametrize("base", [False, True])
@pytest.mark.parametrize("breaks_in", [1, 2, 3, None])
def test_calls(play_scripted: PlayScripted, breaks_in: int | None, base: bool) -> None:
    rounds = breaks_in or 3
    moderations = [NO] * (rounds - 1) + [YES if breaks_in else NO]
    episode = play_scripted(mad, script(moderations, rounds, breaks_in is None, base), {"base": base})
    assert episode.calls == {1: 3, 2: 6, 3: 9, None: 11}[breaks_in] + base
    assert episode.stop_reason == (f"break in round {breaks_in}" if breaks_in else EXTRACTED)
    assert episode.answer == "yes"
    assert [t.role for t in episode.turns].count("judge") == (0 if breaks_in else 2)


@pytest.mark.parametrize(
    "moderation",
    [
        '{"preference": "No", "answer": "x"}',
        '{"preference": "Yes", "answer": ""}',
        "malformed {",
        '{"answer": "x"}',
        "",
    ],
)
def test_only_a_preference_with_an_answer_ends_the_debate(play_scripted: PlayScripted, moderation: str) -> None:
    episode = play_scripted(mad, script([moderation, YES], 2))
    assert episode.stop_reason == "break in round 2"
    first = episode.turn("moderator/0")
    assert (first.failure is not None) == ("preference" not in moderation)


def test_malformed_replies_are_counted_and_end_no_run(play_scripted: PlayScripted) -> None:
    episode = play_scripted(mad, lambda request: "\x00{nonsense")
    assert episode.failure is None and episode.calls == 11
    assert episode.verdict is not None and episode.verdict.status == "unparsed"
    assert {t.role for t in episode.turns if t.failure} == {"moderator", "judge"}


def test_the_judge_reads_every_statement_in_order(play_scripted: PlayScripted) -> None:
    replies = script([NO] * 3, 3, extracted=True)
    listing = prompt(play_scripted(mad, replies), "judge/0")
    statements = [f"{side} in round {r}" for r in (1, 2, 3) for side in ("affirmative", "negative")]
    assert re.findall(r"(?:affirmative|negative) in round \d", listing) == statements
    compatible = prompt(play_scripted(mad, replies, {"first_statements": True}), "judge/0")
    assert re.findall(r"(?:affirmative|negative) in round \d", compatible) == statements[:2]


def test_the_judge_does_not_read_the_answer_before_the_debate(play_scripted: PlayScripted) -> None:
    episode = play_scripted(mad, script([NO] * 3, 3, extracted=True, base=True), {"base": True})
    assert "affirmative in round 0" not in prompt(episode, "judge/0")


LEVELS = {0: "full consensus", 1: "mostly disagree", 2: "need not fully agree", 3: "must disagree"}


@pytest.mark.parametrize("level", [None, 0, 1, 2, 3])
def test_the_level_is_in_both_debaters_instructions_and_nowhere_else(
    play_scripted: PlayScripted, level: int | None
) -> None:
    episode = play_scripted(mad, script([NO] * 3, 3, extracted=True), {} if level is None else {"level": level})
    for turn in episode.turns:
        opens = turn.id in ("affirmative/0", "negative/0")
        for message in turn.messages:
            found = {number for number, phrase in LEVELS.items() if phrase in message.content}
            expected = {2 if level is None else level} if opens and message.role == "system" else set()
            assert found == expected, (turn.id, message)


def test_who_reads_whom(play_scripted: PlayScripted) -> None:
    episode = play_scripted(mad, script([NO, YES], 2))
    assert {turn.id: turn.reads for turn in episode.turns} == {
        "affirmative/0": (),
        "negative/0": ("affirmative/0",),
        "moderator/0": ("affirmative/0", "negative/0"),
        "affirmative/1": ("negative/0",),
        "negative/1": ("affirmative/1",),
        "moderator/1": ("affirmative/1", "negative/1"),
    }
    assert "affirmative in round 1" in prompt(episode, "negative/0")
    assert "negative in round 1" in prompt(episode, "affirmative/1")
    assert episode.turn("moderator/1").follows == "moderator/0", "each keeps its own chat"


def test_ciar_accepts_any_listed_form(data: Path) -> None:
    env = make_env("ciar", path=data / "ciar.json")
    task = env.tasks(1)[0]
    assert task.answers == ("1.5", "3/2")

    async def statuses() -> list[str]:
        return [(await env.judge(task, answer)).status for answer in ("1.5", "3/2", "2")]

    assert asyncio.run(statuses()) == ["correct", "correct", "incorrect"]


# The 150 recorded GPT-3.5 debates. By their rule a debate breaks on a preference with an answer, has at most four
# rounds, and otherwise ends with a judge.

SIDES = {
    "Affirmative side": "affirmative",
    "Negative side": "negative",
    "Moderator": "moderator",
    "Judge": "judge",
}


def recorded_debates(data: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (data / "mad_debates_150.jsonl").read_text(encoding="utf-8").splitlines()]


def bare(text: str) -> str:
    """A sentence without quotation marks, apostrophes and a full stop at the end."""
    return re.sub("[\"'“”‘’`]", "", text).strip().removesuffix(".")


def test_recorded_debates_end_the_same_way(data: Path, words: Env, tmp_path: Path) -> None:
    debates = recorded_debates(data)
    tasks = [
        Task(id=f"recorded-{i}", question=debate["source"], answers=(debate["debate translation"],))
        for i, debate in enumerate(debates)
    ]
    rows = []
    for task, debate in zip(tasks, debates, strict=True):
        for player, messages in debate["players"].items():
            replies = [message["content"] for message in messages if message["role"] == "assistant"]
            rows.append({"task": task.id, "role": SIDES[player], "replies": replies})
    recording = tmp_path / "debates.jsonl"
    recording.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    topology = build(mad, {"base": True, "rounds": 4})

    async def replay_all() -> list[Episode]:
        async with open_company(Cast.all(f"replay:{recording}"), topology.roles, backend="local") as company:
            return await asyncio.gather(*(play(topology, words, task, company) for task in tasks))

    assert ReplayEngine(recording).policy == "debates"
    same_rounds = same_path = same_answer = 0
    for episode, debate in zip(asyncio.run(replay_all()), debates, strict=True):
        assert episode.failure is None, episode.failure
        moderated = [m for m in debate["players"]["Moderator"] if m["role"] == "assistant"]
        same_rounds += sum(turn.role == "moderator" for turn in episode.turns) == len(moderated)
        same_path += (episode.stop_reason == EXTRACTED) == ("Judge" in debate["players"])
        same_answer += bare(episode.answer or "") == bare(debate["debate translation"])
        said = sum(m["role"] == "assistant" for messages in debate["players"].values() for m in messages)
        assert episode.calls == said, "every recorded reply is used"
    assert (same_rounds, same_path) == (150, 150)
    assert same_answer >= 149, same_answer


def test_a_request_of_an_unrecorded_turn_fails_the_episode(words: Env, tmp_path: Path) -> None:
    recording = tmp_path / "short.jsonl"
    recording.write_text(json.dumps({"task": "words-0", "role": "affirmative", "replies": ["x"]}))

    async def replay() -> Episode:
        async with open_company(Cast.all(f"replay:{recording}"), [], backend="local") as company:
            return await play(build(mad), words, words.tasks(1)[0], company)

    episode = asyncio.run(replay())
    assert "holds no reply for words-0/0/negative/0" in (episode.failure or "")
    assert episode.verdict is None and [turn.id for turn in episode.turns] == ["affirmative/0"]
