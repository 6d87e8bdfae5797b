"""What there is to play with: envs, topologies, models and runs, each with a line of what it is."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from envs import ENVS, ConfigError
from experiments.runs import SWEEP, TRAINING, Run, list_runs
from experiments.training.recipes import LINES
from graphs import TOPOLOGIES, Builder, build

MODELS = {
    "embedded": "the model that ships with Palaestra; arithmetic only, on the CPU",
    "hf:DIR": "a causal language model in Hugging Face format, with a chat template",
    "vllm:DIR_OR_NAME": "the same or a name on the Hugging Face hub, served by vLLM on GPUs (or a CPU)",
    "openai:NAME@URL": "a model behind any OpenAI-compatible endpoint",
    "replay:FILE": 'recorded replies: JSON lines {"task", "role", "replies"}',
    "simulated:MODEL@GPU": "no model, but the time that one takes on GPUs: simulated:qwen2.5-7b@h100",
}


def catalogue(root: Path) -> dict[str, dict[str, str]]:
    """Section -> name -> one line."""
    return {
        "envs": {name: f"{_first_line(function)}{_settings(function)}" for name, function in ENVS.items()},
        "topologies": {name: _topology_line(name, function) for name, function in TOPOLOGIES.items()},
        "recipes": LINES,
        "models": MODELS,
        "runs": {run.name: _run_line(run) for run in list_runs(root)},
        "sweeps": {path.parent.name: _sweep_line(path) for path in sorted(root.glob(f"*/{SWEEP}"))},
        "trainings": {path.parent.name: _training_line(path) for path in sorted(root.glob(f"*/{TRAINING}"))},
    }


def _topology_line(name: str, function: Builder) -> str:
    try:
        calls = build(function, {}, name).calls
    except ConfigError as error:  # what it needs is not installed
        return f"{_module_line(function)}{_settings(function)}; {error}"
    cost = "" if calls is None else f"; {calls} calls" if calls > 1 else "; 1 call"
    return f"{_module_line(function)}{_settings(function)}{cost}"


def _run_line(run: Run) -> str:
    try:
        config = run.config
        return f"{config['topology']['name']} on {config['env']['name']}, {config['tasks']} tasks, {config['created']}"
    except (ValueError, LookupError, TypeError):
        return "its config.json cannot be read"


def _sweep_line(path: Path) -> str:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return f"{len(found['arms'])} runs on {found['env']}, {found['tasks']} tasks"
    except (ValueError, LookupError, TypeError, OSError):
        return f"its {SWEEP} cannot be read"


def _training_line(path: Path) -> str:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return f"{found['recipe']} of {found['topology']['name']} on {found['env']['name']}, {found['created']}"
    except (ValueError, LookupError, TypeError, OSError):
        return f"its {TRAINING} cannot be read"


def _first_line(function: Callable[..., Any]) -> str:
    return next(iter((inspect.getdoc(function) or "").splitlines()), "")


def _module_line(function: Callable[..., Any]) -> str:
    """The function's own line, else that of its module: a file of one topology says there what it is."""
    own, module = _first_line(function), inspect.getmodule(function)
    return own if (own != "Args:" and own) or module is None else (inspect.getdoc(module) or "").splitlines()[0]


def _settings(function: Callable[..., Any]) -> str:
    parameters = inspect.signature(function).parameters.values()
    shown = ", ".join(
        p.name if p.default is p.empty or p.default is None else f"{p.name}={p.default}" for p in parameters
    )
    return f" ({shown})" if shown else ""
