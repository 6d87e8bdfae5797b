"""Chat messages to token ids, and the exact continuation of a conversation from the ids that were sampled."""

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from agents.types import EngineError, Message
from envs.errors import ConfigError

_MARK = "\x02reply\x03"


class ChatTokenizer:
    """A Hugging Face tokenizer with a chat template, made safe for other models' words.

    Special tokens written in a message's text are broken up first, so that no reply can end its own message or open
    another one in somebody's prompt with them. Markers that are plain text to the tokenizer (`[INST]` in some models)
    are left as they are.
    """

    def __init__(self, tokenizer: Any, where: str, end_ids: Iterable[int] = ()):
        """
        Args:
            tokenizer: of transformers.
            where: names it in messages.
            end_ids: token ids that end a reply beside the tokenizer's own.
        """
        if not getattr(tokenizer, "chat_template", None):
            raise ConfigError(f"{where} has no chat template; save one with the tokenizer (tokenizer.chat_template)")
        self.tokenizer = tokenizer
        own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        self.end_ids = frozenset([*own, *end_ids])

    def encode(
        self, messages: Sequence[Message], prefix: Sequence[int] = (), history: Sequence[Message] = ()
    ) -> list[int]:
        """Token ids of a prompt that ends where the assistant's reply begins.

        Args:
            messages: the whole conversation, or what follows `prefix`.
            prefix: ids of an earlier prompt and its completion, kept as they are: nothing is tokenised again.
            history: the messages behind `prefix`.
        """
        if not prefix:
            return self._ids(self._render([*history, *messages], add_generation_prompt=True))
        # What the template puts after any reply is read off a conversation with a marked one.
        stub = [Message("user", "."), Message("assistant", _MARK), *messages]
        tail = self._render(stub, add_generation_prompt=True).partition(_MARK)[2]
        if prefix[-1] in self.end_ids:
            tail = tail.removeprefix(self.tokenizer.decode([prefix[-1]]))
        return [*prefix, *self._ids(tail)]

    def decode(self, ids: Sequence[int]) -> str:
        ids = ids[:-1] if len(ids) and ids[-1] in self.end_ids else ids
        return self.tokenizer.decode(ids, skip_special_tokens=False)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        plain = [{"role": m.role, "content": self._defused(m.content)} for m in messages]
        try:
            return self._apply(plain, add_generation_prompt)
        except TemplateError:
            if len(plain) < 2 or plain[0]["role"] != "system":
                raise EngineError(f"the chat template refuses the roles {[m.role for m in messages]}") from None
            # Some templates know no system role: its words then open the first user message.
            merged = {"role": "user", "content": f"{plain[0]['content']}\n\n{plain[1]['content']}"}
            return self._apply([merged, *plain[2:]], add_generation_prompt)

    def _apply(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        return self.tokenizer.apply_chat_template(messages, add_generation_prompt=add_generation_prompt, tokenize=False)

    def _defused(self, text: str) -> str:
        return self._special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text) if self._special else text

    @cached_property
    def _special(self) -> re.Pattern[str] | None:
        tokens = [t.content for t in self.tokenizer.added_tokens_decoder.values() if t.special and len(t.content) > 1]
        return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True)))) if tokens else None
