"""Policies: full weights and adapters, what they share, what they start from, and how they are written."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from agents.learning.distributed import OneWorker
from agents.learning.policies import open_policies
from agents.learning.trainer import Trainer
from agents.learning.trainer_settings import PolicySettings, TrainerSettings
from agents.probe import measure
from agents.types import EngineError
from tests.agents.trainer_helpers import make_model, make_replies, open_trainer, scores


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


def test_adapters_share_their_base_and_full_policies_share_nothing(model: Path) -> None:
    names = {"a": 4, "b": 2, "c": 0, "d": 0}
    settings = {name: PolicySettings(f"hf:{model}", rank=rank) for name, rank in names.items()}
    found = open_policies(settings, TrainerSettings(), OneWorker())
    assert found["a"].live() is found["b"].live() is not found["c"].live()
    owned = {name: {id(one) for one in policy.parameters.values()} for name, policy in found.items()}
    assert not any(owned[a] & owned[b] for a in owned for b in owned if a != b)
    assert len(owned["a"]) == 2 * 14 and sum(p.numel() for p in found["a"].parameters.values()) < 10_000


def test_an_adapter_that_is_new_is_the_model_itself_and_the_same_every_time(model: Path, tmp_path: Path) -> None:
    full, one, two, other = (
        open_trainer(model, "a", rank=rank, seed=s) for rank, s in ((0, 0), (4, 0), (4, 0), (4, 1))
    )
    assert one.probe("a") == full.probe("a")
    drawn = torch.get_rng_state()
    versions = [trainer.export("a", tmp_path / str(i)) for i, trainer in enumerate((one, two, other))]
    assert versions[0] == versions[1] != versions[2] and torch.equal(torch.get_rng_state(), drawn)


def test_a_step_of_one_adapter_leaves_the_base_and_the_others(model: Path) -> None:
    settings = {name: PolicySettings(f"hf:{model}", rank=4) for name in ("a", "b")}
    trainer = Trainer(TrainerSettings(learning_rate=1e-2, watch_kl=True), settings)
    before = trainer.probe("b")
    replies = make_replies(open_trainer(model, "a"), "a", supervised=True)
    first, second = trainer.update(replies, epochs=2)
    assert first.keys() == {"a"} and second["a"]["supervised_nll"] < first["a"]["supervised_nll"]
    assert trainer.probe("b") == before != trainer.probe("a")


@pytest.mark.parametrize("rank", [0, 4])
def test_what_it_started_from_is_its_reference(model: Path, tmp_path: Path, rank: int) -> None:
    earlier = open_trainer(model, "a", rank=rank)
    earlier.step(make_replies(earlier, "a", supervised=True))
    version = earlier.export("a", tmp_path / "a")
    policies = {name: PolicySettings(f"hf:{model}", start=str(tmp_path / "a")) for name in ("a", "b")}
    trainer = Trainer(TrainerSettings(learning_rate=1e-2, watch_kl=True), policies)
    assert trainer.status().versions["a"] == version.partition("-")[2]
    replies = make_replies(trainer, "a")
    assert scores(trainer, replies, "a") == scores(earlier, replies, "a")
    first, second = trainer.update(replies, epochs=2)
    assert first["a"]["kl"] == 0.0 < second["a"]["kl"]


def test_tied_weights_stay_one_and_are_written_once(tmp_path: Path) -> None:
    trainer = open_trainer(make_model(tmp_path / "tied", tied=True))
    replies = make_replies(trainer)
    trainer.step(replies)
    trainer.export("", tmp_path / "new")
    new: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "new", dtype=torch.float32).eval()
    assert new.lm_head.weight is new.model.embed_tokens.weight and "lm_head.weight" not in load_file(
        tmp_path / "new" / "model.safetensors"
    )
    assert measure(new) == trainer.probe("")


def test_an_adapter_in_pefts_format_is_what_peft_loads(model: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    trainer = open_trainer(model, "a", "b", rank=4)
    trainer.step([*make_replies(trainer, "b", supervised=True, version="any")])
    trainer.export("b", tmp_path / "b")
    described = json.loads((tmp_path / "b" / "adapter_config.json").read_text(encoding="utf-8"))
    assert described["r"] == 4 and described["lora_alpha"] == 8 and described["inference_mode"] is True
    base: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    assert measure(PeftModel.from_pretrained(base, str(tmp_path / "b")).eval()) == trainer.probe("b")


def test_an_adapter_of_another_model_is_refused(model: Path, tmp_path: Path) -> None:
    trainer = open_trainer(model, "a", rank=4)
    trainer.export("a", tmp_path / "a")
    with pytest.raises(EngineError, match=r"cannot be loaded as an adapter|does not fit"):
        Trainer(TrainerSettings(), {"a": PolicySettings("embedded", start=str(tmp_path / "a"))})
