"""Parsers: typed results from good replies, a ParseFailure from any other, and never an exception or a guess."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agents import moves, results
from agents.moves import Move
from agents.results import (
    Choice,
    Critique,
    Judgement,
    Moderation,
    ParseFailure,
    Proposal,
    Review,
    Sabotage,
    Solution,
    Statement,
    ToolUse,
)
from experiments.embedded_model.corpus import MAKERS, review_text
from experiments.embedded_model.problems import draw_problem, flawed_steps

ALL_MOVES = [value for value in vars(moves).values() if isinstance(value, Move)]

words = st.text(alphabet=st.characters(codec="utf-8"), max_size=200)
fragments = st.sampled_from(
    [
        *("\\boxed{", "}", "{", '"', "'", "\n", "\\", "None", "[" * 50),
        *("Verdict: A", "Verdict: correct", "A or B", "Answer: 3", "Error: digit", "Step: 1 + 1 = 3"),
        *("Choice: 2", "Choice: ", "9" * 5000, "٣", "; 8, incorrect", "correct", " " * 50),
        *("```python\n", "```", "<question>", '"preference": "Yes"', "{'answer': "),
        *(
            '{{"preference": "Yes"}}',
            '{["a"]: 1}',
            '{"preference": "Yes", "answer": "\\ud83d"}',
            "\\u",
            "0x" + "f" * 5000,
        ),
    ]
)
replies = st.one_of(words, st.lists(st.one_of(fragments, words), max_size=8).map("".join))


@pytest.mark.parametrize("move", ALL_MOVES, ids=lambda move: f"{move.name}-{move.parse.__name__}")
@given(reply=replies)
def test_parsers_take_any_text(move: Move, reply: str) -> None:
    result = move.parse(reply)
    known = tuple(v for v in vars(results).values() if isinstance(v, type) and issubclass(v, BaseModel))
    assert isinstance(result, known)
    assert result.model_dump_json(), "what cannot be stored would end the run"
    assert move.parse(reply) == result


@pytest.mark.parametrize("move", ALL_MOVES, ids=lambda move: f"{move.name}-{move.parse.__name__}")
def test_an_empty_reply_is_a_failure(move: Move) -> None:
    assert isinstance(move.parse(""), ParseFailure)
    assert isinstance(move.parse(" \n"), ParseFailure)


@pytest.mark.parametrize(
    "reply",
    [
        '{{"preference": "Yes", "answer": "3"}}',
        '{["preference"]: "Yes"}',
        '{"preference": "Yes", "answer": "3\\ud83d"}',
        '{"preference": "Yes", "answer": 0x' + "f" * 5000 + "}",
    ],
)
def test_odd_objects_are_read_or_refused(reply: str) -> None:
    moderation = moves.MODERATE.parse(reply)
    assert isinstance(moderation, ParseFailure) or moderation.model_dump_json()


@pytest.mark.parametrize("move", ALL_MOVES, ids=lambda move: f"{move.name}-{move.parse.__name__}")
def test_deep_nesting_and_long_lines_are_read_in_time(move: Move) -> None:
    for reply in (
        "{" * 100_000 + "}" * 100_000,
        '{"a":' * 5000 + "1" + "}" * 5000,
        "[" * 90_000,
        "(" * 200 + "1" + ")" * 200,
        *(f"{label}: a{' ' * 100_000}b" for label in ("Verdict", "Choice", "Error", "Step")),
        "1, correct " * 10_000,
    ):
        move.parse(reply)


def parsed(move: Move, reply: str) -> Any:
    return move.parse(reply)


def test_solution_and_statement() -> None:
    assert parsed(moves.SOLVE, "7 * 2 = 14\n\\boxed{14}") == Solution(answer="14")
    assert isinstance(parsed(moves.SOLVE, "It is 14"), ParseFailure)
    assert parsed(moves.REBUT, "I see no answer") == Statement(answer=None)
    assert parsed(moves.REBUT, "I agree.\n\\boxed{14}") == Statement(answer="14")


@pytest.mark.parametrize(
    ("reply", "correct"),
    [
        ("Verdict: correct", True),
        ("1 + 1 = 2\nverdict: Incorrect.", False),
        ("**Verdict: incorrect**", False),
        ("Verdict: incorrect\nOn second thoughts\nVerdict: correct", True),
        ("Verdict: correct or incorrect", None),
        ("It is correct", None),
        ("Verdict:", None),
        ("Verdict: not correct", None),
    ],
)
def test_critique(reply: str, correct: bool | None) -> None:
    assert parsed(moves.CRITIQUE, reply) == Critique(correct=correct) if correct is not None else True
    assert isinstance(parsed(moves.CRITIQUE, reply), ParseFailure) == (correct is None)


@pytest.mark.parametrize(
    ("reply", "correct", "marks"),
    [
        ("Verdict: correct", True, ()),
        ("1 + 1 = 2; 2, correct\n2 + 2 = 4; 5, incorrect\nVerdict: incorrect", False, (True, False)),
        ("Step 1 is **correct**.\n\nStep 2: Incorrect\n\n**Verdict: incorrect**", False, (True, False)),
        ("Verdict: incorrect\nAgain: 2, correct\nverdict: Correct.", True, (True,)),
        ("The first step:\ncorrect\nincorrect\nVerdict: incorrect", False, (True, False)),
        ("2, incorrect\ncorrect\nVerdict: correct", True, (False, True)),
        ("correct: the sum\nIs it incorrect?\nVerdict: correct", True, ()),
    ],
)
def test_review(reply: str, correct: bool, marks: tuple[bool, ...]) -> None:
    assert parsed(moves.REVIEW, reply) == Review(correct=correct, marks=marks)


@pytest.mark.parametrize(
    "reply",
    [
        *("All steps are correct", "2, incorrect", "Verdict", "Verdict: half correct", "The verdict: correct"),
        *("Verdict: correct\nVerdict: I am not sure", "Verdict:\ncorrect"),
    ],
)
def test_a_review_without_one_verdict_is_a_failure(reply: str) -> None:
    assert parsed(moves.REVIEW, reply) == ParseFailure(expected="Verdict: correct or incorrect")


@given(st.lists(st.tuples(words.map(lambda text: " ".join(text.split())), st.booleans())), st.booleans())
def test_a_review_is_read_back_line_by_line(said: list[tuple[str, bool]], correct: bool) -> None:
    def spelled(right: bool) -> str:
        return "correct" if right else "incorrect"

    lines = [*(f"- {text}: {spelled(right)}" for text, right in said), f"Verdict: {spelled(correct)}"]
    assert parsed(moves.REVIEW, "\n".join(lines)) == Review(correct=correct, marks=tuple(right for _, right in said))


@given(st.integers(0, 10**9))
def test_the_reviews_and_choices_that_the_corpus_writes_are_read_back(seed: int) -> None:
    rng = random.Random(seed)
    problem = draw_problem(rng)
    given_steps = flawed_steps(problem, rng) if rng.random() < 0.5 else problem.steps
    same = [right == found for right, found in zip(problem.steps, given_steps, strict=True)]
    marks = same[: same.index(False) + 1] if False in same else same
    assert parsed(moves.REVIEW, review_text(problem.steps, given_steps)) == Review(
        correct=all(same), marks=tuple(marks)
    )
    checked = MAKERS["check_review"](problem, rng).messages[-1][1]
    assert isinstance(parsed(moves.CHECK_REVIEW, checked), Critique)
    assert isinstance(parsed(moves.CHOOSE, MAKERS["choose"](problem, rng).messages[-1][1]), Choice)


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("Choice: 2", 2),
        ("14: 1, 3\n15: 2\nChoice: 1", 1),
        ("**Choice: Solution 3**", 3),
        ("choice : solution 12.", 12),
        ("Choice: 1\nNo:\nChoice: 2", 2),
        ("Choice: 0", 0),
    ],
)
def test_choice(reply: str, number: int) -> None:
    assert parsed(moves.CHOOSE, reply) == Choice(number=number)


@pytest.mark.parametrize(
    "reply",
    [
        *("2", "Solution 2", "Choice:", "Choice: none", "Choice: 1 or 2", "Choice: 1, 2", "Choice: -1", "Choice: 1.5"),
        *("Choice: 99999", "Choice: 2\nChoice: hm", "Choice:\n2", "My Choice: 2"),
    ],
)
def test_a_choice_that_names_no_one_number_is_a_failure(reply: str) -> None:
    assert parsed(moves.CHOOSE, reply) == ParseFailure(expected="Choice: and a number")


@pytest.mark.parametrize(
    ("reply", "choice"), [("Verdict: A", "A"), ("...\nVerdict: (b)", "B"), ("A", None), ("Verdict: AB", None)]
)
def test_judgement(reply: str, choice: str | None) -> None:
    result = parsed(moves.JUDGE, reply)
    assert result == Judgement(choice=choice) if choice else isinstance(result, ParseFailure)  # pyright: ignore


def test_sabotage() -> None:
    assert parsed(moves.SABOTAGE, "Error: digit\nStep: 7 * 2 = 41") == Sabotage(kind="digit", step="7 * 2 = 41")
    assert isinstance(parsed(moves.SABOTAGE, "Error: laziness\nStep: 7 * 2 = 41"), ParseFailure)
    assert isinstance(parsed(moves.SABOTAGE, "Error: digit"), ParseFailure)
    assert isinstance(parsed(moves.SABOTAGE, "Error: digit\nStep:"), ParseFailure)


def test_proposal_takes_the_last_question() -> None:
    reply = "<question>a</question> no: <question>\nWhat is 1 + 1?\n</question>\n\\boxed{2}"
    assert parsed(moves.PROPOSE, reply) == Proposal(question="What is 1 + 1?", answer="2")
    assert isinstance(parsed(moves.PROPOSE, "<question></question>\\boxed{2}"), ParseFailure)
    assert isinstance(parsed(moves.PROPOSE, "<question>What?</question>"), ParseFailure)


def test_tool_use_prefers_the_answer_and_reads_the_first_closed_block() -> None:
    assert parsed(moves.SOLVE_WITH_TOOL, "```python\nprint(1)\n```\n```python\nprint(2)\n```") == ToolUse(
        code="print(1)"
    )
    assert parsed(moves.SOLVE_WITH_TOOL, "```python\nprint(1)\n```\n\\boxed{1}") == ToolUse(answer="1")
    assert isinstance(parsed(moves.SOLVE_WITH_TOOL, "```python\nprint(1)"), ParseFailure)
    commented = "# Answer: the total\nprint(1)"
    assert parsed(moves.SOLVE_WITH_TOOL, f"```python\n{commented}\n```") == ToolUse(code=commented)


def test_moderation_needs_a_preference_and_an_answer_to_end_the_debate() -> None:
    ends = '{"reason": "r", "preference": "Yes", "side": "Affirmative", "answer": "18"}'
    assert parsed(moves.MODERATE, ends) == Moderation(preference=True, side="affirmative", answer="18", reason="r")
    assert parsed(moves.MODERATE, ends).ends_debate
    assert not parsed(moves.MODERATE, '{"preference": "No", "answer": "18"}').ends_debate
    assert not parsed(moves.MODERATE, '{"preference": "Yes", "answer": ""}').ends_debate
    assert isinstance(parsed(moves.MODERATE, "I prefer the negative side."), ParseFailure)
    assert isinstance(parsed(moves.MODERATE, '{"preference": "Maybe"}'), ParseFailure)


def test_moderation_reads_the_published_keys_python_literals_and_fences() -> None:
    published = (
        "{'Whether there is a preference': 'Yes', 'Supported Side': 'Negative side', "
        "'Reason': \"It's so\", 'Correct Translation': 'x'}"
    )
    assert parsed(moves.MODERATE, published) == Moderation(
        preference=True, side="negative", answer="x", reason="It's so"
    )
    assert parsed(moves.MODERATE, '```json\n{"preference": true, "answer": 18}\n```').answer == "18"
    assert parsed(moves.MODERATE, '{"preference": "Yes", "reason": "two\nlines", "answer": null}').answer == ""


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        (r"\frac{1}{2}", r"\frac{1}{2}"),
        (r"\\frac{1}{2}", r"\frac{1}{2}"),
        (r"2 \times \sqrt{3} \text{ cm}", r"2 \times \sqrt{3} \text{ cm}"),
        (r"\(x\)", r"\(x\)"),
        (r"\underline{7}", r"\underline{7}"),
        (r"\u0037", "7"),
        (r"a\nb", "a\nb"),
        (r"\"quoted\"", '"quoted"'),
    ],
)
def test_latex_survives_in_json_escaped_or_not(written: str, answer: str) -> None:
    assert parsed(moves.CONCLUDE, f'{{"reason": "", "answer": "{written}"}}').answer == answer


def test_a_truncated_object_is_not_completed_by_guessing() -> None:
    assert isinstance(parsed(moves.CONCLUDE, '{"reason": "so", "answer": "1'), ParseFailure)


def test_model_text_is_never_executed(tmp_path: Any) -> None:
    marker = tmp_path / "touched"
    code = f"{{'answer': __import__('pathlib').Path({str(marker)!r}).touch()}}"
    for move in ALL_MOVES:
        move.parse(code)
    assert not marker.exists()
