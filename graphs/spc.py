"""SPC: a sneaky generator spoils a right step, and a critic is to notice. Chen et al., arXiv:2504.19162.

One game: the solver writes a solution, and one of its steps is drawn. Completions from behind it say whether it is
right; the sneaky generator rewrites it with one kind of error; completions from behind the rewritten step say whether
the error is fatal. A sabotage is valid when at least three in four of the former reach the right answer and none of
the latter (`is_valid`). The critic judges each valid sabotage and, beside it, the step as it was. Whoever was right
wins: experiments.training.spc. All of it is written down in the episode's note, both counts included.

The generator rewrites the step, as published, told which step is right and which kinds of error there are; or, with
`sneak=continue`, it goes on with the solution itself, as the solver would, and what it writes where the step belongs is
its sabotage. A small model rewrites at random, where its own slips mislead another copy of it: going on, it has them to
begin with, and learns to make them.

`spc_pairs` finds the errors that the solver makes by itself: where a wrong solution leaves a right one, both steps are
put through the same gate. They are what the first policies are taught, as the published ones are on PRM800K's pairs.

Departures: the published code has no generation, validation or balancing, so that the number of completions, 8, is
ours. A step that the completions do not find right ends the game, and nobody is charged for it. Several sabotages of a
step share the completions from the step as it was. With several `solutions` the step is one at which a wrong one
leaves a right one: what is hard for the solver is hard for the critic too. The answer of the episode is the solver's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Annotated, Any, Literal

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from pydantic import Field

from agents.moves import OPEN, SABOTAGE, SOLVE
from agents.results import Sabotage
from agents.types import EngineError, seed_of
from envs.slips import error_kind
from envs.types import Spoils, final_answer
from graphs.solo import SOLVER
from graphs.stepwise import CRITIC, critique_of, judged_steps
from graphs.table import Ask, Stage, Table, count_votes, speak
from graphs.topology import Graph, topology
from graphs.turns import Turn

SNEAKY = "sneaky"
Sneak = Literal["rewrite", "continue"]
Some = Annotated[int, Field(ge=1)]


def is_right(right: int, completions: int) -> bool:
    """Whether a step counts as right: at least three in four completions from behind it reach the right answer."""
    return 4 * right >= 3 * completions


def is_valid(right: int, spoiled: int, completions: int) -> bool:
    """The gate: whether a sabotage of a right step is fatal.

    Args:
        right: completions from behind the step as it was that reach the right answer.
        spoiled: of those from behind the sabotage.
        completions: of each.
    """
    return is_right(right, completions) and spoiled == 0


@dataclass(frozen=True)
class Attempt:
    """One sabotage of the step."""

    turn: str | None
    """By which it was made; None for one made by rule."""
    kind: str | None = None
    step: str | None = None
    """None where the reply cannot be read."""
    spoiled: int | None = None
    """Completions from behind it that reach the right answer; None where nothing was completed."""

    @property
    def valid(self) -> bool:
        return self.spoiled == 0


@dataclass
class Game(Table):
    """A right step and what is made of it."""

    before: str = ""
    """The solution up to the step."""
    step: str = ""
    """With what ends it."""
    right: int = 0
    """Completions from behind it that reach the right answer."""
    attempts: tuple[Attempt, ...] = ()

    def instead(self, attempt: Attempt) -> str:
        """The solution up to and with a sabotage in place of the step."""
        return f"{self.before}{attempt.step}{self.step[len(self.step.rstrip()) :]}"


def _calls(solutions: int = 1, completions: int = 8, sabotages: int = 1, critiques: int = 1, **_: Any) -> int:
    return solutions + completions + sabotages * (1 + completions + 2 * critiques)


@topology(roles=lambda **_: (SOLVER, SNEAKY, CRITIC), calls=_calls)
def spc(
    solutions: Some = 1,
    completions: Some = 8,
    sabotages: Some = 1,
    critiques: Some = 1,
    sneak: Sneak = "rewrite",
    opponent: Literal["sneaky", "rule"] = "sneaky",
) -> Graph:
    """
    Args:
        solutions: of the task; with one, any of its steps is played for, else one where a wrong one leaves a right one.
        completions: from behind the step and from behind each sabotage of it.
        sabotages: of the one step.
        critiques: of each valid sabotage, and as many of the step as it was.
        sneak: how the generator spoils the step: it rewrites it, or goes on with the solution in place of it.
        opponent: who spoils the step: the generator, or as a control the env, by rule.
    """

    async def sample_step(state: Game, runtime: Runtime[Stage]) -> dict[str, Any]:
        turns = await _solutions(state, runtime, solutions)
        stage = runtime.context
        update = {"turns": turns, "round": 1, "answer": await count_votes(runtime, turns)}
        if solutions == 1:
            steps = _with_ends(turns[0])
            places = [("".join(steps[:i]), steps[i]) for i in range(len(steps))]
        else:
            places = list(dict.fromkeys((before, right) for before, right, _ in await _partings(runtime, turns)))
        if not places:
            return {**update, "stop_reason": "no step to play for"}
        rng = Random(seed_of(stage.seed, stage.task.id, stage.sample, "step"))
        before, step = places[rng.randrange(len(places))]
        tried, (right,) = await complete(state.with_turns(turns), runtime, [(before + step, turns[0])], completions)
        reason = "" if is_right(right, completions) else f"no right step: {right} of {completions} completions"
        update |= {"before": before, "step": step, "right": right}
        return {**update, "turns": [*turns, *tried], "stop_reason": reason}

    async def spoil(state: Game, runtime: Runtime[Stage]) -> dict[str, Any]:
        if opponent == "rule":
            return {"attempts": _by_rule(state, runtime.context, sabotages)}
        ask = _sneaking(state, sneak, state.before, state.step)
        turns = await speak(state, runtime, [replace(ask, reads=state.turns[:1])] * sabotages, 2)
        return {"turns": turns, "attempts": tuple(_attempt(turn, state.step) for turn in turns)}

    async def validate(state: Game, runtime: Runtime[Stage]) -> dict[str, Any]:
        # The step itself again is no sabotage, and those that say the same are completed once.
        new = {a.step: a for a in reversed(state.attempts) if a.step not in (None, state.step.strip())}
        begun = [(state.instead(attempt), _source(state, attempt)) for attempt in new.values()]
        turns, counts = await complete(state, runtime, begun, completions)
        found = dict(zip(new, counts, strict=True))
        return {"turns": turns, "attempts": tuple(replace(a, spoiled=found.get(a.step or "")) for a in state.attempts)}

    async def critique(state: Game, runtime: Runtime[Stage]) -> dict[str, Any]:
        valid = [attempt for attempt in state.attempts if attempt.valid]
        shown = [(str(attempt.step), _source(state, attempt)) for attempt in valid]
        shown += [(state.step, state.turns[0])] * max(1, len(valid))
        asks = [critique_of(state, CRITIC, [state.before, step], 1, [source]) for step, source in shown]
        turns = await speak(state, runtime, [ask for ask in asks for _ in range(critiques)], 3)
        note, missed = _note(state, turns, completions, critiques)
        runtime.context.notes.append(note)
        reason = f"{missed} of {len(valid) * critiques} critiques missed the error"
        return {"turns": turns, "stop_reason": reason if valid else "no valid sabotage"}

    async def after_sample(state: Game) -> str:
        return END if state.stop_reason else "spoil"

    graph = StateGraph(Game, context_schema=Stage)
    for node in (sample_step, spoil, validate, critique):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "sample_step")
    graph.add_conditional_edges("sample_step", after_sample, [END, "spoil"])
    graph.add_edge("spoil", "validate")
    graph.add_edge("validate", "critique")
    graph.add_edge("critique", END)
    return graph.compile()


@dataclass
class Found(Table):
    """Where solutions part."""

    pairs: tuple[tuple[str, str, str], ...] = ()
    """(what stands before, the right solution's step, the wrong one's)."""


def _pairs_calls(solutions: int = 8, completions: int = 8, critiques: int = 4, pairs: int = 4, **_: Any) -> int:
    return solutions + pairs * 2 * (completions + 1 + critiques)


@topology(roles=lambda **_: (SOLVER, SNEAKY, CRITIC), calls=_pairs_calls)
def spc_pairs(
    solutions: Annotated[int, Field(ge=2)] = 8,
    completions: Some = 8,
    critiques: Some = 4,
    pairs: Some = 4,
    sneak: Sneak = "rewrite",
) -> Graph:
    """
    Args:
        solutions: of the task.
        completions: from behind each step of a pair.
        critiques: of each step of a valid pair.
        pairs: most of a task.
        sneak: how the generator will be asked; see `spc`.
    """

    async def answer(state: Found, runtime: Runtime[Stage]) -> dict[str, Any]:
        turns = await _solutions(state, runtime, solutions)
        found = tuple(dict.fromkeys(await _partings(runtime, turns)))[:pairs]
        update = {"turns": turns, "round": 1, "answer": await count_votes(runtime, turns), "pairs": found}
        return {**update, "stop_reason": "" if found else "no two solutions part"}

    async def validate(state: Found, runtime: Runtime[Stage]) -> dict[str, Any]:
        begun = [(before + step, state.turns[0]) for before, *both in state.pairs for step in both]
        turns, counts = await complete(state, runtime, begun, completions)
        valid = 0
        for pair, right, spoiled in zip(state.pairs, counts[::2], counts[1::2], strict=True):
            if is_valid(right, spoiled, completions):
                valid += 1
                said, note = await _shown(state.with_turns(turns), runtime, pair, critiques, sneak)
                turns += said
                runtime.context.notes.append(note | {"counts": [right, spoiled], "completions": completions})
        return {"turns": turns, "stop_reason": f"{valid} of {len(state.pairs)} pairs are valid"}

    async def after_answer(state: Found) -> str:
        return END if state.stop_reason else "validate"

    graph = StateGraph(Found, context_schema=Stage)
    graph.add_node("answer", answer)
    graph.add_node("validate", validate)
    graph.add_edge(START, "answer")
    graph.add_conditional_edges("answer", after_answer, [END, "validate"])
    graph.add_edge("validate", END)
    return graph.compile()


async def complete(
    state: Table, runtime: Runtime[Stage], begun: Sequence[tuple[str, Turn]], completions: int
) -> tuple[list[Turn], list[int]]:
    """Have the solver go on from beginnings of solutions, several times from each.

    Args:
        state: the table as it is.
        runtime: the node's.
        begun: beginnings, each with the turn that it is taken from.
        completions: of each.

    Returns:
        The turns, and for each beginning how many of its completions reach the right answer.

    Raises:
        EngineError: the env could not judge an answer: the gate would take it for a wrong one.
    """
    asks = [
        Ask(SOLVER, SOLVE, {"question": state.question}, [source], opening=opening)
        for opening, source in begun
        for _ in range(completions)
    ]
    turns = await speak(state, runtime, asks, 2)
    right = await _right(runtime, turns)
    return turns, [sum(right[i * completions : (i + 1) * completions]) for i in range(len(begun))]


async def _right(runtime: Runtime[Stage], turns: Sequence[Turn]) -> list[bool]:
    stage = runtime.context
    verdicts = [await stage.env.judge(stage.task, turn.answer) for turn in turns]
    for verdict in verdicts:
        if verdict.score is None:
            raise EngineError(f"an answer could not be judged, so that nothing tells right steps: {verdict.reason}")
    return [verdict.status == "correct" for verdict in verdicts]


async def _solutions(state: Table, runtime: Runtime[Stage], number: int) -> list[Turn]:
    return await speak(state, runtime, [Ask(SOLVER, SOLVE, {"question": state.question})] * number, 1)


def _with_ends(solution: Turn) -> list[str]:
    """The steps of a solution, each with what ends it; also one that was the reply's last."""
    steps = [step for step in judged_steps(solution) if step.strip()]
    return [step if step != step.rstrip() else f"{step}\n" for step in steps]


