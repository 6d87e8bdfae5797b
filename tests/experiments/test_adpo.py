"""ADPO from stored episodes to the trainer's loss: each sample has the scale and the upper clip of its own task.

The published numbers, which tests.agents check of the functions alone, as they come out of a lesson and of a step.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch

from agents.learning import Sample, make_loss
from agents.learning.batch import make_batches
from agents.learning.losses import count, policy_loss, token_logprobs
from agents.learning.trainer import Trainer
from envs import ConfigError
from envs.sandbox import why_unavailable
from envs.types import Task
from experiments.credit import Credit, outcome
from experiments.pseudo_labels import PseudoLabel
from experiments.training.recipe import adpo
from experiments.training.schedule import Schedule
from graphs import Episode, solo, tool_use
from tests.agents.loss_oracle import Scored, loss_of
from tests.agents.trainer_helpers import make_model, open_trainer, scores
from tests.conftest import PlayScripted

YES, NO = "\\boxed{yes}", "\\boxed{no}"
ADPO = Schedule(advantage="grpo_unbiased")


def labelled(agreement: str | None) -> Task:
    """A task whose label has so many of ten votes."""
    votes = None if agreement is None else int(Fraction(agreement) * 10)
    details = {} if votes is None else PseudoLabel((("yes", votes),), 10).details()
    return Task(id=f"task-{agreement}", question="Question?", answers=("yes",), details=details)


def attempts(play_scripted: PlayScripted, agreement: str | None, *replies: str) -> list[Episode]:
    task = labelled(agreement)
    played = (play_scripted(solo, {"solver": [reply]}, task=task, sample=i) for i, reply in enumerate(replies))
    # As they come back from the store.
    return [Episode.model_validate_json(episode.model_dump_json()) for episode in played]


def lesson(episodes: Sequence[Episode], credit: Credit = outcome) -> list[Sample]:
    return [item for item in adpo(episodes, credit, ADPO, 0).items if isinstance(item, Sample)]


def weights(samples: Sequence[Sample]) -> list[float]:
    return [sample.advantage * sample.scale for sample in samples]


def plus_minus(episode: Episode) -> Mapping[str, Mapping[str, float]]:
    return {id: {"right": 2 * terms["outcome"] - 1} for id, terms in outcome(episode).items()}


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """At a learning rate of 0, so that it measures many losses. Its reference is its policy: KL is 0."""
    model = make_model(tmp_path_factory.mktemp("models") / "tiny")
    return open_trainer(model, loss=make_loss("adpo"), learning_rate=0.0)


def at_ratio(trainer: Trainer, samples: Sequence[Sample], ratio: float) -> list[Sample]:
    """The same as if played by a policy from which the trainer's has moved by this ratio, at every token."""
    version = trainer.status().versions[""]
    mine = [replace(sample, policy="", version=version, temperature=1.0) for sample in samples]
    moved = [tuple(p - math.log(ratio) for p in known) for known in scores(trainer, mine)]
    return [replace(sample, logprobs=known) for sample, known in zip(mine, moved, strict=True)]


def loss(trainer: Trainer, *samples: Sample) -> float:
    return trainer.step(samples)[""]["policy_loss"]


class TestLesson:
    @pytest.mark.parametrize("credit", [outcome, plus_minus])
    @pytest.mark.parametrize(
        ("replies", "expected"),
        [((YES, YES, NO, NO), [0.5889, 0.5889, -0.5889, -0.5889]), ((YES, NO, NO, NO), [1.02, -0.34, -0.34, -0.34])],
    )
    def test_advantages_count_as_far_as_votes_agreed(
        self, play_scripted: PlayScripted, credit: Credit, replies: Sequence[str], expected: list[float]
    ) -> None:
        samples = lesson(attempts(play_scripted, "0.4", *replies), credit)
        assert weights(samples) == pytest.approx(expected, abs=5e-5)
        assert [sample.scale for sample in samples] == pytest.approx([0.68] * 4)

    def test_each_sample_has_the_trust_and_the_clip_of_its_own_task(self, play_scripted: PlayScripted) -> None:
        expected = {"0.3": (0.60, 0.30), "0.4": (0.68, 0.28), "0.6": (0.84, 0.24), "0.8": (1.00, 0.20)}
        groups = [attempts(play_scripted, agreement, YES, NO) for agreement in expected]
        mixed = [episode for pair in zip(*groups, strict=True) for episode in pair]
        found = {sample.key: (sample.scale, sample.clip_high) for sample in lesson(mixed)}
        assert found == {
            f"task-{agreement}/{i}/solver/0": pytest.approx(both)
            for i in range(2)
            for agreement, both in expected.items()
        }

    def test_an_agreement_that_was_lost_is_an_error_and_no_default(self, play_scripted: PlayScripted) -> None:
        known, lost = (attempts(play_scripted, agreement, YES, NO) for agreement in ("0.4", None))
        with pytest.raises(ConfigError, match=r"task task-None: expected details.agreement, .* found None"):
            lesson([*known, *lost])
        with pytest.raises(ConfigError, match="task task-None"):
            lesson([*known, lost[0]])  # alone it would teach nothing


