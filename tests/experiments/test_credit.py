"""Credit: what each turn is rewarded with, and the samples that come of scripted episodes and of stored runs."""

import math
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.tools import tool

from agents import Cast, Request, ScriptedEngine
from agents.learning import Sample, SampleError, refuse
from agents.types import seed_of
from envs import ConfigError
from envs.types import Verdict
from experiments import Run, run
from experiments.credit import (
    Credit,
    Rewards,
    by_role,
    discounted,
    format_penalty,
    last_turn,
    outcome,
    samples_of,
    total,
)
from graphs import Episode, society, solo, vote
from tests.conftest import PlayScripted

ROOT = Path(__file__).parents[2]
YES, NO, UNREAD = "\\boxed{yes}", "\\boxed{no}", "hm"


def terms(rewards: Rewards) -> dict[str, dict[str, float]]:
    return {id: dict(given) for id, given in rewards.items()}


def altered(episode: Episode, id: str, **changes: Any) -> Episode:
    turns = tuple(turn.model_copy(update=changes) if turn.id == id else turn for turn in episode.turns)
    return episode.model_copy(update={"turns": turns})


def attempts(play_scripted: PlayScripted, *replies: str) -> list[Episode]:
    """Attempts of solo at one task."""
    return [play_scripted(solo, {"solver": [reply]}, sample=i) for i, reply in enumerate(replies)]


@pytest.fixture
def debate(play_scripted: PlayScripted) -> Episode:
    """Two debaters, two rounds; the second one's first reply cannot be read. Right in the end."""
    script = {"debater_1": [YES, YES], "debater_2": [UNREAD, YES]}
    return play_scripted(society, script, {"agents": 2, "rounds": 2})


class TestRewards:
    def test_outcome_is_the_score_but_not_for_a_reply_that_could_not_be_read(self, debate: Episode) -> None:
        assert terms(outcome(debate)) == {
            "debater_1/0": {"outcome": 1.0},
            "debater_2/0": {"outcome": 0.0},
            "debater_1/1": {"outcome": 1.0},
            "debater_2/1": {"outcome": 1.0},
        }

    def test_terms_are_kept_apart_and_added_by_name(self, debate: Episode) -> None:
        credit = total(outcome, format_penalty(0.5), outcome)
        assert terms(credit(debate))["debater_2/0"] == {"outcome": 0.0, "format": -0.5}
        assert terms(credit(debate))["debater_1/0"] == {"outcome": 2.0, "format": 0.0}

    def test_each_role_has_a_credit_of_its_own(self, debate: Episode) -> None:
        opposite: Credit = lambda episode: {turn.id: {"loses": -1.0} for turn in episode.turns}  # noqa: E731
        credit = by_role({"debater": outcome, "debater_2": opposite, "judge": outcome})
        assert terms(credit(debate)) == {
            "debater_1/0": {"outcome": 1.0},
            "debater_2/0": {"loses": -1.0},
            "debater_1/1": {"outcome": 1.0},
            "debater_2/1": {"loses": -1.0},
        }
        assert set(by_role({"debater_2": outcome})(debate)) == {"debater_2/0", "debater_2/1"}

    def test_returns_are_discounted_along_a_roles_own_turns(self, debate: Episode) -> None:
        rewards = {"debater_1/0": {"a": 1.0, "b": 0.5}, "debater_1/1": {"a": 2.0}, "debater_2/1": {"a": 8.0}}
        assert discounted(debate, rewards, 0.5) == {"debater_1/0": 2.5, "debater_1/1": 2.0, "debater_2/1": 8.0}
        assert discounted(debate, rewards, 0.0)["debater_1/0"] == 1.5

    def test_an_outcome_at_the_end_is_handed_back_once(self, debate: Episode) -> None:
        found = discounted(debate, last_turn(outcome)(debate), 0.5)
        assert found == {"debater_1/0": 0.5, "debater_2/0": 0.5, "debater_1/1": 1.0, "debater_2/1": 1.0}


