"""A server of the chat-completions protocol that answers at once: `python -m experiments.benchmarks.loopback`.

It prints its port and serves until it is stopped. Replies are made for a debate of `a`, `b` and `c` that never agree:
whoever is told MARK answers 7, all others 8, a judge chooses A. The model `ids` gives token ids and log-probabilities
as vLLM does. Requests are not parsed beyond what this needs, so that the server keeps ahead of its clients.
"""

import asyncio
import json

MARK = "You are the first debater."
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_STEPS = "First I add the two numbers in the brackets, which gives 5.\nThen I add 2 to it.\n"
TEXTS = {"judge": f"{_STEPS}Verdict: A", "first": f"{_STEPS}\\boxed{{7}}", "other": f"{_STEPS}\\boxed{{8}}"}


def _reply(model: str, text: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", "logprobs": None}
    reply = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": model,
        "choices": [choice],
        "usage": {"prompt_tokens": 60, "completion_tokens": 40, "total_tokens": 100},
        "system_fingerprint": "loopback",
    }
    if model == "ids":
        words = [{"token": "word", "logprob": -0.123456, "bytes": [119, 111], "top_logprobs": []} for _ in range(40)]
        reply["prompt_token_ids"] = list(range(60))
        reply["choices"] = [{**choice, "token_ids": list(range(40)), "logprobs": {"content": words}}]
    body = json.dumps(reply).encode()
    return _HEAD % len(body) + body


_REPLIES = {(model, who): _reply(model, text) for model in ("plain", "ids") for who, text in TEXTS.items()}


class _Answering(asyncio.Protocol):
    """One connection; requests come one after another."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self._waiting = transport, b""

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        while (end := self._waiting.find(b"\r\n\r\n")) >= 0:
            length = int(self._waiting[:end].lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            if len(self._waiting) < end + 4 + length:
                return
            body, self._waiting = self._waiting[end + 4 : end + 4 + length], self._waiting[end + 4 + length :]
            who = "judge" if b"Verdict: A" in body else "first" if MARK.encode() in body else "other"
            self._transport.write(_REPLIES["ids" if b'"ids"' in body else "plain", who])


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Answering, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
