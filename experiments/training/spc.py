"""SPC: who wins a game between sneaky generator and critic, what either learns from it, and whom it meets next.

Chen et al., arXiv:2504.19162; the game is graphs.spc. First policies: both learn by heart what was right about the
errors that the solver makes by itself. Then rounds: play, balance, learn offline from all rounds so far, each time from
the first policies on. Departures: the published balancing is not known; ours draws as many critiques of right steps as
of wrong ones, and as many sabotages that won as lost. A verdict that cannot be read counts as a miss.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

from agents.learning.advantages import ADVANTAGES
from agents.learning.samples import Sample, SampleError
from envs.steps import Judged, Steps, write_processbench
from envs.types import split_steps
from experiments.credit import Credit, Rewards, samples_of
from experiments.plan import open_topology
from experiments.training.league import Game, League
from experiments.training.recipe import Lesson, NothingToLearnError, controlled
from experiments.training.registry import Version
from experiments.training.schedule import Schedule
from graphs.spc import SNEAKY, detects
from graphs.stepwise import CRITIC
from graphs.turns import Episode

if TYPE_CHECKING:
    from experiments.training.arena import Arena, Weights
    from experiments.training.training import Line

ATTACK, DETECTION = "attack", "detection"


def rewards(episode: Episode) -> Rewards:
    """±1 to either side. On valid sabotages they add up to 0; an invalid one costs the generator alone.

    Several critiques of one sabotage are as many games: the critic's turns get their own, the generator their mean.
    """
    found: dict[str, dict[str, float]] = {}
    for note in _games(episode):
        for sabotage in note["sabotages"]:
            given = {id: 1.0 if detects(episode.turn(id)) else -1.0 for id in sabotage["critiques"]}
            found |= {id: {DETECTION: reward} for id, reward in given.items()}
            if sabotage["turn"] is not None and sabotage["valid"]:
                found[sabotage["turn"]] = {ATTACK: -sum(given.values()) / len(given)}
            elif sabotage["turn"] is not None:
                found[sabotage["turn"]] = {ATTACK: -1.0}
        for id in note["untouched"]:
            found[id] = {DETECTION: 1.0 if _accepts(episode, id) else -1.0}
    return found


def first_rewards(episode: Episode) -> Rewards:
    """1 to what is learned by heart: right verdicts on either step of a pair, and the solver's error as a sabotage."""
    found: dict[str, dict[str, float]] = {}
    for note in episode.notes:
        if "pair" in note:
            found |= {id: {DETECTION: float(_accepts(episode, id))} for id in note["right"]}
            found |= {id: {DETECTION: float(detects(episode.turn(id)))} for id in note["wrong"]}
            found[note["taught"]] = {ATTACK: 1.0}
    return found


def pairs(episodes: Iterable[Episode], credit: Credit, schedule: Schedule, seed: int) -> Lesson:
    """What the first policies learn by heart. Raises NothingToLearnError."""
    stored = list(episodes)
    own = {_key(e, note["taught"]): e.turn(note["own"]).prompt_ids for e in stored for note in _pairs(e)}
    if not own:
        raise NothingToLearnError(
            f"expected valid pairs of a right and a wrong step, found none on {len(stored)} tasks: the solver is never "
            "right there, or always; take another level or solver"
        )
    credited = samples_of(stored, credit, "raw", roles=schedule.learning_roles)
    right = [sample for sample in credited.samples if sample.advantage > 0]
    taught = [_taught(sample, own[sample.key]) for sample in right if sample.key in own]
    told = [sample for sample in right if sample.key not in own]
    balanced, left_out = _even(told, _labels(stored), seed)
    items = [replace(sample, supervised=True, advantage=0.0) for sample in (*taught, *balanced)]
    return Lesson(items, {**credited.left_out, **left_out}, credited.rewards)


