"""Chat messages to token ids, and the exact continuation of a conversation from the ids that were sampled."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from agents.engines.tools import call_id, split_tool_calls
from agents.types import EngineError, Message, Request, ToolCall
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
        self.tokenizer, self._where = tokenizer, where
        own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        self.end_ids = frozenset([*own, *end_ids])

    def encode(
        self,
        messages: Sequence[Message],
        prefix: Sequence[int] = (),
        history: Sequence[Message] = (),
        tools: Sequence[Mapping[str, Any]] = (),
        opening: str = "",
    ) -> list[int]:
        """Token ids of a prompt that ends where the assistant's reply begins.

        Args:
            messages: the whole conversation, or what follows `prefix`.
            prefix: ids of an earlier prompt and its completion, kept as they are: nothing is tokenised again.
            history: the messages behind `prefix`.
            tools: that the model may call; behind `prefix` they were shown already.
            opening: the beginning of the reply.

        Raises:
            EngineError: tools for a chat template that shows none: the model would never hear of them.
        """
        if tools and "tools" not in self.tokenizer.chat_template:
            raise EngineError(
                f"the chat template of {self._where} shows no tools; take a model that was trained on them"
            )
        begun = self.encode_text(opening) if opening else []
        if not prefix:
            rendered = self._render([*history, *messages], add_generation_prompt=True, tools=tools)
            return [*self._ids(rendered), *begun]
        # What the template puts after any reply is read off a conversation with a marked one.
        stub = [Message("user", "."), Message("assistant", _MARK), *messages]
        tail = self._render(stub, add_generation_prompt=True).partition(_MARK)[2]
        if prefix[-1] in self.end_ids:
            tail = tail.removeprefix(self.tokenizer.decode([prefix[-1]]))
        return [*prefix, *self._ids(tail), *begun]

    def encode_request(self, request: Request, choice: str = "") -> list[int]:
        """The prompt of a request, with its opening and one of its choices after that."""
        opening = request.opening + choice
        return self.encode(request.messages, request.prefix, request.history, request.tools, opening)

    def encode_text(self, text: str) -> list[int]:
        """Token ids of words alone, with no template around them."""
        return self._ids(self._defused(text))

    def decode(self, ids: Sequence[int]) -> str:
        ids = ids[:-1] if len(ids) and ids[-1] in self.end_ids else ids
        return self.tokenizer.decode(ids, skip_special_tokens=False)

    def parse(self, request: Request, ids: Sequence[int], text: str) -> tuple[str, tuple[ToolCall, ...]]:
        """A reply's words and its tool calls; all of it is words when the request offers no tools.

        Args:
            request: that was answered.
            ids: of the prompt; a template may open the reply itself.
            text: the reply.
        """
        if not request.tools or getattr(self.tokenizer, "response_template", None) is None:
            return split_tool_calls(text, request.seed, request.tools)
        try:
            message = self.tokenizer.parse_response(text, prefix=self.tokenizer.decode(ids), tools=[*request.tools])
            found = [call["function"] for call in message.get("tool_calls") or []]
            calls = tuple(
                ToolCall(call_id(request.seed, i), str(call["name"]), _json_text(call["arguments"]))
                for i, call in enumerate(found)
            )
        except (ValueError, LookupError, TypeError):
            return text, ()
        return str(message.get("content") or ""), calls

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _render(
        self, messages: Sequence[Message], add_generation_prompt: bool, tools: Sequence[Mapping[str, Any]] = ()
    ) -> str:
        plain = [self._plain(message) for message in messages]
        options = {"tools": [*tools]} if tools else {}
        try:
            return self._apply(plain, add_generation_prompt, options)
        except TemplateError:
            if len(plain) < 2 or plain[0]["role"] != "system":
                raise EngineError(f"the chat template refuses the roles {[m.role for m in messages]}") from None
            # Some templates know no system role: its words then open the first user message.
            merged = {"role": "user", "content": f"{plain[0]['content']}\n\n{plain[1]['content']}"}
            try:
                return self._apply([merged, *plain[2:]], add_generation_prompt, options)
            except TemplateError:
                raise EngineError(f"the chat template refuses the roles {[m.role for m in messages]}") from None

    def _plain(self, message: Message) -> dict[str, Any]:
        plain: dict[str, Any] = {"role": message.role, "content": self._defused(message.content)}
        if message.tool_call_id:
            plain["tool_call_id"] = message.tool_call_id
        if message.tool_calls:
            plain["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": self._defused(call.name), "arguments": self._arguments(call)},
                }
                for call in message.tool_calls
            ]
        return plain

    def _arguments(self, call: ToolCall) -> Any:
        """As templates want them: the object behind the JSON text, where it is one."""
        text = self._defused(call.arguments)
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return text
        return value if isinstance(value, dict) else text

    def _apply(self, messages: list[dict[str, Any]], add_generation_prompt: bool, options: Mapping[str, Any]) -> str:
        return self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=add_generation_prompt, tokenize=False, **options
        )

    def _defused(self, text: str) -> str:
        return self._special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text) if self._special else text

    @cached_property
    def _special(self) -> re.Pattern[str] | None:
        tokens = [t.content for t in self.tokenizer.added_tokens_decoder.values() if t.special and len(t.content) > 1]
        return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True)))) if tokens else None


def _json_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
