"""The cast of a run: which model plays which role, with which sampling and instructions. Configuration alone.

`agents.company` opens it: a cast becomes a company when its pools are up.
"""

import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from agents.engines import Model, ModelSpec, parse_model
from agents.moves import check_template
from agents.serving import SCOPES, Serving
from agents.types import Sampling
from envs.errors import ConfigError, clip, unknown


class Seat(BaseModel):
    """How one role is filled."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    model: Any = "embedded"
    """A name (see agents.engines.FORMS); from Python also an engine or a function that makes one."""
    adapter: str | None = None
    """Directory of a LoRA adapter in PEFT's format: the role's policy is the model with it. Roles that differ in their
    adapter alone share the model's pool."""
    policy: str = ""
    """A policy that a training loop publishes to the model's pool; empty for the model's own, or the adapter's."""
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=512, ge=1)
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """A reply ends before the first of these."""
    instructions: str | None = None
    """Replaces the role's own instructions; a Jinja template over the fields of its moves. Empty: no system message."""
    structured: bool = False
    """Hold replies to the JSON schema of moves that have one, while they are sampled; the engine must be able to."""
    serving: dict[str, Any] = {}
    """Settings of this role's engine and pool alone: `{"pool.replicas": 2}`; see agents.serving."""

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop(cls, value: Any) -> Any:
        return ((value,) if value else ()) if isinstance(value, str) else value

    @field_validator("instructions")
    @classmethod
    def _is_template(cls, value: str | None) -> str | None:
        if value is not None:
            check_template(value)
        return value

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_p, self.max_tokens, self.stop)


class Cast:
    """Roles and the seats that fill them.

    `Cast(solver="embedded", judge="hf:models/judge")` names each role's model; `Cast.all("embedded")` fills every role
    alike. A seat of `debater` also holds for `debater_1`, `debater_2`, … unless they have their own.
    """

    def __init__(self, default: Seat | Model | None = None, /, **seats: Seat | Model):
        self.default = None if default is None else _seat(default)
        self.seats = {role: _seat(seat) for role, seat in seats.items()}

    @classmethod
    def all(cls, model: Model = "embedded", **sampling: Any) -> "Cast":
        """Every role played by one model, with the sampling settings of Seat."""
        return cls(_validated({"model": model, **sampling}))

    def seat(self, role: str) -> Seat:
        """The seat of a role.

        Raises:
            ConfigError: nobody is cast for it.
        """
        seat = self.seats.get(role) or self.seats.get(base_role(role)) or self.default
        if seat is None:
            raise unknown("role", role, self.seats)
        return seat

    def set(self, role: str, key: str, value: Any) -> "Cast":
        """A cast in which one setting of one role is changed: `cast.set("judge", "model", "hf:models/judge")`.

        Settings of its engine and pool too: `cast.set("judge", "pool.replicas", 2)`.
        """
        if key.partition(".")[0] in SCOPES:
            Serving().set({key: value}, role)
            try:
                serving = self.seat(role).serving
            except ConfigError:
                serving = {}
            return self.set(role, "serving", {**serving, key: value})
        if key not in Seat.model_fields:
            raise unknown(f"setting of role {role}:", key, Seat.model_fields)
        try:
            current = self.seat(role)
        except ConfigError:
            current = Seat()
        changed = Cast(self.default, **self.seats)
        # What was never set stays so: a graph's own wishes (its temperature, say) yield only to what the user set.
        changed.seats[role] = _validated({**current.model_dump(exclude_unset=True), key: value}, role)
        return changed

    def models(self, roles: Iterable[str], serving: Serving | None = None) -> dict[str, ModelSpec]:
        """Role -> checked model, for every role given.

        Raises:
            ConfigError: a role that nobody plays, a model that is not there.
        """
        return {role: _model(role, self.seat(role), serving or Serving()) for role in roles}

    def describe(self, roles: Iterable[str] = ()) -> dict[str, Any]:
        """JSON values that name the cast, for the run's configuration: of the roles given, else of all seats."""

        def plain(seat: Seat) -> dict[str, Any]:
            return {**seat.model_dump(exclude={"model"}), "model": parse_model(seat.model).name}

        played = {role: plain(self.seat(role)) for role in roles}
        if played:
            return played
        described = {role: plain(seat) for role, seat in self.seats.items()}
        return described if self.default is None else {"*": plain(self.default), **described}


def base_role(role: str) -> str:
    """`debater` for `debater_2`: roles that differ in number alone share templates and seats."""
    return re.sub(r"_\d+$", "", role)


def _model(role: str, seat: Seat, serving: Serving) -> ModelSpec:
    return parse_model(seat.model, serving.set(seat.serving, role))


def _seat(value: Seat | Model) -> Seat:
    return value if isinstance(value, Seat) else _validated({"model": value})


def _validated(fields: dict[str, Any], role: str = "every role") -> Seat:
    unknown_keys = set(fields) - set(Seat.model_fields)
    if unknown_keys:
        raise unknown(f"setting of {role}:", min(unknown_keys), Seat.model_fields)
    try:
        return Seat(**fields)
    except ValidationError as error:
        problem = error.errors()[0]
        key = str(problem["loc"][0])
        raise ConfigError(f"{role}: {key} cannot be {clip(problem['input'])}: {problem['msg']}") from None
