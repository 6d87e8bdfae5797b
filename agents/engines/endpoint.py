"""The endpoint engine: any server of OpenAI's chat-completions protocol, as `openai:NAME@URL`; embeddings where it has
them under the same name.

It goes through the openai client on its aiohttp transport, which costs half of the default one, and checks replies
itself: the client does not. Retries are ours too (tenacity), so that each caller gets one answer, or one EngineError
that says what to do.

Token ids and log-probabilities come from servers that give them, as vLLM's does. Start it with `--logprobs-mode
processed_logprobs`, or its log-probabilities are not of the distribution that was drawn from (see Completion), and with
`--generation-config vllm`, or the model's own top-k and penalties apply; on a CPU `--no-enable-chunked-prefill` too, or
vLLM 0.32 dies of requests with a seed. Endpoints take text: a conversation that goes on is tokenised again by the
server, and `prompt_ids` are what it made of it. A turn without token ids cannot be trained
(agents.types.why_untrainable). Whose weights answered is what the server says: `version` holds its name for the model
and its fingerprint.
"""

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import aiohttp
import httpx2
import openai
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from agents.engines.protocol import (
    Embeddings,
    Reply,
    is_same_model,
    read_reply,
    retry_after,
    words_of,
    write_request,
    write_text,
)
from agents.types import Completion, EngineError, Request
from envs.errors import ConfigError, clip, nearest

logger = logging.getLogger("palaestra.endpoint")
Read = TypeVar("Read")

FIRST_WAIT_S = 0.5
"""Before the second attempt; doubles from attempt to attempt."""
IDLE_S = 4.0
"""An idle connection is dropped sooner than servers do it (uvicorn: 5 s), or a call could meet one that just closed."""
SECRET_LENGTH = 16
"""Keys from this length on are blotted out of replies too; shorter ones are placeholders such as EMPTY."""
PASSING = {408, 409, 425, 429}
NOT_MADE = 501
"""The one status from 500 on that another attempt does not mend."""
BROKEN_OFF = {"abort", "error"}
"""What vLLM and SGLang give as the reason of a reply's end when it is not the model's."""
NEEDLESS = {"max_tokens": "max_completion_tokens", "seed": "seed", "token ids": "token_ids", "logprobs": "logprobs"}
"""What a request can do without -> the word in a server's refusal that tells it."""


@dataclass(eq=False)
class _CallError(Exception):
    """An attempt without an answer."""

    said: str
    """What happened, with the server's own words; may be long."""
    status: int = 0
    after_s: float | None = None
    """How long the server asks to be left alone."""


class _PassingError(_CallError):
    """One that another attempt may mend."""


