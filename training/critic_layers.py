"""The layers that a critic has above those of the demo model: the first compares, the last tells the verdict.

`training.critic_start` sets where they start. Two targets that only training has ask the layers before the last how
expected each token was, and which is the first wrong one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.network import RMSNorm, TextLayer, rotary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from training.network import TextShape

LEAST_LOG_PROB = -9.0
"""A token that was expected even less counts as this."""


class TokenHead(nn.Module):
    """Targets of training: how likely the demo found each token of an answer, and which is the first wrong one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.out = RMSNorm(width, 1e-6), nn.Linear(width, 2)

    def loss(self, hidden: Tensor, log_prob: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """The two losses, of [tokens, width], log-probabilities [tokens] and truth [tokens], -1 where none is known."""
        likely, right = self.out(self.norm(hidden)).unbind(1)
        known = truth >= 0
        told = F.smooth_l1_loss(likely, log_prob.clamp(min=LEAST_LOG_PROB))
        return told, F.binary_cross_entropy_with_logits(right[known], truth[known].float())


class CriticLayers(nn.Module):
    """Layers above a frozen model, and the norm before its output.

    They are trained on the residual stream divided by `scale`, so that it is about 1. In the critic's state dict they
    are as for the stream itself.

    Args:
        shape: of the model whose layers come first.
        verdict: its embedding of the token that says right, less that of the one that says wrong [width].
        count: number of layers, 2 or more.
        scale: root mean square of the residual stream.
    """

    def __init__(self, shape: TextShape, verdict: Tensor, count: int, scale: float) -> None:
        super().__init__()
        self.shape, self.scale = shape, scale
        width = self.shape.hidden_size
        self.layers = nn.ModuleList(TextLayer(self.shape) for _ in range(count))
        self.norm = RMSNorm(width, self.shape.rms_norm_eps)
        self.heads = nn.ModuleList(TokenHead(width) for _ in range(count - 1))
        self.register_buffer("verdict", verdict, persistent=False)
        with torch.no_grad():
            for layer in self.layers:
                _start(layer)

    def forward(self, residual: Tensor, mask: Tensor, positions: Tensor, ends: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Verdicts [batch, answers], above 0 for right, and what each layer but the last gave [batch, tokens, width].

        Args:
            residual: of the frozen layers [batch, tokens, width].
            mask: added to the scores [batch, 1, tokens, tokens].
            positions: [batch, tokens].
            ends: index of the last token of each answer [batch, answers].
        """
        rope, x, inner = rotary(positions, self.shape), residual / self.scale, []
        for layer in self.layers[:-1]:
            x = layer(x, mask, rope)
            inner.append(x)
        return self.norm(self.layers[-1](x, mask, rope, ends)) @ self.verdict, inner

    def weights(self, first: int) -> dict[str, Tensor]:
        """Its part of the critic's state dict; `first` is the number of its first layer."""
        own = self.state_dict()
        return {there: own[here] * factor for here, there, factor in self._places(first)}

    def take(self, net: dict[str, Tensor], first: int) -> None:
        """Take its part of a critic's state dict."""
        own = self.state_dict()
        for here, there, factor in self._places(first):
            own[here].copy_(net[there] / factor)

    def _places(self, first: int) -> Iterator[tuple[str, str, float]]:
        """Yield for each of its weights the name here, that in the critic's state dict, and the factor between them."""
        yield "norm.weight", "model.language_model.norm.weight", 1.0
        for number, layer in enumerate(self.layers):
            for name, _ in layer.named_parameters():
                written = name.endswith(("o_proj.weight", "down_proj.weight"))
                there = f"model.language_model.layers.{first + number}.{name}"
                yield f"layers.{number}.{name}", there, self.scale if written else 1.0


def _start(layer: TextLayer) -> None:
    """Small random weights, with outputs of about 1 for inputs of about 1 before, and little written."""
    for name, parameter in layer.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.ndim == 2:
            written = name.endswith(("o_proj.weight", "down_proj.weight"))
            nn.init.normal_(parameter, std=(0.3 if written else 1) * parameter.shape[1] ** -0.5)
