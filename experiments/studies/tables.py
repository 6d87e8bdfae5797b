"""What studies share: a row a kind of training, named by its runs and by what it has of its own."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from envs.errors import ConfigError
from experiments.show import plain
from experiments.training.report import what_of
from experiments.training.training import Training

Kinds = dict[tuple[str, ...], list[Training]]
"""What a kind is -> its trainings, which differ in their seed alone."""


def kinds_of(
    names: Sequence[str], root: Path, recipes: str, fits: Callable[[Training], bool], but: Sequence[str] = ()
) -> Kinds:
    """Trainings by their kind, in the order in which kinds are named first.

    Args:
        names: of the trainings.
        root: the folder of runs.
        recipes: by which they have to be, for the message.
        fits: whether one is.
        but: settings that make no kind of their own.

    Raises:
        ConfigError: no such run, one of another recipe, or one that is not finished.
    """
    kinds: Kinds = {}
    for name in names:
        training = Training.open(name, root)
        if not fits(training) or not training.finished:
            raise ConfigError(f"{training.name}: expected a finished training by the recipe {recipes}")
        kinds.setdefault(what_of(training, but), []).append(training)
    return kinds


def study_table(title: str, *headings: str) -> Table:
    """A table whose first two columns `named` fills."""
    table = Table(title=Text(title, style="table.title"), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("runs", overflow="fold")
    table.add_column("", overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def common_to(kinds: Sequence[Sequence[str]]) -> list[str]:
    """What all kinds of trainings have in common."""
    return [part for part in kinds[0] if all(part in kind for kind in kinds)]


def named(runs: Iterable[str], what: Iterable[str], common: Sequence[str]) -> tuple[Text, Text]:
    return plain(" ".join(runs)), plain("\n".join(part for part in what if part not in common))
