"""The vLLM engine: AsyncLLM with prompts, log-probabilities, adapters and weights as Palaestra wants them.

vLLM runs the model in a process of its own beside the one that makes the engine (a replica's Ray actor, or the user's:
then its script needs `if __name__ == "__main__"`, as that process imports it). Prompts go to vLLM as token ids, replies
come back as token ids; vLLM's own chat templates and default sampling settings are not used.

The same seed draws the same random numbers, but vLLM's matrix kernels let a row's last bits depend on what else is in
the batch: replies are repeatable as far as no draw falls within such a bit. Where replies must be equal bit for bit,
use the transformers engine.

On GPUs (written from vLLM 0.32's source; the tests run on the CPU): with `tensor_parallel` above 1 vLLM starts one
process a GPU ("mp"), all within the actor, which Ray gives that many GPUs of one machine. For replicas that share a GPU
set `pool.gpus` to a fraction and `vllm.gpu_memory` to less than that fraction.
"""

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.engines.chat import ChatTokenizer
from agents.engines.choices import Choices
from agents.engines.tools import enforced_schema
from agents.engines.vllm_launch import said, start_vllm
from agents.engines.weights import end_ids, weights_version
from agents.serving import VllmSettings
from agents.types import Completion, EngineDiedError, EngineError, Request
from envs.errors import clip

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.async_llm import AsyncLLM

_SHUTDOWN_S = 3.0
"""For vLLM's process to end by itself; less than a pool gives an engine."""


@dataclass(frozen=True)
class _Weights:
    """What a policy is served with."""

    version: str
    adapter: "LoRARequest | None" = None


