"""Sweeps and equal budgets: what is played, what it is compared with, and what is said of it."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from envs.errors import ConfigError
from experiments import Run, run, sweep
from experiments.budget import Ruler
from experiments.command import main
from experiments.compare import compare_at_equal
from experiments.sweeps import Sweep
from tests.conftest import WordEnv

TASKS = 12
BOX = "\\boxed{{{}}}".format


@pytest.fixture
def model(tmp_path: Path) -> str:
    """Recorded replies: of ten solutions by each role about half are right, one in eight cannot be read."""
    return _recorded(tmp_path / "model.jsonl", 0)


def _recorded(path: Path, seed: int) -> str:
    rng = random.Random(seed)
    answers = [BOX("yes")] * 4 + [BOX("no")] * 2 + [BOX("maybe"), "what?"]
    with path.open("w") as file:
        for task in WordEnv().tasks(TASKS):
            for role in ("solver", "debater_1", "debater_2"):
                row = {"task": task.id, "role": role, "replies": rng.choices(answers, k=40)}
                file.write(json.dumps(row) + "\n")
    return f"replay:{path}"


def play(model: str, root: Path, *topologies: str, **options: Any) -> Sweep:
    return sweep(topologies, WordEnv(), [model], tasks=TASKS, backend="local", root=root, name="s", **options)


def test_every_topology_is_a_run_of_its_own_and_the_same_as_alone(model: str, tmp_path: Path) -> None:
    played = play(model, tmp_path, "solo", "vote,samples=3", "society,agents=2,rounds=2")
    assert [entry.topology for entry in played.entries] == ["solo", "vote,samples=3", "society,agents=2,rounds=2"]
    assert [entry.calls for entry in played.entries] == [1, 3, 4]
    alone = run("vote", WordEnv(), model, tasks=TASKS, settings={"samples": 3}, backend="local", root=tmp_path)
    assert Run.open("s/vote,samples=3", tmp_path).summary().digest == alone.summary().digest
    assert (played.path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert Sweep(played.path).table == played.table


def test_each_is_compared_with_the_first_and_with_self_consistency_at_its_cost(model: str, tmp_path: Path) -> None:
    solo, vote, society = play(model, tmp_path, "solo", "vote,samples=3", "society,agents=2,rounds=2").entries
    assert solo.first is None and vote.first and vote.first.comparison.tasks == TASKS
    assert vote.first.comparison.difference == pytest.approx((vote.accuracy or 0) - (solo.accuracy or 0))
    assert solo.equal_calls is vote.equal_calls is None  # they are self-consistency
    assert society.equal_calls and society.equal_calls.samples == 4
    assert society.equal_tokens and (society.equal_tokens.samples or 0) > 4  # peers' words cost tokens too


def test_a_ruler_is_self_consistency_at_every_number_of_samples(model: str, tmp_path: Path) -> None:
    def vote(samples: int) -> Run:
        own = {"samples": samples}
        return run("vote", WordEnv(), model, tasks=TASKS, settings=own, backend="local", root=tmp_path)

    async def measured(ruler: Ruler, samples: int) -> Any:
        return await ruler.scores(samples)

    import asyncio

    ruler = Ruler(vote(9), WordEnv())
    assert ruler.most == 9
    for samples in range(1, 10):
        alone = vote(samples)
        assert asyncio.run(measured(ruler, samples)) == alone.scores()
        tokens = alone.summary().tokens
        assert ruler.tokens(samples) == pytest.approx((tokens.prompt + tokens.completion) / TASKS)
        assert ruler.samples_for("calls", samples - 0.5) == samples
        assert ruler.samples_for("tokens", ruler.tokens(samples)) == samples
    assert ruler.samples_for("calls", 0.0) == 1 and ruler.samples_for("calls", 9.1) is None
    assert ruler.samples_for("tokens", ruler.tokens(9) + 1) is None


def test_models_and_seeds_make_runs_of_their_own_and_seeds_are_taken_together(model: str, tmp_path: Path) -> None:
    other = _recorded(tmp_path / "other.jsonl", 1)
    played = sweep(
        ["solo", "vote,samples=2"], WordEnv(), [model, other], seeds=[1, 2], tasks=TASKS, backend="local",
        root=tmp_path, name="s",
    )  # fmt: skip
    table = played.table
    assert len(played.runs()) == 8 and len(table.entries) == 4 and set(table.self_consistency) == {model, other}
    assert all(entry.episodes == 2 * TASKS for entry in table.entries)
    assert [entry.first is None for entry in table.entries] == [True, False, True, False]


def test_a_budget_of_calls_sizes_every_topology(model: str, tmp_path: Path) -> None:
    played = play(model, tmp_path, "vote", "society", "society,rounds=1", calls=2)
    labels = [entry.topology for entry in played.entries]
    assert labels == ["vote,samples=2", "society,agents=1", "society,rounds=1,agents=2"]
    assert all(entry.calls == 2 for entry in played.entries)


@pytest.mark.parametrize(
    ("topologies", "options", "message"),
    [
        (["solo", "solo"], {}, "names solo twice"),
        (["solo"], {"calls": 0}, "at least 1 call"),
        (["p_true"], {"calls": 2}, "takes at least 3 calls an episode, and the budget is 2"),
        (["stepwise"], {"calls": 8}, "does not say how many calls"),
        (["solo"], {"settings": {"rounds": 2}}, "no setting of a whole sweep: write it after its topology"),
        (["society,agents"], {}, "expected NAME,KEY=VALUE"),
        (["socety"], {}, "did you mean 'society'"),
        (["society,agent=2"], {}, "did you mean 'agents'"),
        ([], {}, "at least one topology"),
    ],
)
def test_what_cannot_be_swept_is_said_before_anything_is_written(
    model: str, tmp_path: Path, topologies: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        play(model, tmp_path, *topologies, **options)
    assert not (tmp_path / "s").exists()


def test_failed_episodes_are_counted_and_the_others_compared(model: str, tmp_path: Path) -> None:
    played = play(model, tmp_path, "solo", "mad")  # nothing is recorded of mad's roles
    solo, mad = played.entries
    assert (solo.failed, mad.failed) == (0, TASKS) and mad.accuracy is None
    assert mad.first is None and mad.equal_calls is None


async def test_runs_compared_at_equal_calls_and_tokens(model: str, tmp_path: Path) -> None:
    runs = play(model, tmp_path, "vote,samples=12", "society,agents=2,rounds=2").runs()
    _, by_calls = await compare_at_equal(runs, "calls", WordEnv())
    _, by_tokens = await compare_at_equal(runs, "tokens", WordEnv())
    assert by_calls.samples == 4 and (by_tokens.samples or 0) > 4
    with pytest.raises(ConfigError, match="name a run of vote first"):
        await compare_at_equal(runs[::-1], "calls", WordEnv())
    few = play(model, tmp_path / "few", "vote,samples=3", "society,agents=2,rounds=2").runs()
    with pytest.raises(ConfigError, match=r"took 4\.0 calls .* has 3 samples"):
        await compare_at_equal(few, "calls", WordEnv())


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from envs import Arithmetic

    path = tmp_path / "sums.jsonl"
    with path.open("w") as file:
        for task in Arithmetic(level=2).tasks(TASKS):
            for role in ("solver", "debater_1", "debater_2"):
                replies = [BOX(task.answers[0] if i % 3 else "1") for i in range(20)]
                file.write(json.dumps({"task": task.id, "role": role, "replies": replies}) + "\n")
    where = ["--env", "arithmetic", "--set", "env.level=2", "--tasks", str(TASKS), "--backend", "local"]
    runs = ["--runs", str(tmp_path)]
    asked = ["sweep", "solo", "vote,samples=5", "society,agents=2,rounds=1", "--model", f"replay:{path}", "--name", "s"]
    assert main([*asked, *where, *runs, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sweep"] == "s" and len(found["entries"]) == 3
    assert main(["show", "s", *runs]) == 0
    shown = capsys.readouterr().out
    assert "corrected p below 0.05): vote,samples=5; worse: none." in " ".join(shown.split())
    assert main(["compare", "--equal", "calls", "s/vote,samples=5", "s/society,agents=2,rounds=1", *runs]) == 0
    assert "against k samples" in capsys.readouterr().out
    assert main(["list", *runs]) == 0
    assert "3 runs on arithmetic, 12 tasks" in capsys.readouterr().out
