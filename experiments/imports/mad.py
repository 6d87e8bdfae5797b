"""Recorded debates of MAD's published code (Liang et al., arXiv:2305.19118) on translation, as a run of `mad`.

A file of JSON lines, a debate each: `source`, references, the base translation, the final one with its reason, and each
player's whole chat. Nothing is left out: what has no place in an episode is in the task's details and in its notes.
Recorded are texts alone. Token ids, log-probabilities, token counts, times and seeds are lacking; counts and times are
stored as 0, and the run's configuration says so. Nor is there a verdict, as a translation is not right by its letters;
`closer` asks for one by resemblance: whether the final translation is more like the correct reference than the
incorrect one, by the ratio of Python's difflib.
"""

import asyncio
import json
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from difflib import SequenceMatcher
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agents.moves import CONCLUDE, LIST_CANDIDATES, MODERATE, OPEN, OPPOSE, REBUT, RESTATE, Move
from agents.results import ParseFailure, Statement
from agents.types import Message
from envs.errors import ConfigError, clip
from envs.types import Task, Verdict
from experiments.folder import claim_folder
from experiments.plan import versions
from experiments.runs import CONFIG, RESULT, RUNS, Run
from experiments.store import PAGE, StoreWriter
from graphs.mad import AFFIRMATIVE, EXTRACTED, JUDGE, MODERATOR, NEGATIVE
from graphs.turns import Episode, Failure, Turn

PLAYERS = {
    "Affirmative side": AFFIRMATIVE,
    "Negative side": NEGATIVE,
    "Moderator": MODERATOR,
    "Judge": JUDGE,
}
LACKS = ("token ids", "log-probabilities", "token counts", "times", "seeds", "top_p", "verdicts")
ENV = "translation"


