"""How often each move is learned from, in each phase of a build."""

from typing import Literal

MIX = {
    "solve": 0.17,
    "critique": 0.12,
    "judge": 0.11,
    "sabotage": 0.07,
    "revise": 0.07,
    "propose": 0.07,
    "tool": 0.06,
    "advocate": 0.05,
    "moderate": 0.04,
    "extract": 0.02,
    "review": 0.07,
    "refine": 0.04,
    "choose": 0.02,
    "aggregate": 0.03,
    "ask_back": 0.04,
    "check_review": 0.02,
}
FIRST_MIX = {"solve": 0.25, "critique": 0.40, "judge": 0.25, "sabotage": 0.05, "tool": 0.05}
"""Until verdicts are learned: comparing one's own result with another's takes many short examples to begin with."""
LAST_MIX = {
    "solve": 0.08,
    "critique": 0.08,
    "judge": 0.09,
    "sabotage": 0.05,
    "revise": 0.13,
    "propose": 0.06,
    "tool": 0.06,
    "advocate": 0.10,
    "moderate": 0.07,
    "extract": 0.04,
    "review": 0.07,
    "refine": 0.05,
    "choose": 0.02,
    "aggregate": 0.03,
    "ask_back": 0.04,
    "check_review": 0.03,
}
"""At last: solving is learned by then, and holding on to it in the midst of others' solutions takes longest."""
POLISH_MIX = {
    "solve": 0.06,
    "critique": 0.40,
    "judge": 0.08,
    "sabotage": 0.04,
    "revise": 0.06,
    "propose": 0.03,
    "tool": 0.03,
    "advocate": 0.04,
    "moderate": 0.02,
    "extract": 0.01,
    "review": 0.10,
    "refine": 0.04,
    "choose": 0.01,
    "aggregate": 0.01,
    "ask_back": 0.01,
    "check_review": 0.06,
}
"""In the end, at a low rate: verdicts, which may still be at a coin's level when all else is learned."""
Phase = Literal["first", "main", "last", "polish"]
MIXES: dict[Phase, dict[str, float]] = {"first": FIRST_MIX, "main": MIX, "last": LAST_MIX, "polish": POLISH_MIX}