async def _partings(runtime: Runtime[Stage], solutions: Sequence[Turn]) -> list[tuple[str, str, str]]:
    """Where each wrong solution leaves the right one that it goes along with longest: (before, right, wrong step)."""
    right = await _right(runtime, solutions)
    steps = [_with_ends(turn) for turn in solutions]
    good, bad = (
        [own for own, is_good in zip(steps, right, strict=True) if is_good is wanted] for wanted in (True, False)
    )
    found = []
    for wrong in bad:
        shared = [_shared(wrong, one) for one in good]
        if shared and (at := max(shared)) >= 0:
            found.append(("".join(wrong[:at]), good[shared.index(at)][at], wrong[at]))
    return found


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """How many steps come before the first that differs; -1 where none does."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a.strip() != b.strip()), -1)


def _by_rule(state: Game, stage: Stage, sabotages: int) -> tuple[Attempt, ...]:
    env, before = stage.env, state.before.splitlines()
    if not isinstance(env, Spoils):
        raise EngineError(f"env {env.name} makes no errors by rule; leave opponent=rule out, or take arithmetic")
    seeds = [seed_of(stage.seed, stage.task.id, stage.sample, "rule", i) for i in range(sabotages)]
    made = [env.spoil(stage.task, before, state.step, seed) for seed in seeds]
    return tuple(Attempt(None, *one) if one else Attempt(None) for one in made)


def _source(state: Game, attempt: Attempt) -> Turn:
    """The turn whose words a sabotage is."""
    return state.turn(attempt.turn) if attempt.turn else state.turns[0]


def _note(state: Game, critiques: Sequence[Turn], completions: int, each: int) -> tuple[dict[str, Any], int]:
    """What the game came to, as JSON values; and how many critiques did not say that a valid sabotage is wrong."""
    asked = iter(critiques)
    sabotages, missed = [], 0
    for attempt in state.attempts:
        own = [next(asked) for _ in range(each if attempt.valid else 0)]
        missed += sum(not detects(turn) for turn in own)
        counted = {"turn": attempt.turn, "kind": attempt.kind, "step": attempt.step, "right": attempt.spoiled}
        sabotages.append({**counted, "valid": attempt.valid, "critiques": [turn.id for turn in own]})
    place = {"before": state.before, "step": state.step.strip(), "right": state.right, "completions": completions}
    return {"game": place, "sabotages": sabotages, "untouched": [turn.id for turn in asked]}, missed


def detects(critique: Turn) -> bool:
    """Whether a verdict says that the step is wrong; one that cannot be read does not."""
    return getattr(critique.result, "correct", None) is False


def _sneaking(state: Table, sneak: Sneak, before: str, step: str) -> Ask:
    """The generator asked for something in place of a right step."""
    if sneak == "continue":
        return Ask(SNEAKY, OPEN, {"question": state.question}, opening=before, stop=("\n",), instructions=SOLVER)
    return Ask(SNEAKY, SABOTAGE, {"question": state.question, "steps": before.rstrip(), "step": step.strip()})


def _attempt(turn: Turn, step: str) -> Attempt:
    """What a generator's turn puts in place of the step."""
    if isinstance(turn.result, Sabotage):
        return Attempt(turn.id, turn.result.kind, turn.result.step)
    said = turn.reply.removeprefix(turn.opening).strip().partition("\n")[0].strip()
    if turn.move == SABOTAGE.name or not said or final_answer(said):
        return Attempt(turn.id)
    return Attempt(turn.id, None if said == step.strip() else error_kind(step, said), said)


async def _shown(
    state: Table, runtime: Runtime[Stage], pair: tuple[str, str, str], critiques: int, sneak: Sneak
) -> tuple[list[Turn], dict[str, Any]]:
    """Both roles asked about a pair: the generator as it would answer and with the solver's error put into its mouth,
    the critic about either step."""
    before, right, wrong = pair
    own = _sneaking(state, sneak, before, right)
    said = wrong.rstrip() if sneak == "continue" else f"Error: {error_kind(right, wrong)}\nStep: {wrong.strip()}"
    asks = [own, replace(own, opening=own.opening + said)]
    asks += [critique_of(state, CRITIC, [before, step], 1) for step in (right, wrong) for _ in range(critiques)]
    turns = await speak(state, runtime, asks, 3)
    ids = [turn.id for turn in turns]
    note = {"pair": [right.strip(), wrong.strip()], "own": ids[0], "taught": ids[1]}
    return turns, {**note, "right": ids[2 : 2 + critiques], "wrong": ids[2 + critiques :]}
