"""A team that solves word problems, as somebody who has never heard of Palaestra would write it with LangGraph.

A planner splits the problem into sums; a worker for each does its sum with the tools; a writer puts the solution
together; a reviewer sends it back to the writer until it will do. Two lines are not as they were: those that make the
model.
"""

import operator
from typing import Annotated, Any, Literal

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, RetryPolicy, Send
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from graphs import chat_model  # it was: from langchain_openai import ChatOpenAI

model = chat_model("team", temperature=0.7)  # it was: model = ChatOpenAI(model="gpt-5-mini", temperature=0.7)

MAX_DRAFTS = 3


# ---- tools ----


@tool
def add(a: float, b: float) -> float:
    """Add two numbers."""
    return a + b


@tool
def subtract(a: float, b: float) -> float:
    """Subtract b from a."""
    return a - b


@tool
def multiply(a: float, b: float) -> float:
    """Multiply two numbers."""
    return a * b


@tool
def divide(a: float, b: float) -> float:
    """Divide a by b."""
    return a / b


TOOLS = [add, subtract, multiply, divide]


# ---- what the model fills in ----


class Plan(BaseModel):
    """The sums that a problem asks for."""

    sums: list[str] = Field(description="each in words, in order, with all numbers that it needs", max_length=4)


class Review(BaseModel):
    """What a reviewer thinks of a solution."""

    grade: Literal["good", "bad"]
    advice: str = Field(description="what to mend, when it is bad")


# ---- state ----


class Finding(TypedDict):
    place: int
    text: str


class TeamState(MessagesState):
    plan: list[str]
    findings: Annotated[list[Finding], operator.add]
    drafts: Annotated[list[str], operator.add]
    advice: str


class WorkerState(MessagesState):
    place: int
    findings: Annotated[list[Finding], operator.add]


class WorkerOutput(TypedDict):
    findings: Annotated[list[Finding], operator.add]


# ---- the worker: a graph of its own, one for each sum ----

WORKER = SystemMessage("You do one sum. Use the tools for every calculation, then state the result in one sentence.")


async def calculate(state: WorkerState) -> dict:
    reply = await model.bind_tools(TOOLS).ainvoke([WORKER, *state["messages"]])
    return {"messages": [reply]}


def report(state: WorkerState) -> dict:
    return {"findings": [Finding(place=state["place"], text=state["messages"][-1].text)]}


def make_worker():
    worker = StateGraph(WorkerState, output_schema=WorkerOutput)
    worker.add_node("calculate", calculate)
    worker.add_node("tools", ToolNode(TOOLS))
    worker.add_node("report", report)
    worker.add_edge(START, "calculate")
    worker.add_conditional_edges("calculate", tools_condition, {"tools": "tools", END: "report"})
    worker.add_edge("tools", "calculate")
    worker.add_edge("report", END)
    return worker.compile()


# ---- the team ----


def problem(state: TeamState) -> str:
    return state["messages"][0].text


async def plan(state: TeamState) -> dict:
    planner = model.with_structured_output(Plan)
    made: Any = await planner.ainvoke(
        [
            SystemMessage("You split problems into sums that can be done one by one. You do none of them yourself."),
            HumanMessage(problem(state)),
        ]
    )
    return {"plan": made.sums}


def hand_out(state: TeamState) -> list[Send] | Literal["write"]:
    """One worker for each sum; none when there is nothing to calculate."""
    tasks = [
        Send("worker", {"place": place, "messages": [HumanMessage(f"{problem(state)}\n\nYour sum: {asked}")]})
        for place, asked in enumerate(state["plan"])
    ]
    return tasks or "write"


def write(state: TeamState) -> dict:
    """A node that is not async: LangGraph runs it in a thread."""
    found = sorted(state.get("findings", []), key=lambda finding: finding["place"])
    notes = "\n".join(f"- {finding['text']}" for finding in found) or "- nothing"
    request = f"{problem(state)}\n\nYour colleagues found:\n{notes}"
    if state.get("drafts"):
        request += f"\n\nYour last draft:\n{state['drafts'][-1]}\n\nThe reviewer asks you to mend it: {state['advice']}"
    draft = model.invoke(
        [SystemMessage("You write short solutions that others can check."), HumanMessage(request)],
    )
    return {"drafts": [draft.text]}


async def review(state: TeamState) -> Command[Literal["write", "publish"]]:
    """Good drafts are published, and so is the last one."""
    reviewer = model.with_structured_output(Review)
    judged: Any = await reviewer.ainvoke(
        [
            SystemMessage("You review solutions: is every step right, and is the answer marked as asked for?"),
            HumanMessage(f"{problem(state)}\n\nThe solution:\n{state['drafts'][-1]}"),
        ]
    )
    if judged.grade == "good" or len(state["drafts"]) >= MAX_DRAFTS:
        return Command(goto="publish")
    return Command(goto="write", update={"advice": judged.advice})


def publish(state: TeamState) -> dict:
    return {"messages": [{"role": "ai", "content": state["drafts"][-1]}]}


def make_team():
    team = StateGraph(TeamState)
    team.add_node("plan", plan, retry_policy=RetryPolicy(max_attempts=2, retry_on=ValueError))
    team.add_node("worker", make_worker())
    team.add_node("write", write)
    team.add_node("review", review)
    team.add_node("publish", publish)
    team.add_edge(START, "plan")
    team.add_conditional_edges("plan", hand_out, ["worker", "write"])
    team.add_edge("worker", "write")
    team.add_edge("write", "review")
    team.add_edge("publish", END)
    return team.compile()


graph = make_team()
