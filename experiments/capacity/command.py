"""The verb `plan` of the command."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from experiments.options import JSON, RUNS, SEED, example, print_result, read_settings

if TYPE_CHECKING:
    from experiments.capacity.workload import Workload

_HOURS = {"s": 1 / 3600, "m": 1 / 60, "min": 1 / 60, "h": 1.0, "d": 24.0}


def _read_hours(_: Any, __: Any, value: str | None) -> float | None:
    if value is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)", value.strip())
    if not found or not float(found[1]):
        raise click.BadParameter(f"expected a time such as 90m, 8h or 2d, found {value!r}")
    return float(found[1]) * _HOURS[found[2]]


@click.command(epilog=example("palaestra plan grpo --env arithmetic --model qwen2.5-7b --reply 400 --within 8h"))
@click.argument("what")
@click.option("--env", help="What is asked; as in `run` and `train`.")
@click.option("--topology", help="Of a recipe: what is played; the recipe's own when left out.")
@click.option("--tasks", type=click.IntRange(1), help="As in `run`; of a recipe --set tasks=N, an iteration.")
@click.option("--samples", type=click.IntRange(1), help="Episodes a task; of a recipe as above.")
@click.option("--iterations", type=click.IntRange(1), help="Of a recipe.")
@click.option("--concurrency", type=click.IntRange(1), help="Most episodes in flight.")
@click.option("--model", default="qwen2.5-7b", show_default=True, help="A model in agents/simulation/hardware.toml.")
@click.option("--gpu", "gpus", multiple=True, help="A kind of GPU there; may be repeated. All when left out.")
@click.option("--replicas", type=click.IntRange(1), help="Of the model; 1 when left out.")
@click.option("--within", "within_h", callback=_read_hours, help="A deadline (90m, 8h, 2d): picks the replicas.")
@click.option("--from", "from_run", help="A stored run whose episodes say how many calls and tokens there are.")
@click.option(
    "--calibrate",
    type=click.IntRange(0),
    default=8,
    show_default=True,
    help="Tasks that the embedded model plays for that, where no run is named; 0 for none.",
)
@click.option("--prompt", type=click.IntRange(1), help="Tokens of a prompt, beside replies that it shows; a mean.")
@click.option("--reply", type=click.IntRange(1), help="Tokens of a reply; a mean.")
@click.option("--tensor-parallel", type=click.IntRange(1), help="GPUs a replica; the fewest it fits on when left out.")
@click.option("--max-batch", type=click.IntRange(1), help="Most calls that a replica runs at once.")
@click.option("--hardware", type=click.Path(path_type=Path), help="A file of GPUs, prices and models of your own.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    callback=read_settings,
    metavar="KEY=VALUE",
    help="A setting of the topology, the env or the training, as in `run` and `train`. May be repeated.",
)
@SEED
@RUNS
@JSON
def plan(
    as_json: bool, root: Path, what: str, model: str, gpus: tuple[str, ...], hardware: Path | None, **given: Any
) -> None:
    """Say how many GPUs WHAT takes, for how long, at what cost: WHAT is a recipe, or a topology with --env.

    Nothing is rented and no large model is loaded: episodes of the shape of a short run (or of --from RUN) are played
    on simulated engines. What was supposed is printed too.
    """
    from agents.simulation import load_hardware
    from experiments.capacity.planner import plan_capacity
    from experiments.capacity.show import plan_json, render_plan

    known = load_hardware(hardware)
    workload = _workload(what, root, given)
    asked = (given[key] for key in ("replicas", "within_h", "tensor_parallel"))
    estimates, refused = plan_capacity(workload, known, model, gpus, *asked, limits={"rows": given["max_batch"]})
    shown = workload, model, estimates, refused, known
    print_result(render_plan(*shown), lambda: plan_json(*shown), as_json)


def _workload(what: str, root: Path, given: dict[str, Any]) -> "Workload":
    from envs.errors import ConfigError
    from experiments.capacity.workload import Source, is_recipe, recipe_workload, topology_workload
    from experiments.runs import Run

    source = Source(
        Run.open(given["from_run"], root) if given["from_run"] else None,
        given["calibrate"],
        given["prompt"],
        given["reply"],
    )
    if not is_recipe(what):
        for option in ("topology", "iterations"):
            if given[option] is not None:
                raise ConfigError(f"--{option} goes with a recipe, and {what} is none; leave it out")
        return topology_workload(
            what,
            given["env"],
            given["tasks"],
            given["samples"] or 1,
            given["concurrency"] or 256,
            given["seed"],
            given["settings"],
            source,
        )
    sizes = {key: given[key] for key in ("tasks", "samples", "iterations", "concurrency") if given[key] is not None}
    return recipe_workload(what, given["topology"], given["env"], given["seed"], {**sizes, **given["settings"]}, source)
