"""Replies held to a JSON schema while they are sampled: before each draw, tokens that would break it are ruled out.

The work is llguidance's: which tokens may come next is computed from the schema and the tokenizer, in Rust.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import llguidance
import llguidance.hf
import numpy as np
import torch
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from torch import Tensor

from agents.types import EngineError
from envs.errors import clip

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

# One spelling of white space: with any allowed, small models write nothing else.
_SPELLING: "JsonCompileOptions" = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Grammars:
    """Makes matchers over one tokenizer."""

    def __init__(self, tokenizer: Any, vocabulary: int, end_ids: Iterable[int]):
        """
        Args:
            tokenizer: a fast tokenizer of transformers.
            vocabulary: width of the model's logits.
            end_ids: token ids that end a reply.
        """
        try:
            self._tokenizer = llguidance.hf.from_tokenizer(tokenizer, vocabulary, sorted(end_ids))
        except ValueError as error:
            raise EngineError(f"replies of this model cannot be held to a schema: {error}") from None

    def matcher(self, schema: Mapping[str, Any]) -> llguidance.LLMatcher:
        """Follows one reply.

        Raises:
            EngineError: a schema that cannot be enforced.
        """
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_SPELLING)
        except ValueError as error:
            raise EngineError(f"the schema {clip(schema)} cannot be enforced: {error}") from None
        matcher = llguidance.LLMatcher(self._tokenizer, grammar)
        if matcher.is_error():
            raise EngineError(f"the schema {clip(schema)} cannot be enforced: {matcher.get_error()}")
        return matcher


def masked(logits: Tensor, matchers: Sequence[llguidance.LLMatcher | None]) -> Tensor:
    """Logits (B, V) with -inf for the tokens that a row's matcher rules out; rows without one stay as they are."""
    width = logits.shape[1]
    bits = allocate_token_bitmask(len(matchers), width)
    for row, matcher in enumerate(matchers):
        if matcher is not None:
            fill_next_token_bitmask(matcher, bits, row)
    allowed = np.unpackbits(bits.view(np.uint8), axis=1, count=width, bitorder="little").astype(bool)
    return logits.masked_fill(~torch.from_numpy(allowed).to(logits.device), float("-inf"))
