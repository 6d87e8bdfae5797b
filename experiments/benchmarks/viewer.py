"""How long the viewer takes over a large run: `python -m experiments.benchmarks.viewer` prints seconds and megabytes.

It plays `--played` debates with the embedded model, writes `--episodes` varied copies of them into a run, with one of
500 turns and one whose reply has a million characters, and asks a server of its own for the pages, as a browser would.
First the pages after the start, then again, then what needs all turns to have been looked through.
"""

import argparse
import asyncio
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from envs.types import Verdict
from experiments.runner import run
from experiments.runs import CONFIG, RESULT, Run
from experiments.store import StoreWriter
from graphs.turns import Episode, Turn

BATCH = 500
PAGES = {
    "runs": "runs",
    "run": "runs/large",
    "grid": "runs/large/grid?limit=1000",
    "episodes": "runs/large/episodes?filter=wrong",
    "episode": "runs/large/episodes/{middle}",
    "tokens": "runs/large/episodes/{middle}/turns/{turn}/tokens",
    "episode of 500 turns": "runs/large/episodes/0",
    "reply of 1 MB": "runs/large/episodes/1",
    "filter on turns": "runs/large/episodes?filter=disagreement",
}


def make_large(models: Sequence[Episode], config: dict[str, Any], directory: Path, episodes: int) -> Run:
    """Write a run of varied copies of some episodes: 0 has 500 turns, 1 a reply of a million characters.

    Args:
        models: what is copied.
        config: of the run that they are from.
        directory: where to; made.
        episodes: how many.
    """
    directory.mkdir(parents=True)
    (directory / CONFIG).write_text(json.dumps({**config, "tasks": episodes, "samples": 1}), encoding="utf-8")
    asyncio.run(_write(models, directory, episodes))
    (directory / RESULT).write_text('{"seconds": 1.0}', encoding="utf-8")
    return Run(directory)


async def _write(models: Sequence[Episode], directory: Path, episodes: int) -> None:
    writer, chance = StoreWriter(directory), random.Random(7)
    try:
        for start in range(0, episodes, BATCH):
            positions = range(start, min(start + BATCH, episodes))
            copies = [_copy(models[position % len(models)], position, chance) for position in positions]
            await asyncio.gather(*(writer.append(p, copy) for p, copy in zip(positions, copies, strict=True)))
    finally:
        writer.close()


def _copy(model: Episode, position: int, chance: random.Random) -> Episode:
    """Another task's, with another outcome now and then."""
    task = model.task.model_copy(
        update={"id": f"task-{position:05d}", "question": f"{position}: {model.task.question}"}
    )
    changes: dict[str, Any] = {"task": task, "seconds": chance.uniform(0.1, 9)}
    if chance.random() < 0.3:
        changes |= {"answer": str(chance.randint(1, 999)), "verdict": Verdict.incorrect("drawn at random")}
    if chance.random() < 0.01:
        changes |= {"answer": None, "verdict": None, "failure": "EngineError: drawn at random"}
    first = model.turns[0]
    if position == 0:
        changes["turns"] = tuple(_said(first, i, chance) for i in range(500))
    if position == 1:
        changes["turns"] = (first.model_copy(update={"reply": "a <b>long</b> reply\n" * 50_000}), *model.turns[1:])
    return model.model_copy(update=changes)


def _said(turn: Turn, number: int, chance: random.Random) -> Turn:
    """The n-th of a long debate, which reads some of those before it."""
    read = tuple(f"solver_{i % 5}/{i // 5}" for i in chance.sample(range(number), min(number, 3)))
    place = {"id": f"solver_{number % 5}/{number // 5}", "role": f"solver_{number % 5}", "round": 1 + number // 5}
    return turn.model_copy(update={**place, "after": number - number % 5, "reads": read, "follows": None})


def measure(root: Path, episodes: int) -> dict[str, Any]:
    """Seconds of each page, and the server's memory."""
    command = [sys.executable, "-m", "palaestra", "view", "--runs", str(root), "--port", "0", "--no-browser", "--json"]
    started = time.monotonic()
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        url = json.loads(server.stdout.readline())["url"]
        found: dict[str, Any] = {"start_s": round(time.monotonic() - started, 2)}
        middle = episodes // 2
        turn = _get(url, PAGES["episode"].format(middle=middle))[1]["turns"][0]["id"]
        pages = {name: page.format(middle=middle, turn=turn) for name, page in PAGES.items()}
        for when in ("first", "again"):
            found[when] = {name: _get(url, page)[0] for name, page in pages.items()}
        while (page := _get(url, PAGES["run"])[1])["looked"] < page["run"]["episodes"]:
            time.sleep(0.2)
        found["looked_through_s"] = round(time.monotonic() - started - found["start_s"], 2)
        found["at last"] = {name: _get(url, page)[0] for name, page in pages.items()}
        found["most_mb"] = _most_memory(server.pid)
        return found
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


def _get(url: str, page: str) -> tuple[float, Any]:
    started = time.monotonic()
    with urllib.request.urlopen(f"{url.rstrip('/')}/api/{page}") as answer:
        body = answer.read()
    return round(time.monotonic() - started, 3), json.loads(body)


def _most_memory(pid: int) -> int:
    """The most that a process has had in memory, megabytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=20_000)
    parser.add_argument("--played", type=int, default=40)
    parser.add_argument("--runs", type=Path, help="Keep the run here, and use it again.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = options.runs or Path(folder)
        if not (root / "large").is_dir():
            asked: dict[str, Any] = {
                "tasks": options.played,
                "settings": {"agents": 3, "rounds": 2},
                "backend": "local",
            }
            small = run("society", "arithmetic", seed=7, root=root, name="small", **asked)
            large = make_large(list(small.episodes()), small.config, root / "large", options.episodes)
            print(f"written: {(large.path / 'episodes.db').stat().st_size // 2**20} MiB", file=sys.stderr)
        print(json.dumps({"episodes": options.episodes, **measure(root, options.episodes)}, indent=2))


if __name__ == "__main__":
    main()
