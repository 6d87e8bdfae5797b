"""The probe: token ids with the log-probabilities that some weights give them.

A publish is believed only when every replica scores the probe as the source of the weights does. Measured here by
transformers itself, from a model in memory or from a directory; called by agents.publishing and by trainers.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.types import EngineError
from envs.errors import clip

LENGTH = 32
TOLERANCES = {"float32": 1e-3, "float16": 0.1, "bfloat16": 0.5}
"""Largest gap, in nats a token, by what the engine computes in. Half precision rounds a logit of 16 to steps of 0.016
(float16) or 0.125 (bfloat16), and layers before it add to that; weights that differ visibly in it differ by more."""


@dataclass(frozen=True)
class Probe:
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Of `ids[1:]`, each given those before it, in nats at temperature 1: (len(ids) - 1,)."""

    def compare(self, found: Sequence[float], tolerance: float) -> float:
        """The largest gap between these log-probabilities and those that a replica found.

        Raises:
            EngineError: it is beyond `tolerance`, or there are not as many.
        """
        if len(found) != len(self.logprobs):
            raise EngineError(f"scored {len(found)} tokens of the probe, expected {len(self.logprobs)}")
        gaps = [abs(a - b) for a, b in zip(self.logprobs, found, strict=True)]
        # Asked this way round, not-a-number is beyond any tolerance.
        wrong = next((i for i, gap in enumerate(gaps) if not gap <= tolerance), None)
        if wrong is not None:
            raise EngineError(
                f"log-probability {found[wrong]:.4f} for token {wrong + 1} of the probe where the source has "
                f"{self.logprobs[wrong]:.4f} (tolerance {tolerance:g})"
            )
        return max(gaps, default=0.0)


def probe_ids(vocabulary: int) -> tuple[int, ...]:
    """A few dozen token ids, the same for every vocabulary of that size."""
    return tuple(random.Random(vocabulary).choices(range(vocabulary), k=LENGTH))


def measure(model: Any, ids: Sequence[int] | None = None) -> Probe:
    """Score a probe with a model in memory: of transformers, or wrapped by PEFT.

    Args:
        model: in evaluation mode, or without dropout.
        ids: of the probe; None takes `probe_ids` of the model's vocabulary.
    """
    import torch

    ids = tuple(ids) if ids is not None else probe_ids(model.config.get_text_config().vocab_size)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits
    logprobs = logits[0, :-1].float().log_softmax(-1)
    chosen = logprobs.gather(1, torch.tensor(ids[1:], device=logprobs.device)[:, None])
    return Probe(ids, tuple(chosen[:, 0].tolist()))


async def measure_directory(
    directory: Path | str, adapter: Path | str | None = None, ids: Sequence[int] | None = None
) -> Probe:
    """Score a probe with the weights of a directory, in float32 on the CPU, on another thread.

    Loads the whole model beside whatever else is in memory; for large ones pass a probe that the trainer has measured.

    Args:
        directory: in Hugging Face format, or a model's name on the hub.
        adapter: a directory in PEFT's format, put on top.
        ids: of the probe.

    Raises:
        EngineError: the weights cannot be loaded.
    """
    return await asyncio.to_thread(_measure_directory, directory, adapter, ids)


def _measure_directory(directory: Path | str, adapter: Path | str | None, ids: Sequence[int] | None) -> Probe:
    try:
        import torch

        model = load_whole(directory, torch.float32)
        if adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(adapter))
    except ModuleNotFoundError as error:
        raise EngineError(
            f"measuring a probe needs {error.name}: pip install {error.name}, or pass a probe to publish"
        ) from None
    except EngineError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the libraries make of damaged files
        raise EngineError(f"{adapter} cannot be loaded: {_first_line(error)}") from None
    return measure(model.eval(), ids)


def load_whole(source: Path | str, dtype: Any) -> Any:
    """Load a model of which every tensor is there: transformers would make up the others and only log it.

    Raises:
        EngineError: it cannot be loaded, or tensors are missing, left over, or of other shapes than its config says.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    if Path(source).is_absolute() and not (Path(source) / "config.json").is_file():
        raise EngineError(f"expected a Hugging Face model, found no config.json in {source}")
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except Exception as error:  # noqa: BLE001 - whatever the libraries make of damaged files
        raise EngineError(f"{source} cannot be loaded: {_first_line(error)}") from None
    model, found = loaded
    require_all(found, source)
    return model


def require_all(found: Mapping[str, Any], source: Path | str) -> None:
    """Check what transformers or PEFT says of the tensors that it loaded. Raises EngineError."""
    for kind in ("missing", "unexpected", "mismatched"):
        if names := sorted(map(str, found.get(f"{kind}_keys") or ())):
            raise EngineError(f"{source} does not fit the model: {kind} tensors, the first {clip(names[0])}")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
