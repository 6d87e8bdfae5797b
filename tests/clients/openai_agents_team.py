"""A team of the OpenAI Agents SDK: triage hands over to a solver, who has a tool and answers in a type.

Run as a program of its own: BASE_URL API_KEY QUESTION; prints the answer.
"""

import asyncio
import sys

from openai import AsyncOpenAI

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)


@function_tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def main(base_url: str, api_key: str, question: str) -> None:
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=base_url, api_key=api_key)
    solver = Agent(
        name="Solver",
        instructions="Add with the tool.",
        model=OpenAIChatCompletionsModel("solver", client),
        tools=[add],
        model_settings=ModelSettings(temperature=0.5),
    )
    triage = Agent(name="Triage", handoffs=[solver], model=OpenAIChatCompletionsModel("critic", client))
    result = Runner.run_streamed(triage, question)
    async for _ in result.stream_events():
        pass
    print(result.final_output)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
