"""The tool `python`: arguments that are no program are answered, and what a model is shown of one that ran."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from envs.sandbox import Ran, Stopped
from envs.sandbox.tool import NOTHING, Outcome, Program, complaint
from envs.sandbox.types import Kind

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.text() | JSON.map(json.dumps) | st.fixed_dictionaries({"code": JSON}).map(json.dumps))
def test_any_arguments_are_a_program_or_a_complaint_on_one_line(arguments: str) -> None:
    try:
        program = Program.model_validate_json(arguments)
    except ValidationError as error:
        said = complaint(error)
        assert said.startswith('Error: expected {"code": "…"} with a Python program; ')
        assert len(said.splitlines()) == 1 and len(said) < 600
    else:
        assert json.loads(arguments) == {"code": program.code} and program.code.strip()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("print(1)", "Invalid JSON: expected value at line 1 column 1, found 'print(1)'"),
        ("{}", "code: Field required, found {}"),
        ('{"code": 1}', "code: Input should be a valid string, found 1"),
        ('{"code": " \\n"}', "code: there is no code, found ' \\n'"),
        ('{"code": "1", "timeout": 60}', "timeout: Extra inputs are not permitted, found 60"),
        ('["print(1)"]', "Input should be an object, found ['print(1)']"),
        ('{"code": "\ud800"}', "Input should be a valid string, unable to parse raw data as a unicode string"),
    ],
)
def test_a_complaint_says_what_is_wrong(arguments: str, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Program.model_validate_json(arguments)
    assert said in complaint(caught.value)


def test_its_schema_says_what_it_takes_and_nothing_more() -> None:
    described = {"type": "string", "description": "The whole program. It prints what you want to know."}
    assert Program.model_json_schema() == {
        "type": "object",
        "properties": {"code": described},
        "required": ["code"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("kind", "output", "shown"),
    [
        ("time", "1\n2\n", "Error: no"),
        ("crash", "1\n", "Error: no"),
        ("memory", "1\n", "1\nError: no"),
        ("error", "", "Error: no"),
    ],
)
def test_what_the_clock_decides_is_not_shown(kind: Kind, output: str, shown: str) -> None:
    outcome = Outcome.of(Stopped(kind, "no", output, 1.0))
    assert outcome.text == shown and (outcome.ended, outcome.message) == (kind, "no")
    assert outcome.output == (output if "1" in shown else "")


@pytest.mark.parametrize(("output", "shown"), [("\n a \n\n", " a "), ("", NOTHING), ("\n", NOTHING)])
def test_what_ran_is_shown_as_it_printed(output: str, shown: str) -> None:
    outcome: Any = Outcome.of(Ran(output, 1.0))
    assert outcome.text == shown and outcome.model_dump() == {"ended": "ran", "message": "", "output": output}