class EndpointEngine:
    """One model of one server."""

    def __init__(
        self,
        model: str,
        url: str,
        *,
        timeout_s: float = 300.0,
        retries: int = 5,
        max_wait_s: float = 60.0,
        key: str = "OPENAI_API_KEY",
        served_as: str = "",
        token_ids: bool | None = None,
    ):
        """
        Args:
            model: the name that the server knows it by.
            url: up to where the protocol begins, mostly `…/v1`; without credentials.
            timeout_s: for one attempt, from connecting to the last byte.
            retries: further attempts after 408, 409, 425, 429, 5xx, time-outs, lost connections and damaged replies.
            max_wait_s: longest wait between two attempts, whatever a Retry-After asks for.
            key: the environment variable that holds the key; without it the server is asked without one.
            served_as: the name in the server's replies, where it is neither `model` nor a dated form of it.
            token_ids: True fails where the server gives none, None takes them where it does, False asks for none.

        Raises:
            ConfigError: a key that no header can hold.
        """
        self.policy = self.model = model
        self.url = url
        self.version = ""
        self._timeout_s, self._max_wait_s, self._attempts = timeout_s, max_wait_s, retries + 1
        self._key_name, self._key = key, os.environ.get(key, "").strip()
        if not self._key.isascii() or not self._key.isprintable():
            raise ConfigError(f"the environment variable {key} holds no key: expected one line of ASCII; set it anew")
        self._served_as = served_as or model
        self._needs_ids = token_ids is True
        self._gave_ids = False
        self._without: set[str] = {"token ids"} if token_ids is False else set()
        # Jitter has a generator of its own: one that a graph draws from must not depend on a server's moods.
        self._jitter = random.Random()
        # As many connections as the pool lets through: one that waits for another inside would use up its time.
        limits = httpx2.Limits(max_connections=0, keepalive_expiry=IDLE_S)
        self._client = openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=url,
            max_retries=0,
            timeout=None,
            http_client=openai.DefaultAioHttpClient(limits=limits, timeout=None),
        )
        self._closed = False
        self._retrying = AsyncRetrying(
            sleep=asyncio.sleep,
            stop=stop_after_attempt(self._attempts),
            wait=self._wait,
            retry=retry_if_exception_type(_PassingError),
            before_sleep=self._log_retry,
            reraise=True,
        )

    def __repr__(self) -> str:
        return f"EndpointEngine({self.model!r}, {self.url!r})"

    async def complete(self, request: Request) -> Completion:
        """Answer one request; see agents.types.Engine."""
        if request.policy:
            raise EngineError(
                f"{self._name} takes no policies, found {clip(request.policy)}; "
                "have the server load the adapter and name it as a model: openai:ADAPTER@URL"
            )
        if request.opening or request.choices or request.certainty:
            raise EngineError(
                f"{self._name} can only answer: chat endpoints go on from no given opening and weigh no choices; take "
                "the model as hf:DIR or vllm:DIR"
            )
        arrived = time.monotonic()
        try:
            reply, asked = await self._ask(request)
        except _CallError as trouble:
            raise EngineError(await self._explained(trouble)) from None
        return self._completion(request, reply, asked - arrived, time.monotonic() - asked)

    async def embed(self, text: str) -> tuple[float, ...]:
        """The server's embedding of a text, under the same name of the model; see agents.types.Embeds."""
        try:
            vector, _ = await self._retrying.copy()(
                self._attempt, "/embeddings", write_text(self.model, text), self._read_vector
            )
        except _CallError as trouble:
            raise EngineError(f"{await self._explained(trouble)}; embedder minilm asks no server") from None
        return vector

    async def close(self) -> None:
        self._closed = True
        await self._client.close()

    @property
    def _name(self) -> str:
        return f"openai:{self.model} at {self.url}"

    async def _ask(self, request: Request) -> tuple[Reply, float]:
        """The reply, and when the attempt began that brought it. Asks again without what the server refuses."""
        without = set(self._without)
        while True:
            body = write_request(self.model, request, without)
            try:
                answer = await self._retrying.copy()(self._attempt, "/chat/completions", body, self._read_reply)
            except _CallError as trouble:
                blamed = self._blamed(trouble, without)
                if blamed is None:
                    raise
                without.add(blamed)
            else:
                self._give_up(without)
                return answer

    async def _attempt(self, path: str, body: bytes, read: Callable[[bytes], Read]) -> tuple[Read, float]:
        """What is read of the answer, and when it was asked for."""
        if self._closed:
            raise _CallError("was closed")
        asked = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._client.post(
                    path, content=body, cast_to=httpx2.Response, options={"security": {"bearer_auth": True}}
                )
        except TimeoutError:
            raise _PassingError(f"gave no answer within {self._timeout_s:g} s") from None
        except openai.APIStatusError as error:
            status = error.status_code
            said = f"answered {status} ({self._clean(words_of(error.response))})"
            kind = _PassingError if status in PASSING or (status >= 500 and status != NOT_MADE) else _CallError
            raise kind(said, status, retry_after(error.response.headers.get("retry-after"))) from None
        except (openai.APIConnectionError, aiohttp.ClientError, OSError) as error:
            lost = self._clean(str(error.__cause__ or error))
            raise _PassingError(f"could not be reached or broke off ({lost})") from None
        return read(response.content), asked

    def _read_reply(self, body: bytes) -> Reply:
        reply = self._parsed(read_reply, body)
        if reply.choices[0].finish_reason in BROKEN_OFF:
            raise _PassingError(f"broke its reply off ({reply.choices[0].finish_reason})")
        self._require_model(reply.model)
        return reply

    def _read_vector(self, body: bytes) -> tuple[float, ...]:
        found = self._parsed(Embeddings.model_validate_json, body)
        self._require_model(found.model)
        return tuple(found.data[0].embedding)

    def _parsed(self, parse: Callable[[bytes], Read], body: bytes) -> Read:
        if len(self._key) >= SECRET_LENGTH:
            body = body.replace(self._key.encode(), b"[key]")
        try:
            return parse(body)
        except ValueError:
            found = self._clean(body.decode("utf-8", "replace"))
            raise _PassingError(f"sent a damaged reply ({found or 'an empty one'})") from None

    def _require_model(self, name: str | None) -> None:
        if name and not is_same_model(self._served_as, name):
            served = self._clean(name)
            raise _CallError(
                f"was answered by the model {served}; name the model that is meant, "
                f"or set endpoint.served_as={served} if that is it"
            )

    def _completion(self, request: Request, reply: Reply, queue_s: float, compute_s: float) -> Completion:
        if reply.ids is not None:
            self._gave_ids = True
        elif self._needs_ids:
            raise EngineError(
                f"{self._name} returns no token ids, and endpoint.token_ids=true asks for them; "
                "serve the model with vLLM, or leave the setting out"
            )
        elif not self._gave_ids:
            self._give_up({"token ids"})
        prompt_ids, token_ids = reply.ids or ((), ())
        self.version = " ".join(filter(None, (reply.model or self.model, reply.system_fingerprint)))
        return Completion(
            text=reply.text,
            finish="length" if reply.choices[0].finish_reason == "length" else "stop",
            policy=self.policy,
            version=self.version,
            prompt_ids=prompt_ids,
            token_ids=token_ids,
            # Any others would not say which token they are of.
            logprobs=reply.logprobs if len(reply.logprobs) == len(token_ids) else (),
            tool_calls=reply.tool_calls(request.seed),
            prompt_tokens=reply.usage.prompt_tokens if reply.usage else len(prompt_ids),
            completion_tokens=reply.usage.completion_tokens if reply.usage else len(token_ids),
            queue_s=queue_s,
            compute_s=compute_s,
        )

    def _blamed(self, trouble: _CallError, without: set[str]) -> str | None:
        """What to leave out of a request that was refused; None when that would not help."""
        if trouble.status not in (400, 422):
            return None
        spare = [
            name
            for name in NEEDLESS
            if name not in without and not (self._needs_ids and name in ("token ids", "logprobs"))
        ]
        named = [name for name in spare if NEEDLESS[name] in trouble.said]
        if named:
            return named[0]
        return "token ids" if "token ids" in spare and not self._gave_ids else None

    def _give_up(self, names: set[str]) -> None:
        for name in sorted(names - self._without):
            level = logging.WARNING if name == "seed" else logging.INFO
            logger.log(level, "%s does not take or give %s: it is asked without from now on", self._name, name)
        self._without |= names

    def _wait(self, state: RetryCallState) -> float:
        trouble = state.outcome.exception() if state.outcome else None
        asked_for = trouble.after_s if isinstance(trouble, _CallError) else None
        if asked_for is not None:
            return min(asked_for + self._jitter.uniform(0, FIRST_WAIT_S), self._max_wait_s)
        doubled = FIRST_WAIT_S * 2.0 ** min(state.attempt_number - 1, 60)
        return min(doubled, self._max_wait_s) * self._jitter.uniform(0.5, 1)

    def _log_retry(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        said = error.said if isinstance(error, _CallError) else ""
        logger.info("%s %s; asked again in %.1f s", self._name, said, state.upcoming_sleep)

    async def _explained(self, trouble: _CallError) -> str:
        """The trouble on one line, with what to do about it."""
        said, status = trouble.said, trouble.status
        if isinstance(trouble, _PassingError):
            said += f", {self._attempts} attempts" if self._attempts > 1 else ""
            remedy = _remedy(status, said)
        elif status == 401 and not self._key:
            remedy = f"set the environment variable {self._key_name} to its key (endpoint.key=NAME names another)"
        elif status in (401, 403):
            remedy = f"the key in the environment variable {self._key_name} may not do this; use another"
        elif status == 404 or (status == 400 and "model" in said.lower()):
            remedy = await self._what_is_served(status)
        else:
            remedy = ""
        return f"{self._name} {said}" + (f"; {remedy}" if remedy else "")

    async def _what_is_served(self, status: int) -> str:
        try:
            async with asyncio.timeout(min(self._timeout_s, 10)):
                response = await self._client.get("/models", cast_to=httpx2.Response)
            names = [str(model["id"]) for model in response.json()["data"]]
        except (openai.APIError, aiohttp.ClientError, OSError, ValueError, LookupError, TypeError):
            names = []
        if names and self.model not in names:
            return self._clean(f"the server knows no model {self.model!r}; {nearest(self.model, names)}")
        return "check the URL: on most servers it ends in /v1" if status == 404 else ""

    def _clean(self, text: str) -> str:
        """Words of others for a message: on one line, of bounded length, without the key."""
        text = " ".join(text.encode("utf-8", "replace").decode().split())
        text = text.replace(self._key, "[key]") if self._key else text
        return text if len(text) <= 300 else f"{text[:299]}…"


def _remedy(status: int, said: str) -> str:
    if "Too many open files" in said:
        return "raise the limit of open files (ulimit -n) or lower pool.max_in_flight"
    if status == 429:
        return "ask less at once (pool.max_in_flight) or longer (endpoint.retries, endpoint.max_wait_s)"
    if status:
        return "see the server's log; endpoint.retries sets how often it is asked again"
    if "gave no answer" in said:
        return "raise endpoint.timeout_s, or ask less at once (pool.max_in_flight)"
    return "check that the server runs and that the URL is right"
