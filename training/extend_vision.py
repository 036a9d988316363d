"""Teach a trained vision part and its projector dense targets that were added later, and keep what they knew.

    python -m training.read_gguf src/internvl_gguf/demo runs/shipped.pt
    python -m training.extend_vision runs/shipped.pt runs/edges.pt --minutes 25

The heads of all targets start anew on the features as they are; then tower and projector follow, held by an anchor: the
visual tokens should stay near those of the model it began with, which the text part was trained on.
"""

from __future__ import annotations

import argparse
import copy
import functools
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.checkpoint import load_model, model_of
from training.feed import Feed
from training.labels import TARGETS
from training.muon import Muon
from training.train_vision import PatchHeads, TokenHeads, dense_loss, normalise
from training.views import vision_batch

HEADS_ALONE = 150  # steps
EMA_DECAY = 0.998


class Extender:
    """The model, heads for its patches and visual tokens, the anchor, and the optimisers.

    Args:
        state: a checkpoint.
        lr: peak rate of the matrices (Muon, in AdamW's scale).
        anchor: weight of the visual tokens' distance from what they were, in parts of their variance.
    """

    def __init__(self, state: dict[str, Any], lr: float, anchor: float) -> None:
        self.net, _ = model_of(state, averaged=True)
        self.before, self.anchor = copy.deepcopy(self.net).requires_grad_(False), anchor
        vision, text = self.net.vision_shape, self.net.text_shape
        self.patch_heads, self.token_heads = (
            PatchHeads(vision.hidden_size),
            TokenHeads(text.hidden_size, vision.side),
        )
        if "patch_heads" in state:
            self.patch_heads.load_state_dict(state["patch_heads"])
            self.token_heads.load_state_dict(state["token_heads"])
        seen = nn.ModuleList((self.net.model.vision_tower, self.net.model.multi_modal_projector))
        self.average = {name: value.clone() for name, value in seen.state_dict().items()}
        self.seen = seen
        matrices = [p for name, p in seen.named_parameters() if p.ndim == 2 and ("layer" in name or "linear" in name)]
        patches = list(self.net.model.vision_tower.embeddings.patch_embeddings.parameters())
        known = {id(p) for p in (*matrices, *patches)}
        others = [p for p in seen.parameters() if id(p) not in known]
        heads = [*self.patch_heads.parameters(), *self.token_heads.parameters()]
        self.parameters = [*seen.parameters(), *heads]
        adamw = functools.partial(torch.optim.AdamW, betas=(0.9, 0.98), weight_decay=0.02, fused=True)
        self.head_optimiser = adamw(heads, lr=4e-3)
        self.optimisers: tuple[tuple[torch.optim.Optimizer, float], ...] = (
            (Muon(matrices, lr=lr), lr), (adamw(others), 0.5 * lr), (adamw(patches), 0.06 * lr),
        )  # fmt: skip

    def step(self, tiles: Tensor, labels: Tensor, rate: float, alone: bool) -> dict[str, float]:
        """One update; returns the loss, each target's accuracy (read from the visual tokens) and the drift."""
        pixels = normalise(tiles)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.set_grad_enabled(not alone):
                features, visual = self.net.visual_tokens(pixels)
            loss = dense_loss(tuple(part.float() for part in self.patch_heads(features)), labels)[0]
            more, accuracy = dense_loss(tuple(part.float() for part in self.token_heads(visual)), labels)
            loss = loss + more
            with torch.no_grad():
                was = self.before.visual_tokens(pixels)[1].float()
        drift = (visual.float() - was).square().mean() / was.var()
        (loss + self.anchor * drift).backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for group in self.head_optimiser.param_groups:
            group["lr"] = 4e-3 * rate
        self.head_optimiser.step()
        self.head_optimiser.zero_grad(set_to_none=True)
        for optimiser, peak in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = peak * rate
            if not alone:
                optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, value in self.seen.state_dict().items():
                self.average[name].lerp_(value, 1 - EMA_DECAY)
        return {"loss": float(loss.detach()), "drift": float(drift.detach()), **accuracy}

    def save(self, state: dict[str, Any], path: Path) -> None:
        """Write the checkpoint with the averaged vision part in the place of the old one, and the heads."""
        net = dict(state["average"])
        for name, value in self.average.items():
            part, rest = name.split(".", 1)
            net[f"model.{('vision_tower', 'multi_modal_projector')[int(part)]}.{rest}"] = value.clone()
        heads = {"patch_heads": self.patch_heads.state_dict(), "token_heads": self.token_heads.state_dict()}
        torch.save({**state, "net": net, "average": net, **heads}, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=25, help="the schedule follows the clock")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1.6e-3)
    parser.add_argument("--anchor", type=float, default=4.0)
    parser.add_argument("--anchored-to", type=Path, help="checkpoint whose visual tokens to stay near; else the first")
    parser.add_argument("--seed", type=int, default=41)
    parser.add_argument("--workers", type=int, default=1, help="drawing processes")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    state = torch.load(args.checkpoint, weights_only=True)
    extender = Extender(state, args.lr, args.anchor)
    if args.anchored_to:
        extender.before = load_model(args.anchored_to)[0].requires_grad_(False)
    shape = extender.net.vision_shape
    feed = Feed(
        functools.partial(vision_batch, tiles=args.batch, tile_size=shape.image_size, side=shape.side),
        args.seed,
        args.workers,
    )
    begun, step, progress, mean = time.time(), 0, 0.0, dict.fromkeys(("loss", "drift", *TARGETS), 0.0)
    while progress < 1:
        progress = (time.time() - begun) / 60 / args.minutes
        tiles, labels = map(torch.from_numpy, feed.next())
        alone = step < HEADS_ALONE
        warm = 1.0 if alone else min(1.0, (step - HEADS_ALONE + 1) / 100)
        rate = warm * min(1.0, 0.04 + 1.6 * (1 - progress))
        for name, value in extender.step(tiles, labels, rate, alone).items():
            if not math.isnan(value):
                mean[name] += 0.02 * (value - mean[name])
        step += 1
        if step % 50 == 0:
            speed = step * args.batch / (time.time() - begun)
            told = " ".join(f"{name} {value:.2f}" for name, value in mean.items())
            print(f"{time.strftime('%H:%M:%S')} step {step} rate {rate:.2f} {told} {speed:.0f} tiles/s", flush=True)
        if step % 200 == 0 or progress >= 1:
            extender.save(state, args.out)
    feed.close()


if __name__ == "__main__":
    main()
