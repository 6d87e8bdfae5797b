"""The arguments of a training as they were given: what is stored of them, and what its stages are passed on."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agents.cast import Cast
from agents.company import Backend
from envs.types import Env
from experiments.credit import Credit
from experiments.training.recipe import Recipe
from experiments.training.recipes import find_recipe
from experiments.training.setup import TrainingPlan, make_training_plan
from graphs import Builder, Graph, Topology

_OWN = ("topology", "exam", "loss", "trainer")
"""Scopes of settings that a stage has for itself."""


@dataclass(frozen=True)
class Asked:
    """See the module; `experiments.training.run.train` says what each is."""

    recipe: str | Credit | Recipe
    topology: str | Builder | Graph | Topology | None
    env: str | Env | None
    cast: Cast | str | None
    seed: int
    settings: Mapping[str, Any]
    backend: Backend
    address: str | None

    def plan(self, starts: Mapping[str, Path] | None = None) -> TrainingPlan:
        """See make_training_plan."""
        return make_training_plan(**self.__dict__, starts=starts)

    def stored(self) -> dict[str, Any]:
        """JSON values from which they are made again; None for what was given ready-made."""
        found = find_recipe(self.recipe)
        usual = {"topology": found.topology, "env": found.env, "cast": "embedded"}
        arguments = {"recipe": self.recipe} | {
            k: getattr(self, k) if getattr(self, k) is not None else v for k, v in usual.items()
        }
        return {
            "arguments": {key: value if isinstance(value, str) else None for key, value in arguments.items()},
            "settings": {
                key: value if isinstance(value, (int, float, bool)) else str(value)
                for key, value in self.settings.items()
            },
            "address": self.address,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def stage(self, name: str, recipe: Recipe, changes: Mapping[str, Any], without: Collection[str] = ()) -> "Asked":
        """Those of a stage: who plays what on which env, what its recipe has a setting for, and `NAME.KEY`.

        Args:
            name: of the stage.
            recipe: its own.
            changes: settings that it is given whatever was asked for; `env` names another env.
            without: scopes of settings that it has no use for: roles and policies that it does not know, or `env`.
        """
        usual = {key for key in recipe.settings if "." not in key}
        kept = {key: value for key, value in self.settings.items() if key in usual or self._is_for(key, without)}
        own = {key.partition(".")[2]: value for key, value in self.settings.items() if key.startswith(f"{name}.")}
        given = {**kept, **own, **changes}
        env = given.pop("env", self.env)
        return replace(self, recipe=recipe, topology=None, env=env, settings=given)

    def seeded(self, seed: int) -> "Asked":
        return replace(self, seed=seed)

    def played(self, without: Collection[str] = ()) -> dict[str, Any]:
        """The settings that a run within the training is passed on: of env, seats and engines."""
        given = {**find_recipe(self.recipe).settings, **self.settings}
        learned = ("policy", "policies", "placement", *without)
        return {k: v for k, v in given.items() if self._is_for(k, learned) and not k.endswith(".policy")}

    def _is_for(self, key: str, without: Collection[str]) -> bool:
        """Whether a setting says of seats, env or engines what holds for stages too."""
        scope, dot, rest = key.partition(".")
        # A policy may have the name of a stage.
        policy = rest.partition(".")[0] if scope == "policies" else ""
        left_out = {*_OWN, *without, *find_recipe(self.recipe).stages}
        return bool(dot) and scope not in left_out and policy not in without
