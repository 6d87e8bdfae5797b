"""How agents speak: one LangGraph topology a file, over the moves of `agents` and the state that they share.

`table.speak` asks roles, `play` plays one episode, `turns` holds what is recorded. `chat_model` is a role for graphs
that know nothing of all this.
"""

from graphs.chat_model import RoleModel, chat_model
from graphs.mad import mad
from graphs.play import play
from graphs.society import society
from graphs.solo import solo
from graphs.table import Ask, Stage, Table, count_votes, judge, merge_turns, plurality, revise, solve, speak
from graphs.topology import Builder, Graph, Topology, build, load_function, topology
from graphs.turns import Episode, Failure, Turn
from graphs.vote import vote

TOPOLOGIES: dict[str, Builder] = {"solo": solo, "vote": vote, "society": society, "mad": mad}

__all__ = [
    "TOPOLOGIES",
    "Ask",
    "Builder",
    "Episode",
    "Failure",
    "Graph",
    "RoleModel",
    "Stage",
    "Table",
    "Topology",
    "Turn",
    "build",
    "chat_model",
    "count_votes",
    "judge",
    "load_function",
    "mad",
    "merge_turns",
    "play",
    "plurality",
    "revise",
    "society",
    "solo",
    "solve",
    "speak",
    "topology",
    "vote",
]