class Said(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["system", "user", "assistant"]
    content: str


class Debate(BaseModel):
    """A line of the file. Fields beside these are kept, too."""

    model_config = ConfigDict(extra="allow", strict=True)

    id: int | str | None = None
    model_name: str
    temperature: float
    source: str
    correct_reference: str = Field(alias="correct reference")
    incorrect_reference: str | None = Field(None, alias="incorrect reference")
    base_translation: str = Field(alias="base translation")
    debate_translation: str = Field(alias="debate translation")
    players: dict[Literal["Affirmative side", "Negative side", "Moderator", "Judge"], list[Said]]


def import_mad(path: Path, name: str | None = None, root: Path = RUNS, closer: bool = False) -> Run:
    """Make a run of the debates in a file.

    Args:
        path: of JSON lines. All are checked before anything is written.
        name: of the run; None makes one from the file's name and the time.
        root: the folder of runs.
        closer: judge the final translations by resemblance, instead of not at all.

    Raises:
        ConfigError: a line that is no such debate, named; a name that is taken; a file that cannot be read.
    """
    models: dict[str, dict[str, Any]] = {}
    count = rounds = 0
    for debate, episode in read_debates(path, closer):
        count, rounds = count + 1, max(rounds, episode.turns[-1].round)
        for turn in episode.turns:
            models[turn.role] = {"model": debate.model_name, "temperature": debate.temperature}
    if not count:
        raise ConfigError(f"{path} holds no debates")
    directory = claim_folder(root, name, path.stem)
    config = {
        "topology": {"name": "mad", "settings": {"base": True, "rounds": rounds, "first_statements": True}},
        "env": {"name": ENV, "opened_as": None, "settings": {}, "split": "test"},
        "cast": models,
        "tasks": count,
        "samples": 1,
        "imported": {
            "format": "mad",
            "file": path.name,
            "lacks": list(LACKS),
            "verdicts": "closer" if closer else None,
        },
        "versions": versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        (directory / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        asyncio.run(_store(directory, read_debates(path, closer)))
        (directory / RESULT).write_text(json.dumps({"seconds": 0.0}) + "\n", encoding="utf-8")
    except BaseException:
        shutil.rmtree(directory)
        raise
    return Run(directory)


async def _store(directory: Path, debates: Iterator[tuple[Debate, Episode]]) -> None:
    writer = StoreWriter(directory)
    numbered = enumerate(episode for _, episode in debates)
    try:
        while page := list(islice(numbered, PAGE)):
            await asyncio.gather(*(writer.append(position, episode) for position, episode in page))
    finally:
        await asyncio.to_thread(writer.close)


def read_debates(path: Path, closer: bool = False) -> Iterator[tuple[Debate, Episode]]:
    """The debates of a file, line by line. Blank lines are passed over.

    Raises:
        ConfigError: the file cannot be read, or a line is no such debate.
    """
    seen: dict[str, int] = {}
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    debate = Debate.model_validate_json(line)
                    episode = _episode(debate, number, closer)
                except ValidationError as error:
                    raise ConfigError(f"{path}, line {number}: {_first(error)}") from None
                except ValueError as error:
                    raise ConfigError(f"{path}, line {number}: {error}") from None
                if (before := seen.setdefault(episode.task.id, number)) != number:
                    raise ConfigError(f"{path}, line {number}: its id is that of line {before}; ids must differ")
                yield debate, episode
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where + ': ' if where else ''}{first['msg']}, found {clip(first['input'], 60)}"


def _episode(debate: Debate, line: int, closer: bool) -> Episode:
    turns = _turns(debate)
    rounds = turns[-1].round
    rest = debate.model_dump(by_alias=True, exclude={"players", "source", "debate_translation"}, exclude_unset=True)
    reason = rest.pop("reason", None)
    return Episode(
        task=Task(
            id=f"mad-{line if debate.id is None else debate.id}",
            question=debate.source,
            answers=(debate.correct_reference,),
            details=rest,
        ),
        sample=0,
        turns=turns,
        answer=debate.debate_translation,
        stop_reason=EXTRACTED if turns[-1].role == JUDGE else f"break in round {rounds}",
        verdict=_closer(debate) if closer else Verdict.unscorable("recorded without a verdict"),
        notes=({"recorded": {"reason": reason}},),
    )


def _closer(debate: Debate) -> Verdict:
    if debate.incorrect_reference is None:
        return Verdict.unscorable("recorded without an incorrect reference to compare with")
    right, wrong = (
        SequenceMatcher(None, reference, debate.debate_translation, autojunk=False).ratio()
        for reference in (debate.correct_reference, debate.incorrect_reference)
    )
    reason = f"resembles the correct reference to {right:.2f}, the incorrect one to {wrong:.2f}"
    if right == wrong:
        return Verdict.unscorable(reason)
    return Verdict.correct(reason) if right > wrong else Verdict.incorrect(reason)


def _turns(debate: Debate) -> tuple[Turn, ...]:
    """In the order in which they were said: the base translation, each round both sides and the moderator, the judge.

    Raises:
        ValueError: the players' chats do not make up such a debate.
    """
    calls = {PLAYERS[player]: list(_calls(player, chat)) for player, chat in debate.players.items()}
    counts = [len(calls.get(role, ())) for role in PLAYERS.values()]
    rounds = counts[1]
    if rounds < 1 or counts not in ([rounds + 1, rounds, rounds, 0], [rounds + 1, rounds, rounds, 2]):
        found = ", ".join(f"{role} {count}" for role, count in zip(PLAYERS.values(), counts, strict=True))
        raise ValueError(f"players: expected N + 1, N, N and 0 or 2 replies with N the rounds, found {found}")
    order: list[tuple[str, int, Move]] = [(AFFIRMATIVE, 0, OPEN)]
    for round in range(1, rounds + 1):
        order += [
            (AFFIRMATIVE, round, RESTATE if round == 1 else REBUT),
            (NEGATIVE, round, OPPOSE if round == 1 else REBUT),
            (MODERATOR, round, MODERATE),
        ]
    if counts[3]:
        order += [(JUDGE, rounds, LIST_CANDIDATES), (JUDGE, rounds, CONCLUDE)]
    taken: list[Turn] = []
    for role, round, move in order:
        number = sum(turn.role == role for turn in taken)
        asked, reply = calls[role][number]
        taken.append(_turn(debate, taken, f"{role}/{number}", round, move, asked, reply))
    return tuple(taken)


def _calls(player: str, chat: list[Said]) -> Iterator[tuple[list[Said], str]]:
    """(messages since the last reply, reply) of each call.

    Raises:
        ValueError: two replies with nothing asked between, or a message that was not answered.
    """
    asked: list[Said] = []
    for said in chat:
        if said.role != "assistant":
            asked.append(said)
            continue
        if not asked:
            raise ValueError(f"players.{player}: expected a message before each reply, found two replies in a row")
        yield asked, said.content
        asked = []
    if asked:
        raise ValueError(f"players.{player}: expected a reply at the end, found a message of {asked[-1].role}")


def _turn(debate: Debate, taken: list[Turn], id: str, round: int, move: Move, asked: list[Said], reply: str) -> Turn:
    role = id.partition("/")[0]
    by_role: Mapping[str, list[Turn]] = {name: [t for t in taken if t.role == name] for name in PLAYERS.values()}
    result = move.parse(reply)
    if move is OPEN and reply == debate.base_translation:
        result = Statement(answer=reply)
    failed = isinstance(result, ParseFailure)
    return Turn(
        id=id,
        role=role,
        move=move.name,
        round=round,
        after=len(taken),
        reads=tuple(turn.id for turn in _readable(role, round, by_role) if _shows(asked, turn.reply)),
        follows=by_role[role][-1].id if by_role[role] else None,
        messages=tuple(Message(said.role, said.content) for said in asked),
        reply=reply,
        result=None if failed else result,
        failure=Failure(expected=result.expected) if failed else None,
        policy=debate.model_name,
        version="recorded",
        finish="stop",
        temperature=debate.temperature,
        top_p=1.0,
        seed=0,
        prompt_tokens=0,
        completion_tokens=0,
    )


def _readable(role: str, round: int, by_role: Mapping[str, list[Turn]]) -> list[Turn]:
    """The turns whose words the published code puts into a prompt; the judge's has both sides' first statements."""
    sides = [turn for side in (AFFIRMATIVE, NEGATIVE) for turn in by_role[side] if turn.round > 0]
    if role == JUDGE:
        return [turn for turn in sides if turn.round == 1]
    if role == MODERATOR:
        return [turn for turn in sides if turn.round == round]
    other = NEGATIVE if role == AFFIRMATIVE else AFFIRMATIVE
    return [turn for turn in sides if turn.role == other][-1:]


def _shows(asked: list[Said], words: str) -> bool:
    return any(words.strip() in said.content for said in asked)
