"""First stage: teach the vision part to name what lies under each patch, before any question is asked."""

from __future__ import annotations

import argparse
import functools
import math
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.feed import Feed
from training.labels import CLASSES, IGNORE, TARGETS
from training.muon import Muon
from training.network import VisionShape, VisionTower
from training.views import vision_batch

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# Shares of the targets in the loss: characters are the hardest.
SHARES = (3.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2, 0.7, 0.7, 0.7, 0.7, *4 * (0.6,))
# Weights of "nothing here", by far the most frequent, in each target.
NONE_WEIGHTS = (0.4, 0.4, 1.0, 0.5, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, *4 * (1.0,))


class PatchHeads(nn.Module):
    """One linear classifier per dense target, over normalised patch features; used in training only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, sum(CLASSES))

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """Logits [tiles, patches, classes] for each of TARGETS."""
        return self.out(self.norm(features)).split(CLASSES, 2)


class TokenHeads(nn.Module):
    """The dense targets of the four patches of each visual token, read from the projector's output."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.norm, self.half = nn.LayerNorm(width), side // 2
        self.out = nn.Linear(width, 4 * sum(CLASSES))

    def forward(self, visual: Tensor) -> tuple[Tensor, ...]:
        """[tiles, tokens, width] to logits [tiles, patches, classes] for each target."""
        blocks = self.out(self.norm(visual)).view(-1, self.half, self.half, 2, 2, sum(CLASSES))
        return blocks.permute(0, 1, 3, 2, 4, 5).flatten(1, 4).split(CLASSES, 2)


def normalise(tiles: Tensor) -> Tensor:
    """uint8 [n, h, w, 3] to float32 [n, 3, h, w] with ImageNet mean and deviation."""
    pixels = tiles.permute(0, 3, 1, 2).float() / 255
    return ((pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]).contiguous()


