"""Who chooses best among four recorded solutions: `python -m experiments.studies.recorded_gsm8k --data DIR`.

DIR holds GSM8K's first 900 test problems and, for each, the solutions of four language models that were recorded with
it (openai/grade-school-math: PROBLEMS and SOLUTIONS). They are written as replay files, and every run is played on them
through the replay engine; whoever chooses has the same four solutions to choose from:

- each of MODELS alone (`solo`); its verdicts are held against the labels that were recorded with the solutions;
- `vote`: a tie goes to the answer seen first, and solutions are seen in the order of MODELS, that of the file;
- `vote-rotated`: four votes a problem, each of which begins with another model: what ties come to at random (all but
  exactly so where a solution has no answer and abstains). A third of the problems have four different answers, and
  most of what `vote` comes to is who is seen first;
- `selforg` without rounds of reading: the solution nearest to the weighted centre of the four, as MiniLM embeds them;
  `selforg-exact` weighs them by exact Shapley values, `selforg-code` as the released code does.

All is paired by problem, and intervals are of one comparison each, not corrected for their number.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agents import Cast
from envs import make_env
from envs.errors import ConfigError, clip
from envs.types import Task
from experiments import Run, run, stats
from experiments.show import console, difference, interval, percent

MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
PROBLEMS, SOLUTIONS = "gsm8k_test_900.jsonl", "gsm8k_model_solutions_900.jsonl"
VOTES = ("vote", "vote-rotated")
CHOOSERS = (*VOTES, "selforg", "selforg-exact", "selforg-code")


@dataclass(frozen=True)
class Row:
    """One run."""

    run: str
    accuracy: float | None
    ci95: stats.Interval | None
    calls_per_episode: float
    failed: int
    versus: dict[str, stats.Comparison]
    """By baseline: both votes, and each model alone. Empty for the models themselves."""


@dataclass(frozen=True)
class Study:
    """What the runs came to."""

    problems: int
    seen: tuple[str, ...]
    """The order in which `vote` sees the models' answers."""
    labels: int
    labels_differing: int
    """Solutions whose recorded label is not our verdict."""
    rows: list[Row]

    @property
    def failed(self) -> int:
        return sum(row.failed for row in self.rows)


def study(data: Path, out: Path, problems: int | None = None) -> Study:
    """Write the replay files, play every run, compare them.

    Args:
        data: the folder of PROBLEMS and SOLUTIONS.
        out: a folder that is new or empty; takes the replay files and the runs.
        problems: only the first of them; None takes all.

    Raises:
        ConfigError: a file that is missing or not as expected, a folder that holds something already.
    """
    tasks = make_env("gsm8k", path=data / PROBLEMS).tasks(problems)
    recorded = list(_recorded(data / SOLUTIONS, tasks))
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise ConfigError(f"{out} holds something already; give another --out or remove it")
        write_replays(tasks, recorded, out)
    except OSError as error:
        raise ConfigError(f"cannot write to {out}: {error.strerror}; give another --out") from None
    runs = play(data / PROBLEMS, out, len(tasks))
    labels = {
        (model, task.id): one[model]["is_correct"]
        for task, one in zip(tasks, recorded, strict=True)
        for model in MODELS
    }
    verdicts = {(model, task): scores == [1.0] for model in MODELS for task, scores in runs[model].scores().items()}
    differing = sum(verdicts.get(solution) is not label for solution, label in labels.items())
    return Study(len(tasks), MODELS, len(labels), differing, _rows(runs))


def write_replays(tasks: Sequence[Task], recorded: Sequence[Mapping[str, Any]], out: Path) -> None:
    """MODEL.jsonl: its solutions, as the solver and as one of selforg's agents. together.jsonl: the four as a solver's,
    sample k beginning with the k-th model's."""
    for place, model in enumerate(MODELS):
        replies = [[one[model]["solution"]] for one in recorded]
        roles = ("solver", f"agent_{place + 1}")
        _write(out / f"{model}.jsonl", ((task, 0, role, own) for role in roles for task, own in _pairs(tasks, replies)))
    together = [[one[model]["solution"] for model in MODELS] for one in recorded]
    rotated = ((t, k, "solver", four[k:] + four[:k]) for t, four in _pairs(tasks, together) for k in range(len(MODELS)))
    _write(out / "together.jsonl", rotated)


