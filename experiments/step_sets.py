"""A frozen set of solutions with known first errors, made of a stored run on arithmetic:
`python -m experiments.step_sets RUN FILE`.

Each solution of the run is split into steps and each step is checked by `envs.arithmetic`; what is written is
ProcessBench's form, which `--env steps` reads. A solution whose first wrong step is not of the form `a + b = c` is left
out, for whether such a step is wrong cannot be told; so is one of right steps alone whose answer is wrong all the same.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click

from agents.moves import SOLVE
from envs.arithmetic import Arithmetic, check_step
from envs.errors import ConfigError
from envs.judged import Judged, write_processbench
from envs.types import Task
from experiments.runs import Run
from graphs.stepwise import judged_steps
from graphs.turns import Turn

PER_PROBLEM = 2
"""Most solutions to one problem with an error, and most without one."""


@dataclass(frozen=True)
class StepSet:
    records: list[Judged]
    """As many with an error as without one, in a mixed order."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Why -> how many of the run's solutions."""

    @property
    def figures(self) -> dict[str, int]:
        return {
            "solutions": len(self.records),
            "with an error": sum(record.first_wrong is not None for record in self.records),
            "problems": len({record.question for record in self.records}),
        }


def make_set(run: Run, most: int | None = None, seed: int = 0) -> StepSet:
    """Distinct solutions of a run, as many with an error as without one.

    Args:
        run: of a topology whose solvers solve on their own, on arithmetic.
        most: solutions in all; None: as many as there are.
        seed: draws which of them, and their order.

    Raises:
        ConfigError: the run is on another env, or has no solutions of one of the two kinds.
    """
    if run.config["env"]["name"] != "arithmetic":
        raise ConfigError(
            f"run {run.name}: expected a run on env arithmetic, whose steps can be checked, found "
            f"{run.config['env']['name']}; play one: palaestra run solo --env arithmetic"
        )
    left_out: Counter[str] = Counter()
    distinct: dict[tuple[str, tuple[str, ...]], Judged] = {}
    for record in asyncio.run(_judged(run, left_out)):
        distinct.setdefault((record.question, record.steps), record)
    rng = random.Random(seed)
    drawn = rng.sample(list(distinct.values()), len(distinct))
    taken: Counter[tuple[str, bool]] = Counter()
    kinds: dict[bool, list[Judged]] = {True: [], False: []}
    for record in drawn:
        kind = record.first_wrong is not None
        taken[record.question, kind] += 1
        if taken[record.question, kind] <= PER_PROBLEM:
            kinds[kind].append(record)
    half = min(len(kinds[True]), len(kinds[False]), len(drawn) if most is None else most // 2)
    if not half:
        found = ", ".join(f"{n} {why}" for why, n in left_out.items())
        raise ConfigError(
            f"run {run.name}: expected solutions with and without a wrong step, found {len(kinds[True])} with and "
            f"{len(kinds[False])} without{'; left out: ' if found else ''}{found}; play more tasks of solo or vote"
        )
    records = kinds[True][:half] + kinds[False][:half]
    return StepSet(rng.sample(records, len(records)), dict(left_out))


async def _judged(run: Run, left_out: Counter[str]) -> list[Judged]:
    """The run's solutions, in its order, repeated ones too."""
    env = Arithmetic()
    records = []
    for task, sample, turn in _solutions(run):
        record = _check(task, f"{task.id}-{sample}-{turn.id.replace('/', '-')}", turn)
        if record is None:
            left_out["whose first wrong step is not of the form a + b = c"] += 1
            continue
        right = (await env.judge(task, turn.answer)).status == "correct"
        if turn.failure:
            left_out["without an answer"] += 1
        elif not record.steps:
            left_out["without a step"] += 1
        elif record.first_wrong is None and not right:
            left_out["of right steps and a wrong answer"] += 1
        else:
            records.append(record.model_copy(update={"final_answer_correct": right}))
    return records


def _solutions(run: Run) -> Iterator[tuple[Task, int, Turn]]:
    for episode in run.episodes():
        for turn in episode.turns:
            if turn.move == SOLVE.name:
                yield episode.task, episode.sample, turn


def _check(task: Task, id: str, turn: Turn) -> Judged | None:
    """A solution with its first wrong step; None where that step is of no form that can be checked."""
    steps = [step.strip() for step in judged_steps(turn)]
    steps = steps if any(steps) else []
    wrong = None
    for at, step in enumerate(steps):
        verdict = check_step(task.details["expression"], steps[:at], step)
        if verdict.status == "unparsed":
            return None
        if verdict.status == "incorrect":
            wrong = at
            break
    source = f"{turn.policy}@{turn.version}"
    return Judged(id=id, question=task.question, steps=tuple(steps), first_wrong=wrong, source=source)


def write_set(run: Run, file: Path, most: int | None = None, seed: int = 0) -> StepSet:
    """Make a set and write it to a new file.

    Raises:
        ConfigError: as `make_set`; the file is there already, is no .jsonl, or cannot be written.
    """
    if file.suffix != ".jsonl":
        raise ConfigError(f"expected a .jsonl file, found {file}")
    if file.exists():
        raise ConfigError(f"{file} is there already, and a set that was measured on must not change; name another")
    made = make_set(run, most, seed)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_processbench(made.records, file)
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error}") from None
    return made


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("run", metavar="RUN")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--most", type=click.IntRange(2), help="Solutions in all; by default as many as there are.")
@click.option("--seed", type=int, default=0, show_default=True, help="Draws which, and their order.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(run: str, file: Path, most: int | None, seed: int, as_json: bool) -> None:
    """Write the solutions of RUN, a run on arithmetic, to FILE (.jsonl) with their first wrong steps.

    Example: python -m experiments.step_sets my-run shared/steps.jsonl --most 400
    """
    try:
        made = write_set(Run.open(run), file, most, seed)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        click.echo(json.dumps({"file": str(file), **made.figures, "left out": made.left_out}))
        return
    count = made.figures
    half = count["with an error"]
    click.echo(
        f"{file}: {count['solutions']} solutions to {count['problems']} problems, {half} with an error, {half} without"
    )
    for why, n in made.left_out.items():
        click.echo(f"left out: {n} {why}")


if __name__ == "__main__":
    main()
