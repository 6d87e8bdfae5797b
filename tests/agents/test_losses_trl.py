"""Our losses and TRL's own, of the same samples under the same model: the same loss, the same gradient."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.learning import LossSettings, Pair, Sample
from agents.learning.batch import Batch, make_batches, make_pair_batches
from agents.learning.losses import count, pair_loss, policy_loss, sequence_logprobs, token_logprobs
from tests.agents.learning_helpers import VOCABULARY, make_pairs, make_samples

os.environ.setdefault("HF_HUB_OFFLINE", "1")
trl = pytest.importorskip("trl", reason="TRL is not installed: pip install -e '.[trl]'", exc_type=ImportError)
pytestmark = pytest.mark.slow

EMBEDDED = Path(__file__).parents[2] / "agents" / "embedded_model"
TEMPERATURE = 0.7
LONGEST = 9
"""Tokens of a completion, as TRL's constant normaliser is told."""


def make_model(seed: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.4,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """TRL's trainers ask for one; nothing here is text."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(EMBEDDED)


@pytest.fixture(scope="module")
def grpo(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from datasets import Dataset

    options = trl.GRPOConfig(
        output_dir=str(tmp_path_factory.mktemp("grpo")),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        per_device_train_batch_size=4,
        num_generations=4,
        temperature=TEMPERATURE,
        max_completion_length=LONGEST,
        use_bias_correction_kl=False,
    )
    yield trl.GRPOTrainer(
        model=make_model(0),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=options,
        train_dataset=Dataset.from_dict({"prompt": ["1"] * 4}),
        processing_class=tokenizer,
    )


def check_gradients(model: Any, ours: Tensor, theirs: Tensor) -> None:
    """Of every weight; apart by no more than float32 rounds."""

    def gradient(loss: Tensor) -> Tensor:
        model.zero_grad()
        loss.backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    a, b = gradient(ours), gradient(theirs)
    assert b.norm() > 1e-3
    assert (a - b).norm() < 1e-4 * b.norm()


def logprobs(model: Any, batch: Batch) -> Tensor:
    logits = model(input_ids=batch.ids, attention_mask=batch.attention.long()).logits
    return token_logprobs(logits, batch.ids, batch.temperature)


def side_by_side(samples: Sequence[Sample], batch: Batch, values: Sequence[Tensor]) -> dict[str, Tensor]:
    """The batch as TRL has it: prompts padded on the left, completions on the right, and (B, T-1) values likewise."""
    rows = [samples[row] for row in batch.rows]
    before = max(len(sample.prompt_ids) for sample in rows)
    after = max(len(sample.token_ids) for sample in rows)
    prompts, completions = (
        torch.zeros(len(rows), before, dtype=torch.long),
        torch.zeros(len(rows), after, dtype=torch.long),
    )
    shown, said, tools = torch.zeros_like(prompts), torch.zeros_like(completions), torch.zeros_like(completions)
    moved = [torch.zeros(len(rows), after) for _ in values]
    for i, sample in enumerate(rows):
        start, length = len(sample.prompt_ids), len(sample.token_ids)
        prompts[i, before - start :], shown[i, before - start :] = torch.tensor(sample.prompt_ids), 1
        completions[i, :length], said[i, :length] = torch.tensor(sample.token_ids), 1
        tools[i, :length] = torch.tensor(sample.trained, dtype=torch.long)
        for to, value in zip(moved, values, strict=True):
            to[i, :length] = value[i, start - 1 : start - 1 + length]
    names = ("old_per_token_logps", "ref_per_token_logps", "importance_sampling_ratio")
    return {
        "prompt_ids": prompts,
        "prompt_mask": shown,
        "completion_ids": completions,
        "completion_mask": said,
        "tool_mask": tools,
        "advantages": batch.advantage,
        **dict(zip(names, moved, strict=True)),
    }


@pytest.mark.parametrize("ratio", ["token", "sequence"])
@pytest.mark.parametrize(("normalise", "loss_type"), [("sequence", "grpo"), ("token", "bnpo"), ("constant", "dr_grpo")])
@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize("cap", [None, 1.05])
def test_grpo(grpo: Any, ratio: Any, normalise: Any, loss_type: str, beta: float, cap: float | None) -> None:
    settings = LossSettings(
        ratio=ratio, normalise=normalise, length=LONGEST, kl="k3" if beta else "off", beta=beta, tis=cap, clip_high=0.28
    )
    samples = make_samples(7, supervised=False, temperature=TEMPERATURE, scale=1.0, clip_high=None)
    (batch,) = make_batches(samples, 10_000)
    model = grpo.model.eval()
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        now = logprobs(model, batch)
        old = now + 0.3 * torch.randn(now.shape, generator=noise)
        weight = (old - batch.behaviour).exp().clamp(max=cap or 1.0)
        reference = now + 0.3 * torch.randn(now.shape, generator=noise)
    ours, metrics = policy_loss(logprobs(model, batch), batch, settings, count(samples), old=old, reference=reference)

    grpo.importance_sampling_level, grpo.loss_type, grpo.beta = ratio, loss_type, beta
    grpo.epsilon_low, grpo.epsilon_high = settings.clip_low, settings.clip_high
    grpo.use_vllm = grpo.vllm_importance_sampling_correction = cap is not None
    theirs = grpo._compute_loss(model, side_by_side(samples, batch, [old, reference, weight]))

    assert ours.item() == pytest.approx(theirs.item(), rel=1e-4, abs=1e-6)
    assert metrics["clipped_low"] + metrics["clipped_high"] > 0, "nothing is clipped: the comparison says too little"
    check_gradients(model, ours, theirs)


@pytest.mark.parametrize("label", [1.0, 0.8])
def test_dpo(label: float, tokenizer: Any, tmp_path: Path) -> None:
    from datasets import Dataset

    options = trl.DPOConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        beta=0.4,
        # With one pair, AOT is DPO with a soft label.
        loss_type=["sigmoid" if label == 1.0 else "aot"],
        label_smoothing=1 - label if label < 1 else 0.0,
    )
    model, frozen = make_model(0), make_model(1)
    rows = {"prompt": ["1"], "chosen": ["2"], "rejected": ["3"]}
    trainer = trl.DPOTrainer(
        model=model, ref_model=frozen, args=options, train_dataset=Dataset.from_dict(rows), processing_class=tokenizer
    )
    sides = [(replace(p.chosen, temperature=1.0), replace(p.rejected, temperature=1.0)) for p in make_pairs(7)]
    pairs = [Pair(chosen, rejected, label) for chosen, rejected in (sides[:1] if label < 1 else sides)]
    (found,) = make_pair_batches(pairs, 10_000)
    batch, settings = found.batch, LossSettings(pair_beta=0.4)
    with torch.no_grad():
        old, old_rejected = sequence_logprobs(logprobs(frozen, batch), batch.trained).chunk(2)
    new, new_rejected = sequence_logprobs(logprobs(model, batch), batch.trained).chunk(2)
    ours, metrics = pair_loss(new, new_rejected, old, old_rejected, settings, found.labels)

    completions = torch.nn.functional.pad(batch.trained, (1, 0))
    inputs = {"input_ids": batch.ids, "attention_mask": batch.attention.long(), "completion_mask": completions.long()}
    theirs = trainer._compute_loss(trainer.model.eval(), inputs, return_outputs=False)

    assert ours.item() == pytest.approx(theirs.item(), rel=1e-4)
    assert metrics["pair_margin"] == pytest.approx(trainer._metrics["eval"]["rewards/margins"][-1], rel=1e-3)
    check_gradients(model, ours, theirs)
