"""Pseudo-labels: votes, exact agreements, the published bands, what is left out and why, and the way through JSON."""

import asyncio
import json
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs import Arithmetic, ConfigError, Env
from envs.types import Task
from experiments.pseudo_labels import BANDS, Band, Filter, PseudoLabel, agreement_of, label_of, parse_band, pseudo_label

NUMBERS = Arithmetic()
LABEL = PseudoLabel((("12", 6), ("13", 2)), samples=10)


def voted(answers: Sequence[str | None], env: Env = NUMBERS, **options: Any) -> PseudoLabel:
    return asyncio.run(pseudo_label(env, answers, **options))


def as_task(**details: Any) -> Task:
    return Task(id="t", question="?", answers=("12",), details=details)


class TestVotes:
    def test_answers_are_counted_as_the_env_holds_them_equal_and_kept_as_first_said(self) -> None:
        label = voted(["1,024", "7", "1024.0", None, "1024", " "])
        assert label.votes == (("1,024", 3), ("7", 1)) and (label.answer, label.samples, label.parsed) == (
            "1,024",
            6,
            4,
        )
        assert label.agreement == Fraction(1, 2)

    def test_the_denominator_is_named(self) -> None:
        answers = ["5", "5", "6", None, None]
        assert voted(answers).agreement == Fraction(2, 5)
        assert voted(answers, of="parsed").agreement == Fraction(2, 3)

    def test_of_equals_the_answer_that_was_seen_first_is_the_label(self) -> None:
        assert voted(["7", "8", "8", "7"]).answer == "7" and voted(["9", "8", "7"]).votes[0] == ("9", 1)

    def test_without_an_answer_there_is_no_label(self) -> None:
        for of in ("samples", "parsed"):
            label = voted([None, ""], of=of)
            assert (label.answer, label.agreement, label.parsed) == (None, 0, 0)
        assert voted([None], own="5").own_agrees is False
        with pytest.raises(ConfigError, match="at least one sample"):
            voted([])

    def test_the_questions_own_answer_is_compared_and_casts_no_vote(self) -> None:
        answers = ["5", "5", "6"]
        assert voted(answers, own="5.0").votes == voted(answers).votes == (("5", 2), ("6", 1))
        assert [voted(answers, own=own).own_agrees for own in ("5.0", "6", "7", None)] == [True, False, False, None]

    def test_an_agreement_is_trusted_where_the_own_answer_is_the_label(self) -> None:
        assert voted(["5", "5", "6"], own="5").gated == Fraction(2, 3)
        assert voted(["5", "5", "6"], own="6").gated == 0
        few = [str(i) for i in range(10)]
        assert voted(few, own="0").gated == 0, "1/10 is nobody's answer"
        with pytest.raises(ConfigError, match="own answer to be compared, found none"):
            _ = voted(["5"]).gated

    @given(answers=st.lists(st.none() | st.sampled_from(["1", "1.0", "2", "3", "x"]), min_size=1, max_size=12))
    def test_the_label_has_the_most_votes_and_none_are_lost(self, answers: list[str | None]) -> None:
        label = voted(answers)
        counts = [count for _, count in label.votes]
        assert sum(counts) == len(answers) - answers.count(None) and counts == sorted(counts, reverse=True)
        assert label.agreement == Fraction(max(counts, default=0), len(answers))
        assert label_of(Task.model_validate_json(as_task(**label.details()).model_dump_json())) == label


