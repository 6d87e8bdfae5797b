"""The embedded model: its tokenizer, its corpus, its build, and the checkpoint that ships."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from agents import moves, results
from agents.engines import EMBEDDED
from agents.engines.transformers import weights_version
from agents.moves import fixed_chunks, template_files, templates_hash
from envs import Arithmetic
from envs.arithmetic import check_step, compute, numbers_of, parse_expression, parse_step, reference, split_of
from experiments import run
from experiments.embedded_model.corpus import MAKERS, Chat, draw_chat
from experiments.embedded_model.dialect import build_tokenizer, template_phrases
from experiments.embedded_model.mixes import LAST_MIX, MIX, POLISH_MIX
from experiments.embedded_model.muon import Muon, orthogonalised
from experiments.embedded_model.problems import Problem, backwards, draw_problem, flawed_steps
from experiments.embedded_model.train import Build, Encoder, Recipe

TOKENIZER = build_tokenizer()
seeds = st.integers(0, 10**9)


def made(maker: str, seed: int) -> tuple[Problem, Chat]:
    rng = random.Random(seed)
    problem = draw_problem(rng)
    return problem, MAKERS[maker](problem, rng)


# The tokenizer


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_any_text_survives_the_tokenizer(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    assert TOKENIZER.decode(ids) == text


@pytest.mark.parametrize("n", [0, 7, 42, 999])
def test_an_integer_is_one_token(n: int) -> None:
    assert len(TOKENIZER(str(n), add_special_tokens=False)["input_ids"]) == 1
    assert len(TOKENIZER(f"{n} + {n} = ", add_special_tokens=False)["input_ids"]) == 4


def test_fixed_template_text_is_one_token_each() -> None:
    phrases = template_phrases()
    assert all(len(TOKENIZER(phrase, add_special_tokens=False)["input_ids"]) == 1 for phrase in phrases)
    chunks = {chunk for path in template_files() for chunk in fixed_chunks(path.read_text(encoding="utf-8"))}
    assert sum(map(len, chunks - set(phrases))) < 40, "next to nothing is left to bytes"


@given(st.sampled_from(list(MAKERS)), seeds)
def test_what_is_trained_on_is_what_the_chat_template_gives(maker: str, seed: int) -> None:
    _, chat = made(maker, seed)
    example = Encoder(TOKENIZER, 5.0)(chat)
    messages = [{"role": role, "content": content} for role, content in chat.messages]
    assert example.ids == TOKENIZER.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert len(example.ids) == len(example.weights) == len(example.forbidden) <= 1024
    learned = TOKENIZER.decode([i for i, weight in zip(example.ids, example.weights, strict=True) if weight])
    expected = [c + "<|end|>" for (_, c), trained in zip(chat.messages, chat.trained, strict=True) if trained]
    assert learned == "".join(expected)
    assert all(role == "assistant" for (role, _), trained in zip(chat.messages, chat.trained, strict=True) if trained)


# The corpus


@given(seeds)
def test_problems_are_of_the_train_split(seed: int) -> None:
    assert split_of(draw_problem(random.Random(seed)).expression) == "train"


@given(seeds)
def test_a_flawed_solution_has_one_slip_and_a_wrong_answer(seed: int) -> None:
    rng = random.Random(seed)
    problem = draw_problem(rng)
    steps = [str(step) for step in flawed_steps(problem, rng)]
    verdicts = [check_step(problem.expression, steps[:i], step).status for i, step in enumerate(steps)]
    assert verdicts.count("incorrect") == 1 and verdicts.count("correct") == len(steps) - 1
    step = parse_step(steps[-1])
    assert step is not None and step.result != problem.answer


@given(st.sampled_from(["solve", "revise", "tool", "extract", "refine", "aggregate"]), seeds)
def test_the_last_reply_is_right(maker: str, seed: int) -> None:
    problem, chat = made(maker, seed)
    move = {"tool": moves.OBSERVE, "extract": moves.CONCLUDE}.get(maker, moves.SOLVE)
    assert move.parse(chat.messages[-1][1]).answer == str(problem.answer)
    assert chat.trained[-1]


@given(seeds)
def test_critiques_are_right(seed: int) -> None:
    problem, chat = made("critique", seed)
    prompt, reply = (content for role, content in chat.messages[-2:])
    before = prompt.split("Steps so far:\n")[1].split("\n\nNext step:\n")[0]
    step = prompt.split("\n\nNext step:\n")[1].split("\n\nIs this")[0]
    steps = [] if before == "(none)" else before.split("\n")
    critique = moves.CRITIQUE.parse(reply)
    assert isinstance(critique, results.Critique)
    assert critique.correct == (check_step(problem.expression, steps, step).status == "correct")


@given(seeds)
def test_sabotages_are_truly_wrong(seed: int) -> None:
    problem, chat = made("sabotage", seed)
    prompt, reply = (content for role, content in chat.messages[-2:])
    before = prompt.split("Steps so far:\n")[1].split("\n\nCorrect next step:\n")[0]
    steps = [] if before == "(none)" else before.split("\n")
    sabotage = moves.SABOTAGE.parse(reply)
    assert isinstance(sabotage, results.Sabotage)
    assert check_step(problem.expression, steps, sabotage.step).status == "incorrect"


@given(seeds)
def test_judgements_are_right(seed: int) -> None:
    problem, chat = made("judge", seed)
    prompt, reply = (content for role, content in chat.messages[-2:])
    a = prompt.split("Solution A:\n")[1].split("\n\nSolution B:")[0]
    judgement = moves.JUDGE.parse(reply)
    assert isinstance(judgement, results.Judgement)
    assert (judgement.choice == "A") == (moves.SOLVE.parse(a).answer == str(problem.answer))


@given(seeds)
def test_proposals_are_problems_of_the_env_with_their_answers(seed: int) -> None:
    _, chat = made("propose", seed)
    prompt, reply = (content for role, content in chat.messages[-2:])
    proposal = moves.PROPOSE.parse(reply)
    assert isinstance(proposal, results.Proposal)
    expression = parse_expression(proposal.question)
    assert expression and numbers_of(expression) and f"{len(reference(expression))} operation" in prompt
    assert proposal.answer == str(reference(expression)[-1].result)


@given(seeds)
def test_moderators_end_debates_that_hold_the_right_answer(seed: int) -> None:
    problem, chat = made("moderate", seed)
    for (_, prompt), (role, reply) in zip(chat.messages, chat.messages[1:], strict=False):
        if role != "assistant":
            continue
        sides = prompt.split("The negative side says:\n")
        answers = [moves.SOLVE.parse(side).answer for side in (sides[0], sides[1].split("\n\nEvaluate")[0])]
        moderation = moves.MODERATE.parse(reply)
        assert isinstance(moderation, results.Moderation)
        assert moderation.ends_debate == (str(problem.answer) in answers)
        assert not moderation.ends_debate or moderation.answer == str(problem.answer)


@given(seeds)
def test_debaters_say_what_their_level_asks(seed: int) -> None:
    problem, chat = made("advocate", seed)
    phrases = ("full consensus", "mostly disagree", "need not fully agree", "must disagree")
    level = next(i for i, phrase in enumerate(phrases) if phrase in chat.messages[0][1])
    for (role, prompt), (_, reply), trained in zip(chat.messages, chat.messages[1:], chat.trained[1:], strict=False):
        if role != "user" or "The other side says" not in prompt:
            continue
        assert trained
        theirs, own = moves.REBUT.parse(prompt.rsplit("\n\n", 1)[0]).answer, moves.REBUT.parse(reply).answer
        assert ("I agree." in reply) == (theirs == own)
        if level == 0:
            assert own == theirs
        elif level == 3:
            assert own != theirs
        else:
            assert own == str(problem.answer)


def between(text: str, start: str, end: str) -> str:
    return text.split(start, 1)[1].split(end, 1)[0]


def first_wrong(problem: Problem, solution: str) -> int | None:
    """Which line the env's own checker finds wrong first."""
    steps = solution.split("\n")[:-1]
    verdicts = [check_step(problem.expression, steps[:i], step).status for i, step in enumerate(steps)]
    assert set(verdicts) <= {"correct", "incorrect"}
    return verdicts.index("incorrect") if "incorrect" in verdicts else None


