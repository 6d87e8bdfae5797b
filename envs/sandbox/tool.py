"""The tool `python`, as models that call tools know it: what it takes, and what it answers of a program.

The same for the topology tool_use (form=calls), for graphs.python_tool and for `palaestra mcp`. Arguments that are no
program are answered too: nothing that a model calls with is an exception.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from envs.errors import clip
from envs.sandbox.types import Kind, Limits, Ran, Stopped

TOOL = "python"
DESCRIPTION = (
    "Run a Python program and get what it prints. Each program is run on its own: nothing is left of those before it. "
    "It has no files, no network and no installed packages."
)
LIMITS = Limits(seconds=5.0, memory_mb=256, output_chars=2000)
"""Of a program whose output a model reads."""
NOTHING = "(nothing was printed)"


def _bare(schema: dict[str, Any]) -> None:
    """Without what a model reads in the tool's name and description already."""
    for described in (schema, *schema["properties"].values()):
        described.pop("title")
    del schema["description"]


class Program(BaseModel):
    """The tool's arguments."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_bare)

    code: Annotated[str, Field(description="The whole program. It prints what you want to know.")]

    @field_validator("code")
    @classmethod
    def _holds_something(cls, code: str) -> str:
        if not code.strip():
            raise PydanticCustomError("no_code", "there is no code")
        return code


class Outcome(BaseModel):
    """What came of a program, for whoever is not to read it from a text. Holds nothing that the clock decides."""

    ended: Literal["ran"] | Kind
    message: str = ""
    """Why it stopped where it did; empty when it came to its end."""
    output: str = ""
    """What it printed; of a program whose time was up or whose worker died nothing: how far it came is the machine's
    doing."""

    @classmethod
    def of(cls, came: Ran | Stopped) -> "Outcome":
        if isinstance(came, Ran):
            return cls(ended="ran", output=came.output)
        return cls(ended=came.kind, message=came.message, output="" if came.kind in ("time", "crash") else came.output)

    @property
    def text(self) -> str:
        """What a model is shown."""
        printed = self.output.strip("\n")
        return printed or NOTHING if self.ended == "ran" else f"{printed}\nError: {self.message}".lstrip("\n")


def complaint(error: ValidationError) -> str:
    """What a model is told of arguments that are no Program."""
    found = error.errors(include_url=False)[0]
    where = "".join(f"{part}: " for part in found["loc"])
    return f'Error: expected {{"code": "…"}} with a Python program; {where}{found["msg"]}, found {clip(found["input"])}'
