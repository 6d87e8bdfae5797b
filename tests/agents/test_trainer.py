"""The trainer in one process: what a step changes, what it leaves, and what it is built on again."""

import asyncio
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from agents import Message, Request, Sampling
from agents.engines import EMBEDDED, parse_model
from agents.learning import LossSettings, Pair, Sample, SampleError, make_loss
from agents.learning.trainer import Trainer
from agents.learning.trainer_settings import PolicySettings, TrainerError, TrainerSettings, make_trainer_settings
from agents.pool import LocalPool
from agents.publishing import Published
from agents.types import Completion
from envs import ConfigError
from tests.agents.trainer_helpers import VOCABULARY, make_model, make_replies, open_trainer, scores


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


def flat(rows: Sequence[Sequence[float]]) -> list[float]:
    return [value for row in rows for value in row]


def weights(trainer: Trainer, folder: Path, policy: str = "") -> str:
    """A hash of the policy's weights."""
    return trainer.export(policy, folder).partition("-")[2]


class TestStep:
    def test_a_good_reply_becomes_likelier_and_a_bad_one_less_likely(self, model: Path) -> None:
        trainer = open_trainer(model)
        replies = make_replies(trainer, number=4)
        judged = [replace(reply, advantage=1.0 if i < 2 else -1.0) for i, reply in enumerate(replies)]
        before = [sum(row) for row in scores(trainer, judged)]
        trainer.step(judged)
        after = [sum(row) for row in scores(trainer, judged)]
        assert after[0] > before[0] and after[1] > before[1] and after[2] < before[2] and after[3] < before[3]

    @pytest.mark.parametrize("rank", [0, 4])
    def test_a_learning_rate_of_0_changes_nothing(self, model: Path, tmp_path: Path, rank: int) -> None:
        trainer = open_trainer(model, "solver", rank=rank, learning_rate=0.0, weight_decay=0.1)
        first = trainer.export("solver", tmp_path / "1")
        before = scores(trainer, replies := make_replies(trainer, "solver"), "solver")
        metrics = trainer.step(replies)["solver"]
        second = trainer.export("solver", tmp_path / "2")
        assert metrics["grad_norm"] > 0 and scores(trainer, replies, "solver") == before
        assert first.partition("-")[2] == second.partition("-")[2]

    def test_micro_batches_of_any_size_make_the_same_step(self, model: Path) -> None:
        found = []
        for max_tokens in (1, 20, 10_000):
            trainer = open_trainer(model, max_tokens=max_tokens, loss=make_loss("grpo"), seed=1)
            replies = make_replies(trainer, number=7)
            replies[2:4] = [replace(reply, supervised=True) for reply in replies[2:4]]
            chosen, rejected = make_replies(trainer, number=2, seed=5)
            metrics = trainer.step([*replies, Pair(chosen, rejected)])[""]
            found.append((metrics, flat(scores(trainer, replies))))
        for metrics, after in found[1:]:
            assert metrics == pytest.approx(found[0][0], rel=1e-4, abs=1e-6)
            assert after == pytest.approx(found[0][1], abs=1e-4)

    def test_replies_of_no_tokens_train_nothing(self, model: Path, tmp_path: Path) -> None:
        trainer = open_trainer(model)
        before = weights(trainer, tmp_path / "1")
        empty = [replace(one, token_ids=(), logprobs=(), reward=1.0) for one in make_replies(trainer)]
        metrics = trainer.step(empty)[""]
        assert metrics["tokens"] == 0 and metrics["reward"] == 1.0 and "loss" not in metrics
        assert weights(trainer, tmp_path / "2") == before and trainer.step([]) == {} and trainer.steps == 0

    def test_what_is_masked_is_not_trained(self, model: Path) -> None:
        def stepped(token: int) -> list[tuple[float, ...]]:
            trainer = open_trainer(model)
            reply = make_replies(trainer, number=1)[0]
            ids, known = (7, 9, token), (-3.0, -4.0, -5.0)
            trainer.step([replace(reply, token_ids=ids, logprobs=known, mask=(True, True, False), advantage=1.0)])
            return scores(trainer, [reply])

        assert stepped(11) == stepped(300)

    def test_a_full_step_is_the_one_that_autograd_and_adamw_make_by_hand(self, model: Path, tmp_path: Path) -> None:
        trainer = open_trainer(model, max_grad_norm=None, loss=LossSettings(normalise="token"))
        replies = make_replies(trainer, number=3)
        metrics = trainer.step(replies)[""]
        trainer.export("", tmp_path / "new")
        plain: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        total = sum(len(reply.token_ids) for reply in replies)
        for reply in replies:
            ids = torch.tensor([[*reply.prompt_ids, *reply.token_ids]])
            rows = plain(input_ids=ids).logits[0].log_softmax(-1)
            for t in range(len(reply.prompt_ids), ids.shape[1]):
                # The ratio is 1: its gradient is that of the log-probability.
                (-reply.advantage * rows[t - 1, ids[0, t]] / total).backward(retain_graph=True)
        gradient = torch.cat([parameter.grad.flatten() for parameter in plain.parameters()])
        assert metrics["grad_norm"] == pytest.approx(gradient.norm().item(), rel=1e-4)
        before = torch.cat([parameter.detach().flatten() for parameter in plain.parameters()])
        torch.optim.AdamW(plain.parameters(), lr=1e-2, weight_decay=0.0).step()
        expected = torch.cat([parameter.detach().flatten() for parameter in plain.parameters()]) - before
        new: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "new", dtype=torch.float32)
        found = torch.cat([parameter.detach().flatten() for parameter in new.parameters()]) - before
        # Where the gradient is next to 0, AdamW makes whole steps of rounding errors.
        clear = gradient.abs() > 1e-5
        assert torch.allclose(found[clear], expected[clear], atol=1e-4) and clear.float().mean() > 0.5

    def test_gradients_are_held_to_their_limit_and_the_rate_warms_up(self, model: Path) -> None:
        trainer = open_trainer(model, warmup_steps=4, max_grad_norm=1e-6, epsilon=1.0, learning_rate=1.0)
        replies = make_replies(trainer)
        before = flat(scores(trainer, replies))
        rates = [trainer.step(replies)[""]["learning_rate"] for _ in range(5)]
        assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
        # With an epsilon of 1 a step is about as long as its gradient, which the limit makes tiny.
        assert flat(scores(trainer, replies)) == pytest.approx(before, abs=1e-3)

    def test_a_rate_that_decays_falls_in_equal_steps_within_each_update(self, model: Path) -> None:
        trainer = open_trainer(model, learning_rate=0.01, decay=True)
        replies = make_replies(trainer)
        for _ in range(2):
            steps = trainer.update(replies, epochs=2, minibatch=3)
            assert [step[""]["learning_rate"] for step in steps] == pytest.approx([0.01, 0.0075, 0.005, 0.0025])

    def test_activations_that_are_computed_again_give_the_same_step(self, model: Path) -> None:
        found = []
        for again in (False, True):
            trainer = open_trainer(model, "a", rank=4, activation_checkpointing=again)
            replies = make_replies(trainer, "a")
            found.append((trainer.step(replies), scores(trainer, replies, "a")))
        assert found[0] == found[1]

    def test_dropout_of_the_model_does_not_come_between_old_and_new(self, tmp_path: Path) -> None:
        trainer = open_trainer(make_model(tmp_path / "dropping", dropout=0.5), activation_checkpointing=True)
        assert trainer.step(make_replies(trainer))[""]["gap_max"] < 1e-4