def rounds(episodes: Iterable[Episode], credit: Credit, schedule: Schedule, seed: int) -> Lesson:
    """What a round teaches: as many critiques of wrong steps as of right ones, as many attacks that won as lost.

    Raises:
        NothingToLearnError: not one valid sabotage, or no verdict that could be read.
    """
    stored = list(episodes)
    notes = [note for episode in stored for note in _games(episode)]
    valid = sum(sabotage["valid"] for note in notes for sabotage in note["sabotages"])
    if not valid:
        tried = sum(len(note["sabotages"]) for note in notes)
        raise NothingToLearnError(
            f"expected valid sabotages, found none in {len(stored)} games: {len(notes)} had a step that the solver's "
            f"completions find right, and {tried} sabotages of these were tried; take an easier level, a stronger "
            "solver, or more games an iteration"
        )
    critiques = [turn for episode in stored for turn in episode.turns if turn.role == CRITIC]
    if all(turn.failure for turn in critiques):
        raise NothingToLearnError(
            f"expected verdicts, found none that can be read in {len(critiques)} critiques; look at them with "
            "palaestra show, and give the critic other instructions or another model"
        )
    rule = controlled(ADVANTAGES[schedule.advantage], schedule, seed)
    credited = samples_of(stored, credit, rule, roles=schedule.learning_roles, group=schedule.group or "prompt")
    kept = [sample for sample in credited.samples if sample.advantage or not schedule.drop_even]
    items, left_out = _even(kept, _labels(stored), seed)
    dropped = {"samples without an advantage": len(credited.samples) - len(kept)}
    return Lesson(items, {**credited.left_out, **left_out, **dropped}, credited.rewards)


class Meetings:
    """Every generator meets every critic (experiments.training.recipe.Rules).

    A generator's sabotages of validation tasks are kept, `league/sneaky-0001`, the valid ones in ProcessBench's form
    beside it; every critic judges these, `league/sneaky-0001-critic-0002`.
    """

    async def matches(self, arena: "Arena", updates: int) -> "Line":
        generators, critics = (_versions(arena, role, updates) for role in (SNEAKY, CRITIC))
        attack: dict[str, dict[str, float]] = {}
        valid: dict[str, float] = {}
        games: list[Game] = []
        for generator in generators:
            tried, kept = await self._sabotages(arena, generator, critics[-1])
            name = _name(generator)
            valid[name] = len(kept) / max(1, tried)
            for critic in critics if kept else ():
                missed = await self._judged(arena, generator, critic)
                attack.setdefault(name, {})[_name(critic)] = sum(missed) / tried
                games += [Game(_player(generator), _player(critic), float(miss)) for miss in missed]
        league = League(arena.training.path)
        league.record(games)
        return {"kind": "league", "updates": updates, "attack": attack, "valid": valid, "seconds": {}}

    def opponents(self, arena: "Arena", updates: int) -> "Weights":
        newest = arena.weights(updates)
        if arena.plan.schedule.opponents == "newest" or not arena.plan.curriculum.matches:
            return newest
        pairs = product(_versions(arena, SNEAKY, updates), _versions(arena, CRITIC, updates))
        fresh = [pair for pair in pairs if any(one == newest[one.policy] for one in pair)]
        league = League.open(arena.training.path)
        even = min(fresh, key=lambda pair: abs(league.win_rate(*map(_player, pair)) - 0.5))
        return {**newest, **{one.policy: one for one in even}}

    async def _sabotages(self, arena: "Arena", generator: Version, critic: Version) -> tuple[int, list[Judged]]:
        """How many were tried where a step was right, and the valid ones."""
        plan, folder = arena.plan, arena.training.path / "league" / _name(generator)
        settings = {**(plan.plan.topology.settings or {}), "opponent": "sneaky", "critiques": 1}
        played = replace(plan.plan, topology=open_topology("spc", settings), samples=1)
        weights = {**arena.weights(0), generator.policy: generator, critic.policy: critic}
        run = await arena.play(folder, played, plan.curriculum.matches, plan.schedule.validation_split, weights)
        tried, kept = 0, []
        for episode in run.episodes():
            for note in _games(episode):
                tried += len(note["sabotages"])
                kept += [_judged(episode, note, s) for s in note["sabotages"] if s["valid"]]
        write_processbench(kept, folder.with_suffix(".jsonl"))
        return tried, kept

    async def _judged(self, arena: "Arena", generator: Version, critic: Version) -> list[bool]:
        """Of a generator's valid sabotages, which a critic misses."""
        file = arena.training.path / "league" / f"{_name(generator)}.jsonl"
        env = Steps(file, "processbench", ask="error")
        plan = replace(arena.plan.plan, topology=open_topology("judge_steps", {}), env=env, samples=1)
        weights = {**arena.weights(0), critic.policy: critic}
        folder = file.with_name(f"{_name(generator)}-{_name(critic)}")
        run = await arena.play(folder, plan, env.tasks(), "test", weights)
        return [row["status"] != "correct" for row in run.store.outcomes()]


