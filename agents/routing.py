"""Which replica a request goes to: the one with the fewest outstanding tokens, or one that has its beginning cached.

Plain arithmetic, called by pools for every request. What a reply says never depends on where it was made.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from agents.types import Completion, Request

SLACK_TOKENS = 2048.0
"""How far a replica that has a request's beginning may be ahead of the least loaded one and still be preferred."""
REMEMBERED = 16_384
"""Beginnings whose replica is known; the one not met for longest goes first."""
_WEIGHT = 0.02
"""Of a new observation in the running means."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where one request went, and what it was thought to cost."""

    replica: int
    tokens: float
    characters: int
    """Of its prompt that were not known as tokens."""


class Router:
    """Counts outstanding tokens and remembers who served which beginning. For one event loop."""

    def __init__(self, slack: float = SLACK_TOKENS, remembered: int = REMEMBERED):
        """
        Args:
            slack: in tokens.
            remembered: most beginnings kept in memory.
        """
        self.tokens: dict[int, float] = defaultdict(float)
        """Outstanding at each replica, prompts and expected replies."""
        self.requests: dict[int, int] = defaultdict(int)
        self._slack, self._remembered = slack, remembered
        self._homes: OrderedDict[int, int] = OrderedDict()
        self._characters_per_token = 4.0
        self._reply_tokens = 128.0

    def choose(self, request: Request, candidates: Sequence[int]) -> Route:
        """Pick a replica and count the request as outstanding there, until `finish`.

        Args:
            request: to be routed.
            candidates: replicas that may be asked, at least one.
        """
        characters = sum(len(message.content) for message in request.messages)
        if not request.prefix:
            characters += sum(len(message.content) for message in request.history)
        expected_reply = min(self._reply_tokens, request.sampling.max_tokens)
        tokens = len(request.prefix) + characters / self._characters_per_token + expected_reply
        opening = _opening(request)
        chosen = min(candidates, key=self.tokens.__getitem__)
        home = self._homes.get(hash((request.policy, request.prefix)), -1) if request.prefix else -1
        if home < 0:
            home = self._homes.get(opening, -1)
        if home in candidates and self.tokens[home] - self.tokens[chosen] <= self._slack:
            chosen = home
        # Already now: what is asked at the same moment is to find it too.
        self._remember(opening, chosen)
        self.tokens[chosen] += tokens
        self.requests[chosen] += 1
        return Route(chosen, tokens, characters)

    def finish(self, route: Route, request: Request, completion: Completion | None) -> None:
        """The request is no longer outstanding; `completion` is None when it was not answered."""
        at = route.replica
        self.requests[at] -= 1
        # Sums of fractions drift; an idle replica has nothing outstanding.
        self.tokens[at] = self.tokens[at] - route.tokens if self.requests[at] else 0.0
        if completion is None:
            return
        self._reply_tokens += _WEIGHT * (completion.completion_tokens - self._reply_tokens)
        read = completion.prompt_tokens - len(request.prefix)
        if read > 0 and route.characters > 0:
            self._characters_per_token += _WEIGHT * (route.characters / read - self._characters_per_token)
        if completion.token_ids:
            self._remember(hash((request.policy, completion.prompt_ids + completion.token_ids)), at)

    def _remember(self, beginning: int, replica: int) -> None:
        self._homes[beginning] = replica
        self._homes.move_to_end(beginning)
        if len(self._homes) > self._remembered:
            self._homes.popitem(last=False)


def _opening(request: Request) -> int:
    """Names how a conversation begins, up to its first user message: the same for all turns and all samples of it."""
    opening = []
    for message in (*request.history, *request.messages):
        opening.append((message.role, message.content))
        if message.role == "user":
            break
    return hash((request.policy, *opening))
