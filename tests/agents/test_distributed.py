"""Several processes that train one set of weights make the update that one makes."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from agents.learning import LossSettings, Pair, Sample, SampleError, make_loss
from agents.learning.distributed import OneWorker, dealt
from agents.learning.remote import start_trainer
from agents.learning.trainer import Trainer
from agents.learning.trainer_settings import Placement, PolicySettings, TrainerDiedError, TrainerSettings
from tests.agents.trainer_helpers import make_model, make_replies

GRADIENT_TOLERANCE = 1e-5
"""Relative, of the first gradient's norm: the workers' sums are taken in another order."""
WEIGHT_TOLERANCE = 1e-4
"""After two steps of at most 0.01 each: AdamW makes more of a rounding error where a gradient is next to 0."""


class OneOf(OneWorker):
    def __init__(self, rank: int, size: int):
        self.rank, self.size = rank, size


@given(st.integers(0, 12), st.integers(1, 5))
def test_every_batch_counts_once_and_all_workers_make_as_many_passes(number: int, size: int) -> None:
    hands = [dealt(list(range(number)), OneOf(rank, size)) for rank in range(size)]
    assert sorted(batch for hand in hands for batch, counts in hand if counts) == list(range(number))
    assert len({len(hand) for hand in hands}) == 1


def policies(model: Path) -> dict[str, PolicySettings]:
    pairwise = make_loss("dpo")
    return {
        "full": PolicySettings(f"hf:{model}"),
        "a": PolicySettings(f"hf:{model}", rank=4),
        "b": PolicySettings(f"hf:{model}", rank=4, loss=pairwise),
    }


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_started")
def test_two_workers_make_the_same_update_as_one(tmp_path: Path) -> None:
    model = make_model(tmp_path / "tiny", tied=True)
    settings = TrainerSettings(
        learning_rate=1e-2, max_tokens=24, loss=LossSettings(kl="k3", beta=0.1), recompute_old=True, lag=1
    )
    alone = Trainer(settings, policies(model))
    for name in ("a", "b"):
        alone.export(name, tmp_path / f"alone-{name}-0")
    items = [*make_replies(alone, "full", 7), *make_replies(alone, "a", 7, seed=1)]
    items += [Pair(chosen, other) for chosen, other in (make_replies(alone, "b", 2, seed=seed) for seed in range(2, 5))]
    expected = alone.update(items, 2)

    async def run() -> None:
        there = await start_trainer(settings, policies(model), Placement(workers=2))
        try:
            for name in ("a", "b"):
                await there.export(name, tmp_path / f"two-{name}-0")
            assert (await there.status()).trainer.versions == {**alone.status().versions}
            with pytest.raises(SampleError, match="found 'nobody'"):
                await there.step([replace(item, policy="nobody") for item in items[:1] if isinstance(item, Sample)])
            found = await there.update(items, 2)
            for name, metrics in expected[0].items():
                assert found[0][name]["grad_norm"] == pytest.approx(metrics["grad_norm"], rel=GRADIENT_TOLERANCE)
            for mine, theirs in zip(expected, found, strict=True):
                for name, metrics in mine.items():
                    assert theirs[name] == pytest.approx(metrics, rel=1e-3, abs=1e-5), name
            for name in policies(model):
                alone.export(name, tmp_path / f"alone-{name}-1")
                await there.export(name, tmp_path / f"two-{name}-1")
            await there.save(tmp_path / "saved")
            further = await there.step(items)
            pid = (await there.status()).pid
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(TrainerDiedError):
                await there.step(items)
            assert (await there.restart()).trainer.steps == 2
            assert await there.step(items) == further
        finally:
            await there.close()

    asyncio.run(run())
    assert {name: largest_gap(tmp_path, name) < WEIGHT_TOLERANCE for name in policies(model)} == dict.fromkeys(
        policies(model), True
    )
    # What several have saved, one goes on from.
    alone.load(tmp_path / "saved")
    assert alone.steps == 2


def largest_gap(folder: Path, name: str) -> float:
    """Between the weights that one process and two have come to."""
    file = "model.safetensors" if name == "full" else "adapter_model.safetensors"
    one, two = (load_file(folder / f"{who}-{name}-1" / file) for who in ("alone", "two"))
    assert one.keys() == two.keys()
    gaps: list[Any] = [(one[key] - two[key]).abs().max() for key in one]
    return float(torch.stack(gaps).max())