class TestUpdate:
    def test_minibatches_share_the_items_out_evenly_each_epoch(self, model: Path) -> None:
        trainer = open_trainer(model)
        done = trainer.update(make_replies(trainer, number=10), epochs=2, minibatch=4)
        assert [metrics[""]["samples"] for metrics in done] == [3, 3, 4, 3, 3, 4] and trainer.steps == 6
        assert done[0][""]["ratio_max"] == pytest.approx(1.0, abs=1e-4) and done[-1][""]["ratio_max"] != 1.0

    def test_old_log_probabilities_can_be_the_trainers_own(self, model: Path) -> None:
        trainer = open_trainer(model, recompute_old=True, loss=LossSettings(tis=2.0))
        replies = [replace(one, logprobs=tuple(p - 0.5 for p in one.logprobs)) for one in make_replies(trainer)]
        first, second = (m[""] for m in trainer.update(replies, epochs=2))
        assert first["ratio_max"] == pytest.approx(1.0, abs=1e-4) and first["gap_mean"] == pytest.approx(0.5, abs=1e-3)
        # The gap is between engine and trainer before the update: it does not grow with what is learned.
        assert second["gap_mean"] == first["gap_mean"] and abs(second["ratio_max"] - 1) > 1e-3

    def test_kl_to_the_reference_is_0_at_the_start_and_grows(self, model: Path) -> None:
        for rank in (0, 4):
            trainer = open_trainer(model, "a", rank=rank, watch_kl=True)
            first, second = trainer.update(make_replies(trainer, "a"), epochs=2)
            assert first["a"]["kl"] == 0.0 < second["a"]["kl"]

    def test_a_penalty_on_kl_holds_the_policy_back(self, model: Path) -> None:
        away = []
        for beta in (0.0, 10.0):
            loss = LossSettings(kl="k3", beta=beta, clip_high=10.0)
            trainer = open_trainer(model, loss=loss, learning_rate=1e-3)
            replies = [replace(reply, advantage=1.0) for reply in make_replies(trainer)]
            away.append(trainer.update(replies, epochs=8)[-1][""]["kl"])
        assert away[1] < away[0] / 2

    def test_pairs_move_their_replies_apart(self, model: Path) -> None:
        trainer = open_trainer(model, loss=make_loss("dpo"))
        chosen, rejected = make_replies(trainer, number=2)
        pair = Pair(replace(chosen, logprobs=(), version="of old"), replace(rejected, prompt_ids=chosen.prompt_ids))
        done = [metrics[""] for metrics in trainer.update([pair], epochs=4)]
        assert done[0]["pair_loss"] == pytest.approx(math.log(2)) and done[0]["pairs"] == 1
        assert done[-1]["loss"] == done[-1]["pair_loss"] < done[0]["pair_loss"] and done[-1]["pair_margin"] > 0

    def test_metrics_say_what_was_learned_from(self, model: Path) -> None:
        trainer = open_trainer(model, watch_kl=True)
        replies = make_replies(trainer, number=4)
        replies[0] = replace(replies[0], role="critic", reward=5.0)
        metrics = trainer.step(replies)[""]
        assert metrics["reward/critic"] == 5.0 and metrics["reward/solver"] == pytest.approx(2 / 3)
        assert metrics["tokens"] == sum(len(reply.token_ids) for reply in replies)
        expected = {"loss", "kl", "ratio_mean", "ratio_max", "clipped_low", "clipped_high", "entropy", "grad_norm"}
        expected |= {"learning_rate", "trained", "gap_mean", "gap_max", "staleness", "samples", "reward"}
        assert expected <= metrics.keys() and all(math.isfinite(value) for value in metrics.values())
        assert 0 < metrics["entropy"] <= math.log(VOCABULARY) and metrics["gap_max"] < 1e-4


