"""Policies that learn: all weights of a model, or a LoRA adapter on a base that several share; each with its reference.

The reference is the policy as it started, frozen. Used by the trainer alone, on its thread. Models are run without
dropout: a ratio of probabilities would otherwise be one of dropouts too. PEFT is imported only when an adapter comes.
"""

import shutil
from collections.abc import Mapping
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from agents.engines import parse_model
from agents.engines.weights import weights_version
from agents.learning.distributed import Workers
from agents.learning.trainer_settings import PolicySettings, TrainerSettings
from agents.probe import load_whole, require_all
from agents.publishing import home_of
from agents.types import EngineError, seed_of
from envs.errors import ConfigError, clip

COPIED = ("*.json", "*.jinja", "*.txt", "*.model")
"""What an exported model takes over from its home beside the weights: configuration, tokenizer, chat template."""
NOT_COPIED = ("*.index.json", "palaestra.json", "adapter_config.json")


class Policy(Protocol):
    """Named weights that learn."""

    @property
    def start_version(self) -> str | None:
        """Of the weights that it starts from; None where these are nowhere but here (a new adapter)."""
        ...

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """Name -> what learns."""
        ...

    def live(self) -> Any:
        """The model, to be run with the weights that learn, until the next call of `live` or `frozen`."""
        ...

    def frozen(self) -> Any:
        """The model, to be run with the reference's weights, until the next call of `live` or `frozen`."""
        ...

    def write(self, directory: Path, workers: Workers) -> None:
        """Write the weights in Hugging Face format, an adapter in PEFT's. Called by all workers; rank 0 writes."""
        ...


class FullPolicy:
    """All weights of a model of its own. The reference is loaded when it is first asked for."""

    def __init__(self, settings: PolicySettings, trainer: TrainerSettings, workers: Workers):
        self._home = home(settings.model)
        self._start = Path(settings.start or self._home)
        self._trainer, self._workers = trainer, workers
        self._model = load_whole(self._start, torch.float32)
        _settle(self._model, trainer, workers)
        self.start_version = weights_version(self._start)

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        return dict(self._model.named_parameters())

    def live(self) -> Any:
        return self._model

    def frozen(self) -> Any:
        return self._reference

    def write(self, directory: Path, workers: Workers) -> None:
        # Tied weights are one parameter under two names, and must stay one for transformers to write it once.
        once: dict[int, Tensor] = {}
        tensors = {}
        for name, tensor in self._model.state_dict(keep_vars=True).items():
            if id(tensor) not in once:
                once[id(tensor)] = workers.whole(tensor)
            tensors[name] = once[id(tensor)]

        def save() -> None:
            self._model.save_pretrained(directory, state_dict=tensors)
            copy_home(self._home, directory)

        workers.first(save)

    @cached_property
    def _reference(self) -> Any:
        model = load_whole(self._start, getattr(torch, self._trainer.computes_in)).requires_grad_(False)
        _settle(model, self._trainer, self._workers)
        return model


