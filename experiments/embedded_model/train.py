"""Train the embedded model from scratch, in float32 on a CPU, to a budget of tokens.

A Llama of 1.1 million parameters whose integer embeddings start as Fourier features of their value (plain weights
afterwards). Muon on the matrices, AdamW on embedding, head and norms; the loss is taken on the trained replies alone.
Everything is drawn from one seed and the schedule counts tokens, so that the same machine builds the same weights;
the state is saved between pools of batches, and a build that was stopped goes on from there.
"""

import hashlib
import inspect
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from agents.moves import templates_hash
from envs import arithmetic
from experiments.embedded_model import corpus, dialect, mixes, problems
from experiments.embedded_model.corpus import Chat, draw_chat
from experiments.embedded_model.dialect import CONTEXT_TOKENS, INTEGERS, VERDICTS, build_tokenizer
from experiments.embedded_model.mixes import Phase
from experiments.embedded_model.muon import Muon

PART_TOKENS = 4096


@dataclass(frozen=True)
class Recipe:
    """What fixes a build. Tokens count every token of the chats, prompts included."""

    seed: int = 0
    tokens: int = 30_000_000
    """Of the first three phases."""
    polish_tokens: int = 4_000_000
    """Of the last one."""
    polish_share: float = 0.25
    """Of the learning rates where it begins; they fall to 0 in it."""
    first_tokens: int = 8_000_000
    """Most tokens of the first phase: short problems, until nearly all verdicts in training are right."""
    first_until: float = 0.95
    last_from: int = 17_000_000
    """Tokens after which chats are drawn from the last phase's mix."""
    decay_share: float = 0.25
    """The learning rate falls to 0 over this last share of the tokens."""
    batch: int = 64
    pool_batches: int = 12
    """Batches are cut from a pool of this many, sorted by length."""
    muon_lr: float = 0.02
    adam_lr: float = 2e-3
    late_from: int = 2_000_000
    """Tokens after which both rates fall to `late_share`: at the full rates verdicts never leave a coin's level."""
    late_share: float = 0.35
    warmup_steps: int = 60
    verdict_weight: float = 5.0
    unlikelihood: float = 3.0
    """Weight of -log(1 - p(right result)) on sabotaged results, during the decay."""
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    feed_forward: int = 344
    threads: int = 2
    """Of torch: with another number of them sums are rounded otherwise, and the weights are others."""


@dataclass
class Example:
    ids: list[int]
    weights: list[float]
    """One weight a token; 0 where nothing is learned."""
    forbidden: list[int]
    """One token id a token that must not be predicted there, or -1."""


