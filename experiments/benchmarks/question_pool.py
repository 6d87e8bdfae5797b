"""Pools of many questions: `python -m experiments.benchmarks.question_pool`.

Questions of a scripted proposer are posed, answered `--answers` times without a tool, stored, and made into a pool, in
a process of its own for each number in `--questions`. What is measured is that process's peak of memory, which hardly
grows with the questions, and its seconds. With `--kill` the last is done once more, by a process that is killed with -9
in the midst and by another that goes on: the pools must be equal to the letter.
"""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from agents import Cast, ScriptedEngine
from agents.types import Request
from envs import Arithmetic, make_env
from envs.arithmetic import make_expression, question, reference
from experiments import Run, run
from experiments.pseudo_labels import Filter
from experiments.runner import in_event_loop, resume_run
from experiments.runs import RESULT
from experiments.store import StoreWriter
from experiments.training.pool import write_pool
from graphs.pose import PROPOSER
from graphs.turns import Episode

NAME = "posed"


def scripted(request: Request) -> str:
    """A problem, or an answer to one that is right about half of the time."""
    draw = random.Random(request.seed)
    if request.key.split("/")[-2] == PROPOSER:
        expression = make_expression(draw, 8, "large")
        return f"<question>{question(expression)}</question>\n\\boxed{{{reference(expression)[-1].result}}}"
    task = Arithmetic(8).posed(request.messages[-1].content.rpartition("Problem: ")[2])
    right = int(task.answers[0]) if task else 0
    return f"\\boxed{{{right if draw.random() < 0.5 else right + draw.randint(1, 9)}}}"


def make_pool(questions: int, answers: int, root: Path, kill_after: int) -> dict[str, Any]:
    """In this process: pose what is not yet there, and write the pool."""
    began, cast = time.perf_counter(), Cast.all(ScriptedEngine(scripted))
    if kill_after:
        _kill_after(kill_after)
    if (root / NAME).is_dir():
        posed = resume_run(Run(root / NAME), cast=cast)
    else:
        settings = {"answers": answers, "tool": False}
        posed = run(
            "pose", "proposals", cast, tasks=questions, seed=1, split="train", settings=settings, backend="local",
            name=NAME, root=root, progress=False,
        )  # fmt: skip
    played = time.perf_counter()
    census = in_event_loop(lambda: write_pool(posed.episodes(), root / "pool.jsonl", Filter(), make_env("proposals")))
    ended = time.perf_counter()
    return {
        "questions": questions,
        "kept": census.kept,
        "true_labels": census.figures()["true_labels"],
        "play_s": played - began,
        "pool_s": ended - played,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "pool_mb": (root / "pool.jsonl").stat().st_size / 2**20,
        "store_mb": sum(path.stat().st_size for path in (root / NAME).glob("*")) / 2**20,
    }


def _kill_after(episodes: int) -> None:
    append, left = StoreWriter.append, [episodes]

    async def counted(self: StoreWriter, position: int, episode: Episode) -> None:
        await append(self, position, episode)
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    StoreWriter.append = counted


def _in_a_process(questions: int, answers: int, root: Path, kill_after: int = 0) -> dict[str, Any] | None:
    """What `make_pool` measures; None where it was killed."""
    asked = [f"--questions={questions}", f"--answers={answers}", f"--one={root}", f"--kill-after={kill_after}"]
    command = [sys.executable, "-m", "experiments.benchmarks.question_pool", *asked]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode == -signal.SIGKILL and kill_after:
        return None
    if done.returncode:
        raise click.ClickException(f"expected a pool of {questions} questions, found exit status {done.returncode}")
    return json.loads(done.stdout)


def killed_and_resumed(questions: int, answers: int, whole: Path, root: Path) -> dict[str, Any]:
    """Make a pool in two processes, the first of which is killed; compare it with that of one that was not."""
    if _in_a_process(questions, answers, root, questions // 2) is not None or (root / NAME / RESULT).exists():
        raise click.ClickException("expected a process that is killed, found one that ended")
    stored = len(Run(root / NAME).store.outcomes())
    again = _in_a_process(questions, answers, root)
    assert again is not None
    same = (root / "pool.jsonl").read_bytes() == (whole / "pool.jsonl").read_bytes()
    if not same or Run(root / NAME).store.digest() != Run(whole / NAME).store.digest():
        raise click.ClickException("expected the pool of a run that was not killed, found another")
    return {"stored_before": stored, "same": same, **again}


@click.command()
@click.option("--questions", type=click.IntRange(min=1), multiple=True, default=(1000, 8000), show_default=True)
@click.option("--answers", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--kill", is_flag=True, help="Also kill a process in the midst, and go on in another.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--one", type=click.Path(path_type=Path), hidden=True)
@click.option("--kill-after", type=int, default=0, hidden=True)
def main(
    questions: tuple[int, ...], answers: int, kill: bool, as_json: bool, one: Path | None, kill_after: int
) -> None:
    """Measure pools of many questions."""
    if one is not None:
        click.echo(json.dumps(make_pool(questions[0], answers, one, kill_after)))
        return
    with tempfile.TemporaryDirectory() as folder:
        roots = [Path(folder) / f"{number}" for number in questions]
        found: dict[str, Any] = {
            "answers": answers,
            "pools": [_in_a_process(number, answers, root) for number, root in zip(questions, roots, strict=True)],
        }
        if kill:
            found["killed"] = killed_and_resumed(questions[-1], answers, roots[-1], Path(folder) / "killed")
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"{'questions':>10}{'kept':>8}{'peak MB':>10}{'played s':>10}{'pool s':>8}{'on disk MB':>12}")
    for each in [*found["pools"], *([found["killed"]] if kill else [])]:
        click.echo(
            f"{each['questions']:>10,}{each['kept']:>8,}{each['peak_mb']:>10.0f}{each['play_s']:>10.1f}"
            f"{each['pool_s']:>8.1f}{each['store_mb'] + each['pool_mb']:>12.1f}"
        )
    if kill:
        click.echo(f"the last was killed when {found['killed']['stored_before']:,} were stored, and is the same")


if __name__ == "__main__":
    main()
