"""How agents speak: one LangGraph topology a file, over the moves of `agents` and the state that they share.

`table.speak` asks roles, `play` plays one episode, `turns` holds what is recorded. `chat_model` is a role for graphs
that know nothing of all this, `python_tool` a tool for them.
"""

from graphs.chat_model import RoleModel, chat_model
from graphs.mad import mad
from graphs.merge import gsa, universal
from graphs.play import play
from graphs.pose import pose
from graphs.python_tool import python_tool
from graphs.refine import actor_critic, friction, self_debug, self_refine
from graphs.selforg import selforg
from graphs.shapes import chain, loop
from graphs.society import society
from graphs.solo import solo
from graphs.spc import spc, spc_pairs
from graphs.step_search import step_search
from graphs.stepwise import judge_steps, stepwise
from graphs.table import Ask, Stage, Table, count_votes, judge, merge_turns, plurality, revise, solve, speak
from graphs.tool_use import tool_use
from graphs.topology import Builder, Graph, Topology, build, fit, load_function, topology
from graphs.turns import Episode, Failure, Turn
from graphs.verify import verify_refine
from graphs.vote import vote
from graphs.votes import best_of_n, certainty, collective, fobar, p_true, rpc

TOPOLOGIES: dict[str, Builder] = {
    function.__name__: function
    for function in (
        *(solo, vote, certainty, rpc, p_true, fobar, best_of_n, universal, gsa, collective),
        *(self_refine, actor_critic, stepwise, step_search, self_debug, friction, verify_refine),
        *(society, mad, selforg, tool_use),
        *(spc, spc_pairs, judge_steps, pose),
    )
}

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
    "actor_critic",
    "best_of_n",
    "build",
    "certainty",
    "chain",
    "chat_model",
    "collective",
    "count_votes",
    "fit",
    "fobar",
    "friction",
    "gsa",
    "judge",
    "judge_steps",
    "load_function",
    "loop",
    "mad",
    "merge_turns",
    "p_true",
    "play",
    "plurality",
    "pose",
    "python_tool",
    "revise",
    "rpc",
    "self_debug",
    "self_refine",
    "selforg",
    "society",
    "solo",
    "solve",
    "spc",
    "spc_pairs",
    "speak",
    "step_search",
    "stepwise",
    "tool_use",
    "topology",
    "universal",
    "verify_refine",
    "vote",
]
