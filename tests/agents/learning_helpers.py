"""Samples made up for tests of learning."""

import random
from typing import Any

from agents.learning.samples import Pair, Sample

VOCABULARY = 40


def make_sample(number: int = 0, **changes: Any) -> Sample:
    """A sample with lengths, ids, mask and advantage drawn by its number."""
    draw = random.Random(number)
    length = draw.randint(3, 8)
    mask = [draw.random() < 0.7 for _ in range(length)]
    mask[draw.randrange(length)] = True
    fields: dict[str, Any] = {
        "key": f"task-{number}/0/solver/0",
        "policy": "learner",
        "version": "v1",
        "role": "solver",
        "prompt_ids": tuple(draw.choices(range(VOCABULARY), k=draw.randint(1, 5))),
        "token_ids": tuple(draw.choices(range(VOCABULARY), k=length)),
        "logprobs": tuple(-draw.expovariate(0.5) for _ in range(length)),
        "mask": tuple(mask),
        "temperature": draw.choice([1.0, 0.7, 1.3]),
        "advantage": draw.uniform(0.2, 2) * (-1) ** number,
        "scale": draw.uniform(0.5, 1.0),
        "clip_high": draw.choice([None, 0.1, 0.3]),
        "weight": draw.uniform(0.5, 2),
        "supervised": number % 3 == 2,
    }
    return Sample(**{**fields, **changes})


def make_samples(number: int, **changes: Any) -> list[Sample]:
    return [make_sample(i, **changes) for i in range(number)]


def make_pairs(number: int) -> list[Pair]:
    labels = [1.0, 0.8, 0.5]
    return [
        Pair(make_sample(100 + i, key=f"task-{i}/0/a/0"), make_sample(200 + i, key=f"task-{i}/1/a/0"), labels[i % 3])
        for i in range(number)
    ]