def is_right(problem: Problem, solution: str) -> bool:
    return moves.SOLVE.parse(solution).answer == str(problem.answer)


@given(seeds)
def test_reviews_are_right_and_stop_at_the_first_wrong_step(seed: int) -> None:
    problem, chat = made("review", seed)
    prompt, reply = (content for role, content in chat.messages[-2:])
    solution = between(prompt, "Solution:\n", "\n\nCheck")
    review, wrong = moves.REVIEW.parse(reply), first_wrong(problem, solution)
    assert isinstance(review, results.Review) and chat.trained[-1]
    assert review.correct == is_right(problem, solution) == (wrong is None)
    assert review.marks == ((True,) * len(problem.steps) if wrong is None else (True,) * wrong + (False,))
    own = [line.partition(";")[0] for line in reply.split("\n")[:-1]]
    assert own == [str(step) for step in problem.steps[: len(own)]], "each step is worked out before it is judged"


@given(seeds)
def test_reviews_are_checked_rightly(seed: int) -> None:
    problem, chat = made("check_review", seed)
    prompt, reply = (content for role, content in chat.messages[-2:])
    solution = between(prompt, "\n\nSolution:\n", "\n\nA review")
    review = moves.REVIEW.parse(between(prompt, "A review of this solution:\n", "\n\nIs this review"))
    checked, wrong = moves.CHECK_REVIEW.parse(reply), first_wrong(problem, solution)
    assert isinstance(review, results.Review) and isinstance(checked, results.Critique) and chat.trained[-1]
    found = review.marks.index(False) if False in review.marks else None
    assert checked.correct == (review.correct == is_right(problem, solution) and found == wrong)


