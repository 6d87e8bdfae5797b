"""What the tables of studies share: a row a kind of training, named by its runs and by what it has of its own."""

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from experiments.show import plain


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