class TestSamples:
    def test_a_sample_is_the_turn_as_it_was_sampled(self, debate: Episode) -> None:
        found = samples_of([debate], roles=["debater_2"])
        assert [sample.key for sample in found.samples] == ["words-0/0/debater_2/0", "words-0/0/debater_2/1"]
        for sample in found.samples:
            turn = debate.turn(sample.key.removeprefix("words-0/0/"))
            assert (sample.prompt_ids, sample.token_ids, sample.logprobs) == (
                turn.prompt_ids,
                turn.token_ids,
                turn.logprobs,
            )
            assert (sample.policy, sample.version, sample.role) == ("scripted", "1", "debater_2")
            assert sample.mask == () and not sample.supervised
        refuse(found.samples, {"scripted": {"1"}}, vocabulary=256)

    def test_an_advantage_is_of_the_return_and_a_reward_is_the_turns_own(self, debate: Episode) -> None:
        found = samples_of([debate], last_turn(outcome), "raw", gamma=0.5, roles=["debater_1"]).samples
        assert [(sample.reward, sample.advantage) for sample in found] == [(0, 0.5), (1, 1)]

    def test_roles_of_one_base_are_trained_by_it(self, debate: Episode) -> None:
        assert len(samples_of([debate], roles=["debater"]).samples) == 4
        assert samples_of([debate], roles=["judge"]).samples == []

    @pytest.mark.parametrize(
        ("advantage", "expected"),
        [
            ("grpo", [1.732, -0.577, -0.577, -0.577]),
            ("rloo", [1, -1 / 3, -1 / 3, -1 / 3]),
            ("dr_grpo", [0.75, -0.25, -0.25, -0.25]),
            ("reinforce++", [1.732, -0.577, -0.577, -0.577]),
            ("raw", [1, 0, 0, 0]),
            (lambda returns, groups: [7.0 for _ in returns], [7, 7, 7, 7]),
        ],
    )
    def test_attempts_at_a_task_are_compared(
        self, play_scripted: PlayScripted, advantage: Any, expected: list[float]
    ) -> None:
        found = samples_of(attempts(play_scripted, YES, NO, NO, UNREAD), advantage=advantage)
        assert [sample.advantage for sample in found.samples] == pytest.approx(expected, abs=1e-3)
        assert [sample.reward for sample in found.samples] == [1, 0, 0, 0]
        assert found.rewards == {"solver": {"outcome": 0.25}}

    def test_groups_are_explicit(self, play_scripted: PlayScripted, words: Any) -> None:
        easy, hard = words.tasks(2)
        scripts = [(easy, YES), (easy, YES), (hard, YES), (hard, NO)]
        episodes = [
            play_scripted(solo, {"solver": [reply]}, task=task, sample=i) for i, (task, reply) in enumerate(scripts)
        ]

        def found(**options: Any) -> list[float]:
            return [round(sample.advantage, 3) for sample in samples_of(episodes, **options).samples]

        assert found() == found(group="task/role") == [0, 0, 1, -1]
        assert found(group="batch") == found(advantage="reinforce++") == [0.577, 0.577, 0.577, -1.732]
        assert found(group=lambda episode, turn: episode.sample % 2) == [0, 1, 0, -1]

    def test_roles_are_compared_apart_unless_pooled(self, debate: Episode) -> None:
        credit = by_role(
            {
                "debater_1": lambda episode: {"debater_1/0": {"a": 1.0}, "debater_1/1": {"a": 3.0}},
                "debater_2": lambda episode: {"debater_2/0": {"a": 5.0}, "debater_2/1": {"a": 7.0}},
            }
        )

        def found(group: str | None, advantage: str = "dr_grpo") -> dict[str, float]:
            samples = samples_of([debate], credit, advantage, group=group).samples
            return {sample.key.removeprefix("words-0/0/debater_"): sample.advantage for sample in samples}

        assert found("task/role") == {"1/0": -1, "2/0": -1, "1/1": 1, "2/1": 1}
        assert found("role") == found("task/role")
        assert found(None, "reinforce++") == found("role", "reinforce++") != found("batch", "reinforce++")
        assert found("task") == found("batch") == {"1/0": -3, "2/0": 1, "1/1": -1, "2/1": 3}
        assert found("task/turn") == {"1/0": 0, "2/0": 0, "1/1": 0, "2/1": 0}

    def test_failed_and_unscorable_episodes_train_nothing_and_are_counted(self, play_scripted: PlayScripted) -> None:
        right, wrong, failed, unscorable = attempts(play_scripted, YES, NO, YES, YES)
        failed = failed.model_copy(update={"failure": "EngineError: gone", "verdict": None})
        unscorable = unscorable.model_copy(update={"verdict": Verdict.unscorable("the grader hung")})
        found = samples_of([right, failed, wrong, unscorable])
        assert [sample.advantage for sample in found.samples] == pytest.approx([1, -1], abs=1e-3)
        assert found.left_out == {"failed episodes": 1, "unscorable episodes": 1}

    def test_empty_reply_trains_no_tokens_but_counts_in_its_group(self, play_scripted: PlayScripted) -> None:
        right, empty = attempts(play_scripted, YES, UNREAD)
        empty = altered(empty, "solver/0", reply="", token_ids=(), logprobs=())
        found = samples_of([right, empty])
        assert [sample.advantage for sample in found.samples] == pytest.approx([1], abs=1e-3)
        assert found.left_out == {"replies without a token": 1}

    def test_a_chosen_reply_is_no_sample(self, play_scripted: PlayScripted) -> None:
        (right,) = attempts(play_scripted, YES)
        chosen = altered(right, "solver/0", prompt_ids=(), token_ids=(), logprobs=(), choice_logprobs=(-0.1, -2.0))
        found = samples_of([chosen])
        assert found.samples == [] and found.left_out == {"replies that were chosen, not sampled": 1}

    def test_policies_have_the_trainers_names(self, play_scripted: PlayScripted) -> None:
        found = samples_of(attempts(play_scripted, YES), policies={"scripted": ""})
        assert [sample.policy for sample in found.samples] == [""]

    def test_greedy_replies_are_scored_as_their_log_probabilities_were(self, play_scripted: PlayScripted) -> None:
        (right,) = attempts(play_scripted, YES)
        greedy = altered(right, "solver/0", temperature=0.0, top_p=0.5)
        warm = altered(right, "solver/0", temperature=0.7, top_p=0.9)
        assert [(s.temperature, s.top_p) for s in samples_of([greedy, warm]).samples] == [(1.0, 1.0), (0.7, 0.9)]

    def test_a_graph_of_the_users_own_is_trained_like_others(self, play_scripted: PlayScripted) -> None:
        @tool
        def add(a: int, b: int) -> int:
            """Add two numbers."""
            return a + b

        def agent(llm: BaseChatModel) -> Any:
            return create_agent(llm, tools=[add])

        call = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>'
        episode = play_scripted(agent, {"llm": [call, f"It is {YES}"]})
        credit: Credit = lambda episode: {episode.turns[0].id: {"uses the tool": 1.0}} | terms(outcome(episode))  # noqa: E731
        first, second = samples_of([episode], credit, "raw").samples
        assert bytes(first.token_ids).decode() == call
        assert second.prompt_ids[: first.length] == (*first.prompt_ids, *first.token_ids)
        # What the tool said is prompt, and so is never trained.
        assert bytes(second.prompt_ids[first.length :]).decode() == "3"
        assert bytes(second.token_ids).decode() == f"It is {YES}"


