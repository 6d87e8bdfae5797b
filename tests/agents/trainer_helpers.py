"""What tests of trainers share: small models, and replies with the log-probabilities that they have."""

import json
import random
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from agents.engines import EMBEDDED
from agents.learning import Sample
from agents.learning.trainer import Trainer
from agents.learning.trainer_settings import PolicySettings, TrainerSettings

VOCABULARY: int = json.loads((EMBEDDED / "config.json").read_text(encoding="utf-8"))["vocab_size"]


def make_model(folder: Path, seed: int = 0, tied: bool = False, dropout: float = 0.0) -> Path:
    """A random Llama of two layers with the embedded model's tokenizer."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        initializer_range=0.2,
        tie_word_embeddings=tied,
        attention_dropout=dropout,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    weights = shutil.ignore_patterns("*.safetensors", "config.json", "palaestra.json")
    shutil.copytree(EMBEDDED, folder, ignore=weights)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def open_trainer(model: Path | str, *names: str, rank: int = 0, **settings: Any) -> Trainer:
    """A trainer of policies that are alike. New adapters are exported, so that they have a version to play under."""
    policy = PolicySettings(model=f"hf:{model}" if isinstance(model, Path) else model, rank=rank)
    trainer = Trainer(TrainerSettings(**{"learning_rate": 1e-2, **settings}), dict.fromkeys(names or ("",), policy))
    if rank:
        with tempfile.TemporaryDirectory() as folder:
            for name in names:
                trainer.export(name, Path(folder) / name)
    return trainer


def make_replies(trainer: Trainer, policy: str = "", number: int = 6, seed: int = 0, **changes: Any) -> list[Sample]:
    """Replies drawn at random, with the log-probabilities and the version that the policy has now."""
    draw = random.Random(seed)
    found = []
    for i in range(number):
        prompt = tuple(draw.choices(range(5, VOCABULARY), k=draw.randint(2, 9)))
        reply = tuple(draw.choices(range(5, VOCABULARY), k=draw.randint(1, 7)))
        fields: dict[str, Any] = {
            "key": f"task-{i}/0/solver/0",
            "policy": policy,
            "version": trainer.status().versions[policy],
            "role": "solver",
            "prompt_ids": prompt,
            "token_ids": reply,
            "logprobs": trainer.score([*prompt, *reply], policy)[len(prompt) - 1 :],
            "advantage": draw.choice([-1.0, 1.0]),
            "reward": float(i % 2),
        }
        found.append(Sample(**{**fields, **changes}))
    return found


def scores(trainer: Trainer, samples: Sequence[Sample], policy: str = "") -> list[tuple[float, ...]]:
    """Log-probabilities of the samples' replies now."""
    return [
        trainer.score([*sample.prompt_ids, *sample.token_ids], policy)[len(sample.prompt_ids) - 1 :]
        for sample in samples
    ]