class TestRefusal:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"policy": "solvr"}, "task-0/0/solver/0.*policy that this trainer has, found 'solvr'.*'solver'"),
            ({"version": "7-abc"}, "a version of solver among .*found '7-abc'"),
            ({"logprobs": (math.nan,), "token_ids": (8,)}, "found nan"),
            ({"token_ids": (VOCABULARY,), "logprobs": (-1.0,)}, f"ids below {VOCABULARY}, found {VOCABULARY}"),
        ],
    )
    def test_it_is_by_name_and_nothing_has_changed(
        self, model: Path, tmp_path: Path, change: dict[str, Any], message: str
    ) -> None:
        trainer = open_trainer(model, "solver")
        before = weights(trainer, tmp_path / "1", "solver")
        replies = make_replies(trainer, "solver")
        with pytest.raises(SampleError, match=message):
            trainer.step([*replies[1:], replace(replies[0], **change)])
        assert trainer.steps == 0 and weights(trainer, tmp_path / "2", "solver") == before
        trainer.step(replies)
        assert weights(trainer, tmp_path / "3", "solver") != before

    def test_a_gradient_that_is_not_finite_changes_no_policy(self, model: Path, tmp_path: Path) -> None:
        trainer = open_trainer(model, "a", "b")
        replies = [*make_replies(trainer, "a"), *make_replies(trainer, "b", advantage=3e38)]
        with pytest.raises(TrainerError, match=r"policy 'b': expected a finite gradient, found a norm of (inf|nan)"):
            trainer.step(replies)
        start = trainer.status()
        assert start.steps == 0
        again = open_trainer(model, "a", "b")
        # Nothing is left behind either: the next step is a fresh trainer's.
        good = [*make_replies(trainer, "a"), *make_replies(trainer, "b")]
        assert trainer.step(good) == again.step(good)
        assert weights(trainer, tmp_path / "1", "b") == weights(again, tmp_path / "2", "b")

    def test_versions_are_taken_as_far_back_as_the_lag_allows(self, model: Path, tmp_path: Path) -> None:
        trainer = open_trainer(model, lag=1)
        replies = make_replies(trainer)
        for i in range(2):
            trainer.step(replies)
            trainer.export("", tmp_path / str(i))
            if not i:
                assert trainer.step(replies)[""]["staleness_max"] == 1
        with pytest.raises(SampleError, match="older than the lag allows"):
            trainer.step(replies)

    def test_where_the_ratio_is_to_the_reference_any_version_of_its_own_will_do(
        self, model: Path, tmp_path: Path
    ) -> None:
        trainer = open_trainer(model, loss=make_loss("spc"))
        trainer.save(tmp_path / "state")
        trainer.step(make_replies(trainer))
        trainer.export("", tmp_path / "later")
        later = make_replies(trainer)
        trainer.load(tmp_path / "state")
        assert trainer.step(later), "learned from all rounds, from the first weights on"
        with pytest.raises(SampleError, match="foreign or older"):
            trainer.step([replace(sample, version="another") for sample in later])
        strict = open_trainer(model)
        strict.save(tmp_path / "strict")
        strict.step(make_replies(strict))
        strict.export("", tmp_path / "newer")
        newer = make_replies(strict)
        strict.load(tmp_path / "strict")
        with pytest.raises(SampleError, match="foreign or older"):
            strict.step(newer)

    def test_losses_that_need_what_is_not_computed(self, model: Path) -> None:
        with pytest.raises(ConfigError, match="recompute_old=true"):
            open_trainer(model, loss=LossSettings(tis=2.0))
        with pytest.raises(ConfigError, match="recompute_old=true"):
            Trainer(TrainerSettings(), {"": PolicySettings(f"hf:{model}", loss=LossSettings(tis=2.0))})


