"""Targets that only training has for the text part: what its hidden states are to know halfway."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

MOST_PICTURES = 8


class PictureHead(nn.Module):
    """Which picture of the conversation a visual token is of, read halfway through the text part.

    Without this target the answers to "Which picture ...?" stayed a guess for as long as there was time.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, MOST_PICTURES + 1)

    def loss(self, hidden: Tensor, ids: Tensor, branch: Tensor, image: int, context: int) -> tuple[Tensor, float]:
        """Cross entropy and accuracy over the visual tokens of the shared beginning: [batch, tokens, width], ids."""
        asked = (ids == context) & (branch == 0)
        wanted = (ids == image).cumsum(1)[asked].clamp(max=MOST_PICTURES)
        logits = self.out(self.norm(hidden[asked])).float()
        return F.cross_entropy(logits, wanted), float((logits.argmax(1) == wanted).float().mean())