class Encoder:
    """Chats to token ids and loss weights; the ids are those of the tokenizer's own chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, verdict_weight: float):
        self._tokenizer = tokenizer
        self._id = tokenizer.get_vocab()
        self._weight = {self._id[token]: verdict_weight for token in VERDICTS}

    def __call__(self, chat: Chat) -> Example:
        ids: list[int] = []
        weights: list[float] = []
        contents = self._tokenizer([content for _, content in chat.messages], add_special_tokens=False)["input_ids"]
        for (role, _), trained, content in zip(chat.messages, chat.trained, contents, strict=True):
            ids += [self._id[f"<|{role}|>"], *content, self._id["<|end|>"]]
            learned = [self._weight.get(i, 1.0) for i in content] + [1.0] if trained else [0.0] * (len(content) + 1)
            weights += [0.0, *learned]
        forbidden = [-1] * len(ids)
        if chat.forbidden is not None:
            wrong = self._id[chat.forbidden]
            forbidden[-2] = wrong if ids[-2] != wrong else -1
        return Example(ids, weights, forbidden)


def material() -> str:
    """SHA-256 over what chats are made from: the move templates, and the code that draws and writes the chats."""
    digest = hashlib.sha256(templates_hash().encode())
    for module in (arithmetic, problems, mixes, corpus, dialect):
        digest.update(inspect.getsource(module).encode())
    return digest.hexdigest()


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(recipe.seed)
    vocabulary = tokenizer.get_vocab()
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.hidden,
            intermediate_size=recipe.feed_forward,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads,
            head_dim=recipe.hidden // recipe.heads,
            max_position_embeddings=CONTEXT_TOKENS,
            tie_word_embeddings=False,
            pad_token_id=vocabulary["<|pad|>"],
            eos_token_id=vocabulary["<|end|>"],
            bos_token_id=None,
        )
    )
    with torch.no_grad():
        embedding = model.model.embed_tokens.weight
        for n in INTEGERS:
            features = torch.tensor(_fourier_features(n))
            embedding[vocabulary[str(n)], : len(features)] = 0.15 * features
        model.lm_head.weight.copy_(embedding)
    return model


def _fourier_features(n: int) -> list[float]:
    """cos and sin of the value at periods that show digits and size, of its logarithm at three, and a constant."""
    angles = [2 * math.pi * n / period for period in (2, 4, 5, 10, 20, 25, 50, 100, 200, 500, 1000, 2000)]
    angles += [2 * math.pi * math.log(n + 1) / period for period in (1.0, 2.5, 7.0)]
    return [f(angle) for angle in angles for f in (math.cos, math.sin)] + [1.0]


def _in_parts(batch: list[Example]) -> Iterator[list[Example]]:
    """The batch in parts of at most PART_TOKENS, padding included: long chats at once would take gigabytes."""
    part: list[Example] = []
    for example in sorted(batch, key=lambda e: len(e.ids)):
        if part and (len(part) + 1) * len(example.ids) > PART_TOKENS:
            yield part
            part = []
        part.append(example)
    yield part


class Build:
    """One training run: model, optimisers, schedule, and the state from which it resumes."""

    def __init__(self, recipe: Recipe, directory: Path):
        torch.set_num_threads(recipe.threads)
        self.recipe, self.directory = recipe, directory
        self.tokenizer = build_tokenizer()
        self.encode = Encoder(self.tokenizer, recipe.verdict_weight)
        self.model = build_model(recipe, self.tokenizer)
        matrices = [p for name, p in self.model.named_parameters() if p.ndim == 2 and "layers" in name]
        others = [p for name, p in self.model.named_parameters() if p.ndim == 1 or "layers" not in name]
        self.others = others
        self.muon = Muon(matrices, lr=recipe.muon_lr, weight_decay=0.01)
        self.adam = torch.optim.AdamW(others, lr=recipe.adam_lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
        self.rng = random.Random(recipe.seed)
        self.tokens = self.steps = 0
        self.verdicts = 0.5
        """Running share of right verdicts in training."""
        self.first = True
        self.phase: Phase = "first"
        self.seconds = 0.0
        """Spent on training so far, over all sessions of the build."""

    def run(self, report_every: int = 50) -> Path:
        """Train to the end of the budget and save the checkpoint. Returns the checkpoint's directory."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._load()
        losses: list[float] = []
        while self.tokens < self.recipe.tokens + self.recipe.polish_tokens:
            started, tokens_before = time.monotonic(), self.tokens
            for batch in self._pool():
                losses.append(self._step(batch))
                if self.steps % report_every == 0:
                    rate = (self.tokens - tokens_before) / (time.monotonic() - started)
                    self._log(loss=sum(losses) / len(losses), verdicts=self.verdicts, tokens_per_s=rate)
                    losses = []
            self.seconds += time.monotonic() - started
            self._save()
        checkpoint = self.directory / "checkpoint"
        self.model.save_pretrained(checkpoint)
        self.tokenizer.save_pretrained(checkpoint)
        parameters = sum(p.numel() for p in self.model.parameters())
        trained = {"tokens": self.tokens, "steps": self.steps, "seconds": round(self.seconds)}
        made = {
            "templates": templates_hash(),
            "parameters": parameters,
            "recipe": asdict(self.recipe),
            "trained": trained,
        }
        (self.directory / "recipe.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
        return checkpoint

    def _pool(self) -> Iterator[list[Example]]:
        self.first &= self.tokens < self.recipe.first_tokens and self.verdicts < self.recipe.first_until
        later: Phase = "polish" if self.tokens >= self.recipe.tokens else "last"
        self.phase = "first" if self.first else "main" if self.tokens < self.recipe.last_from else later
        count = self.recipe.batch * self.recipe.pool_batches
        examples = sorted(
            (self.encode(draw_chat(self.rng, self.phase)) for _ in range(count)), key=lambda e: len(e.ids)
        )
        batches = [examples[i : i + self.recipe.batch] for i in range(0, count, self.recipe.batch)]
        self.rng.shuffle(batches)
        return iter(batches)

    def _step(self, batch: list[Example]) -> float:
        factor, decaying = self._factor()
        self.muon.param_groups[0]["lr"] = self.recipe.muon_lr * factor
        self.adam.param_groups[0]["lr"] = self.recipe.adam_lr * factor
        learned = sum(weight > 0 for example in batch for weight in example.weights)
        unlikelihood = self.recipe.unlikelihood if decaying else 0.0
        plain = 0.0
        for part in _in_parts(batch):
            loss, part_plain = self._loss(part, unlikelihood)
            (loss / learned).backward()
            plain += part_plain / learned
        torch.nn.utils.clip_grad_norm_(self.others, 1.0)
        self.muon.step()
        self.adam.step()
        self.model.zero_grad(set_to_none=True)
        self.steps += 1
        self.tokens += sum(len(example.ids) for example in batch)
        return plain

    def _factor(self) -> tuple[float, bool]:
        """Of the learning rates, and whether they fall."""
        recipe = self.recipe
        if self.phase == "polish":
            left = (recipe.tokens + recipe.polish_tokens - self.tokens) / recipe.polish_tokens
            return recipe.polish_share * max(0.01, left), True
        done = self.tokens / recipe.tokens
        decaying = done > 1 - recipe.decay_share
        factor = min(1.0, (self.steps + 1) / recipe.warmup_steps)
        if decaying:
            factor *= max(0.01, (1 - done) / recipe.decay_share)
        if self.tokens >= recipe.late_from:
            factor *= recipe.late_share
        return factor, decaying

    def _loss(self, batch: list[Example], unlikelihood: float) -> tuple[torch.Tensor, float]:
        """The weighted loss summed over the learned tokens, and the plain one."""
        length = max(len(example.ids) for example in batch)
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([e.ids + [pad] * (length - len(e.ids)) for e in batch])
        weights = torch.tensor([e.weights + [0.0] * (length - len(e.ids)) for e in batch])[:, 1:]
        forbidden = torch.tensor([e.forbidden + [-1] * (length - len(e.ids)) for e in batch])[:, 1:]
        learned = weights > 0
        hidden = self.model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state[learned]
        logits = self.model.lm_head(hidden)
        losses = functional.cross_entropy(logits, ids[:, 1:][learned], reduction="none")
        loss = (losses * weights[learned]).sum()
        wrong = forbidden[learned]
        if unlikelihood and (wrong >= 0).any():
            rows = (wrong >= 0).nonzero()[:, 0]
            p_right = functional.softmax(logits[rows], -1).gather(1, wrong[rows, None])
            loss = loss - unlikelihood * torch.log1p(-p_right.clamp(max=0.999)).sum()
        decisive = weights[learned] > 1
        if decisive.any():
            right = (logits.argmax(-1) == ids[:, 1:][learned])[decisive].float().mean().item()
            self.verdicts = 0.98 * self.verdicts + 0.02 * right
        return loss, losses.sum().item()

    def _log(self, **values: float) -> None:
        row = {"step": self.steps, "tokens": self.tokens, **{name: round(value, 4) for name, value in values.items()}}
        with (self.directory / "log.jsonl").open("a") as log:
            log.write(json.dumps(row) + "\n")
        print(row, flush=True)

    def _save(self) -> None:
        state: dict[str, Any] = {
            "recipe": asdict(self.recipe),
            "material": material(),
            "model": self.model.state_dict(),
            "muon": self.muon.state_dict(),
            "adam": self.adam.state_dict(),
            "rng": self.rng.getstate(),
            "verdicts": self.verdicts,
            "seconds": self.seconds,
            "first": self.first,
            "tokens": self.tokens,
            "steps": self.steps,
        }
        partial = self.directory / "state.pt.partial"
        torch.save(state, partial)
        partial.replace(self.directory / "state.pt")

    def _load(self) -> None:
        path = self.directory / "state.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        if state["recipe"] != asdict(self.recipe):
            raise SystemExit(f"{path} is of another recipe: {state['recipe']}; delete it or choose another --out")
        if state["material"] != material():
            raise SystemExit(
                f"{path} was trained on other templates or chats than these; delete it or choose another --out"
            )
        self.model.load_state_dict(state["model"])
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
        version, internal, gauss = state["rng"]
        self.rng.setstate((version, tuple(internal), gauss))
        self.tokens, self.steps = state["tokens"], state["steps"]
        self.verdicts, self.first, self.seconds = state["verdicts"], state["first"], state["seconds"]
