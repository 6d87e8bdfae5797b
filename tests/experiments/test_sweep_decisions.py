"""What a sweep decides on its way: which settings it crosses, what a budget leaves, who is stopped; and going on after
it was cut short."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from envs.errors import ConfigError
from experiments import Run, sweep_play
from experiments.command import main
from experiments.runs import ASKED, RESULT, SWEEP
from experiments.spending import Price, Spent, price_of, read_prices
from experiments.sweeps import Sweep, resume_sweep, sweep
from tests.conftest import WordEnv

TASKS = 40
GOOD, BAD = 0.9, 0.2
"""How often solvers and debaters are right."""
ARMS = ("solo", "vote,samples=3", "society,agents=2,rounds=1")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("recorded") / "model.jsonl"
    rng = random.Random(0)
    with path.open("w") as file:
        for task in WordEnv().tasks(TASKS):
            for role, right in (("solver", GOOD), ("debater_1", BAD), ("debater_2", BAD)):
                replies = ["\\boxed{yes}" if rng.random() < right else "\\boxed{no}" for _ in range(12)]
                file.write(json.dumps({"task": task.id, "role": role, "replies": replies}) + "\n")
    return f"replay:{path}"


def play(model: str, root: Path, *topologies: str, **options: Any) -> Sweep:
    given = {"models": [model], "tasks": TASKS, "backend": "local", "name": "s", **options}
    return sweep(topologies or ARMS, WordEnv(), root=root, **given)


def digests(played: Sweep) -> dict[str, str]:
    return {run.name: run.summary().digest for run in played.runs()}


def test_a_grid_crosses_the_settings_that_a_topology_has(model: str, tmp_path: Path) -> None:
    grid = {"rounds": [1, 2], "samples": "2,3", "debater.temperature": [0]}
    played = play(model, tmp_path, "solo", "vote", "vote,samples=4", "society,agents=2", tasks=4, grid=grid)
    assert [entry.topology for entry in played.entries] == [
        *("solo", "vote,samples=2", "vote,samples=3", "vote,samples=4"),
        "society,agents=2,rounds=1,debater.temperature=0",
        "society,agents=2,rounds=2,debater.temperature=0",
    ]
    assert [entry.calls for entry in played.entries] == [1, 2, 3, 4, 2, 4]
    assert {path.name for path in played.path.iterdir() if path.is_dir()} == {run.name for run in played.runs()} | {
        "self-consistency"
    }


def test_folders_of_arms_are_short_plain_and_of_their_own(model: str, tmp_path: Path) -> None:
    long = "Say nothing but the answer, and say it at once/" * 3
    grid = {"solver.instructions": [long + "a", long + "b", "a/b", "a:b", "A:B"]}
    names = [run.name for run in play(model, tmp_path, "solo", tasks=2, grid=grid).runs()]
    assert len({name.lower() for name in names}) == 5 and max(map(len, names)) <= 64
    assert all(name == Path(name).name and not name.startswith((".", "-")) for name in names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": {"round": [1]}}, "unknown setting in the grid 'round'; did you mean 'rounds'"),
        ({"grid": {"critic.temperature": [1]}}, "unknown setting in the grid"),
        ({"grid": {"env.level": [1, 2]}}, "arms share tasks"),
        ({"grid": {"rounds": "1,,2"}}, "expected values with commas"),
        ({"grid": {"rounds": [1, 1]}}, "twice"),
        ({"budget": {"dollars": 1}}, "unknown budget 'dollars'"),
        ({"budget": {"calls": "many"}}, "expected a number of calls above 0, found 'many'"),
        ({"budget": {"usd": 1}}, "needs the price of 'replay:"),
        ({"stop_losers": 1.0}, "above 0 and below 1"),
        ({"prices": "nowhere.json"}, "prices nowhere.json cannot be read: FileNotFoundError"),
    ],
)
def test_what_cannot_be_used_is_said_before_anything_is_written(
    model: str, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        play(model, tmp_path, "solo", "society,agents=2", **options)
    assert not (tmp_path / "s").exists()


def test_losers_are_stopped_at_the_same_task_whatever_the_concurrency(model: str, tmp_path: Path) -> None:
    one, many = (play(model, tmp_path / str(n), concurrency=n, stop_losers=0.05) for n in (1, 64))
    solo, vote, society = one.entries
    assert solo.stopped is None and vote.stopped is None and solo.episodes == vote.episodes == TASKS
    assert society.stopped and society.episodes == society.stopped.tasks == 20
    assert society.stopped.winner in ("solo", "vote,samples=3") and society.stopped.interval[1] < 0
    assert society.ci95 is society.first is society.equal_calls is society.equal_tokens is None
    assert vote.first is not None and vote.first.comparison.tasks == TASKS
    assert vote.first.corrected_p == pytest.approx(min(1.0, 2 * vote.first.comparison.p)), "who was stopped counts"
    assert digests(one) == digests(many) and one.table == many.table
    assert one.table.unplayed == [], "what was stopped was not left for want of money"


def test_the_first_topology_is_never_stopped(model: str, tmp_path: Path) -> None:
    society, solo = play(model, tmp_path, ARMS[2], "solo", stop_losers=0.05).entries
    assert society.stopped is solo.stopped is None and society.episodes == TASKS
    assert solo.first is not None and (solo.first.comparison.interval or (0, 0))[0] > 0


def test_no_episode_begins_once_the_budget_is_spent_and_what_is_left_is_told(model: str, tmp_path: Path) -> None:
    played = play(model, tmp_path, concurrency=1, budget={"calls": 330, "tokens": "1e9"})
    table = played.table
    assert table.spent is not None and 330 <= table.spent.calls < 330 + 20  # one episode was in flight
    episodes = [entry.episodes for entry in table.entries]
    assert max(episodes) - min(episodes) <= 20 and 0 < min(episodes) < TASKS, "arms share it, block by block"
    left = {one.topology: one.episodes for one in table.unplayed}
    assert left == {
        **{entry.topology: TASKS - entry.episodes for entry in table.entries if entry.episodes < TASKS},
        "self-consistency": TASKS - len(Run(played.path / "self-consistency").store.outcomes()),
    }
    society = table.entries[-1]
    assert society.equal_calls is not None, "self-consistency is paid from the budget, too"


def test_models_share_a_budget(model: str, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(Path(model.partition(":")[2]).read_text())
    played = play(model, tmp_path, "solo", models=[model, f"replay:{other}"], concurrency=1, budget={"calls": 40})
    # A half each, and what the first overshot is the second's less.
    assert [entry.episodes for entry in played.entries] == [20, 20]
    assert {(one.topology, one.episodes) for one in played.table.unplayed} == {("solo", 20), ("self-consistency", 40)}


def test_costs_are_by_the_price_of_each_roles_model(model: str, tmp_path: Path) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text('["replay:*"]\nprompt = 2.0\ncompletion = 10\ndate = 2026-11-01\nsource = "its page"\n')
    played = play(model, tmp_path, "solo", prices=prices, tasks=5, budget={"usd": "0.5"})
    tokens = Run(played.path / "solo").summary().tokens
    assert played.entries[0].usd == pytest.approx((2 * tokens.prompt + 10 * tokens.completion) / 1e6 / 5)
    assert played.table.spent and (played.table.spent.usd or 0) > 5 * (played.entries[0].usd or 0)
    assert json.loads((played.path / ASKED).read_text())["arguments"]["prices"]["replay:*"]["date"] == "2026-11-01"


def test_prices_are_found_by_name_then_by_the_longest_pattern(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({name: {"prompt": i, "completion": 0} for i, name in enumerate(["*", "a:*", "a:b*"])}))
    prices = {**read_prices(path), "a:b[1]": Price(prompt=9, completion=0)}
    asked = ["a:b[1]", "a:bc", "a:c", "b"]
    assert [price.prompt for model in asked if (price := price_of(model, prices))] == [9, 2, 1, 0]
    assert price_of("b", {"a": prices["*"]}) is None
    assert (Spent(1, 2, 3.0) + Spent(1, 1, None)) == Spent(2, 3, None)
    for wrong in ({"a": {"prompt": 1}}, {"a": {"prompt": -1, "completion": 0}}, {"a": 3}, [], {"a": {"input": 1}}):
        path.write_text(json.dumps(wrong))
        with pytest.raises(ConfigError, match=r"prices\.json"):
            read_prices(path)


def test_a_sweep_that_was_cut_short_goes_on_to_the_same_end(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = play(model, tmp_path / "whole", concurrency=4, stop_losers=0.05)
    begun = 0
    really = sweep_play.play_one

    async def dies(*args: Any) -> Any:
        nonlocal begun
        begun += 1
        if begun == 100:
            raise OSError("no room")
        return await really(*args)

    monkeypatch.setattr(sweep_play, "play_one", dies)
    with pytest.raises((OSError, ExceptionGroup)):
        play(model, tmp_path, concurrency=4, stop_losers=0.05)
    monkeypatch.undo()
    folder = tmp_path / "s"
    assert (folder / "solo").is_dir() and not (folder / SWEEP).exists()
    with pytest.raises(ConfigError, match=r"ready-made in Python.*give it again"):
        resume_sweep(folder)
    again = resume_sweep(folder, env=WordEnv())
    assert again.table == whole.table and digests(again) == digests(whole)
    assert resume_sweep(folder).table == whole.table, "a whole one is left as it is"
    (folder / SWEEP).unlink()
    (folder / "solo" / RESULT).unlink()
    assert resume_sweep(folder, env=WordEnv()).table == whole.table
    assert (folder / "solo" / RESULT).is_file(), "nothing was left of it but to say that it is whole"
    with pytest.raises(ConfigError, match="no sweep that can be gone on with"):
        resume_sweep(tmp_path)


def test_the_command_says_who_was_stopped_and_what_was_spent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from envs import Arithmetic

    path = tmp_path / "sums.jsonl"
    with path.open("w") as file:
        for task in Arithmetic(level=2).tasks(TASKS):
            for role in ("solver", "debater_1", "debater_2"):
                right = role == "solver"
                reply = f"\\boxed{{{task.answers[0] if right else 'none'}}}"
                file.write(json.dumps({"task": task.id, "role": role, "replies": [reply] * 20}) + "\n")
    (tmp_path / "prices.json").write_text('{"replay:*": {"prompt": 1, "completion": 2}}')
    asked = ["sweep", "solo", "society,agents=2", "--grid", "rounds=1,2", "--stop-losers", "0.05", "--budget", "usd=3"]
    where = ["--env", "arithmetic", "--set", "env.level=2", "--tasks", str(TASKS), "--backend", "local", "--name", "s"]
    runs = ["--runs", str(tmp_path), "--model", f"replay:{path}"]
    assert main([*asked, *where, *runs]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Stopped early: society,agents=2,rounds=1 after 20 tasks" in shown and "behind solo" in shown
    assert "usd, of a budget of 3 usd. Episodes left unplayed: none." in shown
