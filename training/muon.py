"""Muon: momentum whose matrices are orthogonalised before each step; AdamW for everything that is not a matrix.

Keller Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); the learning rate is scaled so
that an update has AdamW's size, as in "Muon is scalable for LLM training" (Liu et al., 2025). The rounds may be
computed in bfloat16, as Jordan does: twice as fast where the CPU has AVX512_BF16, slower where it has not.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable

_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalised(matrices: Tensor, dtype: torch.dtype, rounds: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly, by Newton-Schulz rounds: [n, rows, columns], rows <= columns."""
    a, b, c = _QUINTIC
    x = (matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(dtype)
    for _ in range(rounds):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Muon over matrices [rows, columns].

    Args:
        parameters: two-dimensional parameters only.
        lr: in AdamW's scale.
        momentum: of the running gradient, with Nesterov's look ahead.
        weight_decay: decoupled.
        dtype: in which the matrices are made orthogonal.
    """

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.02,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:  # fmt: skip
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update; matrices of one shape are orthogonalised together."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                buffer = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                buffer.lerp_(parameter.grad, 1 - group["momentum"])
                update = torch.lerp(parameter.grad, buffer, group["momentum"])
                rows, columns = update.shape
                wide = update if rows <= columns else update.T
                by_shape[min(rows, columns), max(rows, columns)].append((parameter, wide))
            for (rows, columns), pairs in by_shape.items():
                updates = orthogonalised(torch.stack([update for _, update in pairs]), self.dtype)
                scale = 0.2 * max(rows, columns) ** 0.5 * group["lr"]
                for (parameter, _), update in zip(pairs, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update if parameter.shape == (rows, columns) else update.T, alpha=-scale)
