"""What is asked, and how an answer is judged. Imports nothing else of Palaestra.

`make_env` opens an env by name; `check_env` tests one of your own.
"""

from collections.abc import Callable
from typing import Any

from envs.arithmetic import Arithmetic
from envs.check import check_env
from envs.dataset import PRESETS, Dataset, dataset, preset
from envs.errors import ConfigError, bind_settings, unknown
from envs.grading import Grader, GraderError
from envs.types import Env, Split, Task, Verdict, final_answer

ENVS: dict[str, Callable[..., Env]] = {
    "arithmetic": Arithmetic,
    "dataset": dataset,
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
    """Open an env from a function or class of yours; settings are checked against its signature."""
    target = function.__init__ if isinstance(function, type) else function
    bound = bind_settings(target, {"self": None, **settings} if isinstance(function, type) else settings, f"env {name}")
    bound.pop("self", None)
    return function(**bound)


__all__ = [
    "ENVS",
    "Arithmetic",
    "ConfigError",
    "Dataset",
    "Env",
    "Grader",
    "GraderError",
    "Split",
    "Task",
    "Verdict",
    "check_env",
    "dataset",
    "final_answer",
    "make_env",
    "open_env",
]
