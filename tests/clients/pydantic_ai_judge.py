"""A pydantic-ai agent with a tool and a typed answer.

Run as a program of its own: BASE_URL API_KEY QUESTION; prints the answer.
"""

import sys

from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


class Sum(BaseModel):
    total: int


def main(base_url: str, api_key: str, question: str) -> None:
    model = OpenAIChatModel("solver", provider=OpenAIProvider(base_url=base_url, api_key=api_key))
    agent = Agent(model, output_type=Sum, instructions="Add with the tool.")

    @agent.tool_plain
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    print(agent.run_sync(question).output.total)


if __name__ == "__main__":
    main(*sys.argv[1:4])
