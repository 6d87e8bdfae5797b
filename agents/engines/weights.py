"""The weights of a running transformers model: replaced, scored, and with adapters put on top of them.

Used by the transformers engine, on its thread alone. PEFT is imported only when an adapter comes.
"""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from agents.probe import load_whole, measure, require_all
from agents.types import EngineError
from envs.errors import ConfigError, clip

_BASE = ""
_INJECTED = ".base_layer."
"""What PEFT puts into the names of the layers that it wraps."""


class Weights:
    """One base and named adapters, of which one policy at a time is active."""

    def __init__(self, model: Any, version: str):
        """
        Args:
            model: a causal language model of transformers; changed in place.
            version: of its own weights.
        """
        self.versions = {_BASE: version}
        """Policy -> version."""
        self._model = model
        self._peft: Any = None
        self._adapters: dict[str, str] = {}
        self._numbers = itertools.count()
        self._active = _BASE

    def publish(self, policy: str, version: str, source: Path) -> None:
        """See agents.types.Publishable. What is refused leaves all weights as they were."""
        if policy:
            self._publish_adapter(policy, source)
        else:
            self.take_over(self._checked(source))
        self.versions[policy] = version

    def take_over(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy tensors over the model's own of the same names."""
        own = self._own()
        for name, tensor in tensors.items():
            own[name].copy_(tensor)

    def activate(self, policy: str) -> None:
        """Have the next forward passes run with this policy's weights.

        Raises:
            EngineError: it was never published.
        """
        if policy not in self.versions:
            raise EngineError(f"policy {clip(policy)} was never published to this engine")
        if policy != self._active:
            self._select(policy)

    def score(self, ids: Sequence[int], policy: str) -> tuple[float, ...]:
        """See agents.types.Publishable."""
        self.activate(policy)
        return measure(self._model, ids).logprobs

    def embed(self, ids: Sequence[int]) -> tuple[float, ...]:
        """Mean over tokens of the last hidden state, with the model's own weights: (hidden size,), float32.

        The tokens make a pass of their own, so that nothing else can change a bit of it. Whichever policy is active
        stays so.
        """
        active = self._active
        self.activate(_BASE)
        try:
            asked = torch.tensor([ids], device=self._model.device)
            states = self._model.base_model(input_ids=asked, use_cache=False).last_hidden_state
            return tuple(states[0].float().mean(0).tolist())
        finally:
            self.activate(active)

    def _own(self) -> dict[str, Tensor]:
        state = self._model.state_dict()
        return {name.replace(_INJECTED, "."): tensor for name, tensor in state.items() if ".lora_" not in name}

    def _checked(self, source: Path) -> dict[str, Tensor]:
        """The tensors of a directory, of the same names and shapes as the model's own."""
        other = load_whole(source, self._model.dtype)
        tensors, own = other.state_dict(), self._own()
        if odd := sorted(tensors.keys() ^ own.keys()):
            raise EngineError(f"{source} holds another model than this: the tensor {odd[0]} is in one of them alone")
        for name, tensor in tensors.items():
            if tensor.shape != own[name].shape:
                shapes = f"{tuple(own[name].shape)}, found {tuple(tensor.shape)}"
                raise EngineError(f"{source} holds another model than this: expected {name} of shape {shapes}")
        return tensors

    def _publish_adapter(self, policy: str, source: Path) -> None:
        """Under a name of its own: nothing that PEFT keeps by name can be mistaken for it."""
        if not (source / "adapter_config.json").is_file():
            raise EngineError(f"expected an adapter in PEFT's format, found no adapter_config.json in {source}")
        name = f"policy{next(self._numbers)}"
        try:
            self._load_adapter(name, source)
        except ModuleNotFoundError as error:
            raise EngineError(f"adapters need {error.name}: pip install {error.name}") from None
        except Exception as error:  # noqa: BLE001 - whatever the libraries make of damaged files
            if self._peft is not None:
                if name in self._peft.peft_config:
                    self._peft.delete_adapter(name)
                self._select(self._active)
            raise EngineError(f"{source} cannot be loaded as an adapter: {error}") from None
        earlier, self._adapters[policy] = self._adapters.get(policy), name
        self._select(policy)
        if earlier:
            self._peft.delete_adapter(earlier)

    def _load_adapter(self, name: str, source: Path) -> None:
        from peft import PeftConfig, PeftModel, load_peft_weights, set_peft_model_state_dict

        config = PeftConfig.from_pretrained(str(source))
        config.inference_mode = True
        tensors = load_peft_weights(str(source), device=str(self._model.device))
        if self._peft is None:
            # Wraps the layers of the model itself, which goes on to be the one that is run.
            self._peft = PeftModel(self._model, config, adapter_name=name)
        else:
            self._peft.add_adapter(name, config)
        found = set_peft_model_state_dict(self._peft, tensors, adapter_name=name)
        missing = [key for key in found.missing_keys if f".{name}." in key]
        require_all({"missing_keys": missing, "unexpected_keys": found.unexpected_keys}, source)
        self._model.eval()

    def _select(self, policy: str) -> None:
        if policy:
            self._peft.base_model.enable_adapter_layers()
            self._peft.set_adapter(self._adapters[policy])
        else:
            self._peft.base_model.disable_adapter_layers()
        self._active = policy


def weights_version(directory: Path) -> str:
    """Twelve hex digits of SHA-256 over the weight files: 64 evenly spread MiB of each, all of a file up to that."""
    block, blocks = 1 << 20, 64
    digest = hashlib.sha256()
    for path in sorted(directory.glob("*.safetensors")) or sorted(directory.glob("*.bin")):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}".encode())
        with path.open("rb") as file:
            for i in range(blocks):
                file.seek(i * block if size <= block * blocks else i * (size - block) // (blocks - 1))
                digest.update(file.read(block))
    return digest.hexdigest()[:12]


def require_full_attention(config: Any, directory: Path) -> None:
    kinds = getattr(config, "layer_types", None)
    sliding = any(kind != "full_attention" for kind in kinds) if kinds else getattr(config, "sliding_window", None)
    if sliding:
        raise ConfigError(
            f"{directory} is a {config.model_type} model with sliding-window or other special attention, which this "
            "engine does not batch; serve it with vLLM"
        )


def end_ids(directory: Path | str, config: Any) -> list[int]:
    """The ids that the model's own generation settings stop at."""
    try:
        ids = GenerationConfig.from_pretrained(directory).eos_token_id
    except OSError:
        ids = config.eos_token_id
    return ids if isinstance(ids, list) else [] if ids is None else [ids]