FEEDBACK = ("bare", "run", "true review", "false review")


def feedback_kind(problem: Problem, own: str, feedback: str) -> str:
    """What a solver is told of its solution; fails when that is said of a solution that it does not fit."""
    if feedback == "Your answer is wrong.":
        assert not is_right(problem, own)
        return "bare"
    if feedback.startswith("Running it"):
        env = Arithmetic()
        assert feedback == asyncio.run(env.check(env.tasks(1)[0], own))
        return "run"
    review = moves.REVIEW.parse(feedback)
    assert isinstance(review, results.Review)
    return "true review" if review.correct == is_right(problem, own) else "false review"


def feedbacks(seed: int) -> list[str]:
    problem, chat = made("refine", seed)
    words = [content for role, content in chat.messages if role != "system"]
    said = [between(prompt, "Feedback on your solution:\n", "\n\nMend") for prompt in words[2::2]]
    replies, trained = (
        words[1::2],
        [t for t, (role, _) in zip(chat.trained, chat.messages, strict=True) if role == "assistant"],
    )
    assert trained == [is_right(problem, reply) for reply in replies] and trained[-1]
    return [feedback_kind(problem, own, feedback) for own, feedback in zip(replies, said, strict=False)]


@given(seeds)
def test_solvers_mend_what_the_feedback_is_about(seed: int) -> None:
    assert 1 <= len(feedbacks(seed)) <= 2


def test_feedback_is_of_every_kind_and_at_times_false() -> None:
    assert {kind for seed in range(100) for kind in feedbacks(seed)} == set(FEEDBACK)


