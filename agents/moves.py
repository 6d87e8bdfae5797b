"""Moves: one kind of thing a role can be asked. A template file, the fields it needs, a parser to a typed result.

Templates are Jinja files under `agents/templates`, meant to be read and edited. Every model gets the same text; the
embedded model was trained on exactly these files, so `templates_hash` is stored with its checkpoint. Field values are
data: Jinja never looks for a placeholder in them.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, UndefinedError, meta, nodes
from jinja2.sandbox import SandboxedEnvironment

from agents import results
from envs.errors import ConfigError

TEMPLATES = Path(__file__).parent / "templates"
_jinja = SandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


@dataclass(frozen=True)
class Move:
    """One kind of request and how its reply is read."""

    name: str
    parse: Callable[[str], Any]
    """reply -> a result of agents.results, or ParseFailure; pure, and never raises."""
    source: str | None = None
    """The template's text; None reads the file templates/moves/NAME.jinja."""
    schema: Mapping[str, Any] | None = None
    """JSON schema of the reply, for seats with `structured`."""

    @cached_property
    def template(self) -> Template:
        return _jinja.from_string(self.source if self.source is not None else _read("moves", self.name))

    @cached_property
    def fields(self) -> frozenset[str]:
        source = self.source if self.source is not None else _read("moves", self.name)
        return frozenset(meta.find_undeclared_variables(_jinja.parse(source)))

    def render(self, **fields: Any) -> str:
        """The prompt's text.

        Raises:
            ConfigError: a field is missing.
        """
        try:
            return self.template.render(fields)
        except UndefinedError as error:
            raise ConfigError(f"move {self.name} needs the fields {sorted(self.fields)}: {error}") from None


SOLVE = Move("solve", results.parse_solution)
REVISE = Move("revise", results.parse_solution)
CRITIQUE = Move("critique", results.parse_critique)
REVIEW = Move("review", results.parse_review)
CHECK_REVIEW = Move("check_review", results.parse_critique)
REFINE = Move("refine", results.parse_solution)
CHOOSE = Move("choose", results.parse_choice)
AGGREGATE = Move("aggregate", results.parse_solution)
ASK_BACK = Move("ask_back", results.parse_solution)
JUDGE = Move("judge", results.parse_judgement)
SABOTAGE = Move("sabotage", results.parse_sabotage)
PROPOSE = Move("propose", results.parse_proposal)
SOLVE_WITH_TOOL = Move("solve_with_tool", results.parse_tool_use)
OBSERVE = Move("observe", results.parse_tool_use)
# No file: the embedded model, which is trained on those, calls no tools.
SOLVE_BY_CALLS = Move(
    "solve_by_calls",
    results.parse_solution,
    source="Solve this problem step by step. Compute with the tool that you have; you may call it several times. End "
    "with the answer in \\boxed{}.\n\nProblem: {{ question }}",
)
OPEN = Move("solve", results.parse_statement)
RESTATE = Move("restate", results.parse_statement)
OPPOSE = Move("oppose", results.parse_statement)
REBUT = Move("rebut", results.parse_statement)
MODERATE = Move("moderate", results.parse_moderation, schema=results.MODERATION_SCHEMA)
LIST_CANDIDATES = Move("list_candidates", results.parse_candidates)
CONCLUDE = Move("conclude", results.parse_conclusion, schema=results.CONCLUSION_SCHEMA)


@cache
def _read(folder: str, name: str) -> str:
    try:
        return (TEMPLATES / folder / f"{name}.jinja").read_text(encoding="utf-8")
    except OSError:
        have = ", ".join(sorted(p.stem for p in (TEMPLATES / folder).glob("*.jinja")))
        raise ConfigError(f"no template {folder}/{name}.jinja under {TEMPLATES}; there are: {have}") from None


@cache
def role_template(name: str) -> Template:
    """The instructions of a role, from templates/roles/NAME.jinja."""
    return _jinja.from_string(_read("roles", name))


def render_instructions(name: str, own: str | None, fields: Mapping[str, Any]) -> str:
    """The system message that opens a role's conversation; empty when the role has no instructions.

    Args:
        name: of the file in templates/roles; a role without one has no instructions.
        own: the user's text in its place, a Jinja template over `fields`.
        fields: those of the move that is asked first.
    """
    if own is None and not _has_role(name):
        return ""
    try:
        return (role_template(name) if own is None else _own_template(own)).render(fields)
    except TemplateError as error:
        raise ConfigError(f"the instructions of {name} cannot be rendered: {error}") from None


def check_template(source: str) -> None:
    """
    Raises:
        ValueError: it is no Jinja template.
    """
    try:
        _jinja.parse(source)
    except TemplateSyntaxError as error:
        raise ValueError(f"it is no Jinja template: {error.message}, line {error.lineno}") from None


@cache
def _has_role(name: str) -> bool:
    return (TEMPLATES / "roles" / f"{name}.jinja").is_file()


@cache
def _own_template(source: str) -> Template:
    return _jinja.from_string(source)


def template_files() -> Iterator[Path]:
    return iter(sorted(TEMPLATES.glob("*/*.jinja")))


def fixed_chunks(source: str) -> list[str]:
    """The stretches of fixed text in a template: the embedded model's vocabulary has a token for each."""
    tree = _jinja.parse(source)
    return [node.data for node in tree.find_all(nodes.TemplateData)]


def templates_hash() -> str:
    """SHA-256 over all template files, names included: whether a checkpoint was trained on these templates."""
    digest = hashlib.sha256()
    for path in template_files():
        digest.update(f"{path.relative_to(TEMPLATES)}\0{path.read_text(encoding='utf-8')}\0".encode())
    return digest.hexdigest()