def _versions(arena: "Arena", role: str, updates: int) -> list[Version]:
    """Of a role's policy, the oldest first."""
    policy = arena.plan.policy_of(role)
    return [version for version in arena.registry.versions(policy) if version.updates <= updates]


def _name(version: Version) -> str:
    return f"{version.policy}-{version.updates:04d}"


def _player(version: Version) -> str:
    return f"{version.policy}@{version.version}"


def _judged(episode: Episode, note: Mapping[str, Any], sabotage: Mapping[str, Any]) -> Judged:
    before = split_steps(note["game"]["before"]) if note["game"]["before"] else []
    place = f"{episode.task.id}-{episode.sample}-{sabotage['turn'].replace('/', '-')}"
    steps = (*before, sabotage["step"])
    return Judged(
        id=place, question=episode.task.question, steps=steps, first_wrong=len(before), source=sabotage["kind"]
    )


def _even(samples: Sequence[Sample], labels: Mapping[str, bool], seed: int) -> tuple[list[Sample], dict[str, int]]:
    """As many critiques of right steps as of wrong ones, and as many sabotages that won as lost; in their order."""
    sides: dict[tuple[str, bool], list[int]] = {}
    for i, sample in enumerate(samples):
        side = labels[sample.key] if sample.role == CRITIC else sample.reward > 0
        sides.setdefault((sample.role, side), []).append(i)
    rng, kept = random.Random(seed), []
    for role in dict.fromkeys(role for role, _ in sides):
        both = [sides.get((role, side), []) for side in (True, False)]
        each = min(map(len, both))
        kept += [i for own in both for i in rng.sample(own, each)]
    return [samples[i] for i in sorted(kept)], {"samples beyond as many of the other side": len(samples) - len(kept)}


def _labels(episodes: Iterable[Episode]) -> dict[str, bool]:
    """Key of a critique -> whether its step was right."""
    found = {}
    for episode in episodes:
        for note in episode.notes:
            right = note.get("untouched", note.get("right", ()))
            wrong = [id for s in note.get("sabotages", ()) for id in s["critiques"]] or note.get("wrong", ())
            found |= {_key(episode, id): True for id in right} | {_key(episode, id): False for id in wrong}
    return found


def _taught(sample: Sample, asked: Sequence[int]) -> Sample:
    """A sabotage that was put into the generator's mouth, as if it had said all of it, asked with these token ids.

    Raises:
        SampleError: it was asked otherwise.
    """
    prompt, said = sample.prompt_ids[: len(asked)], sample.prompt_ids[len(asked) :]
    if prompt != tuple(asked):
        raise SampleError(
            sample.key,
            "a prompt that begins as the generator's own",
            "another",
            "its tokenizer joins a given beginning to what comes before it; take another model for the generator",
        )
    return replace(sample, prompt_ids=prompt, token_ids=(*said, *sample.token_ids), logprobs=())


def _accepts(episode: Episode, id: str) -> bool:
    return getattr(episode.turn(id).result, "correct", None) is True


def _games(episode: Episode) -> list[dict[str, Any]]:
    return [note for note in episode.notes if "game" in note]


def _pairs(episode: Episode) -> list[dict[str, Any]]:
    return [note for note in episode.notes if "pair" in note]


def _key(episode: Episode, id: str) -> str:
    return f"{episode.task.id}/{episode.sample}/{id}"
