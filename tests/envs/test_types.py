"""Reading the final answer of a reply."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.types import Verdict, final_answer


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("so \\boxed{18}", "18"),
        ("\\boxed{1} then \\boxed{2}", "2"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{\\left\\{1, 2\\right\\}}", "\\left\\{1, 2\\right\\}"),
        ("\\boxed{ 7 } and \\boxed{unclosed", "7"),
        ("She makes $18.\nA: 18", "18"),
        ("Steps\n#### 1,234", "1,234"),
        ("**Answer:** 42", "42"),
        ("Final answer: x = 5.", "x = 5"),
        ("So the answer is 3.5.", "3.5"),
        ("The answer is 3.5.", "3.5"),
        ("answer: 1\nAnswer: 2", "2"),
        ("\\boxed{}", None),
        ("18", None),
        ("the total is 18", None),
        ("", None),
    ],
)
def test_final_answer(reply: str, answer: str | None) -> None:
    assert final_answer(reply) == answer


@given(st.text())
def test_final_answer_reads_any_text(reply: str) -> None:
    answer = final_answer(reply)
    assert answer is None or (answer.strip() == answer and answer in reply)


@given(st.text(alphabet="0123456789abcxyz+-*/^_ .,\\", min_size=1).filter(lambda t: t.strip()), st.text())
def test_what_is_boxed_last_is_the_answer(answer: str, before: str) -> None:
    assert final_answer(f"{before}\n\\boxed{{{answer}}}") == answer.strip()


def test_long_replies_are_read_in_time() -> None:
    # Each once took minutes in a reader with a backtracking pattern.
    for reply in ("\\boxed{" * 3000, "*" * 100_000, " \t" * 50_000 + "x", "{" * 100_000):
        assert final_answer(reply) is None


def test_unscorable_has_no_score() -> None:
    assert Verdict.unscorable("the grader died").score is None
    assert [v.score for v in (Verdict.correct(), Verdict.incorrect(), Verdict.unparsed())] == [1, 0, 0]
