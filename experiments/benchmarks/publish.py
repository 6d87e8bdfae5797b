"""What it takes to bring new weights from a trainer to its pool: `python -m experiments.benchmarks.publish`.

Seconds, and against a plain copy of the same bytes in memory: writing them to a file as safetensors does and having
the disk confirm it; the trainer's export; the verified publish to pools of 1 and 2 replicas, with the probe measured
from the directory and with the trainer's own. All of the embedded model's weights, or with `--rank` an adapter's; with
`--width` of a random model that is as many times as wide, for bytes that weigh something. The arms take turns,
`--repeats` times, and the median of each is printed.
"""

import asyncio
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from agents.cluster import connected
from agents.engines import EMBEDDED, parse_model
from agents.learning.trainer import Trainer
from agents.learning.trainer_settings import PolicySettings, TrainerSettings
from agents.pool import RayPool
from agents.serving import PoolSettings, Serving

REPLICAS = (1, 2)
Seconds = dict[str, list[float]]


def widened(folder: Path, width: int) -> Path:
    """A random model of the embedded one's shape, `width` times as wide, with its tokenizer."""
    shutil.copytree(EMBEDDED, folder, ignore=shutil.ignore_patterns("*.safetensors", "palaestra.json"))
    config: Any = LlamaConfig.from_pretrained(EMBEDDED)
    config.hidden_size *= width
    config.intermediate_size *= width
    config.num_attention_heads *= width
    config.num_key_value_heads *= width
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def timed(found: Seconds, name: str, do: Callable[[], Any]) -> None:
    started = time.perf_counter()
    do()
    found.setdefault(name, []).append(time.perf_counter() - started)


def write(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """As a file that is on the disk when this returns."""
    save_file(tensors, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


async def publish(found: Seconds, trainer: Trainer, policy: str, pool: RayPool, folder: Path) -> None:
    """Export, then publish to a pool, once with each probe."""
    version = trainer.export(policy, folder)
    for i, probe in enumerate((None, trainer.probe(policy))):
        started = time.perf_counter()
        await pool.publish(policy, f"{version}.{folder.name}.{i}", folder, probe=probe)
        measured = "the trainer's probe" if i else "a measured probe"
        name = f"publish, {len(await pool.health())} replica(s), {measured}"
        found.setdefault(name, []).append(time.perf_counter() - started)


async def run(model: str, rank: int, repeats: int, folder: Path) -> tuple[Seconds, int]:
    policy = "learner" if rank else ""
    trainer = Trainer(TrainerSettings(), {policy: PolicySettings(model, rank=rank)})
    trainer.export(policy, folder / "first")
    file = "adapter_model.safetensors" if rank else "model.safetensors"
    tensors = load_file(folder / "first" / file)
    # Written to before it is timed: the first writes to fresh pages would have the kernel find them.
    copies = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    pools = [RayPool(parse_model(model, Serving(pool=PoolSettings(replicas=n)))) for n in REPLICAS]
    found: Seconds = {}
    try:
        for pool in pools:
            await pool.ready()
        for i in range(repeats + 1):
            timed(found, "copy in memory", lambda: [copies[name].copy_(one) for name, one in tensors.items()])
            timed(found, "write a file", lambda: write(tensors, folder / "plain.safetensors"))
            timed(found, "export", lambda i=i: trainer.export(policy, folder / f"export-{i}"))
            for pool, n in zip(pools, REPLICAS, strict=True):
                await publish(found, trainer, policy, pool, folder / f"publish-{i}-{n}")
            shutil.rmtree(folder / f"export-{i}")
            if not i:
                found.clear()  # the first of each imports and allocates what the others find
    finally:
        for pool in pools:
            await pool.close()
    return found, sum(tensor.nbytes for tensor in tensors.values())


@click.command()
@click.option("--repeats", type=int, default=5, show_default=True)
@click.option("--rank", type=int, default=0, show_default=True, help="Publish an adapter of this rank.")
@click.option("--width", type=int, default=1, show_default=True, help="A random model this many times as wide.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(repeats: int, rank: int, width: int, as_json: bool) -> None:
    """Measure publishing against copying and writing the same bytes."""
    folder = Path(tempfile.mkdtemp(prefix="palaestra-publish-"))
    try:
        model = "embedded" if width == 1 else f"hf:{widened(folder / 'wide', width)}"
        with connected():
            found, size = asyncio.run(run(model, rank, repeats, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    median = {name: statistics.median(values) for name, values in found.items()}
    copy = median["copy in memory"]
    if as_json:
        click.echo(json.dumps({"bytes": size, "median_s": median, "all_s": found}))
        return
    click.echo(f"{size / 1e6:.1f} MB of weights")
    for name, value in median.items():
        every = " ".join(f"{one * 1e3:,.1f}" for one in found[name])
        click.echo(f"{name:<44}{value * 1e3:>10,.1f} ms{value / copy:>9,.0f} × a copy   {every}")


if __name__ == "__main__":
    main()
