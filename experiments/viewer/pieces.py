"""Token ids as text, where the model's tokenizer is at hand; never guessed.

Pieces are shown only where, joined, they hold the very reply that is stored.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.engines import EMBEDDED
from experiments.viewer.keys import at, text_at
from graphs.turns import Turn

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILE = "tokenizer.json"
MOST = 100 * 2**20
"""Bytes of a tokenizer's file."""


def pieces_of(config: Mapping[str, Any], turn: Turn) -> tuple[list[str] | None, str | None]:
    """The text of each token that was sampled; or None, and why not."""
    said = turn.reply[len(turn.opening) :]
    raw = _as_bytes(turn.token_ids)
    if raw is not None and raw.startswith(said.encode()):
        return _characters(raw), None
    tokenizer = _tokenizer(config, turn)
    if tokenizer is None:
        return None, "the model's tokenizer is not on this machine"
    pieces = _decoded(tokenizer, turn.token_ids)
    if said.strip() and said.strip() not in "".join(pieces):
        return None, "the tokenizer that is at hand reads the token ids otherwise than the reply that is stored"
    return pieces, None


def text_of(config: Mapping[str, Any], turn: Turn) -> str | None:
    """The prompt's token ids as text, special tokens included."""
    if not turn.prompt_ids:
        return None
    tokenizer = _tokenizer(config, turn)
    if tokenizer is not None:
        return tokenizer.decode(list(turn.prompt_ids), skip_special_tokens=False)
    raw = _as_bytes(turn.prompt_ids)
    asked = "".join(message.content for message in turn.messages)
    return raw.decode("utf-8", "replace") if raw is not None and raw.endswith(asked.encode()) else None


def _tokenizer(config: Mapping[str, Any], turn: Turn) -> "Tokenizer | None":
    """That of the model which played the turn's role: the embedded one, or one in a folder of this machine."""
    cast = at(config, "cast") or {}
    model = text_at(cast.get(turn.role) or cast.get("*") or {}, "model")
    kind, _, target = model.partition(":")
    if kind == "embedded":
        path = EMBEDDED / FILE
    elif kind in ("hf", "vllm") and Path(target).is_absolute():
        path = Path(target) / FILE
    else:
        return None
    try:
        found = path.stat()
        return _loaded(path, found.st_mtime_ns) if path.is_file() and found.st_size <= MOST else None
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=4)
def _loaded(path: Path, _: int) -> "Tokenizer | None":
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError:
        return None
    try:
        return Tokenizer.from_file(str(path))
    except Exception:  # noqa: BLE001 - the library raises bare exceptions for a file that it cannot read
        return None


def _decoded(tokenizer: "Tokenizer", ids: Sequence[int]) -> list[str]:
    """The text that each token adds; a character of several tokens is the last one's."""
    from tokenizers.decoders import DecodeStream

    stream = DecodeStream(skip_special_tokens=False)
    return [stream.step(tokenizer, id) or "" for id in ids]


def _as_bytes(ids: Sequence[int]) -> bytes | None:
    """Scripted and replayed engines give the bytes of the text."""
    return bytes(ids) if ids and all(0 <= id < 256 for id in ids) else None


def _characters(raw: bytes) -> list[str]:
    """The text that each byte adds: a character is its last byte's."""
    pieces, begun = [], b""
    for value in raw:
        begun += bytes([value])
        try:
            pieces.append(begun.decode())
            begun = b""
        except UnicodeDecodeError:
            pieces.append("")
    return pieces
