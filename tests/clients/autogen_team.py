"""Two AutoGen agents, as AutoGen's users write them: a solver with a tool, and a critic that ends the talk.

Run as a program of its own: BASE_URL API_KEY QUESTION; prints the last message.
"""

import asyncio
import sys

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.conditions import TextMentionTermination
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core.models import ModelFamily, ModelInfo
from autogen_ext.models.openai import OpenAIChatCompletionClient


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def client(model: str, base_url: str, api_key: str) -> OpenAIChatCompletionClient:
    info = ModelInfo(
        vision=False, function_calling=True, json_output=True, family=ModelFamily.UNKNOWN, structured_output=True
    )
    return OpenAIChatCompletionClient(model=model, base_url=base_url, api_key=api_key, model_info=info)


async def main(base_url: str, api_key: str, question: str) -> None:
    solver = AssistantAgent(
        "solver", client("solver", base_url, api_key), tools=[add], reflect_on_tool_use=True, model_client_stream=True
    )
    critic = AssistantAgent(
        "critic", client("critic", base_url, api_key), system_message="Say APPROVE, or what is wrong."
    )
    team = RoundRobinGroupChat([solver, critic], termination_condition=TextMentionTermination("APPROVE"), max_turns=4)
    result = await team.run(task=question)
    print(next(m.to_text() for m in reversed(result.messages) if m.source == "solver"))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