class TestRefusal:
    def test_a_turn_of_another_policy(self, debate: Episode) -> None:
        mixed = altered(debate, "debater_2/1", policy="frozen")
        with pytest.raises(SampleError, match=r"'words-0/0/debater_2/1'.*trained \(scripted\), found 'frozen'"):
            samples_of([mixed], policies={"scripted": ""})
        assert len(samples_of([mixed], policies={"scripted": ""}, roles=["debater_1"]).samples) == 2

    def test_a_broken_prefix(self, debate: Episode) -> None:
        ids = debate.turn("debater_1/1").prompt_ids
        retokenised = altered(debate, "debater_1/1", prompt_ids=(*ids[:5], 999, *ids[5:]))
        with pytest.raises(SampleError, match=r"'words-0/0/debater_1/1'.* of debater_1/0, found '5 of them'"):
            samples_of([retokenised])
        cut = altered(debate, "debater_1/1", prompt_ids=ids[:4])
        with pytest.raises(SampleError, match="found '4 of them'"):
            samples_of([cut])
        orphan = altered(debate, "debater_1/1", follows="debater_1/7")
        with pytest.raises(SampleError, match="the turn that it follows, debater_1/7"):
            samples_of([orphan])

    def test_an_engine_without_token_ids(self, debate: Episode) -> None:
        texts = altered(debate, "debater_1/0", prompt_ids=(), token_ids=(), logprobs=())
        with pytest.raises(SampleError, match=r"'words-0/0/debater_1/0'.*returns no token ids"):
            samples_of([texts])
        bare = altered(debate, "debater_1/0", logprobs=())
        with pytest.raises(SampleError, match="returns no log-probabilities"):
            samples_of([bare])

    def test_credit_for_a_turn_that_is_not_there(self, debate: Episode) -> None:
        with pytest.raises(SampleError, match=r"found 'debater_3/0'.*did you mean 'debater_"):
            samples_of([debate], lambda episode: {"debater_3/0": {"a": 1.0}})

    def test_a_reward_that_is_not_finite(self, debate: Episode) -> None:
        with pytest.raises(SampleError, match="a finite reward speed, found nan"):
            samples_of([debate], lambda episode: {"debater_1/0": {"speed": math.nan}})

    def test_unknown_names_and_a_gamma_above_1(self, debate: Episode) -> None:
        for options, said in [
            ({"advantage": "gpro"}, "did you mean 'grpo'"),
            ({"group": "rolle"}, "did you mean 'role'"),
            ({"gamma": 1.5}, "gamma from 0 to 1"),
        ]:
            with pytest.raises(ConfigError, match=said):
                samples_of([debate], **options)