@given(seeds)
def test_the_first_of_the_largest_group_is_chosen(seed: int) -> None:
    _, chat = made("choose", seed)
    prompt, reply = (content for role, content in chat.messages[-2:])
    listed = prompt.rpartition("\n\nWhich solution")[0].split("\n\nSolution ")[1:]
    answers = [moves.SOLVE.parse(text).answer for text in listed]
    choice = moves.CHOOSE.parse(reply)
    assert isinstance(choice, results.Choice) and chat.trained[-1] and 2 <= len(answers) <= 6
    sizes = [answers.count(answer) for answer in answers]
    assert choice.number == sizes.index(max(sizes)) + 1
    groups = dict(line.split(": ") for line in reply.split("\n")[:-1])
    assert {a: [int(n) for n in numbers.split(", ")] for a, numbers in groups.items()} == {
        a: [n for n, other in enumerate(answers, 1) if other == a] for a in answers
    }


@given(seeds)
def test_the_number_found_in_place_of_x_gives_the_answer(seed: int) -> None:
    _, chat = made("ask_back", seed)
    prompt, reply = (content for role, content in chat.messages[-2:])
    hidden, answer = between(prompt, "Problem: ", "\n"), between(prompt, "The answer to this problem is ", ".")
    assert hidden.count("X") == 1 and chat.trained[-1]
    expression = parse_expression(hidden.replace("X", moves.ASK_BACK.parse(reply).answer))
    assert expression and str(reference(expression)[-1].result) == answer


@given(seeds)
def test_working_backwards_ends_at_the_hidden_number_without_using_it(seed: int) -> None:
    problem = draw_problem(random.Random(seed))
    tokens = problem.expression.split()
    for place in range(0, len(tokens), 2):
        steps = backwards(problem.expression, place)
        known = [int(token) for i, token in enumerate(tokens) if i % 2 == 0 and i != place] + [problem.answer]
        assert steps
        for step in steps:
            left, operation, right, _, result = step.split()
            known.remove(int(left))
            known.remove(int(right))
            known.append(int(result))
            if operation == "/":
                assert int(right) * int(result) == int(left)
            else:
                assert compute(int(left), operation, int(right)) == int(result)
        assert known == [int(tokens[place])], "everything that is known is used once"


def test_a_factor_of_0_leaves_the_hidden_number_open() -> None:
    assert backwards("7 * 0 + 5", 0) is None
    assert backwards("7 * 0 + 5", 2) == ["5 - 5 = 0", "0 / 7 = 0"]


def test_every_move_is_in_the_mix() -> None:
    for mix in (MIX, LAST_MIX, POLISH_MIX):
        assert set(mix) == set(MAKERS) and sum(mix.values()) == pytest.approx(1)
    chats = [draw_chat(random.Random(i)) for i in range(300)]
    asked = {content.split("\n")[0] for chat in chats for role, content in chat.messages if role == "user"}
    assert len(asked) > 10


# The build


def build(directory: Path, **changed: Any) -> Build:
    small = {"seed": 3, "tokens": 6000, "polish_tokens": 2000, "batch": 8, "pool_batches": 2}
    model = {"hidden": 32, "feed_forward": 64, "heads": 2, "layers": 1}
    return Build(Recipe(**{**small, **model, **changed}), directory)


def test_muon_is_torchs_but_for_bfloat16() -> None:
    torch.manual_seed(0)
    ours, theirs = ([torch.nn.Parameter(torch.zeros(shape)) for shape in ((8, 8), (24, 8), (8, 24))] for _ in range(2))
    settings: dict[str, Any] = {"lr": 0.02, "weight_decay": 0.01}
    optimisers = Muon(ours, **settings), torch.optim.Muon(theirs, **settings)
    for _ in range(5):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape)
            b.grad = a.grad.clone()
        for optimiser in optimisers:
            optimiser.step()
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).norm() < 0.02 * b.norm()


@given(seeds, st.sampled_from([(6, 6), (4, 12), (12, 4)]))
def test_orthogonalised_updates_have_like_singular_values(seed: int, shape: tuple[int, int]) -> None:
    stack = torch.randn((3, *shape), generator=torch.Generator().manual_seed(seed))
    values = torch.linalg.svdvals(orthogonalised(1000 * stack))
    assert values.max() < 1.3
    assert values.median() > 0.5


