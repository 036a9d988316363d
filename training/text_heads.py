"""Targets that only training has for the text part: what its hidden states are to know halfway."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from training.scenes import EDGE_STEPS

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


class TargetHead(nn.Module):
    """Where the thing asked about lies, and in which picture, read at the last token before it is written about.

    Without this target the text part did not find the way from a name to its thing's edges.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, MOST_PICTURES + 1 + 4 * (EDGE_STEPS + 1))

    def loss(self, hidden: Tensor, targets: Tensor, several: Tensor) -> tuple[Tensor, dict[str, list[bool]]]:
        """Cross entropy, and which were right (edges to a fiftieth).

        Args:
            hidden: [batch, tokens, width].
            targets: of the batch [n, 7].
            several: which rows have several pictures [batch], for of others the picture is no question.
        """
        logits = self.out(self.norm(hidden[targets[:, 0], targets[:, 1]])).float()
        pictures, edges = targets[:, 2].clamp(max=MOST_PICTURES), targets[:, 3:]
        placed = edges[:, 0] >= 0
        told = logits[:, : MOST_PICTURES + 1]
        loss = F.cross_entropy(told, pictures)
        outcome = {"@picture": (told.argmax(1) == pictures)[several[targets[:, 0]]].tolist()}
        if placed.any():
            steps = logits[placed, MOST_PICTURES + 1 :].unflatten(1, (4, -1))
            loss = loss + F.cross_entropy(steps.flatten(0, 1), edges[placed].flatten())
            outcome["@edges"] = ((steps.argmax(2) - edges[placed]).abs() <= 1).all(1).tolist()
        return loss, outcome
