"""The embedded engine: any causal language model that transformers loads, batched as requests come.

Requests join a running batch as soon as they arrive and leave it as they finish. Each row keeps its keys and values
in a slot of its own, so that nothing is padded on the left, joining copies nothing, and what a row computes does not
depend on how long its neighbours are. One thread runs the model; `complete` may be awaited from any event loop.
Imports neither ray nor vLLM.
"""

import asyncio
import itertools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from agents.engines.asked import Job, Row, answer
from agents.engines.chat import ChatTokenizer
from agents.engines.choices import Choices
from agents.engines.sampling import draw, self_certainty, uniforms
from agents.engines.slots import Slots
from agents.engines.tools import enforced_schema
from agents.engines.weights import Weights, end_ids, require_full_attention, weights_version
from agents.types import Completion, EngineError, Finish, Request
from envs.errors import ConfigError

if TYPE_CHECKING:
    from agents.engines.grammar import Grammars

DETERMINISTIC_TILE = 8
PREFILL_TOKENS = 8192
"""Prompt tokens, padding included, that one forward pass takes in."""


class TransformersEngine:
    """See the module. Made where it runs (it starts a thread and may use a GPU); it does not cross processes."""

    def __init__(
        self,
        directory: str | Path,
        policy: str = "",
        device: str = "cpu",
        dtype: str = "float32",
        max_batch: int = 256,
        deterministic: bool = True,
        threads: int = 1,
    ):
        """
        Args:
            directory: a model in Hugging Face format with a chat template and full attention.
            policy: its name on turns; the directory's name when empty.
            device: "cpu" or "cuda".
            dtype: of weights and computation.
            max_batch: most requests in one forward pass; others wait.
            deterministic: a reply depends on its request and the weights alone, bit for bit, whatever else is in the
                batch. Holds on the CPU in float32 with one thread; costs up to seven idle rows a pass.
            threads: of torch, on the CPU. One is fastest for a tiny model.
        """
        directory = Path(directory)
        transformers_logging.disable_progress_bar()
        if device == "cuda" and not torch.cuda.is_available():
            raise ConfigError(
                f"engine.device=cuda: torch {torch.__version__} finds no CUDA GPU here; set engine.device=cpu, or "
                "install a CUDA build of torch"
            )
        if device == "cpu":
            torch.set_num_threads(threads)
        config = AutoConfig.from_pretrained(directory)
        require_full_attention(config, directory)
        tokenizer = AutoTokenizer.from_pretrained(directory)
        self.chat = ChatTokenizer(tokenizer, str(directory), end_ids(directory, config))
        model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, dtype))
        self.model = model.to(device).eval()
        self.policy = policy or directory.resolve().name
        self.weights = Weights(self.model, weights_version(directory))
        self.context = int(config.max_position_embeddings)
        self.max_batch = max_batch
        self._slots = Slots(self.model, config.num_hidden_layers, max_batch, DETERMINISTIC_TILE if deterministic else 1)
        self._rows: list[Row] = []
        self._jobs: list[Job] = []
        self._inbox: queue.SimpleQueue[Row | Job | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name=f"engine {self.policy}", daemon=True)
        self._thread.start()

    @property
    def version(self) -> str:
        """Of the engine's own weights."""
        return self.weights.versions[""]

    async def complete(self, request: Request) -> Completion:
        loop = asyncio.get_running_loop()
        return await self._put(Row(request, loop.create_future(), loop, time.monotonic()))

    async def publish(self, policy: str, version: str, source: Path) -> None:
        """Take over weights, as soon as no request is under way; see agents.types.Publishable."""
        await self._run(lambda: self.weights.publish(policy, version, source))

    async def score(self, ids: Sequence[int], policy: str = "") -> tuple[float, ...]:
        """Log-probabilities of `ids[1:]`, as soon as no request is under way; see agents.types.Publishable."""
        return await self._run(lambda: self.weights.score(ids, policy))

    async def embed(self, text: str) -> tuple[float, ...]:
        """The mean over a text's tokens of the last hidden state; see agents.types.Embeds. It waits for no request."""
        return await self._run(lambda: self.weights.embed(self._read(text)), at_once=True)

    async def close(self) -> None:
        self._closed = True
        self._inbox.put(None)
        await asyncio.to_thread(self._thread.join)

    async def _run(self, do: Callable[[], Any], at_once: bool = False) -> Any:
        loop = asyncio.get_running_loop()
        return await self._put(Job(do, loop.create_future(), loop, at_once))

    async def _put(self, item: Row | Job) -> Any:
        if self._closed:
            raise EngineError("the engine is closed")
        self._inbox.put(item)
        return await item.future

    # Everything below runs on the engine's thread.

    @torch.inference_mode()
    def _serve(self) -> None:
        waiting: list[Row] = []
        while True:
            try:
                if not self._receive(waiting):
                    break
                if self._jobs and not self._rows:
                    self._work()
                elif waiting and not self._jobs and len(self._rows) < self.max_batch:
                    self._admit(waiting)
                if self._rows:
                    self._decode()
            except Exception as error:  # noqa: BLE001 - a forward pass that fails must not leave callers waiting
                self._fail([*self._rows, *waiting], error)
                waiting.clear()
        self._fail([*self._rows, *waiting, *self._jobs], EngineError("the engine was closed"))

    def _receive(self, waiting: list[Row]) -> bool:
        """Take in what has arrived; block when there is nothing else to do. False when the engine is to stop."""
        while True:
            try:
                row = self._inbox.get(block=not (self._rows or waiting or self._jobs))
            except queue.Empty:
                return True
            if row is None:
                return False
            if isinstance(row, Job):
                if row.at_once:
                    row.answer()
                else:
                    self._jobs.append(row)
                continue
            try:
                self._prepare(row)
            except Exception as error:  # noqa: BLE001 - one bad request must not stop the others
                answer([(row, error)])
                continue
            waiting.append(row)
            if not self._rows and self._inbox.empty():
                return True

    def _work(self) -> None:
        jobs, self._jobs = self._jobs, []
        for job in jobs:
            job.answer()

    def _read(self, text: str) -> list[int]:
        # Of a reply without words the end token is all that there is.
        ids = self.chat.encode_text(text) or sorted(self.chat.end_ids)[:1]
        if not 0 < len(ids) <= self.context:
            raise EngineError(
                f"expected a text of 1 to {self.context} tokens to embed (the context of {self.policy}), found "
                f"{len(ids)}; take another embedder, such as minilm"
            )
        return ids

    def _prepare(self, row: Row) -> None:
        request = row.request
        row.prompt = self.chat.encode_request(request)
        room = self.context - len(row.prompt)
        if room < 1:
            raise EngineError(
                f"the prompt of {request.key} has {len(row.prompt)} tokens, the context of {self.policy} is "
                f"{self.context}; play fewer rounds or take a model with a longer context"
            )
        if request.policy not in self.weights.versions:
            raise EngineError(f"policy {request.policy} was never published to {self.policy}")
        if request.choices:
            row.choices = Choices(self.chat, request, self.context)
            return
        row.limit = min(request.sampling.max_tokens, room)
        row.uniforms = uniforms(request.seed, row.limit)
        schema = enforced_schema(request)
        row.matcher = self._grammars.matcher(schema) if schema is not None else None

    @cached_property
    def _grammars(self) -> "Grammars":
        from agents.engines.grammar import Grammars

        return Grammars(self.chat.tokenizer, self.model.config.vocab_size, self.chat.end_ids)

    def _admit(self, waiting: list[Row]) -> None:
        """Run the prompts of waiting rows, of like length together, and draw their first tokens."""
        admitted = [row for row in self._chosen(waiting) if not self._weighed(row)]
        admitted.sort(key=lambda row: len(row.prompt))
        while admitted:
            count = len(admitted)
            while count > 1 and count * len(admitted[count - 1].prompt) > PREFILL_TOKENS:
                count = (count + 1) // 2
            group, admitted = admitted[:count], admitted[count:]
            for row in group:
                row.started = time.monotonic()
            first = len(self._rows)
            self._rows += group
            try:
                self._draw(group, self._slots.fill(first, [row.prompt for row in group]))
            except Exception:
                waiting += admitted  # whoever handles it must find every row
                raise
        self._retire()

    def _weighed(self, row: Row) -> bool:
        """Answer a row that has choices."""
        if row.choices is None:
            return False
        policy = row.request.policy
        try:
            logprobs = self._slots.read(row.choices.ids, row.choices.start)
            result: Any = row.choices.completion(logprobs, policy or self.policy, self.weights.versions[policy])
        except Exception as error:  # noqa: BLE001 - its caller's to see
            result = error
        answer([(row, result)])
        return True

    def _chosen(self, waiting: list[Row]) -> list[Row]:
        """Take the rows that go next out of `waiting`: the oldest, of one policy at a time."""
        waiting.sort(key=lambda row: row.arrived)
        policy = (self._rows or waiting)[0].request.policy
        if not self._rows:
            self.weights.activate(policy)
            chosen = [row for row in waiting if row.request.policy == policy]
        else:
            # Whoever came after a row of another policy waits until that has had its turn.
            chosen = list(itertools.takewhile(lambda row: row.request.policy == policy, waiting))
        chosen = chosen[: self.max_batch - len(self._rows)]
        taken = set(map(id, chosen))
        waiting[:] = [row for row in waiting if id(row) not in taken]
        return chosen

    def _decode(self) -> None:
        rows, device = self._rows, self.model.device
        tokens = torch.tensor([row.tokens[-1] for row in rows], device=device)
        positions = torch.tensor([len(row.prompt) + len(row.tokens) - 1 for row in rows], device=device)
        self._draw(rows, self._slots.extend(tokens, positions))
        self._retire()

    def _draw(self, rows: list[Row], logits: torch.Tensor) -> None:
        device = logits.device
        sampling = [row.request.sampling for row in rows]
        if any(row.request.certainty for row in rows):
            for row, value in zip(rows, self_certainty(logits).tolist(), strict=True):
                row.certainty.append(value)
        if any(row.matcher for row in rows):
            from agents.engines.grammar import masked

            logits = masked(logits, [row.matcher for row in rows])
        top_p = None
        if any(s.top_p < 1 for s in sampling):
            top_p = torch.tensor([s.top_p for s in sampling], device=device)
        tokens, logprobs = draw(
            logits,
            torch.tensor([s.temperature for s in sampling], device=device),
            top_p,
            torch.tensor([float(row.uniforms[len(row.tokens)]) for row in rows], device=device),
        )
        for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
            row.tokens.append(token)
            row.logprobs.append(logprob)
            if row.matcher is not None:
                row.matcher.consume_token(token)

    def _retire(self) -> None:
        """Answer the rows that are done and close the gaps they leave with the last rows."""
        done = []
        try:
            for slot in range(len(self._rows) - 1, -1, -1):
                row = self._rows[slot]
                finish = self._finished(row)
                if finish is None:
                    continue
                done.append((row, self._completion(row, finish)))
                last = self._rows.pop()
                if last is not row:
                    self._rows[slot] = last
                    self._slots.move(len(self._rows), slot, len(last.prompt) + len(last.tokens))
        finally:
            if done:
                answer(done)

    def _finished(self, row: Row) -> Finish | None:
        if row.tokens[-1] in self.chat.end_ids or row.future.cancelled():
            return "stop"
        stop = row.request.sampling.stop
        if stop:
            tail = self.chat.decode(row.tokens[-max(map(len, stop)) - 8 :])
            if any(text in tail for text in stop):
                return "stop"
        return "length" if len(row.tokens) >= row.limit else None

    def _completion(self, row: Row, finish: Finish) -> Completion:
        text = self.chat.decode(row.tokens)
        for stop in row.request.sampling.stop:
            text = text.split(stop, 1)[0]
        text, tool_calls = self.chat.parse(row.request, row.prompt, text)
        return Completion(
            text=text,
            tool_calls=tool_calls,
            finish=finish,
            policy=row.request.policy or self.policy,
            version=self.weights.versions[row.request.policy],
            prompt_ids=tuple(row.prompt),
            token_ids=tuple(row.tokens),
            logprobs=tuple(row.logprobs),
            certainty=tuple(row.certainty) if row.request.certainty else (),
            prompt_tokens=len(row.prompt),
            completion_tokens=len(row.tokens),
            queue_s=row.started - row.arrived,
            compute_s=time.monotonic() - row.started,
        )

    def _fail(self, rows: Sequence[Row | Job], error: Exception) -> None:
        self._rows.clear()
        cause = error if isinstance(error, EngineError) else EngineError(f"{type(error).__name__}: {error}")
        answer([(row, cause) for row in rows])
