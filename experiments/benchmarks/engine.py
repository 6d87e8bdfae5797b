"""The embedded engine beside plain `model.generate`: `python -m experiments.benchmarks.engine`.

Completion tokens a second, at temperature 1 on problems of all levels (prompts and replies of mixed length), on one
thread: the engine with 1, 32 and 256 requests at a time and with 256 that arrive one by one; `generate` with one
request at a time and with one ready batch of 256. The arms take turns, `--repeats` times, and the median of each is
printed; tokens after a row's end count for nobody.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import click
import torch

from agents.engines import EMBEDDED
from agents.engines.transformers import TransformersEngine
from agents.moves import SOLVE
from agents.types import Completion, Message, Request, Sampling
from envs import make_env

LIMIT = 128
ARRIVAL_S = 0.001
Arm = Callable[[], Awaitable[int]]


def make_requests(n: int) -> list[Request]:
    """Problems of all levels, in turn."""
    by_level = [make_env("arithmetic", level=level).tasks(-(-n // 8)) for level in range(1, 9)]
    tasks = [task for together in zip(*by_level, strict=True) for task in together][:n]
    return [
        Request(task.id, (Message("user", SOLVE.render(question=task.question)),), Sampling(max_tokens=LIMIT), seed)
        for seed, task in enumerate(tasks)
    ]


class Benchmark:
    """The arms over one engine and its model."""

    def __init__(self, engine: TransformersEngine, requests: Sequence[Request]):
        self.engine, self.requests = engine, requests

    async def at_once(self, size: int, count: int) -> int:
        """The engine, asked `size` requests at a time."""
        completions: list[Completion] = []
        for start in range(0, count, size):
            batch = self.requests[start : min(start + size, count)]
            completions += await asyncio.gather(*map(self.engine.complete, batch))
        return sum(completion.completion_tokens for completion in completions)

    async def arriving(self) -> int:
        """The engine, asked one request after another every millisecond, none waiting for its answer."""
        tasks = []
        for request in self.requests:
            tasks.append(asyncio.create_task(self.engine.complete(request)))
            await asyncio.sleep(ARRIVAL_S)
        return sum(completion.completion_tokens for completion in await asyncio.gather(*tasks))

    async def generate(self, size: int, count: int) -> int:
        """`model.generate` over ready batches, padded on the left."""
        tokenizer, model = self.engine.chat.tokenizer, self.engine.model
        tokens = 0
        for start in range(0, count, size):
            prompts = [self.engine.chat.encode(r.messages) for r in self.requests[start : min(start + size, count)]]
            batch = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
            with torch.inference_mode():
                out = model.generate(**batch, do_sample=True, top_k=0, max_new_tokens=LIMIT)
            for row in out[:, batch["input_ids"].shape[1] :].tolist():
                tokens += next((i for i, token in enumerate(row, 1) if token in self.engine.chat.end_ids), len(row))
        return tokens


async def run(repeats: int) -> dict[str, Any]:
    engine = TransformersEngine(EMBEDDED)
    benchmark = Benchmark(engine, make_requests(256))
    arms: dict[str, Arm] = {
        "engine, 1 at a time": lambda: benchmark.at_once(1, 24),
        "engine, 32 at a time": lambda: benchmark.at_once(32, 256),
        "engine, 256 at once": lambda: benchmark.at_once(256, 256),
        "engine, 256 arriving one by one": benchmark.arriving,
        "generate, 1 at a time": lambda: benchmark.generate(1, 24),
        "generate, batches of 32": lambda: benchmark.generate(32, 256),
        "generate, one batch of 256": lambda: benchmark.generate(256, 256),
    }
    await benchmark.at_once(32, 32)
    await benchmark.generate(32, 32)
    rates: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(repeats):
        for name, arm in arms.items():
            started = time.perf_counter()
            tokens = await arm()
            rates[name].append(tokens / (time.perf_counter() - started))
    await engine.close()
    median = {name: statistics.median(values) for name, values in rates.items()}
    arriving = median["engine, 256 arriving one by one"]
    return {
        "tokens_per_s": {name: round(value) for name, value in median.items()},
        "all": {name: [round(value) for value in values] for name, values in rates.items()},
        "arriving_over_generate_one_by_one": round(arriving / median["generate, 1 at a time"], 2),
        "arriving_over_generate_ready_batch": round(arriving / median["generate, one batch of 256"], 2),
        "threads": torch.get_num_threads(),
    }


@click.command()
@click.option("--repeats", type=int, default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(repeats: int, as_json: bool) -> None:
    """Measure the embedded engine beside model.generate."""
    result = asyncio.run(run(repeats))
    if as_json:
        click.echo(json.dumps(result))
        return
    for name, rate in result["tokens_per_s"].items():
        click.echo(f"{name:<34}{rate:>8,} tokens/s   {' '.join(f'{value:,}' for value in result['all'][name])}")
    click.echo(f"arriving / generate one by one     {result['arriving_over_generate_one_by_one']:>8}")
    click.echo(f"arriving / generate's ready batch  {result['arriving_over_generate_ready_batch']:>8}")


if __name__ == "__main__":
    main()
