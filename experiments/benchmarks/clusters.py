"""Cluster shares: `python -m experiments.benchmarks.clusters`.

Seconds for the shares of `--texts` questions, of two kinds: `alike`, the env arithmetic's of all levels, and `varied`,
of 20 to 60 words drawn from 2,000 with frequencies as in a language (Zipf). Beside them nltk's BLEU on `--pairs` pairs
of the same questions, one after another, which a loop does for all: what it gives must be equal, and its time for all
pairs is the measured one times their number (nltk comes with the extra `dev`). Fresh processes take turns, `--repeats`
times; medians are printed.
"""

import json
import multiprocessing
import random
import resource
import statistics
import time
from collections.abc import Sequence
from typing import Any

import click
import numpy as np

from envs import Arithmetic
from experiments.clusters import distances, shares


def alike(number: int) -> list[str]:
    """Short questions of one kind."""
    levels = [Arithmetic(level).tasks(-(-number // 8), "train") for level in range(1, 9)]
    return [task.question for tasks in levels for task in tasks][:number]


def varied(number: int) -> list[str]:
    """Questions that share little but frequent words."""
    draw = random.Random(0)
    words = [f"w{i}" for i in range(2000)]
    frequencies = [1 / (i + 1) for i in range(2000)]
    return [" ".join(draw.choices(words, frequencies, k=draw.randint(20, 60))) for _ in range(number)]


KINDS = {"alike": alike, "varied": varied}


def measure_one(kind: str, number: int, pairs: int) -> dict[str, float]:
    """In a process of its own, for its peak of memory."""
    texts = KINDS[kind](number)
    shares(texts[:2])
    before = _peak_mb()
    began = time.perf_counter()
    found = shares(texts)
    spent = time.perf_counter() - began
    grown = _peak_mb() - before
    return {
        "seconds": spent,
        "mb": grown,
        "clusters": round(sum(1 / (share * number) for share in found)),
        "loop_seconds": _loop_seconds(texts, pairs),
    }


def _loop_seconds(texts: Sequence[str], pairs: int) -> float:
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    score: Any = sentence_bleu  # its type allows for several scores, of several sets of weights
    draw, smoothed = random.Random(0), SmoothingFunction().method1
    drawn = [sorted(draw.sample(range(len(texts)), 2)) for _ in range(pairs)]
    began = time.perf_counter()
    naive = [1 - score([texts[j].split()], texts[i].split(), smoothing_function=smoothed) for i, j in drawn]
    spent = time.perf_counter() - began
    n, ours = len(texts), distances(texts)
    if not np.array_equal(naive, [ours[n * i - i * (i + 1) // 2 + j - i - 1] for i, j in drawn]):
        raise click.ClickException("expected the distances that nltk gives, found others")
    return spent / pairs * n * (n - 1) / 2


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(number: int, pairs: int, repeats: int) -> dict[str, Any]:
    every: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for _ in range(repeats):
        for kind, found in every.items():
            with multiprocessing.get_context("spawn").Pool(1) as process:
                found.append(process.apply(measure_one, (kind, number, pairs)))
    medians = {
        kind: {name: statistics.median(one[name] for one in found) for name in found[0]}
        for kind, found in every.items()
    }
    return {
        "texts": number,
        "pairs": number * (number - 1) // 2,
        "looped_pairs": pairs,
        "median": medians,
        "all": every,
    }


@click.command()
@click.option("--texts", type=click.IntRange(min=2), default=2048, show_default=True)
@click.option("--pairs", type=click.IntRange(min=1), default=2000, show_default=True, help="That nltk is timed on.")
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(texts: int, pairs: int, repeats: int, as_json: bool) -> None:
    """Measure cluster shares of many questions."""
    found = measured(texts, pairs, repeats)
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"{texts:,} questions, {found['pairs']:,} pairs; the loop's time from {pairs:,} of them")
    click.echo(f"{'questions':<12}{'clusters':>10}{'seconds':>10}{'memory':>10}{'loop':>10}")
    for kind, one in found["median"].items():
        times = f"{one['seconds']:>8.2f} s{one['mb']:>7.0f} MB{one['loop_seconds']:>8.0f} s"
        click.echo(f"{kind:<12}{one['clusters']:>10.0f}{times}")


if __name__ == "__main__":
    main()
