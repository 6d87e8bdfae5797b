"""The processes that train one set of weights: one alone, or several that each hold a share (FSDP2).

The trainer asks nothing else of them; `agents.learning.remote` starts several through Ray Train. Each works on a share
of the micro-batches, gradients are summed over all, and each then updates its share of the weights: the same update as
one process makes, up to the rounding of sums taken in another order.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

Result = TypeVar("Result")


class Workers(Protocol):
    """What a trainer asks of the processes that it is one of. All of them must ask it in the same order."""

    rank: int
    size: int

    def shard(self, model: Any) -> None:
        """Keep this process's share of a model's parameters alone; in place."""
        ...

    def whole(self, tensor: Tensor) -> Tensor:
        """A tensor with the shares of all, on the CPU and not to be written to; empty elsewhere than on rank 0."""
        ...

    def put(self, target: Tensor, value: Tensor) -> None:
        """Write a whole tensor, which every process has, into one that may be shared out."""
        ...

    def gather(self, mine: Result) -> list[Result]:
        """What each process has, in the order of their ranks."""
        ...

    def first(self, do: Callable[[], Result]) -> Result:
        """Have rank 0 do something; all get the result, or raise what it raised."""
        ...


class OneWorker:
    """A process alone."""

    rank, size = 0, 1

    def shard(self, model: Any) -> None: ...

    def whole(self, tensor: Tensor) -> Tensor:
        return tensor.detach().cpu()

    def put(self, target: Tensor, value: Tensor) -> None:
        target.copy_(value)

    def gather(self, mine: Result) -> list[Result]:
        return [mine]

    def first(self, do: Callable[[], Result]) -> Result:
        return do()


class ShardedWorkers:
    """One of several processes, whose process group is there already."""

    def __init__(self, device: str, computes_in: str):
        """
        Args:
            device: "cpu" or "cuda".
            computes_in: dtype that weights are gathered in for computing; gradients are summed in float32.
        """
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self._mesh = init_device_mesh(device, (self.size,))
        dtype = None if computes_in == "float32" else getattr(torch, computes_in)
        self._precision = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)

    def shard(self, model: Any) -> None:
        blocks = set(model._no_split_modules or ())
        for module in model.modules():
            if type(module).__name__ in blocks:
                fully_shard(module, mesh=self._mesh, mp_policy=self._precision)
        fully_shard(model, mesh=self._mesh, mp_policy=self._precision)

    def whole(self, tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        return full.cpu() if self.rank == 0 else full.new_empty(0, device="cpu")

    def put(self, target: Tensor, value: Tensor) -> None:
        if isinstance(target, DTensor):
            # Every process has read the same file: none needs to send its own.
            value = value.to(target.device, target.dtype)
            value = distribute_tensor(value, target.device_mesh, target.placements, src_data_rank=None)
        target.copy_(value)

    def gather(self, mine: Result) -> list[Result]:
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, mine)
        return found

    def first(self, do: Callable[[], Result]) -> Result:
        outcome: Any = (None, None)
        if self.rank == 0:
            try:
                outcome = (do(), None)
            except Exception as error:  # noqa: BLE001 - raised below, on every rank: the others would wait for ever
                outcome = (None, error)
        result, error = self.gather(outcome)[0]
        if error is not None:
            raise error
        return result


def number(tensor: Tensor) -> float:
    """The value of a scalar, also of one that is summed over workers. Called by all of them."""
    return float(tensor.full_tensor() if isinstance(tensor, DTensor) else tensor)


def dealt(batches: list[Result], workers: Workers) -> list[tuple[Result, bool]]:
    """This worker's share of the micro-batches, each with whether it counts.

    All workers must make as many passes: where others have one more, the last batch is passed once more and counts
    nothing.
    """
    mine = [(batch, True) for batch in batches[workers.rank :: workers.size]]
    idle = -(-len(batches) // workers.size) - len(mine)
    return [*mine, *((batch, False) for batch in batches[-1:] * idle)]
