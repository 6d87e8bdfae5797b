"""The shapes of episodes: who is asked beside whom and after whom, how much is read and said. Words do not matter.

They come from a stored run (or a short one that is played for it), or from lengths alone.
"""

from collections.abc import Hashable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from itertools import groupby
from statistics import fmean, stdev

from envs.errors import ConfigError
from experiments.runs import Run
from graphs.turns import Episode, Turn

MOST_EPISODES = 512
"""Of a stored run that are read."""
ANYBODY = "*"
"""The role of calls of which only the number is known."""


@dataclass(frozen=True, slots=True)
class Call:
    """One model call."""

    id: str
    role: str
    prompt: int
    """Tokens, at least 1."""
    reply: int
    """Tokens, at least 1."""
    opening: Hashable = None
    """Names the prompt; calls on one task with the same have the same prompt."""
    reads: tuple[str, ...] = ()
    """Calls whose replies are part of this prompt."""
    follows: str | None = None
    """The call whose prompt and reply this prompt begins with."""


Shape = tuple[tuple[Call, ...], ...]
"""An episode: stages, one after another, of calls that are asked together."""


@dataclass(frozen=True)
class Shapes:
    """What episodes look like: `by_task[i][j]` is the j-th known episode of the i-th known task."""

    by_task: tuple[tuple[Shape, ...], ...]

    @property
    def calls(self) -> float:
        """A mean over episodes, as the next two."""
        return fmean(len(_calls(shape)) for shape in self._all())

    @property
    def prompt_tokens(self) -> float:
        return fmean(sum(call.prompt for call in _calls(shape)) for shape in self._all())

    @property
    def reply_tokens(self) -> float:
        return fmean(sum(call.reply for call in _calls(shape)) for shape in self._all())

    @property
    def longest(self) -> int:
        """Tokens of the longest call, prompt and reply."""
        return max(call.prompt + call.reply for shape in self._all() for call in _calls(shape))

    @property
    def doubt(self) -> float | None:
        """Standard error of the mean of an episode's tokens, as a share of it, over tasks; None where one is known."""
        tokens = [fmean(sum(c.prompt + c.reply for c in _calls(shape)) for shape in known) for known in self.by_task]
        return stdev(tokens) / len(tokens) ** 0.5 / fmean(tokens) if len(tokens) > 1 else None

    @property
    def roles(self) -> set[str]:
        return {call.role for shape in self._all() for call in _calls(shape)}

    def tokens(self, roles: Set[str]) -> float:
        """Prompts and replies of an episode's calls of some roles, a mean over episodes."""
        chosen = ([call for call in _calls(shape) if call.role in roles] for shape in self._all())
        return fmean(sum(call.prompt + call.reply for call in calls) for calls in chosen)

    def episode(self, task: int, sample: int) -> Shape:
        """A shape for any episode: the known ones in turn."""
        known = self.by_task[task % len(self.by_task)]
        # What is played on a task that was known already differs from it as much as its samples from one another.
        return known[(sample + task // len(self.by_task)) % len(known)]

    def scaled(self, prompt: float | None, reply: float | None) -> "Shapes":
        """With other mean lengths.

        Args:
            prompt: tokens of a call's prompt beside what it shows of other calls; None leaves them.
            reply: tokens of a reply; None leaves them. Prompts that show replies grow with them.
        """
        calls = [(call, _own(call, shape)) for shape in self._all() for call in _calls(shape)]
        prompts = 1.0 if prompt is None else prompt / fmean(own for _, own in calls)
        replies = 1.0 if reply is None else reply / fmean(call.reply for call, _ in calls)
        return Shapes(tuple(tuple(_scaled(shape, prompts, replies) for shape in known) for known in self.by_task))

    def _all(self) -> Iterator[Shape]:
        return (shape for known in self.by_task for shape in known)


def shapes_of(run: Run) -> Shapes:
    """The shapes of a run's episodes; of a large one the first.

    Raises:
        ConfigError: it has no model calls.
    """
    episodes = (episode for episode in run.episodes(limit=MOST_EPISODES) if episode.failure is None and episode.turns)
    grouped = groupby(episodes, key=lambda episode: episode.task.id)
    by_task = tuple(tuple(map(_shape, of_task)) for _, of_task in grouped)
    if not by_task:
        raise ConfigError(f"run {run.name} has no episode that ended and asked a model; name another run")
    return Shapes(by_task)


def uniform(calls: int, prompt: int, reply: int) -> Shapes:
    """Shapes by lengths alone: so many calls of one role, one after another."""
    return Shapes((((tuple((Call(f"{ANYBODY}/{n}", ANYBODY, prompt, reply),) for n in range(calls))),),))


def _shape(episode: Episode) -> Shape:
    stages = groupby(sorted(episode.turns, key=lambda turn: turn.after), key=lambda turn: turn.after)
    return tuple(tuple(_call(turn) for turn in stage) for _, stage in stages)


def _call(turn: Turn) -> Call:
    opening = hash(turn.prompt_ids or tuple(message.content for message in turn.messages))
    prompt, reply = max(1, turn.prompt_tokens), max(1, turn.completion_tokens)
    return Call(turn.id, turn.role, prompt, reply, opening, turn.reads, turn.follows)


def _calls(shape: Shape) -> Sequence[Call]:
    return [call for stage in shape for call in stage]


def _own(call: Call, shape: Shape) -> int:
    """Tokens of a prompt that are not other calls' words."""
    known = {other.id: other for other in _calls(shape)}
    shown = sum(known[id].reply for id in call.reads if id in known)
    if before := known.get(call.follows or ""):
        shown += before.prompt + before.reply
    return max(1, call.prompt - shown)


def _scaled(shape: Shape, prompts: float, replies: float) -> Shape:
    made: dict[str, Call] = {}
    stages = []
    for stage in shape:
        calls = []
        for call in stage:
            shown = sum(made[id].reply for id in call.reads if id in made)
            if before := made.get(call.follows or ""):
                shown += before.prompt + before.reply
            prompt = shown + max(1, round(_own(call, shape) * prompts))
            calls.append(replace(call, prompt=prompt, reply=max(1, round(call.reply * replies))))
        made |= {call.id: call for call in calls}
        stages.append(tuple(calls))
    return tuple(stages)
