"""One optimiser step of the trainer: `python -m experiments.benchmarks.step`.

Seconds and tokens a second (prompts included) for a step of the embedded model on 256 replies of its own to problems of
all levels, on one thread: all weights, with and without the entropy, with KL to the frozen reference; and an adapter.
Beside them the forward and backward pass of transformers alone, on the same tokens in padded batches of the same size.
The arms take turns, `--repeats` times, and the median of each is printed, and at last the peak memory of the process.
"""

import asyncio
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from transformers import AutoModelForCausalLM

from agents.engines import EMBEDDED
from agents.engines.transformers import TransformersEngine
from agents.learning import LossSettings, Sample
from agents.learning.batch import make_batches
from agents.learning.trainer import Trainer
from agents.learning.trainer_settings import PolicySettings, TrainerSettings
from experiments.benchmarks.engine import make_requests

REPLIES = 256


async def replies() -> list[Sample]:
    """As they would be played, half of them good."""
    engine = TransformersEngine(EMBEDDED)
    completions = await asyncio.gather(*map(engine.complete, make_requests(REPLIES)))
    await engine.close()
    return [
        Sample(str(i), "", c.version, "solver", c.prompt_ids, c.token_ids, c.logprobs, advantage=float(i % 2 * 2 - 1))
        for i, c in enumerate(completions)
    ]


def trainer_arm(samples: list[Sample], rank: int = 0, **settings: Any) -> Callable[[], Any]:
    policy = "adapter" if rank else ""
    trainer = Trainer(TrainerSettings(learning_rate=1e-6, **settings), {policy: PolicySettings(rank=rank)})
    with tempfile.TemporaryDirectory() as folder:
        version = trainer.export(policy, Path(folder) / "weights")
    mine = [
        Sample(s.key, policy, version, s.role, s.prompt_ids, s.token_ids, s.logprobs, advantage=s.advantage)
        for s in samples
    ]
    return lambda: trainer.step(mine)


def plain_arm(samples: list[Sample], max_tokens: int) -> Callable[[], Any]:
    """Forward, log-softmax over everything, backward; no optimiser."""
    model: Any = AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32)
    batches = make_batches(samples, max_tokens)

    def run() -> None:
        for batch in batches:
            logits = model(input_ids=batch.ids, attention_mask=batch.attention, use_cache=False).logits
            picked = logits[:, :-1].log_softmax(-1).gather(-1, batch.ids[:, 1:, None])[:, :, 0]
            (picked * batch.trained).sum().backward()
        model.zero_grad()

    return run


def measured(repeats: int) -> dict[str, Any]:
    samples = asyncio.run(replies())
    k3 = LossSettings(kl="k3")
    arms = {
        "all weights": trainer_arm(samples),
        "all weights, no entropy": trainer_arm(samples, watch_entropy=False),
        "all weights, kl": trainer_arm(samples, loss=k3),
        "adapter of rank 8": trainer_arm(samples, rank=8),
        "transformers alone": plain_arm(samples, TrainerSettings().max_tokens),
    }
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for i in range(repeats + 1):
        for name, arm in arms.items():
            started = time.perf_counter()
            arm()
            if i:
                seconds[name].append(time.perf_counter() - started)
    return {
        "tokens": sum(sample.length for sample in samples),
        "trained_tokens": sum(len(sample.token_ids) for sample in samples),
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "all": seconds,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


@click.command()
@click.option("--repeats", type=int, default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(repeats: int, as_json: bool) -> None:
    """Measure a step of the trainer."""
    found = measured(repeats)
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"{REPLIES} replies, {found['tokens']:,} tokens, {found['trained_tokens']:,} of them trained")
    for name, value in found["seconds"].items():
        every = " ".join(f"{one:.2f}" for one in found["all"][name])
        click.echo(f"{name:<28}{value:>7.2f} s{found['tokens'] / value:>10,.0f} tokens/s   {every}")
    click.echo(f"peak memory of the process  {found['peak_mb']:,.0f} MB")


if __name__ == "__main__":
    main()