class TestStored:
    def test_a_label_lies_in_a_tasks_details_as_json(self) -> None:
        details = LABEL.details()
        assert details["agreement"] == "3/5" and json.loads(json.dumps(details)) == details
        assert label_of(as_task(**details)) == LABEL

    @pytest.mark.parametrize(("stored", "share"), [("3/10", "3/10"), (0.3, "3/10"), ("0.8", "4/5"), (1, "1"), (0, "0")])
    def test_an_agreement_may_be_text_or_a_number(self, stored: Any, share: str) -> None:
        assert agreement_of(as_task(agreement=stored)) == Fraction(share)

    @pytest.mark.parametrize("stored", [None, "", "most", "6/5", -0.1, "1/0", float("nan"), True, [1]])
    def test_an_agreement_that_is_none_is_an_error(self, stored: Any) -> None:
        with pytest.raises(ConfigError, match=r"task t: expected details.agreement, .* found .*PseudoLabel.details"):
            agreement_of(as_task(agreement=stored))
        with pytest.raises(ConfigError, match="found None"):
            agreement_of(as_task())

    def test_a_label_that_is_none_is_an_error(self) -> None:
        for changes in (
            {"votes": [["12", 11]]},
            {"votes": [["12", 0]]},
            {"votes": [["1", 1], ["2", 2]]},
            {"of": "all"},
        ):
            stored = LABEL.details()
            stored["pseudo_label"] |= changes
            with pytest.raises(ConfigError, match=r"task t: expected details.pseudo_label"):
                label_of(as_task(**stored))
        with pytest.raises(ConfigError, match=r"agreement 3/5, as its votes say, found 2/5"):
            label_of(as_task(**(LABEL.details() | {"agreement": "2/5"})))


class TestFilter:
    def test_the_published_bands_keep_these_levels(self) -> None:
        tenths, ninths = ([Fraction(votes, k) for votes in range(k + 1)] for k in (10, 9))
        kept = {name: [level for level in tenths if level in band] for name, band in BANDS.items()}
        assert kept["released"] == [Fraction(votes, 10) for votes in (3, 4, 5, 6, 7, 8)]
        assert kept["paper"] == [Fraction(votes, 10) for votes in (3, 4, 5, 6, 7)]
        assert [name for name, band in BANDS.items() if ninths[7] in band] == ["released"]
        assert Fraction(1, 4) in BANDS["paper"] and Fraction(3, 4) in BANDS["paper"]

    def test_bands_are_read_exactly(self) -> None:
        assert parse_band("0.3..0.8") == parse_band("3/10..4/5") == parse_band("released") == BANDS["released"]
        for text, said in [
            ("relased", "did you mean 'released'"),
            ("0.8..0.3", r"low <= high <= 1, found 4/5..3/10"),
            ("a..b", r"two fractions, LOW..HIGH, found 'a..b'"),
            ("0..1/2..1", "two fractions"),
            ("0..1/0", "two fractions"),
        ]:
            with pytest.raises(ConfigError, match=said):
                parse_band(text)

    @pytest.mark.parametrize(
        ("question", "answer", "said"),
        [
            ("What is 3 + 4?", "7", None),
            ("Prove that 7 is prime.", "7", "it asks for a proof"),
            ("证明 7 是质数", "7", "it asks for a proof"),
            ("How much is waterproofing?", "7", None),
            ("Put it in a Box.", "7", "it speaks of a box"),
            ("How far?", "7 \\text{ km}", "its answer holds text"),
        ],
    )
    def test_what_no_grader_can_use_is_left_out(self, question: str, answer: str, said: str | None) -> None:
        label = PseudoLabel(((answer, 5),), 10)
        assert Filter().why_not(question, label) == said
        assert Filter(gradable=False).why_not(question, label) is None

    def test_every_other_reason_is_said_too(self) -> None:
        assert Filter().why_not("?", PseudoLabel((), 10)) == "no answer could be read"
        assert Filter().why_not("?", PseudoLabel((("1", 9),), 10)) == "agreement outside 3/10..4/5"
        assert Filter(Band(Fraction(0), Fraction(1))).why_not("?", PseudoLabel((("1", 9),), 10)) is None
        other, same = (PseudoLabel((("1", 5),), 10, own_agrees=agrees) for agrees in (False, True))
        gate = Filter(own_answer=True)
        assert gate.why_not("?", other) == "its own answer is not the label" and Filter().why_not("?", other) is None
        assert gate.why_not("?", same) is None
        with pytest.raises(ConfigError, match="own answer to be compared"):
            gate.why_not("?", LABEL)