def dense_loss(logits: tuple[Tensor, ...], labels: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Sum of the cross entropies, "none" weighing less, and the accuracy on patches that hold something."""
    total, accuracy = torch.zeros(()), {}
    targets = labels.flatten(2).unbind(1)
    for name, part, target, share, none in zip(TARGETS, logits, targets, SHARES, NONE_WEIGHTS, strict=True):
        weight = torch.ones(part.shape[-1])
        weight[0] = none
        target = target.long()
        if (target == IGNORE).all():
            accuracy[name] = math.nan
            continue
        loss = F.cross_entropy(part.flatten(0, 1), target.flatten(), weight, ignore_index=IGNORE)
        total = total + share * loss
        held = target > 0
        accuracy[name] = float((part.argmax(2) == target)[held].float().mean()) if held.any() else math.nan
    return total, accuracy


def whiten(tower: VisionTower, tiles: Tensor) -> None:
    """Start the patch embedding from the whitened principal components of real patches, turned at random.

    Raw patches differ mostly in their mean; whitened, strokes and colours weigh as much from the first step on.
    """
    shape, projection = tower.shape, tower.embeddings.patch_embeddings.projection
    side, patch = shape.side, shape.patch_size
    cut = normalise(tiles).view(-1, 3, side, patch, side, patch).permute(0, 2, 4, 1, 3, 5).reshape(-1, 3 * patch**2)
    mean, covariance = cut.mean(0), torch.cov(cut.T)
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values[-shape.hidden_size :], vectors[:, -shape.hidden_size :]
    turn = nn.init.orthogonal_(torch.empty(shape.hidden_size, shape.hidden_size))
    rows = turn @ (vectors / (values + 0.01).sqrt()).T
    with torch.no_grad():
        projection.weight.copy_(rows.view_as(projection.weight))
        projection.bias.copy_(-rows @ mean)


def keep_positions(tower: VisionTower, width: int = 16, strength: float = 5.0) -> None:
    """Reserve the first `width` features for row and column: strong sines that no layer writes over at the start.

    Without it the tower forgot where things are on just those patches that hold something, and the text part could
    name things but not say where they were.
    """
    shape, embeddings = tower.shape, tower.embeddings
    frequencies = math.pi / (2 * shape.side) * 2.0 ** torch.arange(width // 4)
    angles = (torch.arange(shape.side) - (shape.side - 1) / 2)[:, None] * frequencies
    wave = torch.cat([angles.sin(), angles.cos()], 1)
    grid = torch.cat([wave[:, None].expand(-1, shape.side, -1), wave[None].expand(shape.side, -1, -1)], 2).flatten(0, 1)
    with torch.no_grad():
        embeddings.position_embeddings[0, 1:, :width] = strength * (grid - grid.mean(0))
        embeddings.position_embeddings[0, 0, :width] = 0
        embeddings.cls_token[..., :width] = 0
        writers = [embeddings.patch_embeddings.projection]
        for layer in tower.encoder.layer:
            writers += [layer.attention.projection_layer, layer.mlp.fc2]
        for writer in writers:
            writer.weight[:width] = 0
            writer.bias[:width] = 0


class Trainer:
    """The vision tower, its training-only heads and their optimisers.

    Args:
        lr: peak rate of the matrices (Muon, in AdamW's scale).
        state: a checkpoint to go on from.
    """

    def __init__(self, lr: float, state: dict[str, Any] | None) -> None:
        self.shape = VisionShape()
        self.tower, self.heads = VisionTower(self.shape), PatchHeads(self.shape.hidden_size)
        if state:
            self.tower.load_state_dict(state["tower"])
            self.heads.load_state_dict(state["heads"])
        self.parameters = [*self.tower.parameters(), *self.heads.parameters()]
        matrices = [p for name, p in self.tower.named_parameters() if p.ndim == 2 and "layer" in name]
        patches = list(self.tower.embeddings.patch_embeddings.parameters())
        others = [p for p in self.parameters if all(p is not m for m in matrices + patches)]
        # A step of Adam on the patch embedding adds up over all pixels of a patch, so it must be small.
        self.optimisers: tuple[tuple[torch.optim.Optimizer, float], ...] = (
            (Muon(matrices, lr=lr), lr),
            (torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.02, fused=True), 0.5 * lr),
            (torch.optim.AdamW(patches, betas=(0.9, 0.98), weight_decay=0.0, fused=True), 0.06 * lr),
        )

    def step(self, tiles: Tensor, labels: Tensor, rate: float) -> dict[str, float]:
        """One update at `rate` times the peak rates; returns the loss and each target's accuracy."""
        loss, accuracy = dense_loss(self.heads(self.tower(normalise(tiles))), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimiser, peak in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = peak * rate
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        return {"loss": float(loss.detach()), **accuracy}

    def save(self, path: Path, step: int) -> None:
        """Write a checkpoint."""
        torch.save({"tower": self.tower.state_dict(), "heads": self.heads.state_dict(), "step": step}, path)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write")
    parser.add_argument("--resume", type=Path, help="checkpoint to go on from")
    parser.add_argument("--minutes", type=float, default=30, help="the schedule follows the clock")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2.2e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="drawing processes")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    trainer = Trainer(args.lr, torch.load(args.resume, weights_only=True) if args.resume else None)
    shape = trainer.shape
    make = functools.partial(vision_batch, tiles=args.batch, tile_size=shape.image_size, side=shape.side)
    feed = Feed(make, args.seed, args.workers)
    if not args.resume:
        whiten(trainer.tower, torch.cat([torch.from_numpy(feed.next()[0]) for _ in range(12)]))
        keep_positions(trainer.tower)
    begun, step, progress, mean = time.time(), 0, 0.0, dict.fromkeys(("loss", *TARGETS), 0.0)
    while progress < 1:
        progress = (time.time() - begun) / 60 / args.minutes
        tiles, labels = map(torch.from_numpy, feed.next())
        rate = min(1, (step + 1) / 60) * min(1, 0.06 + 1.7 * (1 - progress))
        for name, value in trainer.step(tiles, labels, rate).items():
            if not math.isnan(value):
                mean[name] += 0.02 * (value - mean[name])
        step += 1
        if step % 50 == 0:
            speed = step * args.batch / (time.time() - begun)
            told = " ".join(f"{name} {value:.2f}" for name, value in mean.items())
            print(f"{time.strftime('%H:%M:%S')} step {step} rate {rate:.2f} {told} {speed:.0f} tiles/s", flush=True)
        if step % 200 == 0 or progress >= 1:
            trainer.save(args.out, step)
    feed.close()


if __name__ == "__main__":
    main()
