"""Figures of step verdicts: worked numbers, plain loops beside them, what counts and what does not, runs compared."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as draw
from hypothesis import strategies as st
from langgraph.runtime import Runtime

from agents import Cast, ScriptedEngine
from agents.moves import CRITIQUE
from agents.results import Critique
from envs import ConfigError, Steps
from envs.judged import Judged, write_processbench
from envs.steps import given
from envs.types import Task, Verdict
from experiments import run
from experiments.judging import (
    Judging,
    compare_judging,
    harmonic_mean,
    judging,
    kept_correctness,
    pooled_by_subset,
    recomputes,
    step_verdicts,
)
from graphs import Graph, topology
from graphs.shapes import chain
from graphs.table import Ask, Stage, Table, speak
from graphs.turns import Episode, Failure, Turn

Said = bool | None
"""What a verdict calls a step: correct, incorrect, or nothing that can be read."""


def critique(n: int, said: Said, reply: str | None = None, id: str = "") -> Turn:
    words = {True: "Verdict: correct", False: "Verdict: incorrect", None: "hm"}[said]
    return Turn(
        id=id or f"critic/{n}",
        role="critic",
        move="critique",
        round=0,
        after=0,
        reads=(),
        follows=None,
        messages=(),
        reply=words if reply is None else reply,
        result=None if said is None else Critique(correct=said),
        failure=Failure(expected="Verdict") if said is None else None,
        policy="p",
        version="1",
        finish="stop",
        temperature=1,
        top_p=1,
        seed=0,
        prompt_tokens=1,
        completion_tokens=1,
    )


def judged(
    problem: str,
    first_wrong: int | None,
    said: Sequence[Said],
    judge: Sequence[int] | None = None,
    replies: Sequence[str] | None = None,
) -> Episode:
    """A solution of as many steps as verdicts; its answer is the first step that is called incorrect."""
    places = range(len(said)) if judge is None else judge
    count = len(said) if judge is None else max(judge) + 2
    details = {"steps": ["s"] * count, "judge": list(places), "first_wrong": first_wrong, "source": ""}
    task = Task(id=problem, question=problem, answers=(str(first_wrong),), details=details)
    turns = tuple(critique(n, s, replies[n] if replies else None) for n, s in enumerate(said))
    found = next((at for at, s in zip(places, said, strict=True) if s is False), None)
    return Episode(
        task=task,
        sample=0,
        turns=turns,
        answer=str(found),
        stop_reason="judged",
        verdict=Verdict.correct() if found == first_wrong else Verdict.incorrect(),
        notes=tuple({"judged": turn.id, "step": at} for turn, at in zip(turns, places, strict=True)),
    )


def run_of(correct: tuple[int, int], wrong: tuple[int, int]) -> list[Episode]:
    """Hits and verdicts on correct steps and on wrong ones, one verdict a problem."""
    hits = [*[(None, True)] * correct[0], *[(None, False)] * (correct[1] - correct[0])]
    hits += [*[(0, False)] * wrong[0], *[(0, True)] * (wrong[1] - wrong[0])]
    return [judged(f"p{i}", first_wrong, [said]) for i, (first_wrong, said) in enumerate(hits)]


def test_worked_numbers() -> None:
    found = judging(run_of((8, 10), (6, 10)))
    assert (found.a_c, found.a_e, found.problems) == (0.8, 0.6, 20)
    assert found.balanced == pytest.approx(0.7) and found.harmonic == pytest.approx(0.6857, abs=5e-5)
    assert harmonic_mean(0.859, 0.711) == pytest.approx(0.7780, abs=5e-5)
    assert harmonic_mean(0.0, 0.0) == 0.0 == harmonic_mean(1.0, 0.0)
    assert (found.correct_steps, found.wrong_steps, found.pooled) == (10, 10, 0.7)
    # One step a solution: the answer is right where the verdict is.
    assert (found.first_error, found.no_error) == (0.6, 0.8) and found.f1 == pytest.approx(0.6857, abs=5e-5)


def test_steps_after_the_first_wrong_one_are_left_out() -> None:
    found = judging([judged("p", 1, [True, False, False, True]), judged("q", None, [True, False, True])])
    assert (found.correct_steps, found.wrong_steps) == (4, 1)
    assert (found.a_c, found.a_e) == (0.75, 1.0)
    assert (found.first_error, found.no_error, found.f1) == (1.0, 0.0, 0.0)


def test_a_verdict_that_cannot_be_read_is_a_miss() -> None:
    found = judging([judged("p", 1, [None, None]), judged("q", None, [True, True])])
    assert (found.a_c, found.a_e, found.unparsed, found.pooled) == (2 / 3, 0.0, 0.5, 0.5)
    assert found.harmonic == 0.0


def test_single_steps_say_nothing_of_solutions() -> None:
    found = judging([judged("p", 2, [False], judge=[2]), judged("q", None, [True], judge=[1])])
    assert (found.a_c, found.a_e) == (1.0, 1.0)
    assert (found.solutions_with_error, found.solutions_without_error) == (0, 0)
    assert found.first_error is None and found.no_error is None and found.f1 is None


def test_what_there_is_none_of_is_none() -> None:
    found = judging([judged("p", None, [True, True])])
    assert found.a_c == 1.0 and found.a_e is None and found.balanced is None and found.harmonic is None
    assert found.a_e_ci95 is None and found.balanced_ci95 is None
    assert found.recomputed.accuracy is None and found.recomputed.share == 0.0
    # Wilson's for one problem of one.
    assert found.a_c_ci95 == pytest.approx((0.2065, 1.0), abs=1e-4)


def test_failed_episodes_are_counted_and_left_out() -> None:
    failed = judged("q", None, [False]).model_copy(update={"failure": "dead engine", "verdict": None})
    found = judging([judged("p", None, [True]), failed])
    assert (found.a_c, found.problems, found.failed) == (1.0, 1, 1)
    with pytest.raises(ConfigError, match=r"found none in 0 episodes \(1 more failed\); play a topology"):
        judging([failed])


def test_the_last_attempt_counts() -> None:
    episode = judged("p", 0, [True])
    again = critique(0, False, id="critic/0.1")
    for notes in ([{"judged": "critic/0", "step": 0}], [{"judged": "critic/0.1", "step": 0}]):
        asked = episode.model_copy(update={"turns": (critique(0, None), again), "notes": tuple(notes)})
        (verdict,) = step_verdicts(asked)
        assert verdict.parsed and verdict.hit and verdict.wrong


def test_turns_without_a_note_and_notes_of_others_are_passed_over() -> None:
    episode = judged("p", None, [True, False])
    notes = ({"round": 1}, episode.notes[0])
    assert [v.hit for v in step_verdicts(episode.model_copy(update={"notes": notes}))] == [True]


@pytest.mark.parametrize("note", [{"judged": "critic/7", "step": 0}, {"judged": "critic/0", "step": 1}])
def test_a_note_that_names_nothing_is_refused(note: dict[str, Any]) -> None:
    episode = judged("p", None, [True]).model_copy(update={"notes": (note,)})
    with pytest.raises(ConfigError, match=r"p/0: a note says that critic/. judged step .; expected a critique of the"):
        judging([episode])


def test_tasks_of_other_envs_are_refused() -> None:
    episode = judged("p", None, [True])
    other = episode.model_copy(update={"task": episode.task.model_copy(update={"details": {}})})
    with pytest.raises(ConfigError, match="play on --env steps"):
        judging([other])


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("7 * 2 = 14; 15, incorrect\nVerdict: incorrect", True),
        ("6 + 1 = 7, 7 * 2 = 14\nVerdict: correct", True),
        ("7 * 2 = 15\nVerdict: correct", False),
        ("7 * 2 = 15; 7*2=14\nVerdict: correct", True),
        ("The step 7 * 2 = 14 is right.\nVerdict: correct", False),
        ("Verdict: correct\n7 * 2 = 14", False),
        ("Verdict: hm\n7 * 2 = 14\n**Verdict: correct**", True),
        ("7 * 2 = 14", True),
        ("Looks fine.\nVerdict: correct", False),
        ("", False),
    ],
)
def test_what_recomputes(reply: str, found: bool) -> None:
    assert recomputes(reply) is found


def test_verdicts_that_recompute_stand_beside_those_that_do_not() -> None:
    own, bare = "7 * 2 = 14; 14, correct\nVerdict: correct", "Verdict: correct"
    found = judging(
        [judged("p", 2, [True, True, True], replies=[own, bare, bare]), judged("q", 0, [True], replies=[own])]
    )
    assert (found.recomputed.verdicts, found.recomputed.share, found.recomputed.accuracy) == (2, 0.5, 0.5)
    assert (found.asserted.verdicts, found.asserted.share, found.asserted.accuracy) == (2, 0.5, 0.5)


def test_subsets_count_the_same_whatever_their_size() -> None:
    small, large = judging(run_of((1, 2), (1, 2))), judging(run_of((45, 50), (45, 50)))
    assert pooled_by_subset({"gsm8k": small, "math": large}) == pytest.approx(0.7)
    with pytest.raises(ConfigError, match="at least one subset"):
        pooled_by_subset({})


EPISODES = st.lists(
    st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=5).flatmap(
        lambda said: st.tuples(st.sampled_from("pqrs"), st.none() | st.integers(0, len(said) - 1), st.just(said))
    ),
    min_size=1,
    max_size=8,
)


@draw(shapes=EPISODES)
def test_figures_are_what_plain_loops_count(shapes: list[tuple[str, int | None, list[Said]]]) -> None:
    found = judging([judged(*shape) for shape in shapes])
    hits, counts = {True: 0, False: 0}, {True: 0, False: 0}
    unread = 0
    for _, first_wrong, said in shapes:
        for at, word in enumerate(said):
            if first_wrong is not None and at > first_wrong:
                break
            wrong = at == first_wrong
            counts[wrong] += 1
            hits[wrong] += word is (not wrong)
            unread += word is None
    total = counts[True] + counts[False]
    a_c = hits[False] / counts[False] if counts[False] else None
    a_e = hits[True] / counts[True] if counts[True] else None
    assert (found.correct_steps, found.wrong_steps) == (counts[False], counts[True])
    assert (found.a_c, found.a_e) == (a_c, a_e)
    assert found.pooled == pytest.approx((hits[True] + hits[False]) / total)
    assert found.unparsed == pytest.approx(unread / total)
    named = [(w, next((i for i, word in enumerate(said) if word is False), None) == w) for _, w, said in shapes]
    for kind, figure in ((True, found.first_error), (False, found.no_error)):
        right = [ok for w, ok in named if (w is not None) == kind]
        assert figure == (pytest.approx(sum(right) / len(right)) if right else None)
    if a_c is not None and a_e is not None:
        assert found.balanced == pytest.approx((a_c + a_e) / 2)
    assert found.recomputed.verdicts + found.asserted.verdicts == total


def noisy(seed: int, rate: float, problems: int = 40, steps: int = 4) -> list[Episode]:
    """Each verdict is right with this probability."""
    rng = random.Random(seed)
    return [
        judged(f"p{i}", wrong, [(rng.random() < rate) == (at != wrong) for at in range(steps)])
        for i in range(problems)
        for wrong in [(i % (steps + 1)) if i % (steps + 1) < steps else None]
    ]


def test_intervals_are_over_problems() -> None:
    episodes = noisy(1, 0.7)
    found, twice = judging(episodes), judging([*episodes, *episodes])
    assert found.a_c_ci95 and found.a_e_ci95 and found.balanced_ci95
    for figure, interval in (
        (found.a_c, found.a_c_ci95),
        (found.a_e, found.a_e_ci95),
        (found.balanced, found.balanced_ci95),
    ):
        assert figure is not None and interval[0] < figure < interval[1] and interval[1] - interval[0] > 0.05
    # The same verdicts once more are no more problems: nothing is surer.
    assert twice.a_c_ci95 == pytest.approx(found.a_c_ci95) and twice.balanced_ci95 == pytest.approx(found.balanced_ci95)
    assert twice.correct_steps == 2 * found.correct_steps


def oracle(episodes: Sequence[Episode], resamples: int = 2000) -> tuple[float, float]:
    """A bootstrap of balanced accuracy by plain loops."""
    by_problem: dict[str, list[tuple[bool, bool]]] = {}
    for episode in episodes:
        found = [(v.wrong, v.hit) for v in step_verdicts(episode)]
        by_problem.setdefault(episode.task.question, []).extend(found)
    rng, values = random.Random(0), []
    problems = list(by_problem.values())
    for _ in range(resamples):
        drawn = [v for _ in problems for v in rng.choice(problems)]
        sides = [[hit for wrong, hit in drawn if wrong is side] for side in (True, False)]
        if all(sides):
            values.append(sum(sum(side) / len(side) for side in sides) / 2)
    values.sort()
    return values[int(0.025 * len(values))], values[int(0.975 * len(values))]


def test_the_interval_of_balanced_accuracy_is_that_of_plain_loops() -> None:
    episodes = noisy(2, 0.75)
    assert judging(episodes).balanced_ci95 == pytest.approx(oracle(episodes), abs=0.015)


def test_runs_are_compared_by_problem() -> None:
    better, worse = noisy(3, 0.95, problems=150), noisy(4, 0.6, problems=150)
    found = compare_judging(better, worse)
    assert found is not None and found.problems == 150
    one, other = judging(better), judging(worse)
    for name in ("a_c", "a_e", "balanced"):
        expected = getattr(one, name) - getattr(other, name)
        assert getattr(found, name) == pytest.approx(expected)
        low, high = getattr(found, f"{name}_ci95")
        assert 0 < low < expected < high < 1
    back = compare_judging(worse, better)
    assert back is not None and back.balanced == pytest.approx(-found.balanced if found.balanced else None)


def test_what_is_paired_is_surer_than_what_is_not() -> None:
    """Two runs that differ on few problems: their own intervals overlap, that of the difference does not reach 0."""
    base = noisy(5, 0.7)
    mended = [
        judged(e.task.question, w := e.task.details["first_wrong"], [at != w for at in range(4)]) for e in base[:10]
    ]
    found = compare_judging([*mended, *base[10:]], base)
    own, other = judging([*mended, *base[10:]]).balanced_ci95, judging(base).balanced_ci95
    assert found and found.balanced_ci95 and own and other
    assert own[0] < other[1] and found.balanced_ci95[0] > 0


def test_only_problems_that_both_have_are_compared() -> None:
    base, more = noisy(6, 0.7), noisy(7, 0.9)
    renamed = [
        e.model_copy(update={"task": e.task.model_copy(update={"question": f"other {e.task.question}"})})
        for e in more[20:]
    ]
    found, expected = compare_judging([*more[:20], *renamed], base), compare_judging(more[:20], base[:20])
    assert found is not None and found == expected and found.problems == 20
    assert compare_judging(renamed, base) is None
    same = compare_judging(base, base)
    assert same is not None and (same.balanced, same.balanced_ci95) == (0.0, None)
    sound = [judged(f"p{i}", None, [i > 1]) for i in range(5)]
    one_kind = compare_judging(sound, [judged(f"p{i}", None, [True]) for i in range(5)])
    assert one_kind is not None and one_kind.a_c == pytest.approx(-0.4)
    assert one_kind.a_e is None and one_kind.balanced is None and one_kind.a_e_ci95 is None


@topology(roles=lambda: ("critic",))
def judge_steps() -> Graph:
    async def look(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        steps, places = given(runtime.context.task)
        asks = [
            Ask("critic", CRITIQUE, {"question": state.question, "steps": "\n".join(steps[:at]), "step": steps[at]})
            for at in places
        ]
        turns = await speak(state, runtime, asks)
        runtime.context.notes += [{"judged": t.id, "step": at} for t, at in zip(turns, places, strict=True)]
        wrong = [at for t, at in zip(turns, places, strict=True) if t.result and not t.result.correct]
        return {"turns": turns, "answer": str(wrong[0]) if wrong else "none", "stop_reason": "judged"}

    return chain(look)


def test_a_stored_run_is_judged(tmp_path: Path) -> None:
    records = [
        Judged(id=str(i), question=f"What is {i} + 1 + 1?", steps=(f"{i} + 1 = {i + 1}", last), first_wrong=wrong)
        for i in range(4)
        for last, wrong in [(f"{i + 1} + 1 = {i + 2 + i % 2}", 1 if i % 2 else None)]
    ]
    write_processbench(records, tmp_path / "set.jsonl")
    engine = ScriptedEngine({"critic": ["0 + 1 = 1; 1, correct\nVerdict: correct", "Verdict: incorrect"]})
    played = run(
        judge_steps, Steps(tmp_path / "set.jsonl"), Cast.all(engine), backend="local", root=tmp_path, progress=False
    )
    found: Judging = judging(played.episodes())
    assert (found.a_c, found.a_e, found.f1) == (4 / 6, 1.0, 0.0)
    assert (found.first_error, found.no_error) == (1.0, 0.0)
    assert (found.recomputed.verdicts, found.asserted.verdicts) == (4, 4)
    assert found == replace(judging(list(played.episodes())))


def test_a_step_is_kept_when_accepted_or_at_the_last_attempt() -> None:
    kept = [kept_correctness(0.8, 0.859, 0.711, attempts) for attempts in range(1, 6)]
    assert kept == pytest.approx([0.8, 0.8912, 0.9145, 0.9204, 0.9219], abs=5e-5)
    assert kept_correctness(0.8, 0.5, 0.5, 5) == pytest.approx(0.8), "a coin does no good"
    assert kept_correctness(0.8, 1, 1, 3) == pytest.approx(1 - 0.2**3), "a critic without fault"
