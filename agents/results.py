"""The typed result of each move, and the parsers from a model's reply to it.

A parser is a pure function `reply -> result | ParseFailure`: it never raises, never guesses and never evaluates the
text as code. `agents.moves` binds each parser to its template.
"""

import ast
import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from envs.types import ERROR_KINDS, ErrorKind, final_answer


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True)


class Solution(_Result):
    """A solver's final answer; its steps are the reply itself."""

    answer: str


class Statement(_Result):
    """What a debater says. A statement without a marked answer is still a statement."""

    answer: str | None


class Critique(_Result):
    correct: bool
    """The critic's verdict on the step."""


class Review(_Result):
    correct: bool
    """The reviewer's verdict on the whole solution."""
    marks: tuple[bool, ...] = ()
    """What it says of the solution's steps, in order, as far as it says so."""


class Choice(_Result):
    number: int
    """Of the solution that is chosen, from 1."""


class Judgement(_Result):
    choice: Literal["A", "B"]


class Sabotage(_Result):
    kind: ErrorKind
    step: str


class Proposal(_Result):
    question: str
    answer: str
    """The proposer's own answer; what the answer really is remains to be found out."""


class ToolUse(_Result):
    """One turn of a solver with a tool: code to run, or the final answer (which takes precedence)."""

    code: str | None = None
    answer: str | None = None


class Moderation(_Result):
    preference: bool
    side: Literal["affirmative", "negative"] | None
    answer: str
    reason: str

    @property
    def ends_debate(self) -> bool:
        """A preference and an answer: either alone lets the debate go on (the published code breaks on an answer)."""
        return self.preference and bool(self.answer)


class Candidates(_Result):
    text: str


class Conclusion(_Result):
    answer: str
    reason: str


class ParseFailure(_Result):
    expected: str
    """What the parser looked for; the reply it was given is on the turn."""


def parse_solution(reply: str) -> Solution | ParseFailure:
    answer = final_answer(reply)
    return Solution(answer=answer) if answer else ParseFailure(expected="a final answer in \\boxed{}")


def parse_statement(reply: str) -> Statement | ParseFailure:
    return Statement(answer=final_answer(reply)) if reply.strip() else ParseFailure(expected="a statement")


def parse_critique(reply: str) -> Critique | ParseFailure:
    verdict = _last_verdict(reply, "correct", "incorrect")
    return Critique(correct=verdict == "correct") if verdict else ParseFailure(expected="Verdict: correct or incorrect")


def parse_review(reply: str) -> Review | ParseFailure:
    verdict = _last_verdict(reply, "correct", "incorrect")
    if verdict is None:
        return ParseFailure(expected="Verdict: correct or incorrect")
    marks = _MARK.findall(reply)
    return Review(correct=verdict == "correct", marks=tuple(mark.lower() == "correct" for mark in marks))


def parse_choice(reply: str) -> Choice | ParseFailure:
    found = re.fullmatch(r"(?:solution[ \t]*)?(\d{1,4})\.?", _last_line(reply, "Choice") or "", re.IGNORECASE)
    return Choice(number=int(found[1])) if found else ParseFailure(expected="Choice: and a number")


def parse_judgement(reply: str) -> Judgement | ParseFailure:
    verdict = _last_verdict(reply, "A", "B")
    return Judgement(choice=verdict) if verdict else ParseFailure(expected="Verdict: A or B")  # pyright: ignore[reportArgumentType]


def parse_sabotage(reply: str) -> Sabotage | ParseFailure:
    kind, step = _last_line(reply, "Error"), _last_line(reply, "Step")
    if kind is None or kind.lower() not in ERROR_KINDS:
        return ParseFailure(expected=f"a line 'Error: ' with one of {', '.join(ERROR_KINDS)}")
    return Sabotage(kind=kind.lower(), step=step) if step else ParseFailure(expected="a line 'Step: '")  # pyright: ignore[reportArgumentType]


def parse_proposal(reply: str) -> Proposal | ParseFailure:
    found = re.findall(r"<question>(.*?)</question>", reply, re.DOTALL)
    question, answer = found[-1].strip() if found else "", final_answer(reply)
    if not question or not answer:
        return ParseFailure(expected="<question>…</question> and a final answer in \\boxed{}")
    return Proposal(question=question, answer=answer)


