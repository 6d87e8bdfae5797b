"""`python -m experiments.embedded_model`: build, measure and describe the embedded model.

    build      train from scratch (resumes where a stopped build left off), measure, and install the checkpoint
    evaluate   measure a checkpoint and print its figures as JSON
    install    measure a finished build and put it, with its model card, where the package loads it from

A build is fixed by its recipe: the same machine gives the same weights again.
"""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import click
from jinja2 import StrictUndefined, Template

from agents.engines import EMBEDDED
from agents.engines.transformers import weights_version
from experiments.embedded_model.evaluate import evaluate as measure
from experiments.embedded_model.train import Build, Recipe

_CARD = Path(__file__).parent / "card.md.jinja"
_OUT = click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs") / "embedded_model",
    show_default=True,
    help="Folder of the build.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Build, measure and describe the embedded model."""


@main.command()
@_OUT
@click.option("--seed", type=int, default=Recipe.seed, show_default=True)
@click.option(
    "--tokens", type=int, default=Recipe.tokens, show_default=True, help="The budget, but for the last phase."
)
@click.option("--install/--no-install", default=True, show_default=True, help="Replace the checkpoint that ships.")
def build(out: Path, seed: int, tokens: int, install: bool) -> None:
    """Train from scratch; a stopped build goes on where it was."""
    recipe = Recipe(seed=seed, tokens=tokens, polish_tokens=tokens * Recipe.polish_tokens // Recipe.tokens)
    checkpoint = Build(recipe, out).run()
    click.echo(f"the checkpoint is {checkpoint}", err=True)
    if install:
        _install(out, 1.0)


@main.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True), default=EMBEDDED)
@click.option("--scale", type=float, default=1.0, show_default=True, help="Multiplies the number of problems.")
@click.option("--seed", type=int, default=1, show_default=True)
def evaluate(checkpoint: Path, scale: float, seed: int) -> None:
    """Measure CHECKPOINT (the one that ships) and print its figures as JSON."""
    click.echo(json.dumps(asyncio.run(measure(checkpoint, scale, seed)), indent=2))


@main.command()
@_OUT
@click.option("--scale", type=float, default=1.0, show_default=True, help="Of the measurement in the model card.")
def install(out: Path, scale: float) -> None:
    """Measure a finished build and make it the one that ships."""
    _install(out, scale)


def _install(out: Path, scale: float) -> None:
    checkpoint = out / "checkpoint"
    if not (checkpoint / "model.safetensors").is_file():
        raise click.UsageError(f"{checkpoint} holds no checkpoint; run `build` with the same --out first")
    figures = asyncio.run(measure(checkpoint, scale))
    made = json.loads((out / "recipe.json").read_text(encoding="utf-8"))
    EMBEDDED.mkdir(exist_ok=True)
    for path in checkpoint.iterdir():
        shutil.copyfile(path, EMBEDDED / path.name)
    about: dict[str, Any] = {"version": weights_version(EMBEDDED), **made, "figures": figures}
    (EMBEDDED / "palaestra.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    card = Template(_CARD.read_text(encoding="utf-8"), trim_blocks=True, undefined=StrictUndefined)
    (EMBEDDED / "README.md").write_text(card.render(about) + "\n", encoding="utf-8")
    click.echo(f"installed in {EMBEDDED}", err=True)


if __name__ == "__main__":
    main()
