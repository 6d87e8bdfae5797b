"""The recipes by name, and how one of your own is found."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from envs.errors import ConfigError, clip, unknown
from envs.sandbox.tool import LIMITS
from experiments.credit import Credit
from experiments.training import agent0, critique_loop, spc
from experiments.training.recipe import Exam, Recipe, adpo, imitation, policy_gradient, preferences
from graphs import load_function
from graphs.pose import SOLVER
from graphs.tool_use import TOOL_SOLVER

FROZEN = Path(__file__).with_name("steps-level8.jsonl")
"""Solutions of the embedded model with their first wrong steps: what critics are measured on."""


def _gradient(name: str, loss: str, advantage: str) -> Recipe:
    return Recipe(name, policy_gradient, loss, schedule={"advantage": advantage})


_GAME = {
    "env.level": 8,
    "policy.rank": 32,
    "critic.policy": "critic",
    "sneaky.policy": "sneaky",
    "sneak": "continue",
    # Far below the adapters' usual rate, and falling: what is learned from once and for all must not be overlearned.
    "trainer.learning_rate": 7e-4,
    "trainer.decay": True,
}
SPC = Recipe(
    "spc",
    spc.rounds,
    "spc",
    spc.rewards,
    {
        "iterations": 2,
        "tasks": 700,
        "samples": 1,
        "epochs": 2,
        "minibatch": 64,
        "roles": "critic,sneaky",
        # The released code takes the rewards as they are (advantage=raw); the paper subtracts a baseline.
        "advantage": "reinforce++",
        "group": "role",
        "restart": True,
        "buffer": True,
        "mix_first": True,
        "evaluate_every": 1,
        "validation_samples": 1,
        "test_tasks": 900,
        "test_samples": 2,
        "match_tasks": 240,
        "keep": "all",
    },
    topology="spc",
    env="arithmetic",
    settings={**_GAME, "sabotages": 4, "critiques": 2, "solutions": 6},
    exam=Exam("judge_steps", "steps", {"env.path": str(FROZEN), "env.ask": "step", "env.validation": 0.25}),
    stages={
        "first": Recipe(
            "spc_first",
            spc.pairs,
            "sft",
            spc.first_rewards,
            {
                "iterations": 1,
                "tasks": 100,
                "samples": 1,
                "epochs": 2,
                "minibatch": 64,
                "roles": "critic,sneaky",
                "evaluate_every": 0,
                "test_tasks": 0,
            },
            topology="spc_pairs",
            env="arithmetic",
            settings={**_GAME, "trainer.learning_rate": 5e-4},
        )
    },
    rules=spc.Meetings(),
)
CRITIQUE_LOOP = Recipe(
    "critique_loop",
    critique_loop.mending,
    "sft",
    critique_loop.rewards,
    {
        "iterations": 3,
        "tasks": 200,
        "samples": 5,
        "epochs": 2,
        "minibatch": 32,
        "roles": "solver,reviewer",
        "restart": True,
        "buffer": True,
        "evaluate_every": 1,
        "test_samples": 4,
    },
    topology="actor_critic",
    settings={
        "env.level": 6,
        "lanes": 1,
        "judged": True,
        "policy.rank": 32,
        "solver.policy": "solver",
        "reviewer.policy": "reviewer",
        # At the adapters' usual rate the few rows of an iteration are overlearned.
        "trainer.learning_rate": 5e-4,
    },
    exam=Exam("solo"),
)


def _co_evolution(name: str, tool: bool) -> Recipe:
    """Agent0, or without the tool R-Zero."""
    solver, topology = (TOOL_SOLVER, "tool_use") if tool else (SOLVER, "solo")
    protocol: dict[str, Any] = {}
    if tool:
        protocol = {"turns": 12, "form": "text", "sandbox": "monty", "workers": 2}
        protocol |= {"seconds": LIMITS.seconds, "memory_mb": LIMITS.memory_mb}
    reward = {"reward": "paper", "tool_reward": None, "repetition": None, "own_answer": None}
    posed = {"answers": 10, "tool": tool, **protocol}
    roles = {"policy.rank": 32, "proposer.policy": "proposer", f"{solver}.policy": "executor"}
    once = {"evaluate_every": 0, "test_tasks": 0, "advantage": "grpo_unbiased"}

    def solver_learns(name: str, iterations: int, tasks: int) -> Recipe:
        schedule = {"iterations": iterations, "tasks": tasks, "samples": 8, "roles": solver, **once}
        own = {"policy.rank": 32, f"{solver}.policy": "executor", **protocol, "trainer.learning_rate": 7e-4}
        return Recipe(name, adpo, "adpo", schedule=schedule, topology=topology, env="pool", settings=own)

    return Recipe(
        name,
        agent0.rewarded,
        schedule={
            "iterations": 2,
            "questions": 500,
            "test_tasks": 300,
            "test_samples": 2,
            "evaluate_every": 0,
            "validation_tasks": 40,
            "validation_samples": 2,
        },
        topology="pose",
        env="proposals",
        settings={**roles, **posed, **reward},
        exam=Exam(topology, "arithmetic", {"env.level": 7, **protocol}),
        stages={
            "curriculum": Recipe(
                "curriculum",
                agent0.rewarded,
                schedule={"iterations": 4, "tasks": 8, "samples": 4, "roles": "proposer", **once},
                topology="pose",
                env="proposals",
                settings={
                    **roles,
                    **posed,
                    **reward,
                    "trainer.learning_rate": 1e-3,
                    "loss.beta": 0.01,
                    "loss.clip_high": 0.3,
                },
            ),
            "executor": solver_learns("executor", 16, 16),
            # Of grounded rewards alone.
            "student": solver_learns("student", 2, 4),
        },
        conduct=agent0.CoEvolution(),
    )


RECIPES: Mapping[str, Recipe] = {
    "grpo": _gradient("grpo", "grpo", "grpo"),
    "reinforce++": _gradient("reinforce++", "reinforce++", "reinforce++"),
    "rloo": _gradient("rloo", "rloo", "rloo"),
    "rft": Recipe("rft", imitation, "sft", replays=True),
    "sft": Recipe("sft", imitation, "sft", from_run=True),
    "dpo": Recipe("dpo", preferences, "dpo", replays=True),
    "critique_loop": CRITIQUE_LOOP,
    "spc": SPC,
    "agent0": _co_evolution("agent0", tool=True),
    "r_zero": _co_evolution("r_zero", tool=False),
}
LINES = {
    "grpo": "advantages over the attempts at one task, clipped ratios, a KL penalty",
    "reinforce++": "advantages over the whole batch, for each role",
    "rloo": "advantages over the task's other attempts",
    "rft": "what was rewarded is learned by heart",
    "sft": "what was rewarded in a stored run is learned by heart (--set data=RUN)",
    "dpo": "of two replies to one prompt the better is preferred",
    "critique_loop": "solutions that are right, at once or mended, and the critiques that mended them, by heart",
    "spc": "a sneaky generator and a critic play against each other, in rounds",
    "agent0": "a proposer and a solver with a tool learn from each other, without data",
    "r_zero": "the same without the tool",
}


def find_recipe(recipe: str | Credit | Recipe) -> Recipe:
    """The recipe of a name, or grpo with a credit function of one's own (`module:function`, or the function).

    Raises:
        ConfigError: there is none, or what is named is neither.
    """
    if isinstance(recipe, str):
        if ":" not in recipe:
            if recipe not in RECIPES:
                raise unknown("recipe", recipe, [*RECIPES, "module:function"])
            return RECIPES[recipe]
        found: Any = load_function(recipe, "recipe", also=(Recipe,))
        return found if isinstance(found, Recipe) else replace(RECIPES["grpo"], name=recipe, credit=found)
    if isinstance(recipe, Recipe):
        return recipe
    if not callable(recipe):
        raise ConfigError(f"expected a recipe's name, a Recipe or a credit function, found {clip(recipe)}")
    return replace(RECIPES["grpo"], name=getattr(recipe, "__name__", "credit"), credit=recipe)
