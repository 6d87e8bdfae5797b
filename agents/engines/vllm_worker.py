"""What vLLM loads into its own processes, beside its worker; named by the vLLM engine, never imported by it.

vLLM runs the model in a process of its own. When the process that started it is killed (a replica by its pool, say),
that process would live on and keep the memory, a GPU's too: so it ends itself.
"""

import multiprocessing
import os
import threading
from typing import Any


class WorkerExtension:
    """Mixed into vLLM's worker; called through `collective_rpc`."""

    model_runner: Any
    reload_weights: Any

    def take_over_weights(self, directory: str) -> None:
        """Replace the model's weights by those of a directory in Hugging Face format, in place."""
        self.reload_weights(weights_path=directory)
        _pack_embeddings_again(self.model_runner.get_model())


def _pack_embeddings_again(model: Any) -> None:
    """On the CPU vLLM multiplies with a packed copy of each matrix, made when the matrix is loaded.

    An output layer that shares the embedding's matrix is loaded by nobody, so that vLLM 0.32 would go on multiplying
    with the copy of the old one.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

    for module in model.modules():
        if isinstance(module, VocabParallelEmbedding) and module.weight.device.type == "cpu":
            module.quant_method.process_weights_after_loading(module)


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


threading.Thread(target=_end_with_the_parent, name="parent's end", daemon=True).start()