PRINT_SAMPLES = """
import sys
from experiments import Run
from experiments.credit import format_penalty, last_turn, outcome, samples_of, total
for advantage in ("grpo", "reinforce++"):
    print(samples_of(Run.open(sys.argv[1]), total(last_turn(outcome), format_penalty(0.3)), advantage, gamma=0.9))
"""


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Run:
    def reply(request: Request) -> str:
        return UNREAD if request.seed % 7 == 0 else f"\\boxed{{{request.seed % 3}}}"

    cast = Cast.all(ScriptedEngine(reply))
    root = tmp_path_factory.mktemp("runs")
    return run(vote, "arithmetic", cast, tasks=6, samples=4, backend="local", root=root, settings={"samples": 3})


class TestStoredRun:
    def test_a_stored_run_gives_the_same_samples_in_another_process(self, stored: Run, tmp_path: Path) -> None:
        credit = total(last_turn(outcome), format_penalty(0.3))
        here = [samples_of(stored.episodes(), credit, name, gamma=0.9) for name in ("grpo", "reinforce++")]
        there = subprocess.run(
            [sys.executable, "-c", PRINT_SAMPLES, str(shutil.copytree(stored.path, tmp_path / "moved"))],
            env={**os.environ, "PYTHONHASHSEED": "7"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert there.stdout.splitlines() == [repr(found) for found in here]
        for found in here:
            assert len(found.samples) == 6 * 4 * 3 and any(sample.advantage for sample in found.samples)

    def test_the_order_of_episodes_changes_no_advantage(self, stored: Run) -> None:
        episodes = list(stored.episodes())
        shuffled = sorted(episodes, key=lambda e: seed_of(e.task.id, e.sample))
        assert shuffled != episodes

        def by_key(found: list[Sample]) -> dict[str, dict[str, Any]]:
            return {sample.key: asdict(sample) for sample in found}

        assert by_key(samples_of(shuffled).samples) == by_key(samples_of(episodes).samples)


@pytest.mark.model
def test_the_trainer_finds_the_log_probabilities_that_the_engine_sampled_with(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from agents.learning.batch import make_batches
    from agents.learning.losses import token_logprobs

    cast = Cast.all("embedded", temperature=0.8, max_tokens=40)
    played = run("society", "arithmetic", cast, tasks=2, backend="local", root=tmp_path)
    samples = samples_of(played, policies={"embedded": ""}).samples
    (version,) = {sample.version for sample in samples}
    model = AutoModelForCausalLM.from_pretrained(ROOT / "agents" / "embedded_model").eval()
    refuse(samples, {"": {version}}, model.config.vocab_size)
    assert len(samples) == 2 * 6
    for batch in make_batches(samples, 4096):
        with torch.no_grad():
            logits = model(input_ids=batch.ids, attention_mask=batch.attention.long()).logits
        found = token_logprobs(logits, batch.ids, batch.temperature)
        gap = torch.where(batch.trained > 0, found - batch.behaviour, 0.0).abs().max().item()
        assert gap < 1e-3