class VllmEngine:
    """See the module. Made where it runs; all its coroutines are awaited from one event loop."""

    def __init__(self, target: str, settings: VllmSettings | None = None):
        """
        Args:
            target: a directory in Hugging Face format, which is never looked up on the network, or a model's name on
                the hub.
            settings: see VllmSettings.

        Raises:
            ConfigError: the model or a setting that vLLM cannot use.
        """
        from transformers import AutoConfig, AutoTokenizer

        self._settings = settings = settings or VllmSettings()
        local = Path(target).is_dir()
        config = AutoConfig.from_pretrained(target, local_files_only=local)
        tokenizer = AutoTokenizer.from_pretrained(target, local_files_only=local)
        self.chat = ChatTokenizer(tokenizer, target, end_ids(target, config))
        self.policy = Path(target).resolve().name if local else target.rpartition("/")[2]
        version = weights_version(Path(target)) if local else str(getattr(config, "_commit_hash", None))[:12]
        self._weights = {"": _Weights(version)}
        self._sources = {("", version): target}
        self._numbers = itertools.count(1)
        self._running: set[str] = set()
        self._stop_ids = sorted(self.chat.end_ids)
        self._llm: AsyncLLM | None = start_vllm(target, config, settings)
        self.context = int(self._llm.model_config.max_model_len)

    @property
    def version(self) -> str:
        return self._weights[""].version

    async def complete(self, request: Request) -> Completion:
        arrived = time.monotonic()
        weights = self._weights_of(request.policy)
        prompt = self.chat.encode_request(request)
        room = self.context - len(prompt)
        if room < 1:
            raise EngineError(
                f"the prompt of {request.key} has {len(prompt)} tokens, the context of {self.policy} is "
                f"{self.context}; play fewer rounds or take a model with a longer context"
            )
        if request.certainty:
            raise EngineError("vLLM gives no self-certainty; take the transformers engine (hf:DIR)")
        if request.choices:
            choices = Choices(self.chat, request, self.context)
            scores = await asyncio.gather(*(self.score(ids, request.policy) for ids in choices.ids))
            found = [score[choices.start - 1 :] for score in scores]
            return choices.completion(found, request.policy or self.policy, weights.version)
        output = await self._ask(prompt, self._sampling(request, room), weights, request.key)
        reply = output.outputs[0]
        ids = tuple(reply.token_ids)
        text = self.chat.decode(ids)
        for stop in request.sampling.stop:
            text = text.split(stop, 1)[0]
        text, tool_calls = self.chat.parse(request, prompt, text)
        metrics: Any = output.metrics
        started = max(arrived, metrics.scheduled_ts)  # the same clock in all processes of a machine
        return Completion(
            text=text,
            finish="stop" if reply.finish_reason == "stop" else "length",
            policy=request.policy or self.policy,
            version=weights.version,
            prompt_ids=tuple(prompt),
            token_ids=ids,
            logprobs=_drawn(reply.logprobs),
            tool_calls=tool_calls,
            prompt_tokens=len(prompt),
            completion_tokens=len(ids),
            queue_s=started - arrived,
            compute_s=time.monotonic() - started,
        )

    async def publish(self, policy: str, version: str, source: Path) -> None:
        """Take over weights; see agents.types.Publishable.

        An adapter's directory is read again after the base's weights were replaced. The base's weights are read from
        the directory by vLLM's own processes, each its shard, on GPUs as on the CPU: vLLM's weight-transfer backends
        (nccl, ipc) are for tensors that a trainer holds on GPUs, of which there are none here.
        """
        known = self._sources.get((policy, version))
        if known not in (None, str(source)):
            raise EngineError(
                f"version {clip(version)} of {policy or self.policy} is that of {known} already; versions are never "
                "used for other weights, name another"
            )
        if policy:
            await self._publish_adapter(policy, version, str(source))
        else:
            await self._publish_weights(version, str(source))
        self._sources[policy, version] = str(source)

    async def score(self, ids: Sequence[int], policy: str = "") -> tuple[float, ...]:
        """See agents.types.Publishable. vLLM leaves temperature and `logprobs_mode` out of a prompt's scores."""
        from vllm import SamplingParams

        if not 1 < len(ids) < self.context:
            raise EngineError(f"expected 2 to {self.context - 1} token ids to score, found {len(ids)}")
        params = SamplingParams(
            temperature=0, max_tokens=1, prompt_logprobs=0, flat_logprobs=True, detokenize=False, skip_clone=True
        )
        output = await self._ask([*ids], params, self._weights_of(policy), "score")
        return _drawn(output.prompt_logprobs)

    async def close(self) -> None:
        llm, self._llm = self._llm, None
        if llm is not None:
            await llm.abort(list(self._running))
            if llm.output_handler is not None:
                llm.output_handler.cancel()  # or it would log the process's end as a death
            await asyncio.to_thread(llm.shutdown, _SHUTDOWN_S)

    @property
    def _open_llm(self) -> "AsyncLLM":
        if self._llm is None:
            raise EngineError("the engine is closed")
        return self._llm

    def _weights_of(self, policy: str) -> _Weights:
        weights = self._weights.get(policy)
        if weights is None:
            known = sorted(name for name in self._weights if name)
            raise EngineError(
                f"unknown policy {clip(policy)}; published to {self.policy}: {', '.join(known) or 'none'}"
            )
        return weights

    def _sampling(self, request: Request, room: int) -> "SamplingParams":
        from vllm import SamplingParams
        from vllm.exceptions import VLLMClientError
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        asked, schema = request.sampling, enforced_schema(request)
        options: dict[str, Any] = {
            "temperature": asked.temperature,
            "top_p": asked.top_p,
            "max_tokens": min(asked.max_tokens, room),
            "seed": request.seed,
            "stop": [*asked.stop],
            "stop_token_ids": self._stop_ids,
            # vLLM needs the text only to look for stop strings in it, as this engine's own decoding has it.
            "detokenize": bool(asked.stop),
            "skip_special_tokens": False,
            "logprobs": 0,
            "flat_logprobs": True,
            "output_kind": RequestOutputKind.FINAL_ONLY,
            "skip_clone": True,
        }
        try:
            if schema is not None:
                options["structured_outputs"] = StructuredOutputsParams(json=_spelt(schema))
            return SamplingParams(**options)
        except VLLMClientError as error:
            raise EngineError(f"vLLM cannot answer {request.key}: {said(error)}") from None

    async def _ask(self, prompt: list[int], params: "SamplingParams", weights: _Weights, key: str) -> "RequestOutput":
        """Have vLLM answer; a cancelled caller's request is aborted there.

        Raises:
            EngineDiedError: vLLM's process is gone.
            EngineError: any other reason.
        """
        from vllm.inputs.engine import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError

        llm, number, output = self._open_llm, str(next(self._numbers)), None
        self._running.add(number)
        try:
            async for last in llm.generate(tokens_input(prompt), params, number, lora_request=weights.adapter):
                output = last
        except EngineDeadError:
            raise EngineDiedError(f"vLLM's process of {self.policy} died; its last words are in its log") from None
        except Exception as error:  # noqa: BLE001 - whatever vLLM refuses or fails with
            raise EngineError(f"vLLM cannot answer {key}: {said(error)}") from None
        finally:
            self._running.discard(number)
        if output is None or output.outputs[0].finish_reason not in ("stop", "length"):
            raise EngineError(f"vLLM gave up {key}" if self._llm else "the engine was closed")
        return output

    async def _publish_weights(self, version: str, source: str) -> None:
        llm = self._open_llm
        await llm.pause_generation(mode="wait", clear_cache=True)
        try:
            await llm.collective_rpc("take_over_weights", args=(source,))
        except Exception as error:  # noqa: BLE001 - whatever vLLM makes of damaged files
            raise EngineError(f"vLLM cannot load the weights in {source}: {said(error)}") from None
        finally:
            await llm.resume_generation()
        self._weights[""] = _Weights(version)

    async def _publish_adapter(self, policy: str, version: str, source: str) -> None:
        from vllm.lora.request import LoRARequest

        llm, limit, before = self._open_llm, self._settings.max_adapters, self._weights.get(policy)
        if before is None and len(self._weights) > limit:
            raise EngineError(f"{self.policy} serves at most {limit} adapters; set vllm.max_adapters to more")
        # vLLM keeps adapters by number and key-value blocks by name: neither is ever used for other weights.
        adapter = LoRARequest(f"{policy}@{version}", next(self._numbers), source)
        try:
            await llm.add_lora(adapter)
        except Exception as error:  # noqa: BLE001 - whatever vLLM makes of damaged files
            raise EngineError(f"vLLM cannot load the adapter in {source}: {said(error)}") from None
        self._weights[policy] = _Weights(version, adapter)
        if before and before.adapter:
            await llm.remove_lora(before.adapter.lora_int_id)


def _spelt(schema: Mapping[str, Any]) -> dict[str, Any]:
    """With the transformers engine's one spelling of white space: with any allowed, small models write nothing else."""
    spelling = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    return {"x-guidance": spelling, **schema}


def _drawn(logprobs: Any) -> tuple[float, ...]:
    """Of the tokens themselves, where vLLM may list the likeliest others after each."""
    found = zip(logprobs.start_indices, logprobs.end_indices, strict=True)
    return tuple(logprobs.logprobs[start] for start, end in found if end > start)
