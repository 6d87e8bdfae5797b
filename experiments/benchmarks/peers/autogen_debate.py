"""The debate with AutoGen's agents, as its users write it. Not part of the package: it runs in .venv-peers.

BASE_URL CONCURRENCY; debates on stdin, as the endpoint benchmark writes them; prints CPU seconds. The agents keep their
own conversations, so that of each call only what is new in it is told them.
"""

import asyncio
import json
import sys
import time
from typing import Any

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.messages import TextMessage
from autogen_core import CancellationToken
from autogen_core.models import ModelFamily, ModelInfo
from autogen_ext.models.openai import OpenAIChatCompletionClient


def client(base_url: str, model: str) -> OpenAIChatCompletionClient:
    info = ModelInfo(
        vision=False, function_calling=True, json_output=True, family=ModelFamily.UNKNOWN, structured_output=True
    )
    settings: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 512, "seed": 7, "max_retries": 0}
    return OpenAIChatCompletionClient(model=model, base_url=base_url, api_key="none", model_info=info, **settings)


async def play(llm: OpenAIChatCompletionClient, debates: list[Any], concurrency: int) -> None:
    waiting = iter(debates)

    async def worker() -> None:
        for first, second, decision in waiting:
            debaters = [_agent(f"debater_{i}", llm, call) for i, call in enumerate(first)]
            for calls in (first, second):
                await asyncio.gather(*(_ask(*pair) for pair in zip(debaters, calls, strict=True)))
            await _ask(_agent("judge", llm, decision[0]), decision[0])

    await asyncio.gather(*(worker() for _ in range(concurrency)))


def _agent(name: str, llm: OpenAIChatCompletionClient, call: dict[str, Any]) -> AssistantAgent:
    first = call["messages"][0]
    return AssistantAgent(name, llm, system_message=first["content"] if first["role"] == "system" else None)


async def _ask(agent: AssistantAgent, call: dict[str, Any]) -> None:
    said = TextMessage(content=call["messages"][-1]["content"], source="user")
    response = await agent.on_messages([said], CancellationToken())
    assert isinstance(response.chat_message, TextMessage) and response.chat_message.content


async def main(base_url: str, concurrency: int) -> None:
    debates = json.load(sys.stdin)
    llm = client(base_url, debates[0][0][0]["model"])
    await play(llm, debates[:20], concurrency)
    before = time.process_time()
    await play(llm, debates, concurrency)
    print(time.process_time() - before)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