def parse_tool_use(reply: str) -> ToolUse | ParseFailure:
    """A marked answer outside code ends the episode; else the first closed block of code is what is to be run."""
    answer = final_answer(_CODE.sub("", reply))
    if answer:
        return ToolUse(answer=answer)
    found = _CODE.search(reply)
    if found and found[1].strip():
        return ToolUse(code=found[1])
    return ParseFailure(expected="a Python code block or a final answer in \\boxed{}")


def parse_moderation(reply: str) -> Moderation | ParseFailure:
    """Also reads the key names of the published prompts (Liang et al., arXiv:2305.19118)."""
    fields = _json_object(reply)
    preference = _text(fields, "preference", "Whether there is a preference").lower()
    if preference not in ("yes", "no"):
        return ParseFailure(expected='JSON with "preference": "Yes" or "No"')
    side = _text(fields, "side", "Supported Side").lower().removesuffix(" side")
    return Moderation(
        preference=preference == "yes",
        side=side if side in ("affirmative", "negative") else None,  # pyright: ignore[reportArgumentType]
        answer=_text(fields, *_ANSWER_KEYS),
        reason=_text(fields, "reason", "Reason"),
    )


def parse_candidates(reply: str) -> Candidates | ParseFailure:
    return Candidates(text=reply.strip()) if reply.strip() else ParseFailure(expected="a list of candidates")


def parse_conclusion(reply: str) -> Conclusion | ParseFailure:
    fields = _json_object(reply)
    answer = _text(fields, *_ANSWER_KEYS)
    if not answer:
        return ParseFailure(expected='JSON with a non-empty "answer"')
    return Conclusion(answer=answer, reason=_text(fields, "reason", "Reason"))


def _object_schema(**properties: Any) -> Mapping[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


MODERATION_SCHEMA = _object_schema(
    reason={"type": "string"},
    preference={"type": "string", "enum": ["Yes", "No"]},
    side={"type": "string", "enum": ["Affirmative", "Negative"]},
    answer={"type": "string"},
)
CONCLUSION_SCHEMA = _object_schema(reason={"type": "string"}, answer={"type": "string"})

_CODE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)\n?```", re.DOTALL)
_MARK = re.compile(r"^(?![ \t*_]*verdict)(?:.*[^a-z\n])?(correct|incorrect)[ \t.*_]*$", re.MULTILINE | re.IGNORECASE)
_ESCAPE = re.compile(r"\\(\\|[\"'/n]|u[0-9a-fA-F]{4}|[bfrt](?![A-Za-z]))?")
_ANSWER_KEYS = ("answer", "debate_answer", "Correct Translation")


def _last_line(reply: str, label: str) -> str | None:
    found = re.findall(rf"^[ \t*_]*{label}[ \t]*:(.*)$", reply, re.MULTILINE | re.IGNORECASE)
    return (found[-1].strip(" \t*_") or None) if found else None


def _last_verdict(reply: str, *choices: str) -> str | None:
    """The choice that the last `Verdict:` line names: exactly one, so that 'A or B' is no verdict."""
    line = (_last_line(reply, "Verdict") or "").strip(" .\"'()[]").lower()
    return next((choice for choice in choices if choice.lower() == line), None)


def _json_object(reply: str) -> Mapping[str, Any]:
    """The reply's outermost {…} as JSON, else as a Python literal (models mix the two); empty when it is neither."""
    start, end = reply.find("{"), reply.rfind("}")
    if start < 0 or end < start or end - start > 100_000:
        return {}
    # Models forget to escape LaTeX: "\\frac" would be a form feed and "rac", "\\sqrt" no JSON at all.
    text = _ESCAPE.sub(lambda found: found[0] if found[1] else "\\\\", reply[start : end + 1])
    for read in (lambda: json.loads(text, strict=False), lambda: ast.literal_eval(text)):
        try:
            value = read()
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(value, dict):
            return {key: item for key, item in value.items() if isinstance(key, str)}
    return {}


def _text(fields: Mapping[str, Any], *keys: str) -> str:
    value = next((fields[key] for key in keys if key in fields), "")
    if isinstance(value, bool):
        return "yes" if value else "no"
    try:
        text = str(value).strip() if isinstance(value, (str, int, float)) else ""
    except ValueError:  # an integer of thousands of digits
        return ""
    # JSON can name half of a surrogate pair, which nothing can store.
    return text.encode("utf-8", "replace").decode()