class Base:
    """A frozen model and the adapters on it, of which one at a time is active."""

    def __init__(self, source: Path, trainer: TrainerSettings):
        self._model = load_whole(source, getattr(torch, trainer.computes_in)).requires_grad_(False)
        self._peft: Any = None
        self._source, self._trainer = source, trainer
        self._active: str | None = ""

    def add(self, settings: PolicySettings, seed: int) -> str:
        """Put an adapter on: a new one, or that of `settings.start`. Returns PEFT's name of it."""
        name = f"adapter{len(self._peft.peft_config) if self._peft is not None else 0}"
        start = None if settings.rank else Path(settings.start)
        config = self._config(settings, start)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._inject(config, name)
        if start is not None:
            self._fill(name, start)
        return name

    def settle(self, workers: Workers) -> None:
        """To be called once, when all adapters are on."""
        _settle(self._model, self._trainer, workers)

    def select(self, name: str | None) -> Any:
        """The model with one adapter active, or with none."""
        if name != self._active:
            layers = self._peft.base_model
            if name is None:
                layers.disable_adapter_layers()
            else:
                layers.enable_adapter_layers()
                layers.set_adapter(name)
            # PEFT freezes the others; FSDP must not find that what a parameter is has changed between two passes.
            for key, parameter in self._model.named_parameters():
                if ".lora_" in key:
                    parameter.requires_grad_(True)
            self._active = name
        return self._model

    def parameters(self, name: str) -> dict[str, nn.Parameter]:
        """Of one adapter, without its name."""
        mark = f".{name}."
        return {key.replace(mark, "."): one for key, one in self._model.named_parameters() if mark in key}

    def write(self, name: str, directory: Path, workers: Workers) -> None:
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        mark = f".{name}."
        whole = {key: workers.whole(tensor) for key, tensor in self._peft.state_dict().items() if mark in key}

        def save() -> None:
            # Without a look at the embeddings: for that PEFT would ask the hub.
            tensors = get_peft_model_state_dict(self._peft, whole, name, save_embedding_layers=False)
            tensors = {key: tensor.contiguous() for key, tensor in tensors.items()}
            save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
            config = copy(self._peft.peft_config[name])
            config.inference_mode = True
            config.save_pretrained(str(directory))

        workers.first(save)

    def _config(self, settings: PolicySettings, start: Path | None) -> Any:
        from peft import LoraConfig, PeftConfig, TaskType

        if start is None:
            return LoraConfig(
                r=settings.rank,
                lora_alpha=settings.alpha or 2 * settings.rank,  # pyright: ignore[reportArgumentType]
                target_modules=list(settings.targets) or "all-linear",
                task_type=TaskType.CAUSAL_LM,
                base_model_name_or_path=str(self._source),
            )
        config = PeftConfig.from_pretrained(str(start))
        config.inference_mode = False
        return config

    def _inject(self, config: Any, name: str) -> None:
        from peft import PeftModel

        try:
            if self._peft is None:
                # Wraps the layers of the model itself, which goes on to be the one that is run.
                self._peft = PeftModel(self._model, config, adapter_name=name)
            else:
                self._peft.add_adapter(name, config)
        except ValueError as error:
            raise ConfigError(f"the policy: no adapter can be put on {self._source}: {error}") from None

    def _fill(self, name: str, start: Path) -> None:
        from peft import load_peft_weights, set_peft_model_state_dict

        try:
            tensors = load_peft_weights(str(start), device="cpu")
            found = set_peft_model_state_dict(self._peft, tensors, adapter_name=name)
        except Exception as error:  # noqa: BLE001 - whatever the libraries make of damaged files
            raise EngineError(f"{start} cannot be loaded as an adapter: {clip(str(error))}") from None
        missing = [key for key in found.missing_keys if f".{name}." in key]
        require_all({"missing_keys": missing, "unexpected_keys": found.unexpected_keys}, start)


class AdapterPolicy:
    """A LoRA adapter on a base. Its reference is the base, or the adapter that it started from."""

    def __init__(self, base: Base, name: str, reference: str | None, start_version: str | None):
        """
        Args:
            base: shared.
            name: of its adapter, as PEFT knows it.
            reference: of the frozen adapter beside it; None for the bare base.
            start_version: see Policy.
        """
        self._base, self._name, self._frozen = base, name, reference
        self.start_version = start_version

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        return self._base.parameters(self._name)

    def live(self) -> Any:
        return self._base.select(self._name)

    def frozen(self) -> Any:
        return self._base.select(self._frozen)

    def write(self, directory: Path, workers: Workers) -> None:
        self._base.write(self._name, directory, workers)


def open_policies(
    policies: Mapping[str, PolicySettings], trainer: TrainerSettings, workers: Workers
) -> dict[str, Policy]:
    """Load every policy; adapters on the same model share its weights.

    Raises:
        ConfigError: a model that is not there, an adapter that does not fit it.
        EngineError: weights that cannot be loaded.
    """
    bases: dict[Path, Base] = {}
    opened: dict[str, Policy] = {}
    for name, settings in policies.items():
        if not settings.is_adapter:
            opened[name] = FullPolicy(settings, trainer, workers)
            continue
        source = home(settings.model)
        if source not in bases:
            bases[source] = Base(source, trainer)
        base, seed = bases[source], seed_of(trainer.seed, "adapter", name)
        adapter, reference, version = base.add(settings, seed), None, None
        if not settings.rank:
            reference, version = base.add(settings, seed), weights_version(Path(settings.start))
        opened[name] = AdapterPolicy(base, adapter, reference, version)
    for base in bases.values():
        base.settle(workers)
    return opened


def home(model: str) -> Path:
    """The directory of a model's own weights. Raises ConfigError where it has none on this machine."""
    found = home_of(parse_model(model))
    if found is None or not (Path(found) / "config.json").is_file():
        raise ConfigError(
            f"model {model} cannot be trained: expected embedded, or hf:DIR or vllm:DIR with weights on this machine"
        )
    return Path(found)


def copy_home(source: Path, directory: Path) -> None:
    """Copy what a model needs beside its weights."""
    for pattern in COPIED:
        for path in source.glob(pattern):
            if not any(path.match(excluded) for excluded in NOT_COPIED):
                shutil.copyfile(path, directory / path.name)


def _settle(model: Any, trainer: TrainerSettings, workers: Workers) -> None:
    """Have a model run as the trainer wants it, where the trainer wants it."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0  # pyright: ignore[reportArgumentType]
    model.eval()
    if trainer.activation_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()
    if workers.size > 1:
        workers.shard(model)  # block by block, so that the whole need not fit on one GPU
    elif trainer.device != "cpu":
        model.to(trainer.device)
