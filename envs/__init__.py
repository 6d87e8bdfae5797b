"""What is asked, and how an answer is judged. Imports nothing else of Palaestra.

`make_env` opens an env by name; `check_env` tests one of your own.
"""

from collections.abc import Callable
from typing import Any

from envs.arithmetic import Arithmetic
from envs.check import check_env
from envs.dataset import PRESETS, Dataset, dataset, preset
from envs.errors import ConfigError, bind_settings, clip, unknown
from envs.grading import Grader, GraderError
from envs.pool import Pool
from envs.proposals import Proposals
from envs.steps import Steps
from envs.types import Env, Split, Task, Verdict, final_answer

ENVS: dict[str, Callable[..., Env]] = {
    "arithmetic": Arithmetic,
    "dataset": dataset,
    "pool": Pool,
    "proposals": Proposals,
    "steps": Steps,
    **{name: preset(name) for name in PRESETS},
}


def make_env(name: str, **settings: Any) -> Env:
    """Open an env of the registry: `make_env("arithmetic", level=4)`.

    Raises:
        ConfigError: no such env, an unknown or unusable setting, an unreadable file.
    """
    if name not in ENVS:
        raise unknown("env", name, ENVS)
    return open_env(ENVS[name], settings, name)


def open_env(function: Callable[..., Env], settings: dict[str, Any], name: str) -> Env:
    """Open an env from a function or class of yours; settings are checked against its signature.

    Raises:
        ConfigError: an unknown or unusable setting, or a function that returns no env.
    """
    env = function(**bind_settings(function, settings, f"env {name}"))
    if not isinstance(env, Env):
        raise ConfigError(f"env {name}: expected an env with name, tasks, judge and group, found {clip(env)}")
    return env


__all__ = [
    "ENVS",
    "Arithmetic",
    "ConfigError",
    "Dataset",
    "Env",
    "Grader",
    "GraderError",
    "Pool",
    "Proposals",
    "Split",
    "Steps",
    "Task",
    "Verdict",
    "check_env",
    "dataset",
    "final_answer",
    "make_env",
    "open_env",
]