class TestStep:
    @pytest.mark.parametrize(
        ("good", "ratio", "adaptive", "static"),
        [
            (True, 1.25, -0.7361, -0.7067),
            (True, 1.35, -0.7538, -0.7067),
            (False, 0.7, 0.4711, 0.4711),
            (False, 1.35, 0.7950, 0.7950),
        ],
    )
    def test_worked_losses(
        self, play_scripted: PlayScripted, trainer: Trainer, good: bool, ratio: float, adaptive: float, static: float
    ) -> None:
        samples = lesson(attempts(play_scripted, "0.4", YES, YES, NO, NO))
        (one, *_) = at_ratio(trainer, [s for s in samples if (s.advantage > 0) == good], ratio)
        assert loss(trainer, one) == pytest.approx(adaptive, abs=6e-5)
        assert loss(trainer, replace(one, clip_high=None)) == pytest.approx(static, abs=6e-5)

    def test_a_mixed_batch_has_a_bound_for_each_sample(self, play_scripted: PlayScripted, trainer: Trainer) -> None:
        agreements = ["0.3", "0.4", "0.6", "0.8"]
        played = [episode for p in agreements for episode in attempts(play_scripted, p, YES, YES, NO, NO)]
        samples = at_ratio(trainer, lesson(played), 2.0)
        rising = [sample for sample in samples if sample.advantage > 0]
        expected = [-0.8660 * bound for bound in (0.60 * 1.30, 0.68 * 1.28, 0.84 * 1.24, 1.00 * 1.20) for _ in range(2)]
        assert [loss(trainer, sample) for sample in rising] == pytest.approx(expected, abs=1e-4)
        now = scores(trainer, samples)
        scored = [Scored(s, list(p), list(p), list(p)) for s, p in zip(samples, now, strict=True)]
        together = loss(trainer, *samples)
        assert together == pytest.approx(loss_of(scored, make_loss("adpo"), recomputed=False), abs=1e-4)
        held = [replace(sample, clip_high=None) for sample in samples]
        assert loss(trainer, *held) > together + 0.01, "the same bound for all says less"


@pytest.mark.skipif(bool(why_unavailable("monty")), reason=why_unavailable("monty"))
def test_what_a_tool_showed_has_a_gradient_of_exactly_zero(play_scripted: PlayScripted) -> None:
    code = "```python\nprint(6 * 7)\n```"
    scripts = [("0.4", [code, YES]), ("0.4", [NO]), ("0.8", [code, code, YES]), ("0.8", [code, NO])]
    episodes = [
        play_scripted(tool_use, {"tool_solver": replies}, task=labelled(agreement), sample=i)
        for i, (agreement, replies) in enumerate(scripts)
    ]
    samples: list[Any] = lesson(episodes)
    assert [sample.clip_high for sample in samples] == pytest.approx([0.28] * 3 + [0.2] * 5)
    shown = 0
    for batch in make_batches(samples, 1 << 14):
        logits = torch.randn(*batch.ids.shape, 256, generator=torch.Generator().manual_seed(0)).requires_grad_()
        logp = token_logprobs(logits, batch.ids, batch.temperature)
        before = logp.detach()
        loss, _ = policy_loss(logp, batch, make_loss("adpo"), count(samples), old=before, reference=before)
        loss.backward()
        assert logits.grad is not None
        for row, gradient in zip(batch.rows, logits.grad, strict=True):
            sample = samples[row]
            # The logits before a token are what its probability comes from.
            asked, said = len(sample.prompt_ids) - 1, sample.length - 1
            output = bytes(sample.prompt_ids).rfind(b"Output:\n42")
            shown += output >= 0
            assert (gradient[:asked] == 0).all() and (gradient[said:] == 0).all()
            assert (gradient[asked:said].abs().sum(-1) > 0).all()
    assert shown == 4
