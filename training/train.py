"""Teach the whole model to answer; start it from the vision part that `train_vision` made, or from a checkpoint.

    python -m training.train_vision --out runs/vision.pt
    python -m training.train --vision runs/vision.pt --out runs/single.pt
    python -m training.train --resume runs/single.pt --out runs/tiles.pt --multi 0.6

Pictures never repeat, so the accuracies printed while training are those on pictures not seen before. An answer counts
only if every token of it is the likeliest one: then greedy decoding writes exactly this answer.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.feed import Feed
from training.labels import CLASSES
from training.lessons import Lessons, demo_tokenizer
from training.muon import Muon
from training.network import DemoModel, TextShape, VisionShape
from training.tokenizer import Tokenizer
from training.train_vision import PatchHeads, dense_loss, normalise
from training.views import vision_batch

if TYPE_CHECKING:
    from training.packing import Batch

EMA_DECAY = 0.995


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


def attention_mask(branch: Tensor) -> Tensor:
    """Which token may look at which: [batch, 1, tokens, tokens]; earlier ones, of the beginning or its own branch."""
    tokens = branch.shape[1]
    earlier = torch.ones(tokens, tokens, dtype=torch.bool, device=branch.device).tril()
    same = (branch[:, None, :] == branch[:, :, None]) | (branch[:, None, :] == 0)
    return (earlier & same)[:, None]


class Trainer:
    """The model, its training-only heads, optimisers and running averages.

    Args:
        tokenizer: the model's.
        lr: peak rate of the text part.
        vision_lr: peak rate of the vision part.
    """

    def __init__(self, tokenizer: Tokenizer, lr: float, vision_lr: float) -> None:
        self.tokenizer = tokenizer
        self.vision, self.text = VisionShape(), TextShape(vocab_size=tokenizer.size)
        self.net = DemoModel(self.vision, self.text)
        self.patch_heads = PatchHeads(self.vision.hidden_size)
        self.token_heads = TokenHeads(self.text.hidden_size, self.vision.side)
        self.average = {name: value.clone() for name, value in self.net.state_dict().items()}
        self.context = tokenizer.special("<IMG_CONTEXT>")
        groups: dict[tuple[str, float], list[nn.Parameter]] = defaultdict(list)
        for name, parameter in self.net.named_parameters():
            own = vision_lr if "vision_tower" in name else lr
            inside = parameter.ndim == 2 and ("layer" in name or "linear" in name) and "norm" not in name
            if "patch_embeddings" in name:
                groups["adamw", 0.06 * own].append(parameter)
            else:
                groups["muon" if inside else "adamw", own if inside else 0.6 * own].append(parameter)
        groups["adamw", 0.6 * lr] += [*self.patch_heads.parameters(), *self.token_heads.parameters()]
        self.parameters = [parameter for group in groups.values() for parameter in group]
        self.peaks = [rate for _, rate in groups]
        self.optimisers = [
            Muon(group, lr=rate)
            if kind == "muon"
            else torch.optim.AdamW(group, lr=rate, betas=(0.9, 0.98), weight_decay=0.02, fused=True)
            for (kind, rate), group in groups.items()
        ]

    def save(self, path: Path, step: int) -> None:
        """Write a checkpoint that `load` and `evaluate` read."""
        state = {
            "net": self.net.state_dict(), "average": self.average, "patch_heads": self.patch_heads.state_dict(),
            "token_heads": self.token_heads.state_dict(), "merges": self.tokenizer.merges, "size": self.tokenizer.size,
            "step": step,
        }  # fmt: skip
        torch.save(state, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    def load(self, state: dict[str, Any]) -> None:
        """Take weights and averages from a checkpoint."""
        self.net.load_state_dict(state["net"])
        self.average = {name: value.clone() for name, value in state["average"].items()}
        self.patch_heads.load_state_dict(state["patch_heads"])
        self.token_heads.load_state_dict(state["token_heads"])

    def take_vision(self, state: dict[str, Any]) -> None:
        """Take the vision tower from `train_vision`'s checkpoint."""
        self.net.model.vision_tower.load_state_dict(state["tower"])
        self.patch_heads.load_state_dict(state["heads"])
        for name, value in state["tower"].items():
            self.average[f"model.vision_tower.{name}"] = value.clone()

    def loss(self, batch: Batch, dense: float, train_vision: bool) -> tuple[Tensor, dict[str, list[bool]]]:
        """The loss of a batch, and for each kind of question which answers were right to the last token."""
        ids, visual, extra = torch.from_numpy(batch.ids), None, torch.zeros(())
        if batch.tiles is not None:
            pixels, labels = normalise(torch.from_numpy(batch.tiles)), torch.from_numpy(batch.labels)
            with torch.set_grad_enabled(train_vision):
                features = self.net.model.vision_tower(pixels)
            visual = self.net.model.multi_modal_projector(features)
            if dense:
                extra = dense * dense_loss(self.token_heads(visual), labels)[0]
                if train_vision:
                    extra = extra + dense * dense_loss(self.patch_heads(features), labels)[0]
        mask = attention_mask(torch.from_numpy(batch.branch))
        answer = torch.from_numpy(batch.answer)
        rows, columns = answer.nonzero(as_tuple=True)
        answering = answer > 0
        most = int(answering.sum(1).max())
        where = answering.int().argsort(dim=1, descending=True, stable=True)[:, :most]
        hidden = self.net.hidden(ids, visual, self.context, mask, torch.from_numpy(batch.positions), where)
        logits = self.net.lm_head(hidden[torch.take_along_dim(answering, where, 1)])
        wanted = ids[rows, columns + 1]
        right = (logits.argmax(1) == wanted).tolist()
        whole: dict[tuple[int, int], bool] = {}
        for row, index, token_right in zip(rows.tolist(), answer[rows, columns].tolist(), right, strict=True):
            whole[row, index] = whole.get((row, index), True) and token_right
        outcome: dict[str, list[bool]] = defaultdict(list)
        for (row, index), good in whole.items():
            outcome[batch.kinds[row][index - 1]].append(good)
        number = answer[rows, columns]
        lengths = torch.zeros(len(ids), int(answer.max()) + 1).index_put(
            (rows, number), torch.ones(()), accumulate=True
        )
        weight = lengths[rows, number].rsqrt()  # a long description must not drown the one-word answers
        loss = (F.cross_entropy(logits, wanted, reduction="none") * weight).sum() / weight.sum()
        return loss + extra, outcome

    def vision_loss(self, tiles: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The dense loss of tiles that nothing is asked about, and the accuracy read from the visual tokens."""
        features, visual = self.net.visual_tokens(normalise(tiles))
        loss, accuracy = dense_loss(self.token_heads(visual), labels)
        return loss + dense_loss(self.patch_heads(features), labels)[0], accuracy

    def step(self, rate: float) -> None:
        """Update the weights from their gradients, at `rate` times the peak rates."""
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimiser, peak in zip(self.optimisers, self.peaks, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = peak * rate
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, value in self.net.state_dict().items():
                self.average[name].lerp_(value, 1 - EMA_DECAY)


def schedule(progress: float, final: float) -> float:
    """Rate over its peak: full for the first half, then falling to `final` along a cosine."""
    return final + (1 - final) * (0.5 + 0.5 * math.cos(math.pi * max(0.0, 2 * progress - 1)))


def run(trainer: Trainer, args: argparse.Namespace) -> None:
    """Train for the asked time; print loss, speed and accuracies; leave checkpoints."""
    lessons = Lessons(
        trainer.tokenizer,
        trainer.vision.image_size,
        trainer.vision.side,
        args.pictures,
        args.branches,
        args.multi,
        args.writing,
    )
    feed = Feed(lessons, args.seed, args.workers)
    make = partial(vision_batch, tiles=args.walls, tile_size=trainer.vision.image_size, side=trainer.vision.side)
    walls = Feed(make, args.seed + 500, args.workers) if args.walls else None
    begun, step, progress, mean, pictures, asked = time.time(), 0, 0.0, 0.0, 0, 0
    score: dict[str, list[bool]] = defaultdict(list)
    dense_mean: dict[str, float] = defaultdict(float)
    while progress < 1:
        batch = feed.next()
        progress = (time.time() - begun) / 60 / args.minutes
        dense = args.dense * max(args.dense_floor, 1 - 2 * progress)
        tiles = 0 if batch.tiles is None else len(batch.tiles) // len(batch.ids)
        loss, outcome = trainer.loss(batch, dense, tiles == 1 and not args.freeze_vision)
        loss.backward()
        if walls is not None and tiles == 1:
            seen, accuracy = trainer.vision_loss(*map(torch.from_numpy, walls.next()))
            (args.dense * seen).backward()
            for name, value in accuracy.items():
                if not math.isnan(value):
                    dense_mean[name] += 0.02 * (value - dense_mean[name])
        trainer.step(min(1.0, (step + 1) / 40) * schedule(progress, args.final))
        step, pictures, asked = step + 1, pictures + len(batch.ids), asked + sum(map(len, batch.kinds))
        mean += 0.02 * (float(loss.detach()) - mean)
        for kind, answers in outcome.items():
            score[kind + ("+" if tiles > 1 else "")] += answers
        if step % 25 == 0:
            told = " ".join(
                f"{kind} {100 * sum(got[-400:]) / len(got[-400:]):.0f}" for kind, got in sorted(score.items())
            )
            told += " | " + " ".join(f"{name} {100 * value:.0f}" for name, value in dense_mean.items())
            speed = pictures / (time.time() - begun)
            print(
                f"{time.strftime('%H:%M:%S')} {100 * progress:.0f}% step {step} loss {mean:.3f} {pictures} pictures "
                f"{asked} questions {speed:.1f}/s | {told}",
                flush=True,
            )
        if step % 100 == 0 or progress >= 1:
            trainer.save(args.out, step)
    feed.close()
    if walls is not None:
        walls.close()


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vision", type=Path, help="vision part to start from (train_vision's --out)")
    parser.add_argument("--resume", type=Path, help="checkpoint to go on from")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write")
    parser.add_argument("--minutes", type=float, default=30, help="the schedule follows the clock")
    parser.add_argument("--pictures", type=int, default=16, help="one-tile pictures in a batch")
    parser.add_argument("--walls", type=int, default=8, help="tiles more in a batch, for the dense targets alone")
    parser.add_argument("--branches", type=int, default=8, help="conversations about each picture")
    parser.add_argument("--multi", type=float, default=0.0, help="part of the batches cut into several tiles")
    parser.add_argument("--writing", type=float, default=0.5, help="part of the pictures about a printed line")
    parser.add_argument("--dense", type=float, default=0.3, help="weight of the dense targets at the start")
    parser.add_argument("--dense-floor", type=float, default=0.3, help="what part of that weight stays to the end")
    parser.add_argument("--freeze-vision", action="store_true")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--vision-lr", type=float, default=8e-4)
    parser.add_argument("--final", type=float, default=0.1, help="rate at the end, as a part of the peak")
    parser.add_argument("--workers", type=int, default=1, help="drawing processes")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    state = torch.load(args.resume, weights_only=True) if args.resume else None
    tokenizer = Tokenizer(tuple(map(tuple, state["merges"])), state["size"]) if state else demo_tokenizer()
    trainer = Trainer(tokenizer, args.lr, args.vision_lr)
    if state:
        trainer.load(state)
    if args.vision:
        trainer.take_vision(torch.load(args.vision, weights_only=True))
    run(trainer, args)


if __name__ == "__main__":
    main()
