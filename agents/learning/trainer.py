"""The trainer: outcomes of episodes, as samples, become new weights of the policies behind the roles.

Synchronous and without Ray (agents.learning.remote runs it as an actor, or in several processes). What it is given is
checked as a whole before anything changes, and a step that comes to no finite gradient changes nothing. Same samples,
settings and weights, same update, bit for bit on the CPU: nothing is drawn but the order of samples within an update,
and that from the seed.
"""

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from agents.learning.checkpoint import read_state, write_state
from agents.learning.distributed import OneWorker, Workers, dealt
from agents.learning.learner import Learner
from agents.learning.losses import Metrics, Normalisers, add_up, count, pair_loss, policy_loss, sequence_logprobs
from agents.learning.passes import Item, Logprobs, MicroBatch, Pass, logprobs_of, micro_batches, run
from agents.learning.policies import open_policies
from agents.learning.samples import Pair, Sample, refuse
from agents.learning.trainer_settings import PolicySettings, TrainerError, TrainerSettings, TrainerStatus, check_loss
from agents.probe import Probe, measure
from agents.types import seed_of
from envs.errors import ConfigError, unknown


@dataclass(frozen=True)
class _Known:
    """Log-probabilities from before an update; empty where nothing needs them."""

    old: Logprobs
    reference: Logprobs


