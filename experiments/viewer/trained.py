"""The weights that an episode of a training was played with: its roles are not played by the model as it came."""

from typing import Any

from agents.cast import base_role
from envs.errors import ConfigError
from experiments.runs import TRAINING, Run
from experiments.training.registry import ADAPTER, Registry
from experiments.viewer.keys import at, read_json


def trained_seats(run: Run) -> dict[str, dict[str, Any]]:
    """Role -> what of its seat names the weights that it had; empty for a run of no training.

    Raises:
        ConfigError: weights that are not on disk any more.
    """
    training, weights = run.path.parent.parent, at(run.config, "weights")
    if not isinstance(weights, dict) or not (training / TRAINING).is_file():
        return {}
    assigned = at(read_json(training / TRAINING), "roles") or {}
    registry, seats = Registry.open(training / "policies"), {}
    for role in at(run.config, "cast") or {}:
        policy = next((assigned[one] for one in (role, base_role(role), "") if one in assigned), None)
        if policy is None or policy not in weights:
            continue
        version = registry.get(policy, weights[policy])
        folder = registry.path(version)
        if not folder.is_dir():
            raise ConfigError(
                f"{role} was played by version {version.version} of {policy}, whose weights were dropped; train with "
                "keep=all, or fork an episode of the first, the best or the last weights"
            )
        own = {"adapter": str(folder)} if (folder / ADAPTER).is_file() else {"model": f"hf:{folder}"}
        seats[role] = {**own, "policy": ""}
    return seats