class TestExport:
    def test_a_version_is_never_given_to_other_weights_nor_weights_without_one(
        self, model: Path, tmp_path: Path
    ) -> None:
        trainer = open_trainer(model, learning_rate=0.0)
        start = trainer.status().versions[""]
        first = trainer.export("", tmp_path / "1")
        assert first == f"1-{start}" and trainer.export("", tmp_path / "again") == first
        trainer.step(make_replies(trainer))
        assert trainer.export("", tmp_path / "2") == f"2-{start}" == trainer.status().versions[""]

    def test_exported_weights_stay_as_they_are(self, model: Path, tmp_path: Path) -> None:
        trainer = open_trainer(model)
        trainer.export("", tmp_path / "1")
        with pytest.raises(ConfigError, match="expected a new directory"):
            trainer.export("", tmp_path / "1")
        with pytest.raises(ConfigError, match="unknown policy 'solver'"):
            trainer.export("solver", tmp_path / "2")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["1"]

    def test_a_model_that_was_exported_is_one_to_begin_with(self, model: Path, tmp_path: Path) -> None:
        trainer = open_trainer(model)
        trainer.step(replies := make_replies(trainer))
        trainer.export("", tmp_path / "new")
        again = Trainer(TrainerSettings(), {"": PolicySettings(f"hf:{tmp_path / 'new'}")})
        assert scores(again, replies) == scores(trainer, replies)
        assert {"config.json", "tokenizer.json", "chat_template.jinja"} <= {
            p.name for p in (tmp_path / "new").iterdir()
        }
        assert not (tmp_path / "new" / "palaestra.json").exists()


