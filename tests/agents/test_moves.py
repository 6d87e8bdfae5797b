"""Move templates: fields, text that is only text, and the hash that a checkpoint is tied to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents import moves
from agents.moves import Move, fixed_chunks, render_instructions, template_files, templates_hash
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
