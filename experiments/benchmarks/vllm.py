"""vLLM on the CPU, embedded and bare: `python -m experiments.benchmarks.vllm`.

Completion tokens a second at temperature 1 over 256 problems of all levels, all asked at once, of the embedded
checkpoint in float32, one thread to multiply on in every arm:

- embedded: the transformers engine in a process of its own;
- vllm: the vLLM engine behind a Ray pool of one replica, asked from this process;
- bare: vLLM's AsyncLLM in a process of its own, fed the same prompts as token ids, with the same seeds and limits and
  the log-probabilities of the sampled tokens, as the engine asks for them.

All three are loaded, and take turns, one at work at a time, another first in each round; a first round does not count.
Compared is what was measured in the same round, embedded / vllm and vllm / bare: the medians of these ratios.
"""

import asyncio
import json
import statistics
import time
from typing import Any

import click

from agents.cluster import start_ray
from agents.engines import EMBEDDED, make_engine, parse_model
from agents.pool import RayPool
from agents.types import Request
from experiments.benchmarks.engine import make_requests

COUNT = 256


class Embedded:
    """An actor around the transformers engine."""

    def __init__(self, requests: list[Request]):
        self._engine, self._requests = make_engine(parse_model("embedded")), requests

    async def play(self) -> tuple[int, float]:
        """Tokens, and seconds."""
        started = time.perf_counter()
        completions = await asyncio.gather(*map(self._engine.complete, self._requests))
        return sum(completion.completion_tokens for completion in completions), time.perf_counter() - started


class Bare:
    """An actor around vLLM's AsyncLLM."""

    def __init__(self, requests: list[Request]):
        from transformers import AutoConfig, AutoTokenizer

        from agents.engines.chat import ChatTokenizer
        from agents.engines.vllm_launch import arguments, environment
        from agents.serving import VllmSettings

        target, settings = str(EMBEDDED), VllmSettings()
        chat = ChatTokenizer(AutoTokenizer.from_pretrained(target), target)
        with environment(target, settings):
            from vllm.v1.engine.async_llm import AsyncLLM

            self._llm = AsyncLLM.from_engine_args(arguments(target, AutoConfig.from_pretrained(target), settings))
        self._jobs = [(chat.encode(r.messages), r.sampling.max_tokens, r.seed) for r in requests]
        self._ends = sorted(chat.end_ids)

    async def play(self) -> tuple[int, float]:
        """Tokens, and seconds."""
        started = time.perf_counter()
        counts = await asyncio.gather(*(self._answer(str(i), *job) for i, job in enumerate(self._jobs)))
        return sum(counts), time.perf_counter() - started

    async def _answer(self, name: str, prompt: list[int], limit: int, seed: int) -> int:
        from vllm import SamplingParams
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            max_tokens=limit,
            seed=seed,
            stop_token_ids=self._ends,
            logprobs=0,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        count = 0
        async for output in self._llm.generate(tokens_input(prompt), params, name):
            count = len(output.outputs[0].token_ids)
        return count


async def run(repeats: int) -> dict[str, Any]:
    import ray

    requests = make_requests(COUNT)
    pool = RayPool(parse_model(f"vllm:{EMBEDDED}"))
    embedded, bare = (ray.remote(kind).options(num_cpus=0).remote(requests) for kind in (Embedded, Bare))  # pyright: ignore[reportCallIssue, reportArgumentType, reportAttributeAccessIssue]

    async def pooled() -> tuple[int, float]:
        started = time.perf_counter()
        completions = await asyncio.gather(*map(pool.complete, requests))
        return sum(completion.completion_tokens for completion in completions), time.perf_counter() - started

    async def remote(actor: Any) -> tuple[int, float]:
        return await actor.play.remote()

    arms = {"embedded": lambda: remote(embedded), "vllm": pooled, "bare": lambda: remote(bare)}
    rates: dict[str, list[float]] = {name: [] for name in arms}
    try:
        await pool.ready()
        for repeat in range(repeats + 1):
            names = list(arms)
            for name in names[repeat % 3 :] + names[: repeat % 3]:
                tokens, seconds = await arms[name]()
                if repeat:
                    rates[name].append(tokens / seconds)
    finally:
        await pool.close()

    def ratio(name: str, other: str) -> float:
        return round(statistics.median(a / b for a, b in zip(rates[name], rates[other], strict=True)), 2)

    return {
        "tokens_per_s": {name: round(statistics.median(values)) for name, values in rates.items()},
        "all": {name: [round(value) for value in values] for name, values in rates.items()},
        "embedded_over_vllm": ratio("embedded", "vllm"),
        "pool_over_bare": ratio("vllm", "bare"),
    }


@click.command()
@click.option("--repeats", type=click.IntRange(1), default=7, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(repeats: int, as_json: bool) -> None:
    """Measure the vLLM engine beside the embedded one and beside bare vLLM."""
    start_ray()
    result = asyncio.run(run(repeats))
    if as_json:
        click.echo(json.dumps(result))
        return
    for name, rate in result["tokens_per_s"].items():
        click.echo(f"{name:<18}{rate:>8,} tokens/s   {' '.join(f'{value:,}' for value in result['all'][name])}")
    click.echo(f"embedded / vllm   {result['embedded_over_vllm']:>8}   (at least 0.7)")
    click.echo(f"vllm / bare       {result['pool_over_bare']:>8}   (at least 0.85)")


if __name__ == "__main__":
    main()