def test_a_build_that_was_stopped_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = torch.load(build(tmp_path / "whole").run().parent / "state.pt", weights_only=True)
    stopped = build(tmp_path / "stopped")
    save, saves = stopped._save, []

    def save_and_stop() -> None:
        save()
        saves.append(stopped.tokens)
        if len(saves) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(stopped, "_save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    resumed = build(tmp_path / "stopped")
    resumed.run()
    assert 0 < saves[-1] < resumed.tokens == whole["tokens"]
    for name, weight in resumed.model.state_dict().items():
        assert torch.equal(weight, whole["model"][name]), name


def test_a_build_of_another_recipe_is_not_gone_on_with(tmp_path: Path) -> None:
    build(tmp_path).run()
    with pytest.raises(SystemExit, match="is of another recipe"):
        build(tmp_path, verdict_weight=1.0).run()


def test_nor_a_build_of_other_templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path).run()
    monkeypatch.setattr("experiments.embedded_model.train.templates_hash", lambda: "other")
    with pytest.raises(SystemExit, match="trained on other templates"):
        build(tmp_path).run()


def test_a_build_learns(tmp_path: Path) -> None:
    build(tmp_path, tokens=30_000, warmup_steps=4).run(report_every=5)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0] - 2


# The checkpoint that ships


@pytest.fixture(scope="module")
def shipped() -> dict[str, Any]:
    return json.loads((EMBEDDED / "palaestra.json").read_text(encoding="utf-8"))


def test_it_is_small_and_knows_the_templates(shipped: dict[str, Any]) -> None:
    assert sum(path.stat().st_size for path in EMBEDDED.iterdir()) <= 16e6
    assert shipped["templates"] == templates_hash(), "rebuild it: python -m experiments.embedded_model build"
    assert shipped["version"] == weights_version(EMBEDDED)


def test_it_loads_with_transformers_alone() -> None:
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED)
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    assert tokenizer.chat_template and len(tokenizer) == model.config.vocab_size
    assert tokenizer.get_vocab() == TOKENIZER.get_vocab(), "the dialect has changed since it was built"
    assert not model.config.tie_word_embeddings
    assert model.lm_head.weight.data_ptr() != model.model.embed_tokens.weight.data_ptr()


def test_its_figures_reach_the_bars(shipped: dict[str, Any]) -> None:
    figures = shipped["figures"]
    assert figures["scale"] >= 1, "the model card's figures are of the whole set"
    solver, critic = figures["solver"], figures["critic"]
    for level in (1, 2, 3):
        assert solver[f"{level} small"]["single"] >= 0.90
    between = [c for c, f in solver.items() if 0.5 <= f["single"] <= 0.8 and f["majority_of_8"] >= f["single"] + 0.08]
    assert len(between) >= 2
    assert sum(critic[cell]["balanced"] >= 0.80 for cell in between) >= 2
    assert figures["judge"]["accuracy"] >= 0.78 and abs(figures["judge"]["says_a"] - 0.5) <= 0.05
    assert figures["sneaky"]["truly_wrong"] >= 0.82
    assert min(f for cell, f in figures["tool"].items() if int(cell.split()[0]) <= 4) >= 0.80
    assert min(f["valid"] for f in figures["proposer"].values()) >= 0.6


@pytest.mark.model
@pytest.mark.slow
def test_on_level_7_one_sample_errs_and_a_majority_less(tmp_path: Path) -> None:
    settings = {"samples": 8, "env.level": 7}
    played = run("vote", "arithmetic", tasks=150, samples=1, settings=settings, backend="local", root=tmp_path)
    answers = [[turn.answer in e.task.answers for turn in e.turns] for e in played.episodes()]
    single = sum(map(sum, answers)) / (8 * len(answers))
    majority = played.summary().accuracy
    assert 0.5 <= single <= 0.8
    assert majority is not None and majority >= single + 0.05
