"""Who speaks: engines, replicas, pools, and the cast of roles.

Imports nothing of ours but envs.types and envs.errors.
"""

from agents.cast import Cast, Seat
from agents.company import Company, open_company
from agents.engines.scripted import ReplayEngine, ScriptedEngine
from agents.moves import Move
from agents.types import Completion, Engine, EngineError, Message, Request, Sampling

__all__ = [
    "Cast",
    "Company",
    "Completion",
    "Engine",
    "EngineError",
    "Message",
    "Move",
    "ReplayEngine",
    "Request",
    "Sampling",
    "ScriptedEngine",
    "Seat",
    "open_company",
]
