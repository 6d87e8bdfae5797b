"""What the command's verbs share: their options, and how they print. Imports nothing heavy."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

RUNS = click.option(
    "--runs", "root", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder of runs."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")


def complain(message: str) -> None:
    click.echo(f"palaestra: {' '.join(message.split())}", err=True)


def print_result(rendered: Any, data: Callable[[], Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(data(), ensure_ascii=False))
    else:
        from experiments.show import console

        console().print(rendered)


def example(text: str) -> str:
    return f"\b\nExample:\n  {text}"


def read_settings(_: Any, __: Any, values: tuple[str, ...]) -> dict[str, str]:
    settings = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"expected KEY=VALUE, found {value!r}")
        settings[key] = text
    return settings


MODELS = "For every role: embedded, hf:DIR, vllm:DIR_OR_NAME, openai:NAME@URL, replay:FILE or simulated:MODEL@GPU."
SEED = click.option("--seed", type=int, default=0, show_default=True, help="Fixes every random choice.")
MODEL = click.option("--model", default="embedded", show_default=True, help=MODELS)
SEVERAL = (
    click.option(
        "--seed", "seeds", type=int, multiple=True, default=[0], show_default=True, help="May be repeated: more runs."
    ),
    click.option(
        "--model",
        "models",
        multiple=True,
        default=["embedded"],
        show_default=True,
        help=f"{MODELS} May be repeated: more runs.",
    ),
    click.option("--calls", type=int, help="Fit every topology into so many calls an episode."),
    click.option(
        "--grid",
        multiple=True,
        callback=read_settings,
        metavar="KEY=A,B,…",
        help="Play each topology that has this setting with each of these values (rounds=1,2,3, judge.temperature=0,1)."
        " May be repeated: all combinations.",
    ),
    click.option(
        "--budget",
        multiple=True,
        callback=read_settings,
        metavar="KIND=AMOUNT",
        help="Begin no episode once the sweep has spent so much: tokens=2e6, calls=5000 or usd=5. May be repeated.",
    ),
    click.option(
        "--prices",
        type=click.Path(path_type=Path),
        help='What models cost, in US dollars for a million tokens, JSON or TOML: {"openai:gpt-*": {"prompt": 0.4, '
        '"completion": 1.6}}; prices.json in the folder of runs when left out.',
    ),
    click.option(
        "--stop-losers",
        type=float,
        metavar="ALPHA",
        help="Stop an arm once another is better, wrongly with at most this probability in the whole sweep (0.05).",
    ),
)
PLAYED = (
    click.option("--env", required=True, help="What is asked: a name from `palaestra list`, or module:function."),
    click.option("--tasks", type=int, help="How many tasks; all of a file, 100 of a generated env, when left out."),
    click.option("--samples", type=int, default=1, show_default=True, help="Episodes a task."),
    click.option("--split", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True),
    click.option("--concurrency", type=int, default=256, show_default=True, help="Most episodes in flight."),
    click.option(
        "--set",
        "settings",
        multiple=True,
        callback=read_settings,
        metavar="KEY=VALUE",
        help="A setting of the topology (rounds=3), the env (env.level=4), a role (judge.model=hf:DIR, "
        "judge.temperature=0), the engine (engine.device=cuda, vllm.dtype=bfloat16, endpoint.timeout_s=60), the pool "
        "(pool.replicas=2) or the cluster (cluster.rollout_workers=2); of one role's alone (judge.pool.replicas=2). "
        "May be repeated.",
    ),
    click.option("--name", help="Name of the run; made from topology, env and time when left out."),
    click.option(
        "--backend",
        type=click.Choice(["ray", "local"]),
        default="ray",
        show_default=True,
        help="Host the models in Ray actors, or in this process.",
    ),
    click.option(
        "--address",
        help="A Ray cluster: HOST:PORT of its head, or auto; local starts Ray. Left out, the one of RAY_ADDRESS or of "
        "this machine, else Ray is started.",
    ),
)


def plays(command: Any) -> Any:
    """The options of every verb that plays: on what, by whom, where to."""
    for option in reversed((SEED, MODEL, *PLAYED)):
        command = option(command)
    return command


def plays_several(command: Any) -> Any:
    """The same, of a verb that plays with several models and seeds."""
    for option in reversed((*SEVERAL, *PLAYED)):
        command = option(command)
    return command