class Trainer:
    """Policies that learn. One call at a time; made where it runs; it does not cross processes."""

    def __init__(
        self, settings: TrainerSettings, policies: Mapping[str, PolicySettings], workers: Workers | None = None
    ):
        """
        Args:
            settings: of all policies.
            policies: by the names that samples and pools know them by; empty for the pool's own weights.
            workers: the processes that this is one of; None where it is alone. All must be asked the same in the same
                order.

        Raises:
            ConfigError: a model that cannot be trained here, a loss that needs what is not computed.
            EngineError: weights that cannot be loaded.
        """
        for each in policies.values():
            check_loss(each.loss or settings.loss, settings.recompute_old)
        if settings.device == "cpu":
            torch.set_num_threads(settings.threads)
        elif not torch.cuda.is_available():
            raise ConfigError(
                f"trainer.device=cuda: torch {torch.__version__} finds no CUDA GPU here; set trainer.device=cpu, or "
                "install a CUDA build of torch"
            )
        self.settings, self.steps = settings, 0
        self._workers = workers or OneWorker()
        self._learners = {
            name: Learner(name, policy, policies[name], settings, self._workers)
            for name, policy in open_policies(policies, settings, self._workers).items()
        }

    def step(self, items: Sequence[Item]) -> dict[str, Metrics]:
        """One optimiser step of each policy on all that is given for it; see `update`."""
        return self.update(items)[0]

    def update(self, items: Sequence[Item], epochs: int = 1, minibatch: int | None = None) -> list[dict[str, Metrics]]:
        """Learn from samples and pairs; those of several policies may be mixed.

        Args:
            items: what happened. Replies without a trained token count in no loss.
            epochs: how often each is learned from.
            minibatch: most items a step, evenly spread and in an order drawn from the seed; None takes all at once.

        Returns:
            For each step its metrics by policy, of policies that were given something.

        Raises:
            SampleError: something must not be trained on; nothing has changed.
            TrainerError: a gradient is not finite; the step that came to it has changed nothing.
        """
        chosen = _by_policy(items, range(len(items)))
        self._refuse(items, chosen)
        known = {name: self._known(self._learners[name], items, rows) for name, rows in chosen.items()}
        parts = (part for epoch in range(epochs) for part in self._parts(len(items), minibatch, epoch))
        steps = epochs * max(1, math.ceil(len(items) / (minibatch or max(1, len(items)))))
        falls = self.settings.decay / steps
        return [self._step(items, part, known, 1 - falls * i) for i, part in enumerate(parts)]

    def score(self, ids: Sequence[int], policy: str = "") -> tuple[float, ...]:
        """Log-probabilities of `ids[1:]` under a policy's weights as they are now; see agents.types.Publishable."""
        return self.probe(policy, ids).logprobs

    def probe(self, policy: str = "", ids: Sequence[int] | None = None) -> Probe:
        """How a policy scores token ids (None: the usual ones) now: what a publish is checked against."""
        return measure(self._found(policy).policy.live(), ids)

    def export(self, policy: str, directory: Path | str) -> str:
        """Write a policy's weights where a pool can take them over.

        Args:
            policy: its name.
            directory: to be made; it becomes a model in Hugging Face format, of an adapter one in PEFT's.

        Returns:
            The version: how many exports there were, and a hash of the weights. Without a step since the last export
            it is that one's.

        Raises:
            ConfigError: no such policy, or the directory is there already.
        """
        return self._found(policy).export(Path(directory).absolute())

    def save(self, directory: Path | str) -> None:
        """Write all that the next step depends on, in place of what an earlier save left in the directory."""
        state = {"steps": self.steps, "policies": {name: one.state() for name, one in self._learners.items()}}
        self._workers.first(lambda: write_state(state, Path(directory)))

    def load(self, directory: Path | str) -> None:
        """Take over what `save` wrote; the next step is then the one that would have followed it, bit for bit.

        Raises:
            ConfigError: nothing was saved there, or by a trainer of other policies; nothing has changed.
        """
        state = read_state(Path(directory), self._learners)
        for name, learner in self._learners.items():
            learner.check(state["policies"][name])
        for name, learner in self._learners.items():
            learner.restore(state["policies"][name])
        self.steps = state["steps"]

    def status(self) -> TrainerStatus:
        return TrainerStatus(self.steps, {name: one.version for name, one in self._learners.items()})

    def _found(self, policy: str) -> Learner:
        if policy not in self._learners:
            raise unknown("policy", policy, self._learners)
        return self._learners[policy]

    def _refuse(self, items: Sequence[Item], chosen: Mapping[str, Sequence[int]]) -> None:
        accepted = {name: learner.accepted(self.settings.lag) for name, learner in self._learners.items()}
        for name, rows in chosen.items():
            vocabulary = self._learners[name].vocabulary if name in self._learners else 0
            refuse([items[row] for row in rows], accepted, vocabulary, self.settings.recompute_old)

    def _parts(self, total: int, minibatch: int | None, epoch: int) -> Iterator[list[int]]:
        """Indices of the items of each step of an epoch."""
        order = list(range(total))
        parts = 1 if minibatch is None else math.ceil(total / minibatch)
        if parts > 1:
            random.Random(seed_of(self.settings.seed, "order", self.steps, epoch)).shuffle(order)
        for i in range(max(1, parts)):
            yield order[i * total // max(1, parts) : (i + 1) * total // max(1, parts)]

    def _step(
        self, items: Sequence[Item], part: Iterable[int], known: Mapping[str, _Known], share: float
    ) -> dict[str, Metrics]:
        """One step on a part of the items, with a share of the learning rate."""
        done: dict[str, Metrics] = {}
        moving: list[Learner] = []
        for name, rows in _by_policy(items, part).items():
            learner, mine = self._learners[name], {row: items[row] for row in rows}
            done[name] = _described(learner, list(mine.values()))
            if any(map(_trains, mine.values())):
                done[name] |= self._gradients(learner, mine, known[name])
                moving.append(learner)
        norms = {learner.name: learner.clip() for learner in moving}
        if odd := [name for name, norm in norms.items() if not math.isfinite(norm)]:
            for learner in moving:
                learner.forget()
            raise TrainerError(
                f"policy {odd[0]!r}: expected a finite gradient, found a norm of {norms[odd[0]]} in step "
                f"{self.steps + 1}; that step changed nothing; lower the learning rate, or look at the samples"
            )
        for learner in moving:
            done[learner.name] |= {"grad_norm": norms[learner.name], "learning_rate": learner.apply(share)}
        self.steps += bool(moving)
        return done

    def _gradients(self, learner: Learner, items: Mapping[int, Item], known: _Known) -> Metrics:
        """Add up the gradients of all micro-batches. Returns the metrics of the whole."""
        model, normalisers = learner.policy.live(), count(items.values())
        parts: list[Metrics] = []
        for micro, counts in dealt(micro_batches(items, self.settings.max_tokens), self._workers):
            passed = run(model, micro.batch, self.settings)
            loss, metrics = self._loss(learner, passed, micro, normalisers, known)
            # Workers average their gradients; the losses are made to be added up.
            (loss * (self._workers.size if counts else 0)).backward()
            parts += [metrics] * counts
        return add_up(part for found in self._workers.gather(parts) for part in found)

    def _loss(
        self, learner: Learner, passed: Pass, micro: MicroBatch, normalisers: Normalisers, known: _Known
    ) -> tuple[Tensor, Metrics]:
        logp, batch = passed.logprobs(), passed.batch
        reference = passed.known(known.reference, micro.keys)
        if micro.labels is None:
            old = passed.known(known.old, micro.keys)
            entropy = passed.entropy() if self.settings.watch_entropy else None
            return policy_loss(logp, batch, learner.loss, normalisers, old=old, reference=reference, entropy=entropy)
        assert reference is not None, "pairs always have it"
        now, then = sequence_logprobs(logp, batch.trained), sequence_logprobs(reference, batch.trained)
        half = len(now) // 2
        labels = micro.labels.to(now.device)
        loss, metrics = pair_loss(
            now[:half], now[half:], then[:half], then[half:], learner.loss, labels, normalisers.pairs
        )
        return loss, metrics | {"loss": metrics["pair_loss"]}

    def _known(self, learner: Learner, items: Sequence[Item], rows: Sequence[int]) -> _Known:
        samples = {row: item for row in rows if isinstance(item := items[row], Sample)}
        old = self._logprobs(learner.policy.live(), samples) if self.settings.recompute_old else {}
        needed = {row: item for row in rows if isinstance(item := items[row], Pair)}
        if learner.loss.needs_reference or self.settings.watch_kl:
            needed |= samples
        # Asked for only where it is needed: a model's reference is a second copy of it.
        reference = self._logprobs(learner.policy.frozen(), needed) if any(map(_trains, needed.values())) else {}
        return _Known(old, reference)

    def _logprobs(self, model: object, items: Mapping[int, Item]) -> Logprobs:
        mine: Logprobs = {}
        for micro, counts in dealt(micro_batches(items, self.settings.max_tokens), self._workers):
            found = logprobs_of(model, micro, self.settings)
            mine |= found if counts else {}
        return {key: row for found in self._workers.gather(mine) for key, row in found.items()}


def _by_policy(items: Sequence[Item], rows: Iterable[int]) -> dict[str, list[int]]:
    """Policy -> indices of its items, in their order."""
    found: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        item = items[row]
        found[(item.chosen if isinstance(item, Pair) else item).policy].append(row)
    return dict(found)


def _trains(item: Item) -> bool:
    if isinstance(item, Pair):
        return any(item.chosen.trained) or any(item.rejected.trained)
    return any(item.trained)


def _described(learner: Learner, items: Sequence[Item]) -> Metrics:
    """What can be said of the items themselves."""
    samples = [item for item in items if isinstance(item, Sample)]
    if not samples:
        return {"pairs": len(items)}
    metrics: Metrics = {"samples": len(samples)}
    if len(items) > len(samples):
        metrics["pairs"] = len(items) - len(samples)
    metrics["tokens"] = sum(sum(sample.trained) for sample in samples)
    metrics["reward"] = fmean(sample.reward for sample in samples)
    for role in sorted({sample.role for sample in samples}):
        metrics[f"reward/{role}"] = fmean(sample.reward for sample in samples if sample.role == role)
    ages = (learner.behind(sample.version) for sample in samples if not sample.supervised)
    if behind := [age for age in ages if age is not None]:
        metrics |= {"staleness": fmean(behind), "staleness_max": max(behind)}
    return metrics
