"""The debate in LangGraph with ChatOpenAI, as its users write it. Not part of the package: it runs in .venv-peers.

BASE_URL CONCURRENCY; debates on stdin, as the endpoint benchmark writes them; prints CPU seconds.
"""

import asyncio
import json
import operator
import sys
import time
from typing import Annotated, Any, TypedDict

from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph


class State(TypedDict):
    supersteps: list[list[dict[str, Any]]]
    replies: Annotated[list[str], operator.add]


def debate(base_url: str, model: str) -> Any:
    llm = ChatOpenAI(model=model, base_url=base_url, api_key="none", max_tokens=512, max_retries=0)

    def asks(superstep: int) -> Any:
        async def node(state: State) -> dict[str, Any]:
            calls = state["supersteps"][superstep]
            said = await asyncio.gather(
                *(llm.ainvoke(call["messages"], temperature=call["temperature"], seed=call["seed"]) for call in calls)
            )
            return {"replies": [message.text for message in said]}

        return node

    async def after(state: State) -> str:
        return "decide"

    graph = StateGraph(State)
    for superstep, name in enumerate(("propose", "rebut", "decide")):
        graph.add_node(name, asks(superstep))
    graph.add_edge(START, "propose")
    graph.add_edge("propose", "rebut")
    graph.add_conditional_edges("rebut", after, ["decide"])
    graph.add_edge("decide", END)
    return graph.compile()


async def play(graph: Any, debates: list[Any], concurrency: int) -> None:
    waiting = iter(debates)

    async def worker() -> None:
        for supersteps in waiting:
            end = await graph.ainvoke({"supersteps": supersteps, "replies": []})
            assert len(end["replies"]) == 7

    await asyncio.gather(*(worker() for _ in range(concurrency)))


async def main(base_url: str, concurrency: int) -> None:
    debates = json.load(sys.stdin)
    graph = debate(base_url, debates[0][0][0]["model"])
    await play(graph, debates[:20], concurrency)
    before = time.process_time()
    await play(graph, debates, concurrency)
    print(time.process_time() - before)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
