"""Move templates: fields, text that is only text, and the hash that a checkpoint is tied to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents import moves
from agents.moves import Move, fixed_chunks, render_instructions, template_files, templates_hash
from agents.results import ParseFailure
from envs import ConfigError


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ConfigError, match=r"move critique needs the fields \['question', 'step', 'steps'\].*steps"):
        moves.CRITIQUE.render(question="q", step="s")


@given(st.text())
def test_values_are_data(text: str) -> None:
    rendered = moves.SOLVE.render(question=f"{{{{ 7 * 7 }}}}{{% raw %}}{text}")
    assert rendered.endswith(f"Problem: {{{{ 7 * 7 }}}}{{% raw %}}{text}")


def test_a_prompt_is_made_of_fixed_chunks_and_fields() -> None:
    source = "Problem: {{ question }}\nSteps:{% for s in steps %} {{ s }};{% endfor %}"
    move = Move("mine", lambda reply: reply, source)
    assert move.fields == {"question", "steps"}
    assert fixed_chunks(source) == ["Problem: ", "\nSteps:", " ", ";"]
    assert move.render(question="q", steps=[1, 2]) == "Problem: q\nSteps: 1; 2;"


def test_revise_without_peers_asks_to_check_oneself() -> None:
    assert "Another agent" not in moves.REVISE.render(peers=[])
    two = moves.REVISE.render(peers=["first", "second"])
    assert two.count("Another agent:") == 2 and two.index("first") < two.index("second")


def test_several_solutions_are_numbered_from_1_in_their_order() -> None:
    given = ["7 * 2 = 14", "7 * 2 = 15", "{{ 7 * 7 }}"]
    for move in (moves.CHOOSE, moves.AGGREGATE):
        rendered = move.render(question="What is 7 * 2?", solutions=given)
        places = [rendered.index(f"Solution {n}:\n{text}\n") for n, text in enumerate(given, 1)]
        assert places == sorted(places) and "Solution 4" not in rendered
        assert rendered.startswith("Problem: What is 7 * 2?\n")


@pytest.mark.parametrize(
    ("move", "fields"),
    [
        (moves.REVIEW, {"question", "solution"}),
        (moves.CHECK_REVIEW, {"question", "solution", "review"}),
        (moves.REFINE, {"feedback"}),
        (moves.CHOOSE, {"question", "solutions"}),
        (moves.AGGREGATE, {"question", "solutions"}),
        (moves.ASK_BACK, {"question", "answer"}),
    ],
    ids=lambda value: value.name if isinstance(value, Move) else "",
)
def test_moves_over_whole_solutions_show_what_they_are_given(move: Move, fields: set[str]) -> None:
    assert move.fields == fields
    values = {field: [f"<{field}>"] if field == "solutions" else f"<{field}>" for field in fields}
    assert all(f"<{field}>" in move.render(**values) for field in fields)
    with pytest.raises(ConfigError, match=f"move {move.name} needs the fields"):
        move.render(**dict(list(values.items())[1:]))


@pytest.mark.parametrize("move", [moves.REVIEW, moves.CHECK_REVIEW, moves.CHOOSE], ids=lambda move: move.name)
def test_the_form_that_a_template_asks_for_is_no_reply(move: Move) -> None:
    values = {field: ["x"] if field == "solutions" else "x" for field in move.fields}
    assert isinstance(move.parse(move.render(**values)), ParseFailure), "an echoed prompt decides nothing"


def test_role_instructions() -> None:
    assert render_instructions("solver", None, {}).startswith("You are")
    assert render_instructions("no_such_role", None, {}) == ""
    assert render_instructions("solver", "", {}) == ""
    assert render_instructions("solver", "Say {{ question }}", {"question": "{{ x }}"}) == "Say {{ x }}"
    with pytest.raises(ConfigError, match="instructions of solver"):
        render_instructions("solver", "{{ missing }}", {})


def test_instructions_cannot_reach_into_python() -> None:
    with pytest.raises(ConfigError):
        render_instructions("solver", "{{ ''.__class__.__mro__[1].__subclasses__() }}", {})


def test_every_template_belongs_to_a_move_or_role_and_renders_without_loose_ends() -> None:
    names = {move.name for move in vars(moves).values() if isinstance(move, Move)}
    for path in template_files():
        if path.parent.name == "moves":
            assert path.stem in names
        assert path.read_text(encoding="utf-8").endswith("\n")
    assert len(templates_hash()) == 64
