"""Choices: a reply picked from a few by its log-probability, each read by the model in one pass."""

import math
from collections.abc import Sequence

from agents.engines.chat import ChatTokenizer
from agents.types import Completion, EngineError, Request


class Choices:
    """The token ids of a request's choices, and what comes of their scores."""

    def __init__(self, chat: ChatTokenizer, request: Request, context: int):
        """
        Args:
            chat: of the model.
            request: with choices.
            context: tokens of the model's context.

        Raises:
            EngineError: choices that do not differ in their tokens, or that are too long.
        """
        self._request = request
        self.ids = [chat.encode_request(request, choice) for choice in request.choices]
        if len({*map(tuple, self.ids)}) < len(self.ids) or max(map(len, self.ids)) >= context:
            raise EngineError(
                f"the choices {request.choices} of {request.key} must differ in their tokens and fit the context of "
                f"{context} tokens"
            )
        together = zip(*self.ids, strict=False)
        self.start = next((i for i, column in enumerate(together) if len(set(column)) > 1), min(map(len, self.ids)))
        """Tokens that all choices begin with; from here on they are scored."""

    def completion(self, logprobs: Sequence[Sequence[float]], policy: str, version: str) -> Completion:
        """
        Args:
            logprobs: of each choice, for each of its tokens from `start` on.
            policy: that scored them.
            version: of its weights.
        """
        totals = tuple(map(math.fsum, logprobs))
        best = max(range(len(totals)), key=totals.__getitem__)
        return Completion(
            text=self._request.choices[best],
            finish="stop",
            policy=policy,
            version=version,
            choice_logprobs=totals,
            prompt_tokens=sum(map(len, self.ids)),
        )
