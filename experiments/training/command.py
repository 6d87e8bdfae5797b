"""The verbs `train` and `resume` of the command."""

from pathlib import Path
from typing import Any

import click

from experiments.options import JSON, MODEL, RUNS, SEED, example, print_result, read_settings

_TRAINED = (
    click.option("--env", help="What is asked: a name from `palaestra list`, or module:function; mostly arithmetic."),
    click.option(
        "--topology", help="What is played: a name, or module:function; the recipe's own when left out, mostly solo."
    ),
    SEED,
    MODEL,
    click.option("--iterations", type=int, help="Rounds of playing and learning; 40 when left out."),
    click.option(
        "--set",
        "settings",
        multiple=True,
        callback=read_settings,
        metavar="KEY=VALUE",
        help="A setting of the training (tasks=32, samples=8, lag=1, shuffle_rewards=true), the trainer "
        "(trainer.learning_rate=1e-4), the loss (loss.kl=off), the policies (policy.rank=8, policies.critic.rank=4), "
        "of which role learns as which policy (critic.policy=critic), and all that `run` takes. May be repeated.",
    ),
    click.option(
        "--track",
        multiple=True,
        help="Tell the metrics to tensorboard, mlflow, wandb or trackio too, which must be installed. May be repeated.",
    ),
    click.option("--name", help="Name of the run; made from recipe, env and time when left out."),
    click.option(
        "--backend",
        type=click.Choice(["ray", "local"]),
        default="ray",
        show_default=True,
        help="Host the models and the trainer in Ray actors, or in this process.",
    ),
    click.option("--address", help="A Ray cluster; see `palaestra run --help`."),
)


def _trained(command: Any) -> Any:
    for option in reversed(_TRAINED):
        command = option(command)
    return command


@click.command(epilog=example("palaestra train grpo --env arithmetic --seed 1 --set env.level=8 --name first"))
@click.argument("recipe")
@_trained
@RUNS
@JSON
def train(as_json: bool, root: Path, iterations: int | None, **options: Any) -> None:
    """Train the policies behind the roles by RECIPE, and print what came of it.

    RECIPE is a name from `palaestra list`, or module:function of your own: a function that credits the turns of an
    episode. The run's folder holds metrics.jsonl, the episodes and the weights; `palaestra show` prints its curve. Two
    controls: --set trainer.learning_rate=0 and --set shuffle_rewards=true.
    """
    from experiments.training.run import train as start

    settings = options.pop("settings")
    if iterations is not None:
        settings = {**settings, "iterations": iterations}
    training = start(cast=options.pop("model"), root=root, settings=settings, told=_tell, **options)
    _print(training, as_json)


@click.command(epilog=example("palaestra resume first"))
@click.argument("run")
@click.option("--address", help="A Ray cluster, in place of the one that the run began on.")
@RUNS
@JSON
def resume(as_json: bool, root: Path, address: str | None, run: str) -> None:
    """Finish a training RUN that was killed or stopped: it ends as if it never had been."""
    from experiments.training.run import resume as go_on

    _print(go_on(run, root, address=address, told=_tell), as_json)


def _tell(line: dict[str, Any]) -> None:
    from experiments.training.show import spoken

    click.echo(spoken(line), err=True)


def _print(training: Any, as_json: bool) -> None:
    from dataclasses import asdict

    from experiments.training.report import gain
    from experiments.training.show import render_training

    def data() -> dict[str, Any]:
        found = gain(training)
        return {"training": training.name, "end": training.lines("end")[0], "gain": found and asdict(found)}

    print_result(render_training(training), data, as_json)
