"""What play costs: calls, tokens, and money by the prices of models; and a purse that says when enough is spent."""

import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from agents.cast import base_role
from envs.errors import ConfigError, clip, unknown
from experiments.runs import Run
from graphs.turns import Turn

PRICES = "prices.json"
"""In the folder of runs: prices of models, for costs that are shown."""
Kind = Literal["calls", "tokens", "usd"]
Limits = Mapping[Kind, float]
Role = tuple[str, int, int, int]
"""A role, its calls, its prompt tokens and its completion tokens."""


class Price(BaseModel):
    """US dollars for a million tokens of a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: float = Field(ge=0, allow_inf_nan=False)
    completion: float = Field(ge=0, allow_inf_nan=False)
    date: str = ""
    """When it was that."""
    source: str = ""
    """Where it is said."""

    @field_validator("date", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> str:
        return str(value)

    def of(self, prompt: int, completion: int) -> float:
        """US dollars for so many tokens."""
        return (prompt * self.prompt + completion * self.completion) / 1e6


Prices = Mapping[str, Price]
"""Model, or a pattern of models as of file names (`openai:gpt-*`) -> its price."""


def read_prices(path: Path) -> dict[str, Price]:
    """Prices in a file: TOML by its name, else JSON.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
        found = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"prices {path} cannot be read: {type(error).__name__}: {error}") from None
    return check_prices(found, f"prices {path}")


def check_prices(found: Any, where: str) -> dict[str, Price]:
    """Raises ConfigError, which begins with `where`, when something is no price."""
    if not isinstance(found, Mapping):
        raise ConfigError(f"{where}: expected models with their prices, found {clip(found)}")
    prices: dict[str, Price] = {}
    for model, price in found.items():
        try:
            prices[str(model)] = price if isinstance(price, Price) else Price.model_validate(price)
        except ValidationError as error:
            problem = error.errors()[0]
            what = ".".join(map(str, problem["loc"])) or "price"
            raise ConfigError(
                f"{where}: {what} of {clip(model)}: {problem['msg']}; expected prompt and completion, in US dollars "
                "for a million tokens"
            ) from None
    return prices


def price_of(model: str, prices: Prices) -> Price | None:
    """Its own price, else that of the longest pattern that it matches."""
    if model in prices:
        return prices[model]
    matching = [pattern for pattern in prices if fnmatchcase(model, pattern)]
    return prices[max(matching, key=len)] if matching else None


def read_limits(budget: Mapping[str, Any]) -> dict[Kind, float]:
    """A budget such as `{"tokens": "2e6"}`. Raises ConfigError."""
    limits: dict[Kind, float] = {}
    for kind in get_args(Kind):
        if kind in budget:
            try:
                limits[kind] = float(budget[kind])
            except (TypeError, ValueError):
                limits[kind] = math.nan
            if not 0 < limits[kind] < math.inf:
                raise ConfigError(f"budget: expected a number of {kind} above 0, found {clip(budget[kind])}")
    for key in budget:
        if key not in limits:
            raise unknown("budget", key, get_args(Kind))
    return limits


@dataclass(frozen=True)
class Spent:
    """What was played has cost."""

    calls: int = 0
    tokens: int = 0
    """Prompt and completion."""
    usd: float | None = 0.0
    """None where a model has no price."""

    def __add__(self, other: "Spent") -> "Spent":
        usd = None if self.usd is None or other.usd is None else self.usd + other.usd
        return Spent(self.calls + other.calls, self.tokens + other.tokens, usd)

    def of(self, kind: Kind) -> float:
        return getattr(self, kind) or 0.0


def spent_on(turns: Iterable[Turn], cast: Mapping[str, Any], prices: Prices) -> Spent:
    """What an episode has cost.

    Args:
        turns: all of it.
        cast: as a run's configuration has it.
        prices: of its models.
    """
    return _spent(((turn.role, 1, turn.prompt_tokens, turn.completion_tokens) for turn in turns), cast, prices)


def spent_by(run: Run, prices: Prices) -> Spent:
    """What a stored run has cost: failed episodes too, as far as their turns are stored."""
    query = (
        "SELECT role, count(*), sum(json_extract(body, '$.prompt_tokens')), "
        "sum(json_extract(body, '$.completion_tokens')) FROM turns GROUP BY role"
    )
    return _spent(run.store.rows(query), run.config["cast"], prices)


def _spent(roles: Iterable[Role], cast: Mapping[str, Any], prices: Prices) -> Spent:
    total = Spent()
    for role, calls, prompt, completion in roles:
        seat = cast.get(role) or cast.get(base_role(role)) or cast.get("*") or {}
        price = price_of(str(seat.get("model", "")), prices)
        total += Spent(calls, prompt + completion, price and price.of(prompt, completion))
    return total


class Purse:
    """What a sweep has spent, and whether it may go on."""

    def __init__(self, limits: Limits):
        self._limits = dict(limits)
        self._now = dict(limits)
        self.spent = Spent()

    def share(self, parts: int) -> None:
        """From now on spend at most one of so many equal parts of what is left."""
        for kind, limit in self._limits.items():
            spent = self.spent.of(kind)
            self._now[kind] = spent + (limit - spent) / parts

    def add(self, spent: Spent) -> None:
        self.spent += spent

    @property
    def is_spent(self) -> bool:
        return any(self.spent.of(kind) >= limit for kind, limit in self._now.items())


def require_prices(casts: Iterable[Mapping[str, Any]], prices: Prices) -> None:
    """Raises ConfigError when a model of one of the casts has no price; casts as `spent_on` takes them."""
    for seat in (seat for cast in casts for seat in cast.values()):
        if price_of(seat["model"], prices) is None:
            raise ConfigError(
                f"a budget in usd needs the price of {clip(seat['model'])}; name it (or a pattern such as "
                f"'openai:*') in a file for --prices, or in {PRICES} in the folder of runs"
            )