def play(problems: Path, out: Path, n: int) -> dict[str, Run]:
    """Every run over the first `n` problems, by its name."""
    alone = {model: f"replay:{out / model}.jsonl" for model in MODELS}
    agents = Cast(**{f"agent_{i}": replay for i, replay in enumerate(alone.values(), 1)})
    voters = f"replay:{out / 'together.jsonl'}"
    four, unread = {"samples": len(MODELS)}, {"agents": len(MODELS), "rounds": 0}
    arms: dict[str, tuple[str, Cast | str, dict[str, Any], int]] = {
        "vote": ("vote", voters, four, 1),
        "vote-rotated": ("vote", voters, four, len(MODELS)),
        "selforg": ("selforg", agents, unread, 1),
        "selforg-exact": ("selforg", agents, {**unread, "exact": True}, 1),
        "selforg-code": ("selforg", agents, {**unread, "variant": "code"}, 1),
        **{model: ("solo", replay, {}, 1) for model, replay in alone.items()},
    }

    def one(name: str) -> Run:
        topology, cast, settings, samples = arms[name]
        settings = {**settings, "env.path": problems}
        on = {"tasks": n, "samples": samples, "settings": settings}
        return run(topology, "gsm8k", cast, **on, backend="local", name=name, root=out)

    return {name: one(name) for name in arms}


def render(found: Study) -> RenderableType:
    """One table: the accuracy of each run, and its difference from each baseline."""
    baselines = (*VOTES, *MODELS)
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False, show_edge=False)
    table.add_column("")
    for heading in ("accuracy %", *(f"less {_label(baseline)}" for baseline in baselines)):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in found.rows:
        versus = [row.versus.get(baseline) for baseline in baselines]
        cells = [f"{percent(row.accuracy)} {interval(row.ci95)}", *(difference(one) if one else "" for one in versus)]
        table.add_row(_label(row.run), *(cell.replace(" ", "\n", 1) for cell in cells))
    note = (
        f"{found.problems} problems, each with the same four solutions; differences are of the row less the column, in "
        f"points, paired by problem, with 95 % intervals. vote's ties go to the answer seen first, in the order "
        f"{', '.join(found.seen)}; vote-rotated begins with each model once. "
        f"{found.labels_differing} of {found.labels} recorded labels differ from our verdicts; "
        f"{found.failed} episodes failed."
    )
    return Group(table, Text(note, style="dim"))


def _recorded(path: Path, tasks: Sequence[Task]) -> Iterator[dict[str, Any]]:
    """The solutions to each task, which is on the same line of its own file."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    if len(lines) < len(tasks):
        raise ConfigError(f"{path}: expected {len(tasks)} problems, found {len(lines)}")
    for number, (task, line) in enumerate(zip(tasks, lines, strict=False), 1):
        row = _solutions(line)
        if row is None or row["question"] != task.question:
            wanted = f"the question {clip(task.question)} and, for each of {', '.join(MODELS)}, solution and is_correct"
            raise ConfigError(f"{path}, line {number}: expected {wanted}; found {clip(line)}")
        yield row


def _solutions(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
        each = [row["question"], *(row[model]["solution"] for model in MODELS)]
        labels = [row[model]["is_correct"] for model in MODELS]
    except (ValueError, KeyError, TypeError):
        return None
    usable = all(isinstance(text, str) for text in each) and all(isinstance(label, bool) for label in labels)
    return row if usable else None


def _pairs(tasks: Sequence[Task], replies: Sequence[list[str]]) -> Iterator[tuple[Task, list[str]]]:
    return zip(tasks, replies, strict=True)


def _write(path: Path, rows: Iterator[tuple[Task, int, str, list[str]]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for task, sample, role, replies in rows:
            file.write(json.dumps({"task": task.id, "sample": sample, "role": role, "replies": replies}) + "\n")


def _rows(runs: Mapping[str, Run]) -> list[Row]:
    scores = {name: played.scores() for name, played in runs.items()}
    rows = []
    for name, played in runs.items():
        baselines = [other for other in (*VOTES, *MODELS) if other != name] if name in CHOOSERS else []
        compared = {other: stats.compare(scores[name], scores[other]) for other in baselines}
        versus = {other: comparison for other, comparison in compared.items() if comparison is not None}
        of = played.summary()
        rows.append(Row(name, of.accuracy, of.ci95, of.calls / max(1, of.episodes), of.failed, versus))
    return rows


def _label(name: str) -> str:
    return name.replace("_", "\n")


@click.command()
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help=f"Folder of {PROBLEMS} and {SOLUTIONS}.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs") / "recorded_gsm8k",
    show_default=True,
    help="New folder for the replay files and the runs.",
)
@click.option("--problems", type=click.IntRange(1), help="Only the first of them.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def main(context: click.Context, data: Path, out: Path, problems: int | None, as_json: bool) -> None:
    """Votes and SelfOrg over four recorded models' solutions to GSM8K, beside each model alone.

    Exit status 1: an episode failed, or a recorded label is not our verdict.
    """
    try:
        found = study(data, out, problems)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        click.echo(json.dumps(asdict(found)))
    else:
        console().print(render(found))
    context.exit(1 if found.failed or found.labels_differing else 0)


if __name__ == "__main__":
    main()