class TestSaveAndLoad:
    @pytest.mark.parametrize("rank", [0, 4])
    def test_the_next_step_is_the_same_bit_for_bit(self, model: Path, tmp_path: Path, rank: int) -> None:
        settings: dict[str, Any] = {"rank": rank, "warmup_steps": 5, "watch_kl": True, "loss": make_loss("grpo")}
        trainer = open_trainer(model, "a", "b", **settings)
        replies = [*make_replies(trainer, "a"), *make_replies(trainer, "b", seed=1)]
        trainer.update(replies, epochs=2)
        trainer.save(tmp_path / "saved")
        expected = trainer.update(replies, epochs=2, minibatch=5)
        again = open_trainer(model, "a", "b", **settings)
        again.load(tmp_path / "saved")
        assert again.update(replies, epochs=2, minibatch=5) == expected
        for name in ("a", "b"):
            mine, others = tmp_path / f"{name}2", tmp_path / f"{name}3"
            assert trainer.export(name, mine) == again.export(name, others)
            file = "adapter_model.safetensors" if rank else "model.safetensors"
            assert (mine / file).read_bytes() == (others / file).read_bytes()

    def test_going_back_gives_new_names_to_what_was_published_since(self, model: Path, tmp_path: Path) -> None:
        trainer = open_trainer(model)
        trainer.save(tmp_path / "saved")
        trainer.step(replies := make_replies(trainer))
        used = {trainer.status().versions[""], trainer.export("", tmp_path / "1")}
        trainer.load(tmp_path / "saved")
        assert trainer.steps == 0
        version = trainer.export("", tmp_path / "2")
        assert version not in used and version.startswith("2-")
        trainer.step([replace(reply, version=version) for reply in replies])

    def test_what_cannot_be_loaded_is_said_and_nothing_has_changed(self, model: Path, tmp_path: Path) -> None:
        trainer = open_trainer(model, "a")
        replies = make_replies(trainer, "a")
        before = scores(trainer, replies, "a")
        for names, rank, message in (
            (("b",), 0, r"of the policies \['b'\], found \['a'\]"),
            (("a",), 4, "started from version .*, found None"),
        ):
            other = open_trainer(model, *names, rank=rank)
            other.export(names[0], tmp_path / f"{names}{rank}")
            other.save(tmp_path / "other")
            with pytest.raises(ConfigError, match=message):
                trainer.load(tmp_path / "other")
        (tmp_path / "other" / "trainer.pt").write_bytes(b"no checkpoint")
        for folder, message in (("other", "is no trainer's checkpoint"), ("nowhere", r"found no trainer\.pt")):
            with pytest.raises(ConfigError, match=message):
                trainer.load(tmp_path / folder)
        assert scores(trainer, replies, "a") == before

    def test_a_save_that_breaks_off_leaves_the_earlier_one(
        self, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trainer = open_trainer(model)
        trainer.save(tmp_path)
        trainer.step(make_replies(trainer))

        def full(state: Any, file: Any) -> None:
            file.write(b"the first half")
            raise OSError("no space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(torch, "save", full)
            with pytest.raises(OSError, match="no space"):
                trainer.save(tmp_path)
        trainer.load(tmp_path)
        assert trainer.steps == 0 and [path.name for path in tmp_path.iterdir()] == ["trainer.pt"]


def request(number: int, policy: str = "", **changes: Any) -> Request:
    message = Message("user", f"What is {number} + 7?")
    sampling = Sampling(temperature=0.7, max_tokens=12)
    return Request(f"task-{number}/0/solver/1", (message,), sampling, number, policy=policy, **changes)


def as_sample(completion: Completion, policy: str, **changes: Any) -> Sample:
    taken = ("prompt_ids", "token_ids", "logprobs", "version")
    fields = {name: getattr(completion, name) for name in taken}
    return Sample(**{"key": "k", "policy": policy, "role": "r", **fields, **changes})


@pytest.mark.model
class TestWithAPool:
    @pytest.mark.parametrize(("policy", "rank"), [("", 0), ("critic", 4)])
    def test_it_takes_over_what_is_learned_and_its_replies_are_learned_from(
        self, tmp_path: Path, policy: str, rank: int
    ) -> None:
        trainer = open_trainer("embedded", policy, rank=rank, learning_rate=1e-3)

        async def publish(pool: LocalPool, name: str) -> Published:
            version = trainer.export(policy, tmp_path / name)
            # Measured from the directory, and as the trainer itself has it.
            probe = trainer.probe(policy) if name == "2" else None
            return await pool.publish(policy, version, tmp_path / name, probe=probe)

        async def play(pool: LocalPool) -> list[Sample]:
            replies = await asyncio.gather(*(pool.complete(request(i, policy)) for i in range(8)))
            return [as_sample(one, policy, temperature=0.7, advantage=1.0) for one in replies]

        async def run() -> None:
            pool = LocalPool(parse_model("embedded"))
            if policy:
                await publish(pool, "0")
            first = await play(pool)
            metrics = trainer.step(first)[policy]
            assert metrics["gap_max"] < 1e-3 and metrics["ratio_max"] == pytest.approx(1.0, abs=1e-3)
            published = await publish(pool, "1")
            assert published.gap < 1e-4
            second = await play(pool)
            assert {sample.version for sample in second} == {published.version} == {trainer.status().versions[policy]}
            assert trainer.step(second)[policy]["gap_max"] < 1e-3
            assert (await publish(pool, "2")).gap < 1e-4
            with pytest.raises(SampleError, match="foreign or older than the lag"):
                trainer.step(first)
            await pool.close()

        asyncio.run(run())

    def test_two_adapters_learn_opposite_things_and_cannot_stand_in_for_each_other(self, tmp_path: Path) -> None:
        wanted = {"optimist": "yes", "pessimist": "no"}
        tokenizer: Any = AutoTokenizer.from_pretrained(EMBEDDED)
        trainer = open_trainer("embedded", *wanted, rank=4, learning_rate=1e-2)

        def judged(policy: str, asked: list[Completion]) -> Iterator[Sample]:
            for one, word in itertools.product(asked, ("yes", "no")):
                ids = tuple(tokenizer(word, add_special_tokens=False)["input_ids"])
                known = trainer.score([*one.prompt_ids, *ids], policy)[len(one.prompt_ids) - 1 :]
                advantage = 1.0 if word == wanted[policy] else -1.0
                yield as_sample(one, policy, token_ids=ids, logprobs=known, advantage=advantage)

        async def choose(pool: LocalPool, policy: str) -> list[str]:
            asked = (pool.complete(request(i, policy, choices=("yes", "no"))) for i in range(4))
            return [reply.text for reply in await asyncio.gather(*asked)]

        async def run() -> dict[tuple[str, str], float]:
            pool = LocalPool(parse_model("embedded"))
            for policy in wanted:
                await pool.publish(policy, trainer.export(policy, tmp_path / policy), tmp_path / policy)
            asked = {policy: [await pool.complete(request(i, policy)) for i in range(4)] for policy in wanted}
            for _ in range(5):  # ratios are clipped: each time from where the policies have come to
                trainer.update([sample for policy in wanted for sample in judged(policy, asked[policy])], epochs=8)
            for policy in wanted:
                source = tmp_path / f"{policy}-learned"
                await pool.publish(policy, trainer.export(policy, source), source)
            share = {}
            for role, good in wanted.items():
                for policy in wanted:
                    share[role, policy] = (await choose(pool, policy)).count(good) / 4
            await pool.close()
            return share

        share = asyncio.run(run())
        assert share["optimist", "optimist"] == share["pessimist", "pessimist"] == 1.0
        assert share["optimist", "pessimist"] == share["pessimist", "optimist"] == 0.0


class TestSettings:
    def test_text_is_converted_and_what_cannot_be_is_said(self) -> None:
        settings = make_trainer_settings({"learning_rate": "3e-4", "max_grad_norm": None, "recompute_old": "true"})
        assert settings.learning_rate == 3e-4 and settings.max_grad_norm is None and settings.recompute_old is True
        with pytest.raises(
            ConfigError, match="unknown setting of the trainer: 'learning_rat'; did you mean 'learning_r"
        ):
            make_trainer_settings({"learning_rat": 1})
        with pytest.raises(ConfigError, match="the trainer: beta1 cannot be 1"):
            TrainerSettings(beta1=1.0)

    def test_adapters_that_cannot_be(self, model: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="set its rank too"):
            PolicySettings(alpha=4.0)
        with pytest.raises(ConfigError, match="expected a directory of weights"):
            PolicySettings(start=str(tmp_path / "nowhere"))
        trainer = open_trainer(model, "a", rank=4)
        trainer.export("a", tmp_path / "a")
        with pytest.raises(ConfigError, match="leave rank out"):
            PolicySettings(start=str(tmp_path / "a"), rank=4)
        with pytest.raises(ConfigError, match="no adapter can be put on"):
            Trainer(TrainerSettings(), {"a": PolicySettings(f"hf:{model}", rank=2, targets=("no_such_layer",))})
        with pytest.raises(ConfigError, match=r"openai:x@http://h/v1 cannot be trained"):
            Trainer(TrainerSettings(), {"a": PolicySettings("openai:x@http://h/v1")})
