"""Muon in float32, for processors without bfloat16.

`torch.optim.Muon` orthogonalises in bfloat16, which such a processor emulates: half of a training step went there. This
is the same update, in float32 and with the matrices of one shape in one batch; a test holds it against torch's.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised (Jordan et al., https://kellerjordan.github.io/posts/muon/).

    Nesterov's momentum, decoupled weight decay, the rate times sqrt(max(1, rows / columns)): torch's defaults.
    """

    def __init__(self, matrices: Iterable[Tensor], lr: float, weight_decay: float, momentum: float = 0.95):
        """
        Args:
            matrices: parameters of two dimensions, all with gradients at every step.
        """
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for matrix in group["params"]:
                by_shape.setdefault(matrix.shape, []).append(matrix)
            for matrices in by_shape.values():
                self._update(matrices, group)

    def _update(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        momentum, lr = group["momentum"], group["lr"]
        steps = []
        for matrix in matrices:
            assert matrix.grad is not None
            buffer = self.state[matrix].setdefault("momentum_buffer", torch.zeros_like(matrix))
            buffer.lerp_(matrix.grad, 1 - momentum)
            steps.append(matrix.grad.lerp(buffer, momentum))
        rows, columns = matrices[0].shape
        for matrix, step in zip(matrices, orthogonalised(torch.stack(steps)), strict=True):
            matrix.mul_(1 - lr * group["weight_decay"])
            matrix.add_(step, alpha=-lr * max(1.0, rows / columns) ** 0.5)


def orthogonalised(stack: Tensor) -> Tensor:
    """Each matrix of a stack (N, rows, columns) with its singular values brought to between about 0.7 and 1.2."""
    a, b, c = COEFFICIENTS
    tall = stack.shape[1] > stack.shape[2]
    x = stack.mT if tall else stack
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
